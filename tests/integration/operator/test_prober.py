"""The prober before the real model server, with the models of this repository."""

import asyncio
import json
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import grpc
import pytest
from aiohttp import web

from serving.operator import golden
from serving.operator.prober import TIMEOUTS_MAX, Prober, Question, State, Wrong, application
from serving.tfs.client import CallFailed, Client, Metadata, VersionStatus
from tests import committed
from tests.contract.tfs.harness import QUICK, ROOT, Server, folder, running

MODELS = ROOT / "models"
VERSIONS = {"cancer": committed.version("cancer"), "anemia": committed.version("anemia"), "broken": 1}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Run a server with both models, and a third one that cannot be loaded."""
    with folder() as home:
        (home / "broken" / "1").mkdir(parents=True)
        (home / "broken" / "1" / "model.tflite").write_bytes(b"no model")
        paths = {"cancer": MODELS / "cancer", "anemia": MODELS / "anemia", "broken": home / "broken"}
        entries = "".join(
            f'config {{ name: "{model}" base_path: "{path}" model_platform: "tensorflow" '
            f"model_version_policy {{ specific {{ versions: {VERSIONS[model]} }} }} }}"
            for model, path in paths.items()
        )
        config = home / "models.config"
        config.write_text(f"model_config_list {{ {entries} }}")
        with running(f"--model_config_file={config}", *QUICK) as started:
            yield started


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Client]:
    """Connect to the server."""
    async with Client(server.address) as connected:
        yield connected


@pytest.fixture
def version(tmp_path: Path) -> Path:
    """Copy a version folder, to be changed."""
    return Path(shutil.copytree(committed.folder("cancer"), tmp_path / str(VERSIONS["cancer"])))


def question(model: str = "cancer", *, at: Path | None = None, difference_max: float | None = None) -> Question:
    """Ask for the proof of the committed version."""
    return Question(model, VERSIONS[model], at or committed.folder(model), difference_max, required=True)


def change(version: Path, **answer: float) -> None:
    """Change what the first golden case expects."""
    path = version / "assets.extra" / "golden" / "cases.json"
    document = json.loads(path.read_text())
    document["cases"][0] |= {key: document["cases"][0][key] + difference for key, difference in answer.items()}
    path.write_text(json.dumps(document))


@pytest.mark.parametrize("model", ["cancer", "anemia"])
async def test_prober_is_ready_for_a_right_server(client: Client, model: str) -> None:
    """Loaded and right: the committed models pass their golden cases, several of each class."""
    cases = golden.load(committed.folder(model)).cases
    assert len(cases) >= 4
    prober = Prober(question(model), client)
    await prober.step()
    assert prober.state is State.SERVING


@pytest.mark.parametrize("output", ["probability", "ood_score"])
async def test_prober_refuses_a_wrong_answer(client: Client, version: Path, output: str) -> None:
    """An answer that differs more than the version's tolerance ends the prober, which names case and output."""
    change(version, **{output: 0.5})
    with pytest.raises(Wrong, match=f"{output} of .*png is 0.5 away") as wrong:
        await Prober(question(at=version), client).step()
    assert wrong.value.failure.reason == "GoldenTestFailed"


async def test_prober_honours_the_difference_of_the_spec(client: Client, version: Path) -> None:
    """spec.goldenTest.maxDifference takes the place of the version's own tolerance."""
    change(version, probability=0.01)
    prober = Prober(question(at=version, difference_max=0.02), client)
    await prober.step()
    assert prober.state is State.SERVING


async def test_prober_refuses_a_version_without_golden_cases(client: Client, version: Path) -> None:
    """Without a proof a version is not ready, unless the spec says that it needs none."""
    shutil.rmtree(version / "assets.extra" / "golden")
    with pytest.raises(Wrong) as wrong:
        await Prober(question(at=version), client).step()
    assert wrong.value.failure.reason == "NoGoldenCases"
    lenient = Prober(Question("cancer", VERSIONS["cancer"], version, None, required=False), client)
    await lenient.step()
    assert lenient.state is State.SERVING


async def test_prober_refuses_golden_cases_that_it_cannot_read(client: Client, version: Path) -> None:
    """A broken picture is no reason to skip the case."""
    next((version / "assets.extra" / "golden").glob("*.png")).write_bytes(b"no picture")
    with pytest.raises(Wrong) as wrong:
        await Prober(question(at=version), client).step()
    assert wrong.value.failure.reason == "GoldenCasesUnusable"


async def test_prober_tells_that_a_version_did_not_load(client: Client) -> None:
    """The server's own words about a version that failed are passed on."""
    with pytest.raises(Wrong) as wrong:
        await Prober(question("broken", at=committed.folder("cancer")), client).step()
    assert wrong.value.failure.reason == "LoadFailed"


async def test_prober_waits_for_a_version_that_is_not_there() -> None:
    """No server, or no such version yet, is a reason to look again, not to end."""
    with folder() as home:
        async with Client(f"unix:{home}/nobody") as client:
            prober = Prober(question(), client)
            await prober.step()
    assert prober.state is State.LOADING


async def test_prober_is_not_ready_once_the_server_is_gone(version: Path) -> None:
    """A server that dies takes the readiness with it, at the next look; when it is back it is tested again."""
    base_path = f"--model_base_path={version.parent}"
    with running(base_path, "--model_name=cancer", *QUICK) as server:
        async with Client(server.address) as client:
            prober = Prober(question(), client)
            states = []
            await prober.step()
            states.append(prober.state)
            server.process.kill()
            server.process.wait()
            await prober.step()
            states.append(prober.state)
    assert states == [State.SERVING, State.LOADING]


class Disturbed(Client):
    """A connection whose next questions for the state fail with these codes, one each."""

    codes: tuple[grpc.StatusCode, ...] = ()

    async def status(self, model: str, *, timeout_s: float, metadata: Metadata = ()) -> list[VersionStatus]:
        """Fail, or ask the server."""
        if self.codes:
            code, *rest = self.codes
            self.codes = tuple(rest)
            raise CallFailed(code, "")
        return await super().status(model, timeout_s=timeout_s, metadata=metadata)


LATE, GONE = grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("codes", "still"),
    [
        pytest.param([LATE] * TIMEOUTS_MAX, True, id="late for a while"),
        pytest.param([LATE] * (TIMEOUTS_MAX + 1), False, id="late for too long"),
        pytest.param([GONE], False, id="gone"),
        pytest.param([LATE, GONE], False, id="late, then gone"),
    ],
)
async def test_prober_bears_with_a_server_that_is_late(
    server: Server, codes: list[grpc.StatusCode], still: bool
) -> None:
    """A busy server keeps its readiness and is not tested anew, again and again; one that was away has both to earn."""
    async with Disturbed(server.address) as client:
        prober = Prober(question(), client)
        await prober.step()
        for _ in range(2):
            client.codes = tuple(codes)
            for _ in codes:
                await prober.step()
            assert (prober.state is State.SERVING) is still
            await prober.step()
            assert prober.state is State.SERVING
    passed = prober.registry.get_sample_value("healthguard_golden_tests_total", {"result": "passed"})
    assert passed == (1 if still else 3)


async def test_prober_answers_the_kubelet(client: Client) -> None:
    """/readyz follows the state, /livez does not, and /metrics tells of both."""
    prober = Prober(question(), client)
    runner = web.AppRunner(application(prober))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    try:
        async with aiohttp.ClientSession(f"http://{host}:{port}") as session:
            assert [(await session.get(path)).status for path in ("/livez", "/readyz")] == [200, 503]
            await prober.step()
            assert [(await session.get(path)).status for path in ("/livez", "/readyz")] == [200, 200]
            text = await (await session.get("/metrics")).text()
    finally:
        await runner.cleanup()
    assert 'healthguard_golden_tests_total{result="passed"} 1.0' in text
    assert "healthguard_model_server_ready 1.0" in text


async def test_prober_command_ends_with_an_error_where_the_version_is_wrong(server: Server, version: Path) -> None:
    """As a process it exits with 1 and one log line that says why, and that is all it takes."""
    change(version, probability=0.01)
    asked = ["--model=cancer", f"--version={version.name}", f"--folder={version}"]
    arguments = [*asked, f"--target={server.address}", "--port=0"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "serving.operator.prober", *arguments, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 1
    assert json.loads(output.splitlines()[-1])["reason"] == "GoldenTestFailed"
