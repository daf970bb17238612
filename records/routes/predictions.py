"""Predictions under today's names: `/v1/predictions`."""

from collections.abc import Sequence
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from healthguard import tokens
from healthguard.idempotency import IdempotencyKey
from healthguard.problems import (
    IdempotencyMismatch,
    NotFound,
    Unauthorized,
    Unavailable,
    ValidationFailed,
    responses,
)
from healthguard.tokens import Role
from records import store
from records.cursors import Position
from records.deps import (
    Caller,
    CallerOrAnonymous,
    Gateway,
    Needs,
    NoStore,
    ReadSession,
    Resources,
    Session,
    caller_with,
)
from records.problems import GatewayOnly, InvalidCursor, NotTheOwner, PatientNotAllowed
from records.pseudonyms import Patient
from records.rows import model_row
from records.schemas import (
    INDETERMINATE,
    LABELS,
    Correction,
    Filters,
    NewPrediction,
    Page,
    PageQuery,
    PredictionOut,
    Saved,
    Saves,
    Search,
    Summary,
)
from records.tables import Prediction

router = APIRouter(prefix="/v1/predictions", tags=["predictions"], dependencies=[NoStore])


@router.post(
    "",
    status_code=201,
    dependencies=[Gateway],
    summary="Store what a model answered",
    responses=responses(Unauthorized, GatewayOnly, PatientNotAllowed, IdempotencyMismatch, Unavailable),
)
async def create_record(
    new: NewPrediction, caller: CallerOrAnonymous, session: Session, needs: Needs, key: IdempotencyKey = None
) -> PredictionOut:
    """
    Store a model's answer for the caller, or for nobody where the gateway vouches with `X-HealthGuard-Anonymous: 1`.

    The same `Idempotency-Key` again, for the same model, image and patient, answers with the row that is there.
    """
    if key is None:
        return (await _store([(new, caller)], needs))[0]
    owner, patient = _owner(caller), _patient(new, caller, needs)
    if patient is not None:
        await store.know_patient(session, patient)
    row = model_row(new, owner, patient.pseudonym if patient is not None else None)
    return await store.insert_once(session, row, store.KeyHolder.of(owner, key), needs.idempotency_life)


@router.post(
    "/together",
    status_code=201,
    dependencies=[Gateway],
    summary="Store several model answers at once",
    responses=responses(Unauthorized, GatewayOnly, PatientNotAllowed, Unavailable),
)
async def create_records(new: Saves, needs: Needs) -> Saved:
    """
    Store model answers of several callers in one transaction, each under its own caller's token: all of them, or none.

    A gateway under load has some to store at any moment; together they cost little more than one. Where one of them is
    refused, so are all, and the gateway stores them one by one to learn which.
    """
    answers = [(save.record, await caller_with(save.token, needs) if save.token else None) for save in new.saves]
    return Saved(saved=await _store(answers, needs))


async def _store(
    answers: Sequence[tuple[NewPrediction, tokens.Caller | None]], needs: Resources
) -> list[PredictionOut]:
    """
    Store model answers with whom they were made for, in one transaction.

    Raises:
        PatientNotAllowed: a caller named a patient who may not.
    """
    sealed = [_patient(new, caller, needs) for new, caller in answers]
    rows = [
        model_row(new, _owner(caller), patient.pseudonym if patient is not None else None)
        for (new, caller), patient in zip(answers, sealed, strict=True)
    ]
    # In one order, whoever sends them: two transactions that add the same ones would else wait for each other.
    patients = sorted((patient for patient in sealed if patient is not None), key=lambda patient: patient.pseudonym)
    async with needs.database.write() if patients else needs.database.write_one() as session:
        for patient in patients:
            await store.know_patient(session, patient)
        numbers = await store.insert_records(session, rows)
    needs.saved.labels("model").inc(len(rows))
    return [PredictionOut.model_validate(row | {"number": numbers[row["id"]]}) for row in rows]


def _owner(caller: tokens.Caller | None) -> UUID | None:
    return None if caller is None else UUID(caller.subject)


def _patient(new: NewPrediction, caller: tokens.Caller | None, needs: Resources) -> Patient | None:
    """
    Return the patient whom a prediction is about, sealed.

    Raises:
        PatientNotAllowed: the caller may not name one; a forged finding would stand in that patient's history.
    """
    if new.patient is None:
        return None
    if caller is None or caller.role is not Role.DOCTOR:
        raise PatientNotAllowed
    return needs.pseudonyms.seal(new.site or "", new.patient)


@router.get(
    "",
    summary="A page of the history",
    responses=responses(Unauthorized, InvalidCursor, Unavailable),
)
async def list_records(
    query: Annotated[PageQuery, Query()], caller: Caller, session: ReadSession, needs: Needs
) -> Page:
    """Return the caller's history, newest first; rows that arrive meanwhile shift no page."""
    after = needs.cursors.read(query.cursor) if query.cursor else None
    rows = await store.page(session, caller, query, query.limit + 1, after=after)
    return _page(rows, query.limit, needs)


@router.post(
    "/search",
    summary="A page of one patient's history",
    responses=responses(Unauthorized, InvalidCursor, Unavailable),
)
async def search_records(search: Search, caller: Caller, session: ReadSession, needs: Needs) -> Page:
    """Return what the caller may see about one patient; the number stands in the body, never in a URL."""
    after = needs.cursors.read(search.cursor) if search.cursor else None
    pseudonym = needs.pseudonyms.pseudonym(search.site or "", search.patient)
    rows = await store.page(session, caller, Filters(), search.limit + 1, after=after, patient=pseudonym)
    return _page(rows, search.limit, needs)


def _page(rows: Sequence[Prediction], limit: int, needs: Resources) -> Page:
    """Return a page of *limit* rows; a row more than that was asked for, to know whether there is another page."""
    items, more = rows[:limit], len(rows) > limit
    cursor = needs.cursors.write(Position(items[-1].created_at, items[-1].id)) if more else None
    return Page(items=[PredictionOut.model_validate(row) for row in items], next_cursor=cursor)


# Before `/{record_id}`: the router takes the first path that fits.
@router.get("/stats/summary", summary="The history in numbers", responses=responses(Unauthorized, Unavailable))
async def summary(caller: Caller, session: ReadSession) -> Summary:
    """Count the rows that the caller may see, by source, model and outcome."""
    return await store.summary(session, caller)


@router.get(
    "/{record_id}",
    response_model=PredictionOut,
    summary="One prediction",
    responses=responses(Unauthorized, NotFound, Unavailable),
)
async def read_record(record_id: UUID, caller: Caller, session: ReadSession) -> Prediction:
    """Return one prediction; another's is as absent as one that never was."""
    return await store.get_record(session, caller, record_id)


@router.put(
    "/{record_id}",
    response_model=PredictionOut,
    summary="Correct a prediction",
    responses=responses(Unauthorized, NotTheOwner, NotFound, IdempotencyMismatch, Unavailable),
)
async def correct_record(
    *,
    record_id: UUID,
    correction: Correction,
    caller: Caller,
    session: Session,
    needs: Needs,
    key: IdempotencyKey = None,
) -> Prediction:
    """
    Correct outcome, confidence or filename; a row whose finding was changed is `source: client` from then on.

    The same `Idempotency-Key` again, for the same correction, changes nothing more, and answers with the row as it is:
    a repeat that arrives late undoes nobody's later correction.
    """
    row = await store.get_record(session, caller, record_id, lock=True)
    holder = store.KeyHolder.of(UUID(caller.subject), key) if key is not None else None
    if holder and await store.is_corrected(session, row, correction, holder, needs.idempotency_life):
        return row
    _check_outcome(row, correction)
    _check_has_confidence(row, correction)
    return await store.correct_record(session, caller, row, correction)


def _check_outcome(row: Prediction, correction: Correction) -> None:
    """
    Refuse an outcome that is no label of the row's task.

    A row whose own outcome is none of them is of a model with other labels. Its contract is not known here, so any
    label may be put there.

    Raises:
        ValidationFailed: the correction names such an outcome.
    """
    known = LABELS[row.task]
    if correction.outcome is not None and row.outcome in known and correction.outcome not in known:
        raise ValidationFailed(errors=[{"location": "body.outcome", "code": "literal_error"}])


def _check_has_confidence(row: Prediction, correction: Correction) -> None:
    """
    Refuse to make a finding without a confidence out of an Indeterminate row.

    Raises:
        ValidationFailed: the correction names an outcome and no confidence, and the row has none.
    """
    finding = correction.outcome not in (None, INDETERMINATE)
    if finding and correction.confidence is None and row.confidence is None:
        raise ValidationFailed(errors=[{"location": "body.confidence", "code": "missing"}])


@router.delete(
    "/{record_id}",
    status_code=204,
    summary="Remove a prediction",
    responses=responses(Unauthorized, NotTheOwner, NotFound, Unavailable),
)
async def delete_record(record_id: UUID, caller: Caller, session: Session) -> None:
    """Remove one prediction for good."""
    row = await store.get_record(session, caller, record_id, lock=True)
    await store.delete_record(session, caller, row)
