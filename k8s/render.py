"""
Write k8s/base and k8s/overlays from the chart, for people without Helm: `python k8s/render.py HELM`.

Helm's hooks are Helm's. Of them the Job that makes the secrets stays, as a plain Job: it is safe to run beside
everything else, which waits for what it makes. Those that bring CRDs up to date or take leave are `kubectl` commands
here, and the test is Helm's alone.
"""

# ruff: noqa: S603, T201 - a command for the terminal, which starts Helm

import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
CHART = ROOT / "helm" / "healthguard"
OVERLAYS = ("dev", "staging", "production")
SITE = {"production": ["--set=ingress.host=healthguard.your.domain"]}
"""What a profile demands and cannot know: it stands there to be replaced by a patch."""
NOT_HERE = frozenset({"crds", "leave", "test"})
HEAD = "# Written by `python k8s/render.py` from helm/healthguard; a test holds it equal. Change the chart, not this.\n"
_HELM_S = 60

Manifest = dict[str, Any]


def files(helm: Path) -> dict[Path, str]:
    """Return the files under k8s/ that come from the chart, by path from there."""
    made = {Path("base/healthguard.yaml"): _text(helm)}
    for profile in OVERLAYS:
        made[Path("overlays") / profile / "healthguard.yaml"] = _text(helm, profile)
    return made


def _text(helm: Path, profile: str | None = None) -> str:
    values = [f"--values={CHART / 'values' / f'{profile}.yaml'}"] if profile else []
    command = [
        str(helm),
        "template",
        "healthguard",
        str(CHART),
        "--namespace=healthguard",
        *values,
        *SITE.get(profile or "", []),
    ]
    rendered = subprocess.run(command, capture_output=True, text=True, timeout=_HELM_S, check=True).stdout
    kept = [plain(one) for one in yaml.safe_load_all(rendered) if one and component(one) not in NOT_HERE]
    return HEAD + yaml.safe_dump_all(kept, sort_keys=True, width=120)


def component(manifest: Manifest) -> str:
    """Return the part of the product that an object belongs to."""
    return str(manifest["metadata"]["labels"]["app.kubernetes.io/component"])


def plain(manifest: Manifest) -> Manifest:
    """Return an object without what only Helm understands: its own annotations and labels, on pods' templates too."""
    made: Manifest = _without_helm(manifest)
    made["metadata"]["labels"]["app.kubernetes.io/managed-by"] = "kustomize"
    return made


def _without_helm(part: Any) -> Any:
    if isinstance(part, list):
        return [_without_helm(one) for one in part]
    if not isinstance(part, dict):
        return part
    kept = {key: _without_helm(value) for key, value in part.items() if not str(key).startswith("helm.sh/")}
    return {key: value for key, value in kept.items() if not (key == "annotations" and value == {})}


def main() -> None:
    """Write the files."""
    for path, text in files(Path(sys.argv[1])).items():
        target = ROOT / "k8s" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        print(f"wrote k8s/{path}")


if __name__ == "__main__":
    main()
