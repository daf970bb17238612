"""The `healthguard models …` commands as a person and a program meet them."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from healthguard import approval
from healthguard.terminal import short
from models import __main__ as training
from models import artifact, commands, signing
from tests.unit.models.test_diff import MODELS, stable
from tests.unit.models.test_import_litert import network
from tests.unit.models.test_verification import keys

__all__ = ["keys"]


def call(*words: str) -> tuple[int, str]:
    """Run a command; return its exit code and what it says."""
    done = CliRunner().invoke(commands.app, list(words))
    return done.exit_code, done.output


def told(monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[int, Any]:
    """Run a command for a program; return its exit code and its JSON."""
    # How our caller wants its errors is read from the command line of the process.
    monkeypatch.setattr(sys, "argv", ["healthguard", "models", *words, "--json"])
    code, output = call(*words, "--json")
    return code, json.loads(output.splitlines()[-1])


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """Return a foreign LiteRT file."""
    path = tmp_path / "foreign.tflite"
    path.write_bytes(network())
    return path


def test_list_names_every_version_and_which_is_served() -> None:
    """Both models of this repository, with what they are."""
    code, output = call("list", "--models", str(MODELS))
    assert code == 0
    lines = {line.split()[0]: line for line in output.splitlines()}
    for model in ("anemia", "cancer"):
        assert "stable in servedmodel.yaml" in lines[f"{model}/{stable(model).name}"]


def test_list_for_a_program_is_json(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same as objects."""
    code, found = told(monkeypatch, "list", "--models", str(MODELS))
    assert code == 0
    assert {each["model"] for each in found} >= {"anemia", "cancer"}


def test_card_prints_the_card() -> None:
    """The first line says what it is for."""
    code, output = call("card", str(stable("cancer")))
    assert code == 0
    assert output.startswith((stable("cancer") / "assets.extra" / "card.md").read_text()[:60])


def test_card_of_nothing_is_a_sentence(tmp_path: Path) -> None:
    """A typing error is told as one."""
    code, output = call("card", str(tmp_path / "7"))
    assert code == 2
    assert "No such file" in output


def test_card_cannot_steer_the_terminal(tmp_path: Path) -> None:
    """A card is somebody else's text."""
    (tmp_path / "assets.extra").mkdir()
    (tmp_path / "assets.extra" / "card.md").write_text("A\x1b[2Jcard\nof\ttwo")
    code, output = call("card", str(tmp_path))
    assert (code, output) == (0, "A\N{REPLACEMENT CHARACTER}[2Jcard\nof\ttwo\n")


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a" * (artifact.CARD_BYTES_MAX + 1)])
def test_card_that_is_no_text_is_a_sentence(tmp_path: Path, content: bytes) -> None:
    """Neither a crash nor a flood."""
    (tmp_path / "assets.extra").mkdir()
    (tmp_path / "assets.extra" / "card.md").write_bytes(content)
    code, output = call("card", str(tmp_path))
    assert code == 1
    assert "card.md" in output


def test_list_of_nothing_says_so(tmp_path: Path) -> None:
    """An empty answer looks like a fault."""
    assert call("list", "--models", str(tmp_path)) == (0, f"There is no version in {tmp_path}.\n")


@pytest.mark.parametrize("command", ["sign", "approve"])
def test_wrong_key_is_told_as_one(keys: Path, command: str) -> None:
    """A public key where the private one belongs: exit code 2, and nothing is written."""
    words = {"sign": (), "approve": ("--signer", "A", "--intended-use", "B", "--expires", "2999-01-01")}[command]
    code, output = call(command, str(stable("cancer")), "--key", str(keys / "ours.pub"), *words)
    assert code == 2
    assert "key cannot be used" in output
    assert not approval.beside(stable("cancer")).exists()
    assert not signing.beside(stable("cancer")).exists()


@pytest.mark.parametrize("option", ["--signer", "--intended-use"])
def test_approval_says_who_and_what_for(keys: Path, option: str) -> None:
    """An approval by nobody, or for nothing, is none."""
    said = {"--signer": "A", "--intended-use": "B", option: " "}
    words = [word for pair in said.items() for word in pair]
    key = ("--key", str(keys / "ours.pem"), "--expires", "2999-01-01")
    code, output = call("approve", str(stable("cancer")), *key, *words)
    assert code == 2
    assert option in output


def test_verify_tells_and_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Exit code 0 for what is right, 1 for what is not, with the same checks for a program."""
    assert call("verify", str(stable("cancer")))[0] == 0
    code, found = told(monkeypatch, "verify", str(stable("cancer")), "--digest", "sha256:" + "0" * 64)
    assert (code, found["passed"]) == (1, False)
    assert found["checks"][0]["passed"] is False


def test_import_sign_approve_verify(foreign: Path, keys: Path, tmp_path: Path) -> None:
    """The whole way of a model: in, signed, approved, and then verified with both required."""
    home = tmp_path / "home"
    wishes = ("--task", "binary", "--labels", "No,Yes", "--name", "third", "--scaling", "unit", "--out", str(home))
    code, output = call("import", str(foreign), *wishes)
    assert code == 0, output
    folder = str(home / "third" / "1")
    key = ("--key", str(keys / "ours.pem"))
    approving = ("--signer", "Dr A", "--intended-use", "A trial", "--expires", "2999-01-01")
    assert call("sign", folder, *key)[0] == 0
    assert call("approve", folder, *key, *approving)[0] == 0
    required = ("--key", str(keys / "ours.pub"), "--require-signature", "--require-approval")
    code, output = call("verify", folder, *required)
    assert code == 0, output
    assert "Dr A" in output


def test_tampered_version_cannot_be_signed(foreign: Path, keys: Path, tmp_path: Path) -> None:
    """A signature over changed bytes would make them right."""
    home = tmp_path / "home"
    wishes = ("--task", "binary", "--labels", "No,Yes", "--name", "third", "--scaling", "unit", "--out", str(home))
    assert call("import", str(foreign), *wishes)[0] == 0
    (home / "third" / "1" / "assets.extra" / "card.md").write_text("A wonder.")
    code, output = call("sign", str(home / "third" / "1"), "--key", str(keys / "ours.pem"))
    assert code == 1
    assert "card.md was changed" in output
    assert not (home / "third" / "1.signature.json").exists()


def test_tampered_version_cannot_be_approved(foreign: Path, keys: Path, tmp_path: Path) -> None:
    """Nobody vouches for bytes that are not what the manifest says."""
    home = tmp_path / "home"
    wishes = ("--task", "binary", "--labels", "No,Yes", "--name", "third", "--scaling", "unit", "--out", str(home))
    assert call("import", str(foreign), *wishes)[0] == 0
    folder = home / "third" / "1"
    (folder / "assets.extra" / "card.md").write_text("A wonder.")
    code, output = call(
        "approve", str(folder), "--key", str(keys / "ours.pem"), "--signer", "A", "--intended-use", "B",
        "--expires", "2999-01-01",
    )  # fmt: skip
    assert code == 1
    assert "card.md was changed" in output
    assert not (home / "third" / "1.approval.json").exists()


@pytest.mark.parametrize(
    ("wishes", "named"),
    [
        (("--task", "guess"), "--task"),
        (("--scaling", "half"), "--scaling"),
        (("--input-size", "big"), "--input-size"),
        (("--thresholds", "a,b"), "--thresholds"),
        (("--recommend", "Yes"), "--recommend"),
    ],
)
def test_wrong_option_is_told_by_its_name(foreign: Path, wishes: tuple[str, ...], named: str) -> None:
    """Exit code 2: nothing was tried."""
    usual = ("--task", "binary", "--labels", "No,Yes", "--name", "third")
    code, output = call("import", str(foreign), *usual, *wishes)
    assert code == 2
    assert named in output


def test_refused_import_is_told_to_a_program(foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 1, and the sentence as JSON."""
    code, found = told(
        monkeypatch, "import", str(foreign), "--task", "binary", "--labels", "No,Yes", "--name", "third",
        "--out", str(tmp_path),
    )  # fmt: skip
    assert code == 1
    assert "--scaling" in found["error"]["message"]


@pytest.mark.parametrize("day", ["tomorrow", "2020-01-01"])
def test_approval_needs_a_day_to_come(keys: Path, day: str) -> None:
    """An approval that is over when it is given is a mistake."""
    code, output = call(
        "approve", str(stable("cancer")), "--key", str(keys / "ours.pem"), "--signer", "A", "--intended-use", "B",
        "--expires", day,
    )  # fmt: skip
    assert code == 2
    assert "--expires" in output
    assert not approval.beside(stable("cancer")).exists()


def test_diff_compares_two_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    """With itself, all agree; in words and for a program."""
    folder = str(stable("cancer"))
    pictures = f"{folder}/assets.extra/golden"
    code, output = call("diff", folder, folder, pictures)
    assert code == 0
    assert "100.0 %" in output
    code, found = told(monkeypatch, "diff", folder, folder, pictures)
    assert (code, found["agreement"]) == (0, 1.0)


def test_list_vouches_for_nothing(tmp_path: Path) -> None:
    """A file beside a version, whatever is in it, is told as there, not as right."""
    shutil.copytree(stable("cancer"), tmp_path / "cancer" / "2")
    approval.beside(tmp_path / "cancer" / "2").write_text("{}")
    assert "an approval is there, not checked" in call("list", "--models", str(tmp_path))[1]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("list", "--models", "/nowhere"), 1, "There is no folder /nowhere"),
        (("card", str(MODELS / "cancer")), 2, f"is a model: name a version of it, {short(stable('cancer'))}"),
        (("diff", "/nowhere", str(stable("cancer")), "."), 2, "There is no folder /nowhere"),
        (("diff", str(stable("cancer")), str(stable("cancer")), "/nowhere"), 2, "There is no folder /nowhere"),
        (("diff", str(MODELS / "cancer"), str(stable("cancer")), "."), 2, "name a version of it"),
        (("verify", str(stable("cancer")), "--key", "/nowhere"), 2, "/nowhere: No such file"),
        (("verify", str(stable("cancer")), "--key", str(MODELS / "catalog.py")), 2, "The key cannot be used"),
    ],
)
def test_wrong_place_is_a_sentence(words: tuple[str, ...], code: int, said: str) -> None:
    """It names what was meant, and not what a library stumbled over."""
    found = call(*words)
    assert (found[0], said in found[1]) == (code, True), found[1]


def test_training_without_tensorflow_names_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """A person is told what to call it with, not which import failed."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(SystemExit, match=r"venv-train/bin/python"):
        training.main(["time", "cancer"])
