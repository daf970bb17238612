"""What the benchmark sends, and what it makes of what it measured."""

from xml.etree import ElementTree as Xml

import numpy as np

from serving.tfs.protos import PredictRequest
from serving.tfs.tensors import to_array
from tests.load.bench.picture import svg
from tests.load.bench.pictures import DIFFERENT, Pictures, Requests
from tests.load.bench.result import Case, Limit, Start, document
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
