"""What kubectl says when it reaches no cluster, as a person is told it."""

from pathlib import Path

import pytest

from serving.operator.kubectl import CannotAsk, Place, Unreachable

LOGGED = 'E1123 memcache.go:265] "Unhandled Error" err="dial tcp 127.0.0.1:8080: connect: connection refused"\n' * 5
SUM = "The connection to the server localhost:8080 was refused - did you specify the right host or port?"
REFUSED = "Error from server: admission denied:\n* spec.traffic: it is none of the versions"


@pytest.mark.parametrize(
    ("stderr", "kind", "said"),
    [
        (LOGGED + SUM, Unreachable, f"set KUBECONFIG, or name one with --context. It says: {SUM}"),
        ("error: context was not found for specified context: x", Unreachable, "with --context"),
        (LOGGED.replace("127.0.0.1:8080", "10.0.0.1:6443"), Unreachable, "kubectl says: E1123"),
        (REFUSED, CannotAsk, f"kubectl says: {REFUSED}"),
    ],
    ids=["no kubeconfig", "no such context", "no answer", "a refusal in lines"],
)
def test_kubectls_words_become_a_sentence(
    stderr: str, kind: type[CannotAsk], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no cluster is set up, what to set is said, and none of what it logs on the way."""
    program = tmp_path / "kubectl"
    program.write_text(f"#!/bin/sh\n/bin/cat >&2 <<'END'\n{stderr}\nEND\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CannotAsk) as raised:
        Place().models()
    assert type(raised.value) is kind
    assert said in str(raised.value)
    assert str(raised.value).count("memcache.go") <= 1
