"""A model is looked at again when its autoscaler says something else, and not at each of its looks."""

from typing import Any

import pytest

from serving.operator.autoscalers import Autoscalers
from serving.operator.workqueue import Key
from tests.unit.serving.operator.served import settings
from tests.unit.serving.operator.test_hpa import GONE, WELL, made


class Cluster:
    """An API server with one autoscaler."""

    def __init__(self) -> None:
        self.status: dict[str, Any] = {}
        self.asked: list[tuple[str, str | None]] = []

    async def list(self, kind: str, namespace: str | None, labels: dict[str, str]) -> list[Any]:
        """Return the autoscaler."""
        self.asked.append((kind, namespace))
        metadata = {"uid": "7", "namespace": "clinic", "labels": {"serving.healthguard.io/model": "cancer"}}
        return [made() | {"metadata": metadata, "status": self.status}]


@pytest.mark.parametrize("namespaces", [["clinic"], []])
async def test_model_is_looked_at_when_a_signal_is_lost_and_back(namespaces: list[str]) -> None:
    """Another value of a signal is nothing new; a loss is, and another number of pods."""
    cluster, changed = Cluster(), list[Key]()
    ours = Autoscalers(cluster, settings(namespaces=namespaces), changed.append)  # type: ignore[arg-type]

    async def looks(**status: Any) -> int:
        changed.clear()
        cluster.status = {"desiredReplicas": 1, **status}
        await ours.look()
        return len(changed)

    assert await looks(conditions=WELL, currentMetrics=[{"type": "External", "external": {"current": 1}}]) == 1
    assert await looks(conditions=WELL, currentMetrics=[{"type": "External", "external": {"current": 2}}]) == 0
    assert await looks(conditions=[GONE], currentMetrics=[{"type": ""}]) == 1
    assert changed == [Key("clinic", "cancer")]
    assert await looks(conditions=[GONE], currentMetrics=[{"type": ""}]) == 0
    assert await looks(conditions=WELL, desiredReplicas=2) == 1
    assert cluster.asked[0] == ("HorizontalPodAutoscaler", namespaces[0] if namespaces else None)
