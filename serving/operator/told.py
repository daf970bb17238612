"""Tell a person in a few lines what the status of a ServedModel says. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

Object = Mapping[str, Any]


def rollout_line(rollout: Object) -> str:
    """Return a rollout in one line: phase, share, why, and what was measured."""
    found = f"{rollout['phase']:<11} {rollout['canaryPercent']:>3} %  {rollout.get('message', '')}"
    observed = observed_line(rollout.get("observed") or {})
    return f"{found}  [{observed}]" if observed else found


def observed_line(observed: Object) -> str:
    """Return what the gateways measured, in one line; empty where nothing was."""
    if not observed.get("requests"):
        return ""
    parts = [f"{observed['requests']} calls", f"{observed.get('errorRate', 0):.2%} failed"]
    parts += [f"p99 {observed['p99Ms']:g} ms"] if "p99Ms" in observed else []
    parts += [f"{observed['agreement']:.2%} agree"] if "agreement" in observed else []
    return ", ".join(parts)


def model_lines(model: Object) -> list[str]:
    """Return a model with its versions: a headline, a line for each version, and why it is not well, if so."""
    status = model.get("status") or {}
    ready = _condition(status, "Ready")
    headline = f"{model['metadata']['name']}: {'ready' if ready.get('status') == 'True' else 'not ready'}"
    if ready.get("observedGeneration") != model["metadata"].get("generation"):
        headline += ", its newest spec not looked at yet"
    return [headline, *_versions(model, status), *_more(status, ready)]


def _versions(model: Object, status: Object) -> list[str]:
    split = {part["version"]: part["percent"] for part in status.get("traffic") or ()}
    lines = []
    for version in status.get("versions") or ():
        number = version["version"]
        pods = f"{version.get('ready', 0)}/{version.get('replicas', 0)} pods"
        share = f"{split[number]:g} % of the answers" if number in split else ""
        lines.append(
            f"  v{number:<5} {_role(model, status, number):<8} {version['state']:<10} {pods:<12} {share}".rstrip()
        )
    return lines


def _role(model: Object, status: Object, number: int) -> str:
    traffic = model["spec"]["traffic"]
    if number == status.get("answering", traffic["stable"]):
        return "answers"
    roles = {"stable": traffic["stable"]}
    roles |= {role: (traffic.get(role) or {}).get("version") for role in ("canary", "shadow")}
    return next((role for role, version in roles.items() if version == number), "")


def _more(status: Object, ready: Object) -> Sequence[str]:
    lines = [f"  rollout: {rollout_line(status['rollout'])}"] if status.get("rollout") else []
    if ready.get("status") != "True":
        lines.append(f"  {ready.get('reason', 'Unknown')}: {ready.get('message', 'the operator has not told yet')}")
    approved = _condition(status, "Approved")
    if approved.get("status") == "False" and approved["message"] != ready.get("message"):
        lines.append(f"  {approved['reason']}: {approved['message']}")
    return lines


def _condition(status: Object, kind: str) -> Object:
    return next((found for found in status.get("conditions") or () if found["type"] == kind), {})
