"""What is observed of a ServedModel with several versions: a few words make a whole cluster's worth of objects."""

from dataclasses import replace
from typing import Any

from serving.operator.devices import Devices, Holder, Node
from serving.operator.manifests import Manifest, child_name, children, revision_of
from serving.operator.observe import Child, Container, Deployment, Observed, Pod
from serving.operator.plan import Plan, plan
from serving.operator.spec import ServedModelSpec, read
from tests.unit.serving.operator import served

NOW = "2026-11-22T10:00:00Z"
LATER = "2026-11-22T11:00:00Z"
GPU = {"limits": {"nvidia.com/gpu": 1}}
DONE, RUNNING = Container(succeeded=True), Container(running=True)


def versions(*numbers: int) -> list[dict[str, Any]]:
    """Return the versions of a spec."""
    return [{"version": n, "storageUri": f"pvc://models/cancer/{n}", "digest": served.DIGEST} for n in numbers]


def spec(stable: int = 1, *, canary: int | None = None, shadow: int | None = None, **changes: Any) -> dict[str, Any]:
    """Return a spec with versions 1, 2 and 3; a canary has a rollout in steps unless *changes* say otherwise."""
    traffic: dict[str, Any] = {"stable": stable}
    if canary is not None:
        traffic["canary"] = {"version": canary}
        changes = {"rollout": {"steps": [10, 50], "intervalSeconds": 60}} | changes
    if shadow is not None:
        traffic["shadow"] = {"version": shadow}
    return served.spec(versions=versions(1, 2, 3), traffic=traffic) | changes


def revision(wanted: ServedModelSpec, version: int, operator: Any = None) -> str:
    """Return the revision of a version's pods."""
    made = children(served.OWNER, wanted, operator or served.settings(), version=wanted.version(version))
    return revision_of(made)


def running(number: int, *, ready: int | None = None, old: bool = False, ours: bool = True, **pod: Any) -> Any:
    """Say that a version has *number* pods, of which *ready* take requests; *pod* is what else is so of each."""
    return {"number": number, "ready": number if ready is None else ready, "old": old, "ours": ours, "pod": pod}


def seen(
    wanted: dict[str, Any], status: dict[str, Any] | None = None, words: dict[str, str] | None = None, **there: Any
) -> Observed:
    """Return what is observed; *there* names versions as v1=running(…)."""
    understood = read(wanted)
    pods: list[Pod] = []
    deployments: list[Deployment] = []
    objects: list[Child] = []
    for name, said in there.items():
        version = int(name.removeprefix("v"))
        current = "old" if said["old"] else revision(understood, version)
        pods += [_pod(version, index, current, said) for index in range(said["number"])]
        deployments.append(_deployment(version, current, said))
        objects += _objects(understood, version)
    return Observed(
        served.OWNER,
        7,
        wanted,
        status or {},
        annotations=words or {},
        pods=tuple(pods),
        deployments=tuple(deployments),
        children=tuple(objects),
    )


def _pod(version: int, index: int, current: str, said: dict[str, Any]) -> Pod:
    well = {"stager": DONE, "server": RUNNING, "prober": RUNNING, "ready": index < said["ready"]}
    return Pod(f"model-cancer-v{version}-{index}", version, current, **(well | said["pod"]))


def _deployment(version: int, current: str, said: dict[str, Any]) -> Deployment:
    number, ready = said["number"], said["ready"]
    return Deployment(version, current, number, True, number, ready, number, ours=said["ours"])


def _objects(wanted: ServedModelSpec, version: int) -> list[Child]:
    known = wanted.version(version) if version in wanted.numbers else wanted.stable
    made: list[Manifest] = children(served.OWNER, wanted, served.settings(), version=known)
    name = child_name(served.OWNER.name, version)
    return [Child(manifest["kind"], name, f"{manifest['kind']}-{version}", version) for manifest in made]


def decided(observed: Observed, *, now: str = NOW, operator: Any = None, **more: Any) -> Plan:
    """Return the plan for what was observed."""
    return plan(observed, operator or served.settings(), now=now, **more)


def again(observed: Observed, before: Plan, *, now: str = LATER, **more: Any) -> Plan:
    """Return the plan for the same, once the status of the plan before is written."""
    return decided(replace(observed, status=before.status), now=now, **more)


def pods_of(made: Plan) -> dict[int, int | None]:
    """Return how many pods each version's Deployment is to have; None: it is not said."""
    found = [manifest for manifest in made.apply if manifest["kind"] == "Deployment"]
    label = "serving.healthguard.io/version"
    return {int(each["metadata"]["labels"][label]): each["spec"].get("replicas") for each in found}


def leaving(made: Plan) -> set[int]:
    """Return the versions whose Deployment is removed."""
    return {child.version for child in made.delete if child.kind == "Deployment"}


def conditions(made: Plan) -> dict[str, tuple[str, str]]:
    """Return status and reason of each condition."""
    return {each["type"]: (each["status"], each["reason"]) for each in made.status["conditions"]}


def states(made: Plan) -> dict[int, str]:
    """Return where each version stands, in the status' word."""
    return {each["version"]: each["state"] for each in made.status["versions"]}


def gpus(nodes: int, taken: int) -> Devices:
    """Return a cluster of nodes with a GPU each, of which some are taken."""
    there = tuple(Node(f"node-{index}", devices={"nvidia.com/gpu": 1}) for index in range(nodes))
    return Devices(there, tuple(Holder({"nvidia.com/gpu": 1}, f"node-{index}") for index in range(taken)))
