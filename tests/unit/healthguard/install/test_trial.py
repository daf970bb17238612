"""What `helm test` makes of models that are its own, and of those that come from elsewhere."""

import json
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from healthguard.client import Client
from healthguard.install import __main__ as commands
from healthguard.install import trial
from healthguard.install.trial import NotRight, Served


def golden(folder: Path, *versions: int) -> Path:
    """Write golden cases of these versions of `cancer`, as the models image has them."""
    for version in versions:
        place = folder / "cancer" / str(version) / "assets.extra" / "golden"
        place.mkdir(parents=True)
        (place / "cases.json").write_text(json.dumps({"cases": [{"file": f"{version}.png", "label": "negative"}]}))
    return folder


def test_case_is_of_the_version_that_answers(tmp_path: Path) -> None:
    """Not of the newest that the image has: that one may not be served yet, or no more."""
    folder = golden(tmp_path, 1, 2)
    found = trial._case(folder, Served("cancer", 1))
    assert found == (folder / "cancer/1/assets.extra/golden/1.png", "negative")
    assert trial._case(folder, Served("cancer", 3)) is None


def try_skin(folder: Path, ends_at: float, *statuses: int) -> tuple[bool, list[str], list[str]]:
    """Try `skin`, of which there are no cases, against a gateway that answers so; return what was told and called."""
    left, called, told = list(statuses), list[str](), list[str]()

    def answer(request: httpx.Request) -> httpx.Response:
        called.append(request.url.path)
        assert request.headers["Authorization"] == "Bearer t"
        return httpx.Response(left.pop(0), json={})

    transport = httpx.MockTransport(answer)
    with httpx.Client(base_url="http://gateway.test", transport=transport) as http:
        client = Client("http://gateway.test", "t", transport=transport)
        predicted = trial._try(client, http, "t", Served("skin", 7), golden=folder, ends_at=ends_at, tell=told.append)
    return predicted, told, called


def test_model_without_cases_is_only_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A third model must not fail the release, and nobody must believe that it was asked."""
    monkeypatch.setattr(trial, "_POLL_S", 0.0)
    predicted, told, called = try_skin(golden(tmp_path, 2), float("inf"), 503, 404, 200)
    assert not predicted
    assert called == ["/v2/models/skin/versions/7/ready"] * 3
    assert told == ["skin: ready; the models image has no golden cases of version 7 to predict with"]


def test_model_that_does_not_get_ready_fails(tmp_path: Path) -> None:
    """Having no cases is no excuse for not being there."""
    with pytest.raises(NotRight, match="skin: version 7 did not become ready"):
        try_skin(tmp_path, float("-inf"), 503)


@pytest.mark.parametrize("text", ["cancer", "@2", "cancer@", "cancer@two"])
def test_model_is_named_with_its_version(text: str, tmp_path: Path) -> None:
    """Else it is not known which golden cases are meant."""
    told = CliRunner().invoke(commands.app, ["test", "--url=http://g", f"--model={text}", f"--golden={tmp_path}"])
    assert told.exit_code == 2
    assert "--model" in told.output
