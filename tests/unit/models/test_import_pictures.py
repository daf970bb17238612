"""Pictures that a person gives are bounded before they are held."""

from pathlib import Path

import pytest
from PIL import Image

from models.importing import pictures
from models.importing.request import CannotImport


def test_pictures_that_memory_would_not_hold_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are counted at the size of the network's input, before one is read."""
    for label in ("No", "Yes"):
        (tmp_path / label).mkdir()
        for number in range(pictures.PER_CLASS_MIN):
            Image.new("RGB", (4, 4)).save(tmp_path / label / f"{number}.png")
    needed = 2 * pictures.PER_CLASS_MIN * 16 * 16 * 3
    monkeypatch.setattr(pictures, "_HELD_BYTES_MAX", needed)
    assert len(pictures.labelled(tmp_path, ("No", "Yes"), (16, 16)).images) == 2 * pictures.PER_CLASS_MIN
    monkeypatch.setattr(pictures, "_HELD_BYTES_MAX", needed - 1)
    with pytest.raises(CannotImport, match="fewer pictures"):
        pictures.labelled(tmp_path, ("No", "Yes"), (16, 16))


def test_fewer_golden_cases_are_drawn_of_large_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small pictures come in full number, large ones as memory allows."""
    assert len(pictures.golden(None, (16, 16))) == pictures.DRAWN
    monkeypatch.setattr(pictures, "_HELD_BYTES_MAX", 4 * 10 * 16 * 16 * 3)
    assert len(pictures.golden(None, (16, 16))) == 10
