"""The secrets of an installation."""

import json
import re
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from healthguard.local import keys
from healthguard.local.keys import Keys, KeysLost
from healthguard.local.stack import ROOT


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_keys_are_made_once_and_only_for_us(tmp_path: Path) -> None:
    """The second call returns the first one's secrets; nobody else can read them; no two installations share one."""
    path = tmp_path / "secrets.json"
    made = keys.load_or_make(path, data_exists=False)
    assert keys.load_or_make(path, data_exists=True) == made
    assert _mode(path) == 0o600
    other = keys.load_or_make(tmp_path / "other.json", data_exists=False)
    assert set(json.loads(path.read_text()).values()).isdisjoint(vars_of(other))
    assert repr(made) == "Keys()"


def vars_of(found: Keys) -> list[str]:
    """Return the values of all secrets."""
    return [getattr(found, name) for name in Keys.__slots__]


def test_keys_of_a_later_version_are_added(tmp_path: Path) -> None:
    """A secret that an earlier version did not know is made, and the others stay."""
    path = tmp_path / "secrets.json"
    made = keys.load_or_make(path, data_exists=False)
    known = json.loads(path.read_text())
    del known["image_hmac_key"]
    path.write_text(json.dumps(known))
    again = keys.load_or_make(path, data_exists=True)
    assert replace(again, image_hmac_key=made.image_hmac_key) == made
    assert keys.load_or_make(path, data_exists=True) == again


@pytest.mark.parametrize("content", [None, "", "[]", "{"], ids=["missing", "empty", "a list", "broken"])
def test_keys_are_not_made_anew_where_data_exists(tmp_path: Path, content: str | None) -> None:
    """New secrets would lock the data for good."""
    path = tmp_path / "secrets.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(KeysLost):
        keys.load_or_make(path, data_exists=True)


def test_no_secret_stands_in_the_code() -> None:
    """Nothing secret has a default value: every field of the secrets is a draw."""
    source = (ROOT / "healthguard" / "local" / "keys.py").read_text()
    assert len(re.findall(r": str = field\(default_factory=_(?:password|key), repr=False\)", source)) == len(
        Keys.__slots__
    )
