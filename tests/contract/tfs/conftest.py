"""A model server that all tests share which change nothing about it."""

from collections.abc import Iterator

import pytest

from tests.contract.tfs.harness import QUICK, Server, add_version, folder, running


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Run a server with versions 1 and 2 of one model, both served."""
    with folder() as home:
        base_path = home / "arithmetic"
        for version in (1, 2):
            add_version(base_path, version)
        config = home / "models.config"
        config.write_text(
            f'model_config_list {{ config {{ name: "arithmetic" base_path: "{base_path}" model_platform: "tensorflow" '
            "model_version_policy { all {} } } }"
        )
        with running(f"--model_config_file={config}", *QUICK) as started:
            yield started
