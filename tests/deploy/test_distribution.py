"""The distribution: what it is made of, how it is pinned, and what it must not collide with."""

import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))

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
    """Each package asked for is a dependency and is used where its role is."""
    path = ROOT / place
    files = [path] if path.is_file() else [file for file in path.rglob("*.py") if "migrations" not in file.parts]
    module = re.escape(MODULES.get(package, package))
    used = [file for file in files if re.search(rf"\b{module}\b", file.read_text())]
    extras = PROJECT["project"]["optional-dependencies"].values()
    wanted = [*PROJECT["project"]["dependencies"], *(name for extra in extras for name in extra)]
    assert used, f"nothing under {place} uses {package}"
    assert package in {re.split(r"[\[<>=; ]", name)[0] for name in wanted}


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


@pytest.mark.parametrize(
    "lock", [lock for lock in LOCKS if lock.stem not in {"build", "dev", "train"}], ids=lambda p: p.stem
)
def test_locks_agree_with_what_is_tested(lock: Path) -> None:
    """Each service's lock holds the very versions that the tests run with."""
    pin = re.compile(r"^([a-z0-9._-]+==\S+)", re.MULTILINE)
    assert set(pin.findall(lock.read_text())) <= set(pin.findall((ROOT / "requirements/dev.txt").read_text()))


@pytest.mark.parametrize("lock", [lock for lock in LOCKS if lock.stem != "train"], ids=lambda p: p.stem)
def test_no_service_needs_tensorflow(lock: Path) -> None:
    """TensorFlow is for training alone; the stubs of its serving API come without it."""
    assert not re.search(r"^(tensorflow|tensorflow-cpu|keras)==", lock.read_text(), re.MULTILINE)
