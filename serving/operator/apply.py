"""Apply: carry a plan out. What is to be done was decided in plan; here is only the order, and what a refusal means."""

import socket
from datetime import UTC, datetime

import structlog

from serving.operator.events import turns
from serving.operator.kubernetes import Api, CallFailed
from serving.operator.observe import Observed
from serving.operator.plan import Plan, refused
from serving.operator.spec import KIND

log = structlog.get_logger()


def clock() -> str:
    """Return the time as Kubernetes writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


async def carry_out(api: Api, observed: Observed, plan: Plan) -> None:
    """
    Bring the cluster to what *plan* says, then tell it in the status.

    Raises:
        CallFailed: the API server refused something (the status says what), or did not answer.
    """
    what = ""
    try:
        for name, pods in plan.shrink.items():
            what = f"to take pods away from Deployment {name}"
            await api.scale(observed.owner.namespace, name, pods)
        for manifest in plan.apply:
            what = f"{manifest['kind']} {manifest['metadata']['name']}"
            await api.apply(manifest)
        for child in plan.delete:
            what = f"to remove {child.kind} {child.name}"
            await api.delete(child.kind, observed.owner.namespace, child.name, uid=child.uid)
    except CallFailed as error:
        await _tell(api, observed, refused(observed, plan, what, error.reason, now=clock()))
        raise
    await _tell(api, observed, plan.status)


async def _tell(api: Api, observed: Observed, status: dict[str, object]) -> None:
    # Each write wakes the watch up: the same status again would be a loop.
    if status == observed.status:
        return
    owner = observed.owner
    # With the uid, a model that was removed and made again meanwhile does not get the status of the old one. With the
    # resourceVersion, what another operator decided meanwhile is not written over: this one fails, and looks again.
    metadata = {"namespace": owner.namespace, "name": owner.name, "uid": owner.uid}
    metadata["resourceVersion"] = observed.resource_version
    await api.write_status(KIND, metadata, status)
    for event in turns(observed.owner, observed.status, status, now=clock(), instance=socket.gethostname()):
        await _note(api, event)


async def _note(api: Api, event: dict[str, object]) -> None:
    try:
        await api.apply(event)
    except CallFailed as error:
        # The status holds the same: a model is not worse served because nobody could be told.
        log.warning("event_not_written", status=error.status)
