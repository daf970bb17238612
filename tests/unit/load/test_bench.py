"""What the benchmark sends, and what it makes of what it measured."""

import asyncio
import time
from pathlib import Path
from xml.etree import ElementTree as Xml

import numpy as np
import pytest

from serving.tfs.protos import PredictRequest
from serving.tfs.tensors import to_array
from tests.load.bench import jpegs
from tests.load.bench.http_load import Caller, Ended, Forms
from tests.load.bench.jpegs import DecodedJpegs, Jpegs
from tests.load.bench.picture import svg
from tests.load.bench.pictures import DIFFERENT, Pictures, Requests
from tests.load.bench.result import Case, Limit, StackCase, Start, document
from tests.load.bench.table import markdown

MEASURED = {"images_per_s": 100.0, "alone_p50_ms": 9.0, "cpu_ms": 9.0}


def case(**changed: float) -> tuple[Limit, Case]:
    """Return a limit of 120 images per second and a point beside it, on two cores."""
    limit = Limit.of("litert", "small", MEASURED, {**MEASURED, "images_per_s": 120.0})
    point = {
        "concurrency": 8,
        "requests": 300,
        "rps": 90.0,
        "p50_ms": 10.0,
        "p99_ms": 20.0,
        "errors": {},
        "generator_cpu_ms": 1.0,
        "server_cpu_ms": 10.0,
        "others_cores": 0.1,
        **changed,
    }
    return limit, Case.of(limit, point, cores=2)


def test_requests_are_never_alike() -> None:
    """Each request is a whole PredictRequest with a picture that was not sent before, also after the first round."""
    requests = Requests("m")
    arrays = []
    for _ in range(DIFFERENT * 2 + 1):
        request = PredictRequest.FromString(requests.next())
        assert request.model_spec.name == "m"
        arrays.append(to_array(request.inputs["image"]))
    assert arrays[0].shape == (1, 224, 224, 3)
    assert len({array.tobytes() for array in arrays}) == len(arrays)


def test_pictures_are_never_alike() -> None:
    """The bare loop gets other pictures too, of the shape that the models take."""
    pictures = Pictures()
    seen = {pictures.next().tobytes() for _ in range(DIFFERENT * 2 + 1)}
    assert len(seen) == DIFFERENT * 2 + 1
    assert pictures.next().dtype == np.uint8


def test_case_is_a_share_of_the_better_limit() -> None:
    """The share is of the higher of both limits; beside the generator, of what that leaves of two cores."""
    limit, found = case()
    assert (limit.images_per_s, limit.before, limit.after) == (120.0, 100.0, 120.0)
    assert found.share_of_limit == 0.75
    assert found.share_beside_generator == round(0.75 / (1 - 0.09 / 2), 3)
    assert found.p50_over_bare_ms == 1.0
    assert found.cpu_share == round(9 / 11, 3)


def test_results_are_written_as_json_table_and_picture() -> None:
    """Every case is in each form, and the picture is XML."""
    limit, found = case()
    start = Start("litert", ready_s=1.0, rss_mb=100.0, pss_mb=80.0)
    written = document({"cores": 2}, [limit], [found], [start])
    assert written["limit"]["litert/small"]["images_per_s"] == 120.0
    assert written["cases"][0]["rps"] == 90.0
    assert "| modelserver | litert | small | 8 | 90.0 | 0.75 |" in markdown([limit], [found], [start])
    bars = Xml.fromstring(svg([found, found])).findall("{http://www.w3.org/2000/svg}rect")
    assert len(bars) == 2


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a few JPEGs."""
    for number in range(3):
        picture = np.random.default_rng(number).integers(0, 256, (224, 224, 3), dtype=np.uint8)
        (tmp_path / f"{number}.jpg").write_bytes(jpegs.encoded(picture))
    return tmp_path


def test_jpegs_are_never_alike(folder: Path) -> None:
    """Neither as files nor as the pixels that a model gets."""
    source = DecodedJpegs(Jpegs.read(folder))
    seen = {source.next().tobytes() for _ in range(60)}
    assert len(seen) == 60


async def test_forms_are_read_by_the_generator_to_their_end(folder: Path) -> None:
    """Each caller sends whole requests one after the other, whatever pieces the answers come in, and counts them."""
    received = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            received.append(await reader.readexactly(length))
            status = b"503 No" if len(received) == 2 else b"201 Yes"
            for piece in (b"HTTP/1.1 " + status, b"\r\nContent-Length: 2\r\n", b"\r\n{", b"}"):
                writer.write(piece)
                await asyncio.sleep(0)
            if len(received) == 3:
                writer.close()
                return

    forms, ended = Forms("/predict", "token", Jpegs.read(folder)), Ended(b"201")
    async with await asyncio.start_server(answer, "127.0.0.1") as server:
        port = server.sockets[0].getsockname()[1]
        _, caller = await asyncio.get_running_loop().create_connection(
            lambda: Caller(forms, ended, time.perf_counter() + 30), "127.0.0.1", port
        )
        await asyncio.wait_for(caller.done, 20)
    assert len({body for body in received if body.endswith(b"--\r\n")}) == 3
    assert (len(ended.took), ended.errors) == (2, {"503": 1, "closed": 1})


def test_stack_case_tells_what_is_beyond_the_limit() -> None:
    """HTTP and gRPC are what gateway and model server take beyond decoding and the forward pass."""
    limit = Limit.of("litert", "small", MEASURED, MEASURED, "224.jpg")
    point = {
        "concurrency": 32,
        "requests": 900,
        "rps": 85.0,
        "p50_ms": 300.0,
        "p99_ms": 400.0,
        "errors": {},
        "cpu_ms": {"gateway": 1.0, "modelserver": 9.5, "records": 0.5, "postgres": 0.2, "generator": 0.1},
        "phase_ms": {"save": 5.0},
        "others_cores": 0.0,
    }
    found = StackCase.of(limit, point, stack="full", cores=2)
    assert (found.share_of_limit, found.beyond_limit_cpu_ms) == (0.85, 1.5)
    written = document({}, [limit], [found], [])
    assert written["limit"]["litert/small/224.jpg"]["images_per_s"] == 100.0
    assert written["cases"][0]["cpu_ms_per_request"]["records"] == 0.5
    assert "| full | small | 224.jpg | 32 | 85.0 | 0.85 |" in markdown([limit], [found], [])
