"""API keys: form, checksum and hash."""

import re
import secrets

from hypothesis import given
from hypothesis import strategies as st

from auth.api_keys import ALPHABET, checksum, hash_of, is_well_formed, new_key, prefix_of


def test_new_key_has_the_agreed_form() -> None:
    """A mark, 22 random characters, an underscore, a checksum of six."""
    assert re.fullmatch(r"hg_live_[0-9A-Za-z]{22}_[0-9A-Za-z]{6}", new_key())


def test_new_keys_differ_and_hold() -> None:
    """Every key is well-formed and none comes twice."""
    keys = {new_key() for _ in range(200)}

    assert len(keys) == 200
    assert all(is_well_formed(key) for key in keys)


@given(st.integers(min_value=8, max_value=29), st.sampled_from(ALPHABET))
def test_changed_character_is_noticed(place: int, character: str) -> None:
    """One wrong character anywhere in the random part is found by the checksum."""
    key = new_key()
    changed = key[:place] + character + key[place + 1 :]

    assert is_well_formed(changed) is (changed == key)


@given(st.text(max_size=64))
def test_text_is_no_key(text: str) -> None:
    """Whatever else is sent in a key's place is not one."""
    assert not is_well_formed(text)


def test_random_keys_do_not_pass() -> None:
    """Of a hundred thousand inventions of the right form none has the right checksum (2 in 100,000 runs would)."""
    invented = (f"hg_live_{secrets.token_hex(11)}_{secrets.token_hex(3)}" for _ in range(100_000))

    assert sum(map(is_well_formed, invented)) <= 1


def test_checksum_is_the_crc_in_base_62() -> None:
    """The checksum of the standard's check string is 0xCBF43926."""
    digits = checksum("123456789")
    value = 0
    for digit in digits:
        value = value * 62 + ALPHABET.index(digit)

    assert value == 0xCBF43926


def test_shown_prefix_leaves_the_secret_secret() -> None:
    """Four of 22 random characters are shown, and the hash is not the key."""
    key = new_key()

    assert prefix_of(key) == key[:12]
    assert len(hash_of(key)) == 32
