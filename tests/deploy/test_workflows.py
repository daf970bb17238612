"""The workflows of .github: what linters say of them, and what must hold that no linter knows."""

import json
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster import tools
from tests.deploy.charts import ROOT, template

GITHUB = ROOT / ".github"
FILES = sorted([*GITHUB.glob("workflows/*.yaml"), *GITHUB.glob("actions/*/action.yaml")])
WORKFLOWS: dict[str, Any] = {path.stem: yaml.safe_load(path.read_text()) for path in GITHUB.glob("workflows/*.yaml")}
DEPLOY: dict[str, Any] = yaml.safe_load((GITHUB / "actions" / "deploy" / "action.yaml").read_text())
PINNED = re.compile(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
PATH_IN_A_LINE = re.compile(r"(?<![\w./$-])(?:k8s|helm|tests|\.ci)/[\w./-]*\w")
_LINT_S = 60


def _tool(name: str) -> str:
    found = shutil.which(name, path=sysconfig.get_path("scripts")) or shutil.which(name)
    assert found, f"{name} is not installed: it belongs to the extra dev"
    return found


def _jobs() -> Iterator[tuple[str, dict[str, Any]]]:
    for workflow, document in WORKFLOWS.items():
        for name, job in document["jobs"].items():
            yield f"{workflow}/{name}", job


def _steps() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, job in _jobs():
        yield from ((name, step) for step in job.get("steps", ()))
    yield from (("deploy", step) for step in DEPLOY["runs"]["steps"])


def _lines() -> Iterator[tuple[str, str]]:
    yield from ((name, step["run"]) for name, step in _steps() if "run" in step)


def _actionlint(project: Path) -> str:
    options = [f"-shellcheck={_tool('shellcheck')}", "-pyflakes=", "-no-color"]
    files = [str(path) for path in sorted(project.glob(".github/workflows/*.yaml"))]
    command = [str(tools.program("actionlint")), *options, *files]
    run = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=_LINT_S, check=False)
    assert run.returncode in {0, 1}, run.stderr
    return run.stdout


def _zizmor(project: Path) -> list[str]:
    """Return what its sternest persona finds, by the rules' names; it asks no network."""
    options = ["--offline", "--strict-collection", "--persona=auditor", "--format=json", "--quiet"]
    command = [_tool("zizmor"), *options, str(project / ".github")]
    run = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=_LINT_S, check=False)
    assert run.stdout, run.stderr
    return [finding["ident"] for finding in json.loads(run.stdout)]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Copy .github, to be spoilt."""
    shutil.copytree(GITHUB, tmp_path / ".github")
    (tmp_path / ".git").mkdir()
    return tmp_path


def _spoil(project: Path, file: str, good: str, bad: str) -> None:
    path = project / ".github" / file
    assert good in path.read_text()
    path.write_text(path.read_text().replace(good, bad))


def test_actionlint_finds_nothing() -> None:
    """Names, expressions, inputs and, by shellcheck, every line that a shell runs."""
    assert _actionlint(ROOT) == ""


@pytest.mark.parametrize(
    ("good", "bad", "says"),
    [
        ("needs: [push, attest]", "needs: [push, attests]", "attests"),
        ("profile: staging", "profil: staging", "profil"),
        ("steps.release.outputs", "steps.releases.outputs", "releases"),
        ('go install "$SYFT"', "go install $SYFT", "SC2086"),
        ("runs-on: ubuntu-24.04", "runs-on: ubuntu-24.05", "ubuntu-24.05"),
    ],
)
def test_actionlint_finds_a_mistake(project: Path, good: str, bad: str, says: str) -> None:
    """The silence above is worth something."""
    _spoil(project, "workflows/delivery.yaml", good, bad)
    assert says in _actionlint(project)


def test_shellcheck_finds_nothing_in_the_composite_action() -> None:
    """Actionlint reads workflows only."""
    for step in DEPLOY["runs"]["steps"]:
        if "run" in step:
            assert step["shell"] == "bash"
            command = [_tool("shellcheck"), "--shell=bash", "-"]
            run = subprocess.run(command, input=step["run"], capture_output=True, text=True, timeout=60, check=False)
            assert run.stdout == ""


def test_zizmor_finds_nothing() -> None:
    """Nor its auditor persona."""
    assert _zizmor(ROOT) == []


@pytest.mark.parametrize(
    ("good", "bad", "rule"),
    [
        ("persist-credentials: false", "persist-credentials: true", "artipacked"),
        ("permissions: {}", "permissions: write-all", "excessive-permissions"),
        ("run: make check", "run: make check ${{ github.head_ref }}", "template-injection"),
        ("@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1", "@v7", "unpinned-uses"),
        ("  pull_request:", "  pull_request_target:", "dangerous-triggers"),
    ],
)
def test_zizmor_finds_a_mistake(project: Path, good: str, bad: str, rule: str) -> None:
    """The silence above is worth something."""
    _spoil(project, "workflows/ci.yaml", good, bad)
    assert rule in _zizmor(project)


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.parent.name + "/" + path.name)
def test_every_action_is_pinned_by_commit(file: Path) -> None:
    """A tag can be moved to other code; the version is a comment for people and for Dependabot."""
    used = re.findall(r"uses: (\S.*)", file.read_text())
    assert [one for one in used if not one.startswith("./") and not PINNED.fullmatch(one)] == []


def test_an_action_has_one_version_everywhere() -> None:
    """Two would mean that one was forgotten."""
    used = {one for file in FILES for one in re.findall(r"uses: ([^.\s].*)", file.read_text())}
    assert len({one.split("@")[0] for one in used}) == len(used)


def test_permissions_are_given_per_job_and_written_ones_to_few() -> None:
    """Whoever runs a pull request's code can write nothing; only what signs or deploys may ask for an identity."""
    assert all(document["permissions"] == {} for document in WORKFLOWS.values())
    assert [name for name, job in _jobs() if "permissions" not in job] == []
    writers = {name for name, job in _jobs() if "write" in job["permissions"].values()}
    assert writers == {
        "delivery/push",
        "delivery/attest",
        "delivery/staging",
        "delivery/production",
        "rollback/rollback",
    }
    known = {name for name, job in _jobs() if "id-token" in job["permissions"]}
    assert known == writers - {"delivery/push"}


def test_secrets_are_read_inside_environments_alone() -> None:
    """An environment's rules say who and which branch may have them; a repository's secret has no such rule."""
    assert [name for name, job in _jobs() if "secrets." in json.dumps(job) and "environment" not in job] == []


def test_every_job_ends() -> None:
    """GitHub's own limit is six hours."""
    assert [name for name, job in _jobs() if "uses" not in job and not 0 < job.get("timeout-minutes", 0) <= 90] == []


def test_nothing_is_deployed_twice_at_once_or_interrupted() -> None:
    """A Helm that is ended in the middle leaves a release that is neither."""
    delivery, rollback = WORKFLOWS["delivery"], WORKFLOWS["rollback"]
    for environment in ("staging", "production"):
        group = {"group": f"deploy-{environment}", "cancel-in-progress": False}
        assert delivery["jobs"][environment]["concurrency"] == group
    assert rollback["concurrency"] == {"group": "deploy-${{ inputs.environment }}", "cancel-in-progress": False}
    assert delivery["concurrency"]["cancel-in-progress"] is False


def test_no_line_of_a_shell_has_an_expression_in_it() -> None:
    """What GitHub puts into a line is code there; in a variable it is text."""
    assert [(name, line) for name, line in _lines() if "${{" in line] == []


def test_every_target_that_a_job_makes_exists() -> None:
    """`make --dry-run` knows."""
    targets = {target for _, line in _lines() for target in re.findall(r"\bmake (\S+)", line)}
    assert {"check", "images"} <= targets
    for target in targets:
        assert _make(target).returncode == 0, target
    assert _make("no-such-target").returncode != 0


def _make(target: str) -> subprocess.CompletedProcess[str]:
    command = ["make", "--dry-run", target]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=_LINT_S, check=False)


def test_every_file_that_a_job_names_exists() -> None:
    """A renamed folder of tests must not leave a job that runs nothing."""
    named = {path for _, line in _lines() for path in PATH_IN_A_LINE.findall(line)}
    assert {"tests/deploy", "k8s/delivery/deploy.py", "k8s/kind/cluster.yaml"} <= named
    written = {path for path in named if path.startswith("helm/healthguard/values")}
    assert [path for path in named - written if not (ROOT / path).exists()] == []


def test_the_official_server_is_the_charts() -> None:
    """The contract is held against the very release that the chart installs, and models are served by it on kind."""
    image = WORKFLOWS["ci"]["jobs"]["kind"]["env"]["HEALTHGUARD_TFS_IMAGE"]
    assert '"HEALTHGUARD_TFS_IMAGE"' in (ROOT / "tests" / "contract" / "tfs" / "harness.py").read_text()
    values = yaml.safe_load((ROOT / "k8s" / "kind" / "values.yaml").read_text())
    rendered = template(values, "dev")
    operator = next(one for one in rendered if one["kind"] == "ConfigMap" and one["metadata"]["name"] == "hg-operator")
    assert operator["data"]["OPERATOR_TENSORFLOW_SERVING_IMAGE"] == image
    models = [one for one in rendered if one["kind"] == "ServedModel"]
    assert [one["spec"]["runtime"]["name"] for one in models] == ["tensorflow-serving"] * 2


def test_production_gets_what_staging_ran() -> None:
    """The same steps with the same release, after staging, which comes after all else; nothing is built again."""
    jobs = WORKFLOWS["delivery"]["jobs"]
    assert jobs["production"]["needs"] == "staging"
    assert set(jobs["staging"]["needs"]) == {"push", "attest"}
    assert jobs["push"]["needs"] == "ci"
    staging = json.loads(
        json.dumps(jobs["staging"]["steps"]).replace('"profile": "staging"', '"profile": "production"')
    )
    assert jobs["production"]["steps"] == staging
    assert [name for name, line in _lines() if "make images" in line] == ["ci/images"]
