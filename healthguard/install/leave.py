"""Take leave: end this release's ServedModels while their operator still runs, and let nothing hang."""

import time
from collections.abc import Callable

from healthguard.install.kubernetes import CallFailed, Kubernetes, Object

_GROUP = "/apis/serving.healthguard.io/v1alpha1"
_POLL_S = 1.0


def leave(
    kubernetes: Kubernetes,
    namespace: str,
    selector: str,
    wait_s: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> list[str]:
    """
    Delete the ServedModels that *selector* finds, wait until they are gone, and free those that something holds.

    Returns:
        The names of those that had to be freed of finalizers.

    Raises:
        CallFailed: the API server refused.
    """
    where = f"{_GROUP}/namespaces/{namespace}/servedmodels"
    query = f"{where}?labelSelector={selector}"
    for model in _listed(kubernetes, query):
        kubernetes.delete(f"{where}/{_name(model)}")
    ends_at = clock() + wait_s
    while (left := _listed(kubernetes, query)) and clock() < ends_at:
        sleep(_POLL_S)
    held = [_name(model) for model in left]
    for name in held:
        _free(kubernetes, f"{where}/{name}")
    return held


def _free(kubernetes: Kubernetes, path: str) -> None:
    try:
        kubernetes.merge(path, {"metadata": {"finalizers": None}})
    except CallFailed as refused:
        if refused.status != 404:
            raise


def _listed(kubernetes: Kubernetes, query: str) -> list[Object]:
    """Return the objects; none where the CRD is gone."""
    found = kubernetes.get(query)
    return list(found["items"]) if found else []


def _name(found: Object) -> str:
    return str(found["metadata"]["name"])
