"""
Bring what is served by default in line with the models of this repository: `python helm/models.py`.

models/*/servedmodel.yaml says which versions there are and which of them answers; the chart's values and the compose
file say the same in their own words. Only these words are changed, so that what people read around them stays.
"""

# ruff: noqa: T201 - a command, not a package

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
VALUES = ROOT / "helm" / "healthguard" / "values.yaml"
COMPOSE = ROOT / "docker-compose.yaml"


def manifests() -> dict[str, dict[str, Any]]:
    """Return the specs of the repository's models, by name."""
    found = (yaml.safe_load(path.read_text()) for path in sorted((ROOT / "models").glob("*/servedmodel.yaml")))
    return {one["metadata"]["name"]: one["spec"] for one in found}


def values(text: str, models: dict[str, dict[str, Any]]) -> str:
    """Return values.yaml with the versions and the traffic of *models*."""
    for name, spec in models.items():
        block = re.compile(
            rf"(^  {name}:\n    enabled: .*?\n      versions:\n)(.*?)(^      traffic: ).*?$", re.M | re.S
        )
        lines = "".join(
            f"        - version: {one['version']}\n"
            f"          storageUri: {one['storageUri']}\n"
            f"          digest: {one['digest']}\n"
            for one in spec["versions"]
        )
        traffic = ", ".join(f"{key}: {value}" for key, value in spec["traffic"].items())
        text, count = block.subn(rf"\g<1>{lines}\g<3>{{{traffic}}}", text)
        if count != 1:
            raise SystemExit(f"values.yaml has no entry of {name} that could be changed")
    return text


def compose(text: str, models: dict[str, dict[str, Any]]) -> str:
    """Return docker-compose.yaml with the stable versions of *models*."""
    for name, spec in models.items():
        stable = spec["traffic"]["stable"]
        text = re.sub(rf'(name: "{name}".*versions: )\d+', rf"\g<1>{stable}", text)
        text = re.sub(rf'("name": "{name}", "stable": )\d+', rf"\g<1>{stable}", text)
    return text


def main() -> None:
    """Write both files."""
    for path, changed in ((VALUES, values), (COMPOSE, compose)):
        path.write_text(changed(path.read_text(), manifests()))
        print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
