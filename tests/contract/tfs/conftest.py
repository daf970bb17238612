"""A model server that all tests share which change nothing about it."""

from collections.abc import Iterator

import pytest

from tests.contract.tfs.harness import (
    ADDRESS,
    FOREIGN,
    LITERT,
    OFFICIAL,
    QUICK,
    Server,
    add_version,
    already_running,
    folder,
    running,
)


def pytest_configure(config: pytest.Config) -> None:
    """Make the mark of harness.ours known."""
    config.addinivalue_line("markers", "ours(reason): is not asked of another model server than ours")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is ours alone where the suite runs against another server."""
    foreign = [item for item in items if FOREIGN and item.get_closest_marker("ours")]
    if foreign:
        config.hook.pytest_deselected(items=foreign)
        items[:] = [item for item in items if item not in foreign]


@pytest.fixture(scope="session")
def backend(request: pytest.FixtureRequest) -> str:
    """Name the runtime; a module that is marked `both_backends` runs once with each."""
    named: str = getattr(request, "param", OFFICIAL if FOREIGN else LITERT)
    return named


@pytest.fixture(scope="session")
def server(backend: str) -> Iterator[Server]:
    """Run a server with versions 1 and 2 of one model, both served."""
    if ADDRESS:
        with already_running() as found:
            yield found
        return
    with folder() as home:
        base_path = home / "arithmetic"
        for version in (1, 2):
            add_version(base_path, version)
        config = home / "models.config"
        config.write_text(
            f'model_config_list {{ config {{ name: "arithmetic" base_path: "{base_path}" model_platform: "tensorflow" '
            "model_version_policy { all {} } } }"
        )
        with running(f"--model_config_file={config}", *QUICK, backend=backend) as started:
            yield started
