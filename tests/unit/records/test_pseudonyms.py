"""Pseudonyms hide the patient number from whoever has no key, and lead back to it for who has."""

import dataclasses

import pytest

from records.keys import derive
from records.pseudonyms import Pseudonyms, UnreadableNumber

PSEUDONYMS = Pseudonyms(bytes(range(32)))


def test_pseudonym_of_a_patient_is_always_the_same() -> None:
    """A patient's history stays together, also over a restart with the same key."""
    assert PSEUDONYMS.pseudonym("north", "4711") == Pseudonyms(bytes(range(32))).pseudonym("north", "4711")


@pytest.mark.parametrize(
    ("site", "number"),
    [("north", "4712"), ("south", "4711"), ("north4", "711"), ("nort", "h4711"), ("", "north4711")],
    ids=["another number", "another site", "site longer", "site shorter", "no site"],
)
def test_pseudonyms_of_two_patients_differ(site: str, number: str) -> None:
    """The same number at two hospitals is two people, wherever the border between site and number lies."""
    assert PSEUDONYMS.pseudonym(site, number) != PSEUDONYMS.pseudonym("north", "4711")


def test_pseudonym_needs_the_key() -> None:
    """Who has only the database cannot try all numbers of a hospital."""
    assert PSEUDONYMS.pseudonym("north", "4711") != Pseudonyms(bytes(32)).pseudonym("north", "4711")


def test_sealed_number_opens() -> None:
    """The way back is there for who has the key."""
    assert PSEUDONYMS.open(PSEUDONYMS.seal("north", "Ä-4711")) == "Ä-4711"


def test_sealed_number_is_not_readable_and_never_the_same() -> None:
    """Nothing of the number shows, and two rows of one number do not look alike."""
    first, second = PSEUDONYMS.seal("north", "4711-0815"), PSEUDONYMS.seal("north", "4711-0815")

    assert b"4711" not in first.number_encrypted
    assert first.number_encrypted != second.number_encrypted


def test_sealed_number_opens_in_its_own_row_only() -> None:
    """Who can write to the database cannot make one patient's findings lead to another person."""
    mine, other = PSEUDONYMS.seal("north", "1"), PSEUDONYMS.seal("north", "2")
    swapped = dataclasses.replace(mine, number_encrypted=other.number_encrypted)

    with pytest.raises(UnreadableNumber):
        PSEUDONYMS.open(swapped)


@pytest.mark.parametrize("damaged", [b"", b"\0" * 12, b"\0" * 40], ids=["empty", "nonce only", "zeros"])
def test_sealed_number_that_is_damaged_is_refused(damaged: bytes) -> None:
    """Damage is said, not guessed over."""
    with pytest.raises(UnreadableNumber):
        PSEUDONYMS.open(dataclasses.replace(PSEUDONYMS.seal("north", "1"), number_encrypted=damaged))


def test_sealed_number_of_another_key_is_refused() -> None:
    """Another installation's key opens nothing."""
    with pytest.raises(UnreadableNumber):
        Pseudonyms(bytes(32)).open(PSEUDONYMS.seal("north", "1"))


def test_derived_keys_differ_by_purpose_and_root() -> None:
    """A key that leaks from one use is of no use in another."""
    keys = {derive(root, purpose) for root in (bytes(32), b"\1" * 32) for purpose in ("cursor", "pseudonym")}

    assert len(keys) == 4
    assert {len(key) for key in keys} == {32}
