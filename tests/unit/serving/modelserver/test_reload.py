"""A configuration file that is followed: applied again and again, and what is wrong with it told once."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from serving.modelserver.backend import Servable
from serving.modelserver.config import Batching
from serving.modelserver.lifecycle import Models
from serving.modelserver.reload import follow
from tests.unit.serving.modelserver.fakes import FakeModel


@pytest.fixture
async def models() -> AsyncIterator[Models]:
    """Make models whose every version loads."""
    made = Models(lambda _: Servable(FakeModel(), Batching()), poll_s=0.01)
    yield made
    await made.close()


async def until_applied(file: Path, models: Models, text: str, labels: dict[str, int] | None) -> None:
    """Follow a file until the labels are these, or for ten rounds if none are expected."""
    file.write_text(text)
    following = asyncio.create_task(follow(models, file, 0.001))
    async with asyncio.timeout(20):
        while labels is not None and models._models.get("m") is None:
            await asyncio.sleep(0.001)
        while labels is not None and models._models["m"].config.labels != labels:
            await asyncio.sleep(0.001)
    if labels is None:
        await asyncio.sleep(0.05)
    following.cancel()


async def test_follow_applies_a_label_once_its_version_is_available(models: Models, tmp_path: Path) -> None:
    """A label that had to wait for its version is set by reading the same file again; the reason is told once."""
    (tmp_path / "m" / "1").mkdir(parents=True)
    entry = f'name: "m" base_path: "{tmp_path / "m"}" model_platform: "tensorflow"'
    plain = f"model_config_list {{ config {{ {entry} }} }}"
    labelled = f'model_config_list {{ config {{ {entry} version_labels {{ key: "stable" value: 1 }} }} }}'
    file = tmp_path / "config"
    with capture_logs() as logs:
        await until_applied(file, models, labelled, None)
    assert [log["reason"] for log in logs if log["event"] == "configuration_not_reloaded"] == [
        "Request to assign label to version 1 of model m, which is not currently available for inference"
    ]
    await until_applied(file, models, plain, {})
    await until_applied(file, models, labelled, {"stable": 1})
    assert models.configured("m")


async def test_follow_keeps_what_was_good(models: Models, tmp_path: Path) -> None:
    """A file that breaks, or vanishes, changes nothing."""
    (tmp_path / "m" / "1").mkdir(parents=True)
    file = tmp_path / "config"
    good = f'model_config_list {{ config {{ name: "m" base_path: "{tmp_path / "m"}" model_platform: "tensorflow" }} }}'
    await until_applied(file, models, good, {})
    await until_applied(file, models, "nonsense {", None)
    assert models.configured("m")
