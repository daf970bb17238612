"""Render the charts with the pinned Helm, and look into what comes out."""

import functools
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster import tools

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "healthguard"
CRDS_CHART = ROOT / "helm" / "healthguard-crds"
PROFILES = ("dev", "staging", "production", "airgapped")
RELEASE, NAMESPACE = "hg", "clinic"
SITE = {"production": {"ingress": {"host": "clinic.example"}}}
"""What a profile demands of a site, and cannot know."""
_HELM_S = 60

Manifest = dict[str, Any]
Values = dict[str, Any]


class Refused(Exception):
    """Helm refused the values; the message is what a person reads."""


def template(values: Values | None = None, *profiles: str, chart: Path = CHART) -> list[Manifest]:
    """
    Return the objects that the chart renders.

    Raises:
        Refused: it does not.
    """
    return [dict(found) for found in yaml.safe_load_all(text(values, *profiles, chart=chart)) if found]


def text(values: Values | None = None, *profiles: str, chart: Path = CHART) -> str:
    """
    Return what `helm template` writes, notes among it.

    Raises:
        Refused: it refuses the values.
    """
    return _rendered(json.dumps(merged(_site(profiles), values or {}), sort_keys=True), profiles, chart)


def _site(profiles: tuple[str, ...]) -> Values:
    return functools.reduce(merged, (SITE.get(profile, {}) for profile in profiles), {})


def upgraded(values: Values) -> list[Manifest]:
    """Return the objects that an upgrade renders."""
    command = [str(_helm()), "template", RELEASE, str(CHART), f"--namespace={NAMESPACE}", "--is-upgrade", "--values=-"]
    run = subprocess.run(command, input=json.dumps(values), capture_output=True, text=True, timeout=_HELM_S, check=True)
    return [dict(found) for found in yaml.safe_load_all(run.stdout) if found]


def notes(values: Values | None = None, *profiles: str) -> str:
    """Return what Helm tells a person who has installed."""
    files = [part for profile in profiles for part in ("--values", str(CHART / "values" / f"{profile}.yaml"))]
    command = [str(_helm()), "install", RELEASE, str(CHART), "--dry-run=client", *files, "--values=-"]
    given = json.dumps(merged(_site(profiles), values or {}))
    run = subprocess.run(command, input=given, capture_output=True, text=True, timeout=_HELM_S, check=True)
    return run.stdout.partition("NOTES:")[2]


@functools.cache
def _rendered(values: str, profiles: tuple[str, ...], chart: Path) -> str:
    files = [part for profile in profiles for part in ("--values", str(chart / "values" / f"{profile}.yaml"))]
    command = [str(_helm()), "template", RELEASE, str(chart), f"--namespace={NAMESPACE}", *files, "--values=-"]
    run = subprocess.run(command, input=values, capture_output=True, text=True, timeout=_HELM_S, check=False)
    if run.returncode:
        raise Refused(run.stderr)
    return run.stdout


def _helm() -> Path:
    try:
        return tools.program("helm", module="helm4")
    except tools.Unavailable as reason:
        pytest.skip(str(reason))


def lint(chart: Path, *profiles: str) -> str:
    """
    Return what `helm lint --strict` says.

    Raises:
        Refused: it found something.
    """
    files = [part for profile in profiles for part in ("--values", str(chart / "values" / f"{profile}.yaml"))]
    command = [str(_helm()), "lint", "--strict", str(chart), *files, "--values=-"]
    site = json.dumps(_site(profiles))
    run = subprocess.run(command, input=site, capture_output=True, text=True, timeout=_HELM_S, check=False)
    if run.returncode:
        raise Refused(run.stdout + run.stderr)
    return run.stdout


def of_kind(manifests: list[Manifest], kind: str) -> dict[str, Manifest]:
    """Return the objects of a kind, by name."""
    return {found["metadata"]["name"]: found for found in manifests if found["kind"] == kind}


def pod_specs(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Yield every pod that the objects make, hooks' and tests' too: what it is called, and its spec."""
    for found in manifests:
        name = f"{found['kind']}/{found['metadata']['name']}"
        if found["kind"] == "Pod":
            yield name, found["spec"]
        elif "template" in found.get("spec", {}):
            yield name, found["spec"]["template"]["spec"]


def containers(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Yield every container, with what it is called."""
    for name, spec in pod_specs(manifests):
        for container in (*spec.get("initContainers", ()), *spec["containers"]):
            yield f"{name}/{container['name']}", container


def merged(base: Values, over: Values) -> Values:
    """Return *base* with *over* over it, as Helm merges values."""
    result = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result
