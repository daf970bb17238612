"""From what Kubernetes says to the models that are to be served: pure; `kubernetes` asks it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from gateway.discovery import DeclaredModel, Endpoint
from gateway.traffic import Canary, Shadow, Traffic

Object = Mapping[str, Any]

GROUP = "serving.healthguard.io"
MODEL_LABEL = f"{GROUP}/model"
VERSION_LABEL = f"{GROUP}/version"
SERVICE_LABEL = "kubernetes.io/service-name"
GRPC_PORT = "grpc"


class BadObject(Exception):
    """An object that is not of the form that its kind has."""


@dataclass(frozen=True)
class Read:
    """What could be read of a cluster's objects, and the names of those that could not."""

    models: Sequence[DeclaredModel]
    refused: Sequence[str]


def read(served: Iterable[Object], slices: Iterable[Object], known: Sequence[DeclaredModel] = ()) -> Read:
    """
    Return what ServedModels declare, with the endpoints that EndpointSlices name.

    A model whose object cannot be read stays as it is *known*; a slice that cannot be read names no endpoint. One wrong
    object, which no API server with our CRD admits, must not keep the others from changing.
    """
    by_version: dict[tuple[str, int], list[Object]] = {}
    by_name = {model.name: model for model in known}
    models, refused = list[DeclaredModel](), list[str]()
    for one in slices:
        try:
            by_version.setdefault(_version_of(one), []).append(one)
        except BadObject:
            refused.append(_name(one))
    for one in served:
        try:
            models.append(_declared(one, by_version))
        except BadObject:
            refused.append(_name(one))
            models += [by_name[_name(one)]] if _name(one) in by_name else []
    return Read(models, refused)


@contextmanager
def _of_its_form() -> Iterator[None]:
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as exc:
        raise BadObject from exc


def _name(one: Object) -> str:
    return str((one.get("metadata") or {}).get("name", ""))[:253]


def _version_of(one: Object) -> tuple[str, int]:
    """
    Return the model and the version whose servers a slice names.

    Raises:
        BadObject: it does not say.
    """
    with _of_its_form():
        labels = one["metadata"]["labels"]
        endpoints_of([one])
        return str(labels[MODEL_LABEL]), int(labels[VERSION_LABEL])


def _declared(model: Object, by_version: Mapping[tuple[str, int], Sequence[Object]]) -> DeclaredModel:
    """
    Return what one ServedModel declares.

    Raises:
        BadObject: it is none.
    """
    with _of_its_form():
        name, traffic = str(model["metadata"]["name"]), traffic_of(model)
        # The one that is to answer next is connected to before it does.
        versions = traffic.versions | {int(model["spec"]["traffic"]["stable"])}
        endpoints = {version: endpoints_of(by_version.get((name, version), ())) for version in versions}
        return DeclaredModel(name, traffic, endpoints)


def traffic_of(model: Object) -> Traffic:
    """
    Return how the requests for a ServedModel are split.

    `status.answering` is the version that answers by the operator's word: the stable one of the spec as soon as its
    servers are complete, until then the one before it. While the operator rolls a canary out,
    `status.rollout.canaryPercent` is its share of the moment, and 0 once it was taken back. What the status says of
    another canary is of the past.
    """
    wished, status = model["spec"]["traffic"], model.get("status") or {}
    stable = int(status.get("answering", wished["stable"]))
    canary, shadow = wished.get("canary"), wished.get("shadow")
    rollout = status.get("rollout") or {}
    share: float = 0.0
    if canary and rollout.get("version") == canary["version"]:
        share = float(rollout["canaryPercent"])
    elif canary and "rollout" not in model["spec"]:
        share = float(canary.get("percent", 0))
    return Traffic(
        stable,
        Canary(int(canary["version"]), share, bool(canary.get("sticky", False)))
        if canary and int(canary["version"]) != stable
        else None,
        Shadow(int(shadow["version"]), float(shadow.get("percent", 100)))
        if shadow and int(shadow["version"]) != stable
        else None,
    )


def endpoints_of(slices: Iterable[Object]) -> tuple[Endpoint, ...]:
    """
    Return the servers of one version.

    A pod of a dual-stack cluster stands in a slice of each family: one of them is taken, or it would count as two. The
    same address may stand in two slices for a moment; whoever says that it is well is believed.
    """
    of_family: dict[str, list[Object]] = {}
    for one in slices:
        of_family.setdefault(str(one["addressType"]), []).append(one)
    chosen = of_family.get("IPv4") or of_family.get("IPv6") or []
    found: dict[str, Endpoint] = {}
    for one in chosen:
        for endpoint in filter(None, (_endpoint(one, entry) for entry in one.get("endpoints") or ())):
            known = found.get(endpoint.address)
            if known is None or known.leaving:
                found[endpoint.address] = endpoint
    return tuple(found[address] for address in sorted(found))


def _endpoint(one: Object, entry: Object) -> Endpoint | None:
    """Return an entry of a slice as a server; None where nothing may be sent to it."""
    conditions = entry.get("conditions") or {}
    leaving = bool(conditions.get("terminating", False))
    # Left out means unknown, which counts as ready; `serving` is readiness for pods that are leaving.
    well = conditions.get("serving", conditions.get("ready", True)) if leaving else conditions.get("ready", True)
    if well is False:
        return None
    metadata = one["metadata"]
    port = {found.get("name"): int(found["port"]) for found in one["ports"]}[GRPC_PORT]
    host = str(entry["addresses"][0])
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return Endpoint(address, f"{metadata['labels'][SERVICE_LABEL]}.{metadata['namespace']}.svc", leaving)
