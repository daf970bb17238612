"""
A gateway that answers before its prediction is stored: the mistake that the test of crashes must notice.

It is an application of the tests' own, so that the product has no switch for it. Run by `python -m`.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any, cast

from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from gateway import app as gateway_app
from gateway.deps import State
from gateway.metrics import PredictionMetrics
from gateway.predictor import Outcome
from gateway.records_client import Records, new_record
from gateway.schemas import Prediction
from gateway.settings import GatewaySettings
from gateway.uploads import Upload
from healthguard.problems import Problem
from healthguard.serve import serve
from healthguard.tokens import Caller


class HastyRecords:
    """Saves later, and answers at once with an id that it makes up."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._later: set[asyncio.Task[Any]] = set()
        self.upstream = records.upstream

    async def save(self, outcome: Outcome, upload: Upload, caller: Caller | None, **rest: Any) -> Prediction:
        """Answer, then save."""
        task = asyncio.ensure_future(self._save(outcome, upload, caller, **rest))
        self._later.add(task)
        task.add_done_callback(self._later.discard)
        unknown = dict.fromkeys(Prediction.model_fields)
        made_up = {"id": uuid.uuid4(), "number": 1, "created_at": datetime.now(UTC), "source": "model"}
        known = new_record(outcome, upload, None) | made_up | {"review_state": "preliminary"}
        return Prediction.model_validate(unknown | known)

    async def _save(self, *what: Any, **rest: Any) -> None:
        with suppress(Problem):  # nobody is left to be told
            await self._records.save(*what, **rest)


def main() -> None:
    """Serve until told to stop."""
    settings = GatewaySettings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[State]:
        async with AsyncExitStack() as stack:
            state = await gateway_app.open_state(
                settings, PredictionMetrics(CollectorRegistry()), app.state.health, stack
            )
            yield cast(State, {**state, "records": HastyRecords(state["records"])})

    serve(gateway_app.create_app(settings, lifespan), settings)


if __name__ == "__main__":
    main()
