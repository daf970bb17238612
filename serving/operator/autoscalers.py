"""
Notice when an autoscaler loses a signal or has it back, so that the ServedModel says so soon.

An autoscaler's status changes with every look at its signals. A watch would wake us up for each; one list for all
models, at intervals, tells what is different.
"""

import asyncio
from collections.abc import Callable

import structlog

from serving.operator import hpa
from serving.operator.kubernetes import Api, CallFailed, Object
from serving.operator.manifests import MANAGED_BY, MODEL_LABEL
from serving.operator.settings import OperatorSettings
from serving.operator.workqueue import Key

log = structlog.get_logger()

LOOK_S = 10.0


class Autoscalers:
    """What the autoscalers of all models said the last time."""

    def __init__(self, api: Api, settings: OperatorSettings, changed: Callable[[Key], None]) -> None:
        """Call *changed* with each model whose autoscaler says something else."""
        self._api = api
        self._settings = settings
        self._changed = changed
        self._told: dict[str, tuple[str, ...]] = {}

    async def look_regularly(self) -> None:
        """Look at intervals, for ever."""
        while True:
            try:
                await self.look()
            except CallFailed as error:
                log.warning("autoscalers_not_seen", status=error.status)
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """
        Look once.

        Raises:
            CallFailed: the API server refused, or did not answer.
        """
        found: list[Object] = []
        for namespace in self._settings.namespaces or {None}:
            for kind in hpa.kinds(self._settings):
                found += await self._api.list(kind, namespace, MANAGED_BY)
        told = {one["metadata"]["uid"]: hpa.finding(hpa.read(one)) for one in found}
        for one in found:
            uid, metadata = one["metadata"]["uid"], one["metadata"]
            if told[uid] != self._told.get(uid):
                self._changed(Key(metadata["namespace"], metadata.get("labels", {}).get(MODEL_LABEL, "")))
        self._told = dict(told)
