"""Wire kopf's watches to the work queue. There are no decisions here, and no state: what was heard is only a hint."""

from typing import Any

import kopf

from serving.operator.manifests import MANAGED_BY, MODEL_LABEL
from serving.operator.spec import API_VERSION, GROUP, PLURAL
from serving.operator.watch_age import WatchAge
from serving.operator.workqueue import Key, WorkQueue

_SETTLE_S = 0.3
"""Children change in bursts: so long is waited for the rest of one."""


def registry(queue: WorkQueue, age: WatchAge) -> kopf.OperatorRegistry:
    """
    Return kopf's registry with our handlers.

    They are event handlers only: these put no finalizer on objects, which could hang an uninstall, and no annotations,
    over which GitOps tools would stumble.
    """
    made = kopf.OperatorRegistry()

    # Coroutines, although they wait for nothing: kopf runs plain functions in threads, where the queue is not safe.
    async def on_model(name: str, namespace: str, uid: str, meta: Any, **_: Any) -> None:
        age.tell(uid, meta.get("resourceVersion", ""))
        queue.add(Key(namespace, name))

    async def on_child(namespace: str, labels: Any, **_: Any) -> None:
        queue.add(Key(namespace, labels.get(MODEL_LABEL, "")), after_s=_SETTLE_S)

    for login in (kopf.login_with_service_account, kopf.login_with_kubeconfig):
        kopf.on.login(registry=made)(login)
    kopf.on.event(GROUP, API_VERSION, PLURAL, registry=made)(on_model)
    kopf.on.event("apps", "v1", "deployments", labels=MANAGED_BY, registry=made)(on_child)
    kopf.on.event("", "v1", "pods", labels=MANAGED_BY, registry=made)(on_child)
    return made


def settings() -> kopf.OperatorSettings:
    """Return kopf's settings."""
    made = kopf.OperatorSettings()
    # Namespaces and resources are known from the start; looking for more would need rights on the whole cluster.
    made.scanning.disabled = True
    made.posting.enabled = False
    # A watch is ended by the server after five minutes, by us if it did not, and where nothing at all is heard.
    made.watching.server_timeout = 300
    made.watching.client_timeout = 330
    made.watching.inactivity_timeout = 70
    made.networking.request_timeout = 30
    return made
