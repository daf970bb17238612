"""
Bring a release of the chart to a cluster, try it, and go back where it fails: `python k8s/delivery/deploy.py`.

Helm itself goes back when an upgrade does not become ready. What it does not notice, a model that is not Ready or a
product that answers wrongly, is found here by waiting for the models and by `helm test`, and ends in a rollback to the
revision that was deployed before.
"""

# ruff: noqa: S603, T201 - a command for the terminal, which starts helm and kubectl

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_MINUTE = 60


class Failed(Exception):
    """A command failed; the message says which, and its own output says why."""


@dataclass(frozen=True)
class Release:
    """What is installed where."""

    name: str
    namespace: str
    minutes: int
    """How long each step may take."""

    @property
    def timeout(self) -> str:
        """Minutes, as helm and kubectl read them."""
        return f"{self.minutes}m"


def upgrade_command(release: Release, chart: str, files: Sequence[str], helm: str, *, keep: bool = False) -> list[str]:
    """
    Return the command that installs or upgrades.

    Args:
        helm: what `helm version --short` says.
        keep: leave what does not become ready, to be looked at.
    """
    go_back = [] if keep else ["--atomic" if helm.startswith("v3.") else "--rollback-on-failure"]
    values = [f"--values={file}" for file in files]
    place = [f"--namespace={release.namespace}", "--create-namespace"]
    limits = ["--wait", f"--timeout={release.timeout}", "--history-max=10"]
    return ["helm", "upgrade", "--install", release.name, chart, *place, *values, *go_back, *limits]


def proof_commands(release: Release) -> list[list[str]]:
    """Return the commands that show that the release works: Helm 3 does not wait for models, so kubectl does."""
    place = [f"--namespace={release.namespace}", f"--timeout={release.timeout}"]
    mine = f"--selector=app.kubernetes.io/instance={release.name}"
    return [
        ["kubectl", "wait", "servedmodels.serving.healthguard.io", mine, "--for=condition=Ready", *place],
        ["helm", "test", release.name, *place],
    ]


def rollback_command(release: Release, revision: int) -> list[str]:
    """Return the command that goes back to *revision*."""
    place = [f"--namespace={release.namespace}", f"--timeout={release.timeout}"]
    return ["helm", "rollback", release.name, str(revision), "--wait", *place]


def good_revision(history: Sequence[dict[str, Any]]) -> int | None:
    """Return the revision that is deployed, by `helm history --output=json`; None before the first install."""
    deployed = [int(entry["revision"]) for entry in history if entry["status"] == "deployed"]
    return max(deployed, default=None)


def run(command: Sequence[str], minutes: int) -> None:
    """
    Run *command*, with its output on ours.

    Raises:
        Failed: it failed, or took longer than its own limit would have let it.
    """
    print(f"+ {' '.join(command)}", flush=True)
    try:
        subprocess.run(command, check=True, timeout=(minutes + 2) * _MINUTE)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as exc:
        raise Failed(f"{' '.join(command[:2])} failed") from exc


def history_command(release: Release) -> list[str]:
    """Return the command that lists the release's revisions."""
    return ["helm", "history", release.name, f"--namespace={release.namespace}", "--output=json"]


def _history(release: Release) -> list[dict[str, Any]]:
    """
    Return the release's revisions; none where it is not installed.

    Raises:
        Failed: the cluster does not say. To take that for a first install would leave nothing to go back to.
    """
    command = history_command(release)
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_MINUTE)
    if done.returncode and "release: not found" in done.stderr:
        return []
    if done.returncode:
        raise Failed(f"helm history failed: {done.stderr.strip()[-400:]}")
    history: list[dict[str, Any]] = json.loads(done.stdout)
    return history


def _helm_version() -> str:
    command = ["helm", "version", "--short"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=_MINUTE).stdout


def upgrade(release: Release, chart: str, files: Sequence[str], *, keep: bool = False) -> None:
    """
    Install or upgrade, prove it, and go back to what was deployed before if the proof fails, unless told to *keep*.

    Raises:
        Failed: the release does not work; the one before is deployed again, if there was one.
    """
    before = good_revision(_history(release))
    run(upgrade_command(release, chart, files, _helm_version(), keep=keep), release.minutes)
    try:
        for command in proof_commands(release):
            run(command, release.minutes)
    except Failed:
        if before is not None and not keep:
            run(rollback_command(release, before), release.minutes)
        raise


def go_back(release: Release, revision: int) -> None:
    """
    Go back to a revision that a person chose, and prove it.

    Raises:
        Failed: it does not work either.
    """
    for command in [rollback_command(release, revision), *proof_commands(release)]:
        run(command, release.minutes)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0].strip())
    parser.add_argument("--name", default="healthguard", help="the release (default: %(default)s)")
    parser.add_argument("--namespace", default="healthguard", help="default: %(default)s")
    parser.add_argument("--minutes", type=int, default=15, help="limit of each step (default: %(default)s)")
    commands = parser.add_subparsers(dest="command", required=True)
    bring = commands.add_parser("upgrade", help="install or upgrade")
    bring.add_argument("chart", help="folder or package of the chart")
    bring.add_argument("--values", action="append", default=[], metavar="FILE", help="may be given several times")
    bring.add_argument("--keep", action="store_true", help="leave what fails as it is, to be looked at")
    back = commands.add_parser("rollback", help="go back")
    back.add_argument("revision", type=int, help="as helm history numbers them")
    return parser.parse_args(arguments)


def main() -> None:
    """Do what the command line asks for."""
    options = parse()
    release = Release(options.name, options.namespace, options.minutes)
    try:
        if options.command == "upgrade":
            upgrade(release, options.chart, options.values, keep=options.keep)
        else:
            go_back(release, options.revision)
    except Failed as exc:
        sys.exit(str(exc))


if __name__ == "__main__":
    main()
