"""The `healthguard rollout …` commands, and `healthguard models status`, as a person and a program meet them."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from models import commands as models_commands
from serving.operator import rollout_cli
from serving.operator.told import model_lines

MESSAGE = "Version 4 answers 25 % of the requests: 34 of 50 requests measured."
OBSERVED = {"requests": 34, "errorRate": 0.0, "p99Ms": 41.5, "agreement": 1.0}


def rollout(phase: str = "Progressing", percent: int = 25, message: str = MESSAGE, version: int = 4) -> dict[str, Any]:
    """Return what a status says of a rollout."""
    return {
        "version": version,
        "phase": phase,
        "startedAt": "2026-11-22T10:00:00Z",
        "canaryPercent": percent,
        "message": message,
        "observed": OBSERVED,
    }


def a_model(found: dict[str, Any] | None = None, **status: Any) -> dict[str, Any]:
    """Return a ServedModel whose version 4 is on trial."""
    condition = {"type": "Ready", "status": "True", "reason": "Serving", "message": "So.", "observedGeneration": 7}
    versions = [
        {"version": 3, "state": "Serving", "ready": 4, "replicas": 4},
        {"version": 4, "state": "Serving", "ready": 1, "replicas": 1},
    ]
    told = {
        "conditions": [condition],
        "versions": versions,
        "traffic": [{"version": 3, "percent": 75.5}, {"version": 4, "percent": 24.5}],
        "answering": 3,
    }
    return {
        "metadata": {"name": "cancer", "generation": 7},
        "spec": {"traffic": {"stable": 3, "canary": {"version": 4}}},
        "status": told | ({"rollout": found} if found else {}) | status,
    }


class Cluster:
    """A `kubectl` that answers one thing after the other, the last one again and again, and notes what it was asked."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        script = folder / "kubectl"
        script.write_text(
            f"#!{sys.executable}\n"
            "import pathlib, sys\n"
            f"folder = pathlib.Path({str(folder)!r})\n"
            "with (folder / 'asked').open('a') as asked:\n"
            "    asked.write(' '.join(sys.argv[1:]) + '\\n')\n"
            "answers = sorted(folder.glob('answer-*'))\n"
            "text = answers[0].read_text()\n"
            "if len(answers) > 1 and sys.argv[1] == 'get':\n"
            "    answers[0].unlink()\n"
            "status, _, body = text.partition('\\n')\n"
            "print(body, file=sys.stderr if int(status) else sys.stdout)\n"
            "sys.exit(int(status))\n"
        )
        script.chmod(0o755)

    def answers(self, *documents: dict[str, Any] | str) -> None:
        """Have it answer so; a text is an error."""
        for index, document in enumerate(documents):
            text = f"1\n{document}" if isinstance(document, str) else f"0\n{json.dumps(document)}"
            (self._folder / f"answer-{index}").write_text(text)

    @property
    def asked(self) -> list[str]:
        """What it was asked, a line each."""
        return (self._folder / "asked").read_text().splitlines()


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """Return a cluster that is reached by kubectl, and looked at without pauses."""
    found = Cluster(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(rollout_cli, "LOOK_S", 0)
    return found


def call(*words: str) -> tuple[int, str]:
    """Run a rollout command; return its exit code and what it says."""
    done = CliRunner().invoke(rollout_cli.app, list(words))
    return done.exit_code, done.output


def test_status_tells_each_change_until_it_is_promoted(cluster: Cluster) -> None:
    """A line with the phase, the share, why and what was measured; the same again is not said."""
    going, over = a_model(rollout()), a_model(rollout("Promoted", 100, "All of them."))
    cluster.answers(going, going, going, over)
    code, output = call("status", "cancer")
    lines = [line[10:] for line in output.splitlines()]
    assert code == 0
    assert lines[0] == f"Progressing  25 %  {MESSAGE}  [34 calls, 0.00% failed, p99 41.5 ms, 100.00% agree]"
    assert [line.split()[0] for line in lines] == ["Progressing", "Promoted"]


def test_status_of_what_was_taken_back_is_a_failure(cluster: Cluster) -> None:
    """A pipeline stops there."""
    cluster.answers(a_model(rollout("RolledBack", 0, "It erred.")))
    code, output = call("status", "cancer", "--no-watch")
    assert (code, "It erred." in output) == (1, True)


def test_status_is_not_watched_for_ever(cluster: Cluster) -> None:
    """A rollout that nobody asks anything may take days."""
    cluster.answers(a_model(rollout("Paused")))
    code, output = call("status", "cancer", "--timeout", "1")
    assert (code, "not over after 1 seconds" in output) == (1, True)


@pytest.mark.parametrize("verb", ["promote", "abort", "pause", "resume"])
def test_word_is_written_for_the_version_on_trial(cluster: Cluster, verb: str) -> None:
    """Both annotations at once: the word, and which rollout of which version it means."""
    cluster.answers(a_model(rollout()))
    code, output = call(verb, "cancer", "--namespace", "clinic", "--context", "east")
    assert (code, output) == (0, f"The operator was told to {verb} version 4 of cancer.\n")
    assert cluster.asked[-1] == (
        "annotate servedmodels.serving.healthguard.io cancer "
        f"serving.healthguard.io/rollout={verb} serving.healthguard.io/rollout-version=4@2026-11-22T10:00:00Z "
        "--overwrite --output=json --namespace=clinic --context=east --request-timeout=20s"
    )


@pytest.mark.parametrize(
    ("model", "words"),
    [
        pytest.param(a_model(), (), id="none is under way"),
        pytest.param(a_model(rollout(version=2)), (), id="that of the canary before"),
        pytest.param(a_model(rollout()), ("--version", "5"), id="another version is meant"),
        pytest.param(a_model(rollout("RolledBack")), (), id="it is over"),
    ],
)
def test_word_that_would_do_nothing_is_not_written(
    cluster: Cluster, model: dict[str, Any], words: tuple[str, ...]
) -> None:
    """It would lie there until a rollout comes that it was not meant for."""
    cluster.answers(model)
    code, _ = call("promote", "cancer", *words)
    assert code == 1
    assert not any("annotate" in line for line in cluster.asked)


@pytest.mark.parametrize("found", [rollout("RolledBack", 0), None], ids=["taken back", "no rollout"])
def test_resume_clears_an_abort_that_was_left(cluster: Cluster, found: dict[str, Any] | None) -> None:
    """One that names no rollout would take the same version back again; there is no other command for it."""
    model = a_model(found)
    model["metadata"]["annotations"] = {"serving.healthguard.io/rollout": "abort"}
    cluster.answers(model)
    code, output = call("resume", "cancer")
    assert (code, "was cleared" in output) == (0, True)
    assert " serving.healthguard.io/rollout=resume --overwrite " in cluster.asked[-1]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ('Error from server (NotFound): servedmodels "cancer" not found', 1),
        ("The connection to the server 127.0.0.1:1 was refused: connection refused", 3),
    ],
)
def test_what_kubectl_says_is_told(cluster: Cluster, error: str, code: int) -> None:
    """With an exit code by which a script knows whether there was anybody."""
    cluster.answers(error)
    found, output = call("status", "cancer")
    assert (found, error in output) == (code, True)


def test_missing_kubectl_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was tried."""
    monkeypatch.setenv("PATH", str(tmp_path))
    code, output = call("status", "cancer")
    assert (code, "needs kubectl" in output) == (2, True)


def test_name_that_is_none_reaches_no_kubectl(cluster: Cluster) -> None:
    """It might be taken for an option, such as one that deletes."""
    code, _ = call("status", "--", "--all")
    assert code == 1
    assert not (Path(os.environ["PATH"].split(os.pathsep)[0]) / "asked").exists()


def test_messages_cannot_steer_the_terminal(cluster: Cluster) -> None:
    """They repeat what servers and files said."""
    cluster.answers(a_model(rollout("RolledBack", 0, "It \x1b[2Jerred.")))
    assert "\x1b" not in call("status", "cancer")[1]


def test_models_status_shows_versions_split_and_rollout() -> None:
    """A headline, a line for each version, and the rollout."""
    assert model_lines(a_model(rollout())) == [
        "cancer: ready",
        "  v3     answers  Serving    4/4 pods     75.5 % of the answers",
        "  v4     canary   Serving    1/1 pods     24.5 % of the answers",
        f"  rollout: Progressing  25 %  {MESSAGE}  [34 calls, 0.00% failed, p99 41.5 ms, 100.00% agree]",
    ]


def test_models_status_says_what_is_wrong() -> None:
    """The reason and the message of Ready, and that the newest spec was not looked at."""
    condition = {
        "type": "Ready",
        "status": "False",
        "reason": "DigestMismatch",
        "message": "Why.",
        "observedGeneration": 6,
    }
    lines = model_lines(a_model(conditions=[condition]))
    assert lines[0] == "cancer: not ready, its newest spec not looked at yet"
    assert lines[-1] == "  DigestMismatch: Why."
    new = {"metadata": {"name": "cancer", "generation": 1}, "spec": {"traffic": {"stable": 3}}}
    assert model_lines(new)[-1] == "  Unknown: the operator has not told yet"


def test_models_status_says_that_an_approval_is_over() -> None:
    """Although all is well otherwise; what Ready says already is not said twice."""
    over = {"type": "Approved", "status": "False", "reason": "ApprovalExpired", "message": "It is over."}
    model = a_model()
    ready = model["status"]["conditions"][0]
    model["status"]["conditions"] = [ready, over]
    assert model_lines(model)[0] == "cancer: ready"
    assert model_lines(model)[-1] == "  ApprovalExpired: It is over."
    refused = ready | {"status": "False", "reason": "ApprovalExpired", "message": "It is over."}
    model["status"]["conditions"] = [refused, over]
    assert model_lines(model).count("  ApprovalExpired: It is over.") == 1


def test_models_status_of_a_cluster(cluster: Cluster) -> None:
    """All models, or one of them; for a program, a JSON line each."""
    cluster.answers({"items": [a_model(), a_model(rollout())]})
    done = CliRunner().invoke(models_commands.app, ["status", "--json"])
    assert done.exit_code == 0
    assert [json.loads(line)["name"] for line in done.output.splitlines()] == ["cancer"] * 2
    cluster.answers(a_model())
    done = CliRunner().invoke(models_commands.app, ["status", "cancer"])
    assert done.output.splitlines()[0] == "cancer: ready"
