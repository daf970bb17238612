"""The distribution: what it is made of, how it is pinned, and what it must not collide with."""

import ast
import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
APART = {"build", "dev", "train", "tensorflow", "clients"}
"""Locks of environments of their own, or of what others are compared with."""
WITH_TENSORFLOW = {"train", "tensorflow"}
"""Training, and the model server for whoever wants TensorFlow behind it."""

# The packages that carry the main path, each by the file in which it does its part.
MAIN_PATH = {
    "fastapi": "healthguard/http.py",
    "tensorflow-serving-api": "serving/tfs/",
    "grpcio": "serving/tfs/client.py",
    "asyncpg": "healthguard/database.py",
    "sqlmodel": "records/tables.py",
    "pyjwt": "healthguard/tokens.py",
    "argon2-cffi": "auth/passwords.py",
    "prometheus-client": "healthguard/metrics.py",
    "opentelemetry-sdk": "healthguard/telemetry.py",
    "kopf": "serving/operator/handlers.py",
    "pytest": "tests/",
}
MODULES = {
    "tensorflow-serving-api": "tensorflow_serving",
    "grpcio": "grpc",
    "pyjwt": "jwt",
    "argon2-cffi": "argon2",
    "prometheus-client": "prometheus_client",
    "opentelemetry-sdk": "opentelemetry.sdk",
}


@pytest.mark.parametrize(("package", "place"), MAIN_PATH.items(), ids=list(MAIN_PATH))
def test_main_path_is_carried_by_the_package(package: str, place: str) -> None:
    """Each package asked for is a dependency, and is imported where its role is."""
    path = ROOT / place
    files = [path] if path.is_file() else [file for file in path.rglob("*.py") if "migrations" not in file.parts]
    module = MODULES.get(package, package)
    extras = PROJECT["project"]["optional-dependencies"].values()
    wanted = [*PROJECT["project"]["dependencies"], *(name for extra in extras for name in extra)]
    assert any(module in _imported(file) for file in files), f"nothing under {place} imports {module}"
    assert package in {re.split(r"[\[<>=; ]", name)[0] for name in wanted}


def _imported(file: Path) -> set[str]:
    """Return every module that a file imports, with the packages above it; words in comments and texts are none."""
    found = set()
    for node in ast.walk(ast.parse(file.read_bytes())):
        match node:
            case ast.Import(names):
                found |= {alias.name for alias in names}
            case ast.ImportFrom(module=str(module), names=names, level=0):
                found |= {f"{module}.{alias.name}" for alias in names}
    return {".".join(parts[:end]) for name in found if (parts := name.split(".")) for end in range(1, len(parts) + 1)}


def test_imported_is_what_is_imported(tmp_path: Path) -> None:
    """A word in a comment, a text or a relative import does not count; a part of a package counts for the package."""
    file = tmp_path / "a.py"
    file.write_text(
        "# import kopf\n'import jwt'\nfrom .grpc import x\nfrom opentelemetry.sdk import trace\nimport a.b\n"
    )
    names = {"opentelemetry", "opentelemetry.sdk", "opentelemetry.sdk.trace", "a", "a.b"}
    assert _imported(file) == names


def test_no_installed_distribution_provides_our_module_names() -> None:
    """A package of the same name from the index would be imported instead of ours, or ours instead of it."""
    ours = set(PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) | {"tests"}
    providers = importlib.metadata.packages_distributions()
    assert {name: providers[name] for name in ours & providers.keys() if providers[name] != ["healthguard"]} == {}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_lock_pins_every_package_by_hash_and_names_no_host(lock: Path) -> None:
    """A lock is complete, and works with whatever index a site has."""
    text = lock.read_text()
    entries = re.split(r"\n(?=[a-z0-9])", text.strip())
    assert [entry for entry in entries if not re.search(r"^\S+==\S+.*\\\n    --hash=sha256:", entry)] == []
    assert "://" not in text
    assert not re.search(r"^-", text, re.MULTILINE)


@pytest.mark.parametrize("lock", [lock for lock in LOCKS if lock.stem not in APART], ids=lambda p: p.stem)
def test_locks_agree_with_what_is_tested(lock: Path) -> None:
    """Each service's lock holds the very versions that the tests run with."""
    pin = re.compile(r"^([a-z0-9._-]+==\S+)", re.MULTILINE)
    assert set(pin.findall(lock.read_text())) <= set(pin.findall((ROOT / "requirements/dev.txt").read_text()))


@pytest.mark.parametrize("lock", [lock for lock in LOCKS if lock.stem not in WITH_TENSORFLOW], ids=lambda p: p.stem)
def test_no_service_needs_tensorflow(lock: Path) -> None:
    """TensorFlow comes only where it is asked for; the stubs of its serving API come without it."""
    assert not re.search(r"^(tensorflow|tensorflow-cpu|keras)==", lock.read_text(), re.MULTILINE)
