"""
Ask a cluster through `kubectl`, for the commands of people.

Whoever looks after a cluster has it, set up with their clouds' log-in helpers, contexts and proxies; a client of our
own would have to learn all of them again.
"""

import json
import re
import subprocess
from dataclasses import dataclass
from typing import Any

from serving.operator.spec import GROUP, NAME_PATTERN, PLURAL

Object = dict[str, Any]

TIMEOUT_S = 30
_RESOURCE = f"{PLURAL}.{GROUP}"
_UNSET = re.compile(r"localhost:8080|no configuration has been provided|context was not found", re.IGNORECASE)
"""What kubectl says that was told of no cluster: it tries the port 8080 of this machine then."""
_UNREACHABLE = re.compile(r"connection refused|unable to connect|no such host|timed? ?out|i/o timeout", re.IGNORECASE)


class CannotAsk(Exception):
    """The cluster was not asked, or refused; the text is a sentence for people."""


class NotInstalled(CannotAsk):
    """There is no kubectl."""


class Unreachable(CannotAsk):
    """Nothing answers where the cluster should be."""


@dataclass(frozen=True)
class Place:
    """Which cluster and namespace; empty: as kubectl is set up."""

    namespace: str = ""
    context: str = ""

    def _words(self) -> list[str]:
        # As one word each, so that a value can never be taken for an option.
        found = [f"--namespace={self.namespace}"] if self.namespace else []
        return found + ([f"--context={self.context}"] if self.context else [])

    def models(self) -> list[Object]:
        """
        Return all ServedModels, by name.

        Raises:
            CannotAsk: as the class says.
        """
        found: list[Object] = self._ask("get", _RESOURCE, "--output=json")["items"]
        return sorted(found, key=lambda model: str(model["metadata"]["name"]))

    def model(self, name: str) -> Object:
        """
        Return one ServedModel.

        Raises:
            CannotAsk: as the class says; there is none of this name.
        """
        return self._ask("get", _RESOURCE, _checked(name), "--output=json")

    def annotate(self, name: str, annotations: dict[str, str]) -> None:
        """
        Set annotations of a ServedModel.

        Raises:
            CannotAsk: as the class says.
        """
        words = [f"{key}={value}" for key, value in annotations.items()]
        self._ask("annotate", _RESOURCE, _checked(name), *words, "--overwrite", "--output=json")

    def _ask(self, *words: str) -> Object:
        """
        Run kubectl, and return what it prints.

        Raises:
            CannotAsk: as the class says.
        """
        command = ["kubectl", *words, *self._words(), f"--request-timeout={TIMEOUT_S - 10}s"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)  # noqa: S603
        except FileNotFoundError:
            raise NotInstalled("This command needs kubectl, which is not installed here.") from None
        except subprocess.TimeoutExpired:
            raise Unreachable(f"kubectl had no answer within {TIMEOUT_S} seconds.") from None
        if done.returncode:
            raise _refusal(done.stderr)
        found: Object = json.loads(done.stdout)
        return found


def _refusal(stderr: str) -> CannotAsk:
    """Return what kubectl's words mean; where it reaches nothing, its last line sums up what it logs before."""
    said = stderr.strip()[-500:] or "nothing"
    last = said.splitlines()[-1]
    if _UNSET.search(stderr):
        return Unreachable(f"kubectl reaches no cluster: set KUBECONFIG, or name one with --context. It says: {last}")
    if _UNREACHABLE.search(stderr):
        return Unreachable(f"kubectl says: {last}")
    return CannotAsk(f"kubectl says: {said}")


def _checked(name: str) -> str:
    """
    Return the name of a model.

    Raises:
        CannotAsk: no model can have this name; kubectl might take it for an option.
    """
    if not re.fullmatch(NAME_PATTERN.strip("^$"), name):
        raise CannotAsk("A model's name has small letters, digits and hyphens, and begins with a letter.")
    return name
