"""
The SQL of the records service. Functions here run in the caller's transaction and never commit.

Every select on patients' rows begins at `visible_to`, the one place that says who sees what; a test reads this
package's source and fails on any other.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Select, and_, bindparam, delete, func, insert, or_, select, true, tuple_
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql.elements import ColumnElement
from sqlmodel import SQLModel, col

from healthguard import idempotency
from healthguard.problems import IdempotencyMismatch, NotFound, Unavailable
from healthguard.tokens import Caller, Role
from records.cursors import Position
from records.problems import NotTheOwner
from records.pseudonyms import Patient as SealedPatient
from records.rows import Row
from records.schemas import Correction, Filters, OldSummary, OutcomeCount, PredictionOut, Summary
from records.tables import IdempotencyKey, Patient, Prediction

ANONYMOUS: Final = UUID(int=0)
"""Stands for anonymous callers where an owner may not be null."""

# The old paths know one model each, and what clients posted, which has none; and these answers only. A row of a third
# model, or one that is Indeterminate, is not theirs.
_OLD_BINARY = and_(
    col(Prediction.task) == "binary",
    col(Prediction.outcome).in_(("Positive", "Negative")),
    or_(col(Prediction.model) == "cancer", col(Prediction.model).is_(None)),
)
_OLD_RISK = and_(
    col(Prediction.task) == "risk",
    col(Prediction.outcome).in_(("LOW", "MEDIUM", "HIGH")),
    col(Prediction.model) == "anemia",
)
_NEWEST_FIRST = (col(Prediction.created_at).desc(), col(Prediction.id).desc())


@dataclass(frozen=True, slots=True)
class KeyHolder:
    """Whoever repeats a save under the Idempotency-Key of the first: sees the row that the first made."""

    owner: UUID
    key: str

    @classmethod
    def of(cls, owner: UUID | None, key: str) -> "KeyHolder":
        """Return the holder of *key*; all anonymous callers share one name space of keys."""
        return cls(owner or ANONYMOUS, key)


def visible_to(viewer: Caller | KeyHolder, *what: Any) -> Select[Any]:
    """Return a select of *what* (left out: whole rows) over the predictions that *viewer* may see, and no others."""
    return select(*(what or (Prediction,))).select_from(Prediction).where(_visible(viewer))


def _visible(viewer: Caller | KeyHolder) -> ColumnElement[bool]:
    """
    Say who sees what.

    Doctors see all rows of the installation, anonymous ones too. Patients see their own. So do admins: they manage
    people and models, and need no findings for that. A role that comes later sees its own until somebody decides.
    """
    if isinstance(viewer, KeyHolder):
        made = select(col(IdempotencyKey.prediction_id)).where(_is_key(viewer))
        return col(Prediction.id) == made.scalar_subquery()
    if viewer.role is Role.DOCTOR:
        return true()
    return col(Prediction.owner) == UUID(viewer.subject)


def _is_key(holder: KeyHolder) -> ColumnElement[bool]:
    return and_(col(IdempotencyKey.owner) == holder.owner, col(IdempotencyKey.key) == holder.key)


# --- save


def _table(kind: type[SQLModel]) -> Any:
    return kind.__table__  # type: ignore[attr-defined]


# Written once, with core tables: the ORM's insert would cost several times the CPU, on every prediction there is.
_PREDICTIONS = _table(Prediction)
_KEYS = _table(IdempotencyKey)
_SAVED_COLUMNS = [column for column in _PREDICTIONS.columns if column.name != "number"]
_INSERT = insert(_PREDICTIONS).returning(_PREDICTIONS.c.number)


def _claim() -> Any:
    """
    Return the statement that claims an Idempotency-Key: it gives a row only if the claim holds.

    Of two at once the second waits for the first to commit, then gets nothing. A key past its life is claimed anew.
    """
    new_key = {name: bindparam(f"key_{name}", type_=_KEYS.c[name].type) for name in _KEYS.columns.keys()}  # noqa: SIM118 - a collection of columns iterates over columns
    claim = upsert(_KEYS).values(new_key)
    return claim.on_conflict_do_update(
        index_elements=["owner", "key"],
        set_={name: claim.excluded[name] for name in ("fingerprint", "prediction_id", "created_at")},
        where=_KEYS.c.created_at < bindparam("key_expired_before", type_=_KEYS.c.created_at.type),
    ).returning(_KEYS.c.prediction_id)


_CLAIM = _claim()


def _insert_under_key() -> Any:
    """Return one statement that claims an Idempotency-Key and inserts the row only if the claim holds."""
    claims = _claim().cte("claimed")
    values = [bindparam(column.name, type_=column.type) for column in _SAVED_COLUMNS]
    return (
        insert(_PREDICTIONS)
        .from_select([column.name for column in _SAVED_COLUMNS], select(*values).select_from(claims))
        .returning(_PREDICTIONS.c.number)
    )


_INSERT_UNDER_KEY = _insert_under_key()


def _insert_many() -> Any:
    """
    Return one statement for any number of rows: each column comes as an array.

    A list of VALUES would be another statement for each number of rows, to be compiled and planned anew.
    """
    arrays = [bindparam(column.name, type_=ARRAY(column.type)) for column in _SAVED_COLUMNS]
    names = [column.name for column in _SAVED_COLUMNS]
    sent = func.unnest(*arrays).table_valued(*names).render_derived("sent")
    return insert(_PREDICTIONS).from_select(names, select(*sent.c)).returning(_PREDICTIONS.c.id, _PREDICTIONS.c.number)


_INSERT_MANY = _insert_many()


async def insert_records(session: AsyncSession, rows: Sequence[Row]) -> dict[UUID, int]:
    """Insert *rows*, one round trip, and return their numbers by id."""
    columns = {column.name: [row[column.name] for row in rows] for column in _SAVED_COLUMNS}
    found = await session.execute(_INSERT_MANY, columns)
    return {row.id: row.number for row in found}


async def insert_record(session: AsyncSession, row: Row) -> PredictionOut:
    """Insert *row*, one round trip, and return it with its number."""
    number = (await session.execute(_INSERT, row)).scalar_one()
    return _saved(session, row, number)


def _saved(session: AsyncSession, row: Row, number: int) -> PredictionOut:
    """Return *row* as it is stored, and note on the session what is to be counted once it is committed."""
    session.info["saved"] = row["source"]
    return PredictionOut.model_validate(row | {"number": number})


async def insert_once(session: AsyncSession, row: Row, holder: KeyHolder, life: timedelta) -> PredictionOut:
    """
    Insert *row* under an Idempotency-Key, or return the row that was inserted under it before.

    Args:
        life: how long a key is remembered.

    Raises:
        IdempotencyMismatch: the key was used for another model, image or patient.
        Unavailable: the earlier row was removed in this very moment.
    """
    found = fingerprint(row)
    values = row | _key_values(holder, found, row["id"], row["created_at"], life)
    if (number := (await session.execute(_INSERT_UNDER_KEY, values)).scalar_one_or_none()) is not None:
        return _saved(session, row, number)
    return PredictionOut.model_validate(await _made_before(session, holder, found))


def _key_values(holder: KeyHolder, found: bytes, record_id: UUID, now: datetime, life: timedelta) -> dict[str, Any]:
    """Return the parameters of a claim."""
    key = {"owner": holder.owner, "key": holder.key, "fingerprint": found, "prediction_id": record_id}
    key |= {"created_at": now, "expired_before": now - life}
    return {f"key_{name}": value for name, value in key.items()}


async def is_corrected(
    session: AsyncSession, row: Prediction, correction: Correction, holder: KeyHolder, life: timedelta
) -> bool:
    """
    Tell whether *correction* was made under this Idempotency-Key before; if not, it is from now on.

    Args:
        row: locked, so that of two repeats at once the second comes here when the first is through.
        life: how long a key is remembered.

    Raises:
        IdempotencyMismatch: the key was used for something else.
    """
    found = idempotency.fingerprint("correction", str(row.id), correction.model_dump_json())
    values = _key_values(holder, found, row.id, datetime.now(UTC), life)
    if (await session.execute(_CLAIM, values)).scalar_one_or_none() is not None:
        return False
    await _check_key_was_for(session, holder, found)
    return True


async def _check_key_was_for(session: AsyncSession, holder: KeyHolder, found: bytes) -> None:
    """
    Return where a key that is taken was taken for the same request.

    Raises:
        IdempotencyMismatch: it was for another.
    """
    first = await session.scalar(select(col(IdempotencyKey.fingerprint)).where(_is_key(holder)))
    if first is not None and first != found:
        raise IdempotencyMismatch


async def _made_before(session: AsyncSession, holder: KeyHolder, found: bytes) -> Prediction:
    """
    Return the row that was made under a key, if it was made for the same thing.

    Raises:
        IdempotencyMismatch: it was made for another.
        Unavailable: the row was removed in this very moment.
    """
    await _check_key_was_for(session, holder, found)
    row: Prediction | None = await session.scalar(visible_to(holder))
    if row is None:
        raise Unavailable
    return row


def fingerprint(row: Row) -> bytes:
    """
    Return the hash of what must be the same when an Idempotency-Key is sent again: model, image and patient.

    The version is not part of it: a repeat may well be answered by the canary. A client's own record has none of the
    three, and is the same where it says the same.
    """
    parts = [row["model"], row["image_hmac"], row["patient"]]
    if row["source"] == "client":
        parts += [row["outcome"], repr(row["confidence"]), row["filename"]]
    return idempotency.fingerprint(*(part or "" for part in parts))


async def know_patient(session: AsyncSession, patient: SealedPatient) -> None:
    """Store the patient, unless they are known already."""
    values = {"pseudonym": patient.pseudonym, "site": patient.site, "number_encrypted": patient.number_encrypted}
    await session.execute(upsert(_table(Patient)).values(values).on_conflict_do_nothing())


async def forget_keys(life: timedelta, session: AsyncSession, limit: int) -> int:
    """Remove idempotency keys that are older than *life*, *limit* at most a call; return how many."""
    before = datetime.now(UTC) - life
    old = select(_KEYS.c.owner, _KEYS.c.key).where(_KEYS.c.created_at < before).limit(limit)
    gone = await session.execute(delete(_KEYS).where(tuple_(_KEYS.c.owner, _KEYS.c.key).in_(old)))
    return int(gone.rowcount)  # type: ignore[attr-defined]  # a delete's result has it


# --- find


async def get_record(session: AsyncSession, caller: Caller, record_id: UUID, *, lock: bool = False) -> Prediction:
    """
    Return one row, locked until the transaction ends where *lock* asks for it.

    Raises:
        NotFound: there is none, or it is not this caller's to see.
    """
    return await _one(session, visible_to(caller).where(col(Prediction.id) == record_id), lock)


async def get_old_record(session: AsyncSession, caller: Caller, number: int, *, lock: bool = False) -> Prediction:
    """
    Return one row by its integer id, as the breast-cancer paths know it.

    Raises:
        NotFound: there is none, it is not this caller's to see, or is of another model or outcome than the old paths'.
    """
    return await _one(session, visible_to(caller).where(_OLD_BINARY, col(Prediction.number) == number), lock)


async def _one(session: AsyncSession, statement: Select[Any], lock: bool) -> Prediction:
    row: Prediction | None = await session.scalar(statement.with_for_update() if lock else statement)
    if row is None:
        raise NotFound
    return row


async def page(
    session: AsyncSession,
    caller: Caller,
    filters: Filters,
    limit: int,
    *,
    after: Position | None = None,
    patient: str | None = None,
) -> Sequence[Prediction]:
    """Return up to *limit* rows below *after*, newest first; *patient* is a pseudonym."""
    statement = visible_to(caller).where(*_conditions(filters)).order_by(*_NEWEST_FIRST).limit(limit)
    if patient is not None:
        statement = statement.where(col(Prediction.patient) == patient)
    if after is not None:
        position = tuple_(col(Prediction.created_at), col(Prediction.id))
        statement = statement.where(position < (after.created_at, after.id))
    return (await session.scalars(statement)).all()


def _conditions(filters: Filters) -> list[ColumnElement[bool]]:
    """Return a condition for each filter that is given."""
    comparisons: tuple[tuple[Any, Callable[[Any], ColumnElement[bool]]], ...] = (
        (filters.model, col(Prediction.model).__eq__),
        (filters.outcome, col(Prediction.outcome).__eq__),
        (filters.created_from, col(Prediction.created_at).__ge__),
        (filters.created_to, col(Prediction.created_at).__lt__),
    )
    return [compare(value) for value, compare in comparisons if value is not None]


async def old_records(session: AsyncSession, caller: Caller, skip: int, limit: int) -> tuple[Sequence[Prediction], int]:
    """Return a page of the breast-cancer history, newest first, and how many rows it has in all."""
    total = await session.scalar(visible_to(caller, func.count()).where(_OLD_BINARY))
    statement = visible_to(caller).where(_OLD_BINARY).order_by(*_NEWEST_FIRST).offset(skip).limit(limit)
    return (await session.scalars(statement)).all(), total or 0


async def old_results(session: AsyncSession, caller: Caller, skip: int, limit: int) -> Sequence[Prediction]:
    """Return a page of the anemia history, newest first."""
    statement = visible_to(caller).where(_OLD_RISK).order_by(*_NEWEST_FIRST).offset(skip).limit(limit)
    return (await session.scalars(statement)).all()


# --- count


async def summary(session: AsyncSession, caller: Caller) -> Summary:
    """Count what the caller may see, by who said it, model and outcome."""
    groups = (col(Prediction.source), col(Prediction.model), col(Prediction.outcome))
    found = await session.execute(visible_to(caller, *groups, func.count()).group_by(*groups).order_by(*groups))
    counts = [OutcomeCount(source=source, model=model, outcome=outcome, count=n) for source, model, outcome, n in found]
    return Summary(total=sum(entry.count for entry in counts), counts=counts)


async def old_summary(session: AsyncSession, caller: Caller) -> OldSummary:
    """Count the breast-cancer history as its application did."""
    outcome = col(Prediction.outcome)
    found = await session.execute(visible_to(caller, outcome, func.count()).where(_OLD_BINARY).group_by(outcome))
    counts = {label: int(count) for label, count in found}
    positive, negative = counts.get("Positive", 0), counts.get("Negative", 0)
    total = positive + negative
    percentage = round(100 * positive / total, 2) if total else 0.0
    return OldSummary(total=total, positive=positive, negative=negative, positive_percentage=percentage)


# --- change


async def correct_record(session: AsyncSession, caller: Caller, row: Prediction, correction: Correction) -> Prediction:
    """
    Correct *row*, which the caller got by one of the functions above.

    Raises:
        NotTheOwner: the caller may see it and may not change it.
    """
    _check_may_change(caller, row)
    apply(correction, row, datetime.now(UTC))
    await session.flush()
    return row


async def delete_record(session: AsyncSession, caller: Caller, row: Prediction) -> None:
    """
    Remove *row*, and with it its idempotency key.

    Raises:
        NotTheOwner: the caller may see it and may not remove it.
    """
    _check_may_change(caller, row)
    await session.delete(row)
    await session.flush()


def _check_may_change(caller: Caller, row: Prediction) -> None:
    """A doctor's other word on somebody's result is a review, not a correction; rows of nobody are the doctors'."""
    nobodys = row.owner is None and caller.role is Role.DOCTOR
    if not nobodys and row.owner != UUID(caller.subject):
        raise NotTheOwner


def apply(correction: Correction, row: Prediction, now: datetime) -> None:
    """
    Put *correction* on *row* and keep it truthful.

    Once a person changed outcome or confidence, the row is no longer a model's answer and says so. What the model said
    stays in score, version and digest. Its recommendation was for the other outcome, so it goes. Old clients put whole
    records back to rename a file: values that are the same change nothing.
    """
    if correction.filename is not None:
        row.filename = correction.filename
    outcome = row.outcome if correction.outcome is None else correction.outcome
    confidence = row.confidence if correction.confidence is None else correction.confidence
    if (outcome, confidence) == (row.outcome, row.confidence):
        return
    if outcome != row.outcome:
        row.recommendation = None
    row.outcome, row.confidence = outcome, confidence
    row.source, row.corrected_at = "client", now
