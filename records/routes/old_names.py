"""
The history under the names of the two applications that HealthGuard replaced: same paths, same fields.

`/predictions…` was the breast-cancer application's data service; `/results` is the anemia application's history.
"""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response

from healthguard.idempotency import IdempotencyKey
from healthguard.problems import IdempotencyMismatch, NotFound, Unauthorized, Unavailable, responses
from records import store
from records.deps import Caller, CallerOrAnonymous, Needs, NoStore, ReadSession, Session
from records.problems import NotTheOwner
from records.rows import client_row, old_record, old_result
from records.schemas import PAGE_MAX, Number, OldCorrection, OldRecord, OldRecordIn, OldResult, OldSummary

SKIP_MAX = 1_000_000
"""An offset costs the database every row that it skips; who needs more takes `/v1/predictions` and its cursor."""

Skip = Annotated[int, Query(ge=0, le=SKIP_MAX)]
Limit = Annotated[int, Query(ge=1, le=PAGE_MAX)]

router = APIRouter(tags=["old names"], dependencies=[NoStore])


@router.post(
    "/predictions",
    status_code=201,
    summary="Store a record that a client made",
    responses=responses(Unauthorized, IdempotencyMismatch, Unavailable),
)
async def create_client_record(
    record: OldRecordIn, caller: Caller, session: Session, needs: Needs, key: IdempotencyKey = None
) -> OldRecord:
    """
    Store a client's own record; it is marked `source: client` and counts for no model.

    The same `Idempotency-Key` again, for the same record, answers with the row that is there.
    """
    owner = UUID(caller.subject)
    row = client_row(record, owner)
    if key is None:
        return old_record(await store.insert_record(session, row))
    return old_record(await store.insert_once(session, row, store.KeyHolder.of(owner, key), needs.idempotency_life))


@router.get("/predictions", summary="The breast-cancer history", responses=responses(Unauthorized, Unavailable))
async def list_old_records(
    caller: Caller, session: ReadSession, response: Response, skip: Skip = 0, limit: Limit = 100
) -> list[OldRecord]:
    """Return records, newest first; `X-Total-Count` says how many there are in all."""
    rows, total = await store.old_records(session, caller, skip, limit)
    response.headers["X-Total-Count"] = str(total)
    return [old_record(row) for row in rows]


@router.get(
    "/predictions/stats/summary", summary="The breast-cancer statistics", responses=responses(Unauthorized, Unavailable)
)
async def old_summary(caller: Caller, session: ReadSession) -> OldSummary:
    """Count what the caller may see of the breast-cancer history."""
    return await store.old_summary(session, caller)


@router.get("/predictions/{number}", summary="One record", responses=responses(Unauthorized, NotFound, Unavailable))
async def read_old_record(number: Number, caller: Caller, session: ReadSession) -> OldRecord:
    """Return one record by its integer id."""
    return old_record(await store.get_old_record(session, caller, number))


@router.put(
    "/predictions/{number}",
    summary="Correct a record",
    responses=responses(Unauthorized, NotTheOwner, NotFound, IdempotencyMismatch, Unavailable),
)
async def correct_old_record(
    *,
    number: Number,
    correction: OldCorrection,
    caller: Caller,
    session: Session,
    needs: Needs,
    key: IdempotencyKey = None,
) -> OldRecord:
    """
    Correct any of the three fields; a model's answer that was overwritten is `source: client` from then on.

    The same `Idempotency-Key` again, for the same correction, changes nothing more, and answers with the row as it is.
    """
    row = await store.get_old_record(session, caller, number, lock=True)
    holder = store.KeyHolder.of(UUID(caller.subject), key) if key is not None else None
    if holder and await store.is_corrected(session, row, correction, holder, needs.idempotency_life):
        return old_record(row)
    return old_record(await store.correct_record(session, caller, row, correction))


@router.delete(
    "/predictions/{number}",
    status_code=204,
    summary="Remove a record",
    responses=responses(Unauthorized, NotTheOwner, NotFound, Unavailable),
)
async def delete_old_record(number: Number, caller: Caller, session: Session) -> None:
    """Remove one record for good."""
    row = await store.get_old_record(session, caller, number, lock=True)
    await store.delete_record(session, caller, row)


@router.get("/results", summary="The anemia history", responses=responses(Unauthorized, Unavailable))
async def list_results(
    caller: CallerOrAnonymous, session: ReadSession, skip: Skip = 0, limit: Limit = 100
) -> list[OldResult]:
    """
    Return results, newest first.

    The old application had no log-in and showed everybody everything. An anonymous caller is nobody in particular, so
    nothing here is theirs: they get an empty list, never another's findings.
    """
    if caller is None:
        return []
    return [old_result(row) for row in await store.old_results(session, caller, skip, limit)]
