"""The life of versions, as GetModelStatus tells it: found, swapped, rolled back, failed."""

import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from serving.modelserver.warmup import masked_crc
from serving.tfs.protos import PredictionLog, PredictLog, PredictRequest
from tests.contract.tfs.harness import (
    ARITHMETIC,
    QUICK,
    SAVED_MODEL,
    Server,
    add_version,
    floats,
    folder,
    ours,
    request,
    running,
    slow,
    wait_until,
)

ROW = floats((1, 2))


@pytest.fixture
def base_path() -> Iterator[Path]:
    """Make a model's folder with version 1."""
    with folder() as home:
        add_version(home / "arithmetic", 1)
        yield home / "arithmetic"


@pytest.fixture
def server(base_path: Path) -> Iterator[Server]:
    """Run a server on that folder, with the default policy: the latest version."""
    with running(f"--model_base_path={base_path}", "--model_name=arithmetic", *QUICK) as started:
        yield started


def answers(server: Server) -> int:
    """Return the version that answers a request that names none."""
    return int(server.predict(request({"x": ROW})).model_spec.version.value)


def failed(server: Server, version: int) -> bool:
    """Say whether a version ended with an error."""
    state, code = server.states().get(version, ("", 0))
    return state == "END" and code != 0


def test_versions_swap_without_a_failed_request(server: Server, base_path: Path) -> None:
    """Under load a new version takes over and the old one ends; no request fails, and each names who answered."""
    stop, seen, failed = threading.Event(), set(), []

    def load() -> None:
        while not stop.is_set():
            try:
                seen.add(answers(server))
            except grpc.RpcError as error:
                failed.append(error.code())

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    wait_until(lambda: 1 in seen)
    add_version(base_path, 2)
    wait_until(lambda: server.states() == {1: ("END", 0), 2: ("AVAILABLE", 0)})
    wait_until(lambda: 2 in seen)
    stop.set()
    for thread in threads:
        thread.join()
    assert (failed, seen) == ([], {1, 2})


def test_versions_roll_back_when_the_newest_is_taken_away(server: Server, base_path: Path) -> None:
    """Removing the newest folder brings the one before it back."""
    newest = add_version(base_path, 2)
    wait_until(lambda: server.states()[1][0] == "END")
    newest.rename(base_path / "withdrawn")
    wait_until(lambda: server.states() == {1: ("AVAILABLE", 0), 2: ("END", 0)})
    assert answers(server) == 1


@ours("the original knows only the other policy")
def test_versions_are_unloaded_first_where_memory_is_short(base_path: Path) -> None:
    """With the resource-preserving policy the old version ends before the new one begins to load."""
    flags = ("--model_name=arithmetic", "--aspired_version_policy=resource_preserving", *QUICK)
    with running(f"--model_base_path={base_path}", *flags) as server:
        running_request = server.predictions.Predict.future(slow(30_000), timeout=60)
        # Answered after the slow one has arrived, on the same connection.
        server.states()
        add_version(base_path, 2)
        # Judged on one look: by a second one the old version may have ended.
        wait_until(lambda: (look := server.states())[1][0] == "UNLOADING" and look.get(2, ("START", 0))[0] == "START")
        running_request.result(timeout=60)
        wait_until(lambda: server.states() == {1: ("END", 0), 2: ("AVAILABLE", 0)})


def test_versions_in_flight_finish_where_they_started(server: Server, base_path: Path) -> None:
    """A request that runs while its version is replaced is still answered by it."""
    running_request = server.predictions.Predict.future(slow(15_000), timeout=60)
    add_version(base_path, 2)
    wait_until(lambda: 2 in server.states() and server.states()[1][0] == "UNLOADING")
    assert running_request.result(timeout=60).model_spec.version.value == 1
    wait_until(lambda: server.states()[1] == ("END", 0))


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_versions_that_are_half_copied_keep_their_error(server: Server, base_path: Path, share: float) -> None:
    """A file that is cut short ends with an error, and the version before it goes on serving."""
    whole = ARITHMETIC.read_bytes()
    add_version(base_path, 2, whole[: int(len(whole) * share)])
    wait_until(lambda: failed(server, 2))
    assert server.states()[1] == ("AVAILABLE", 0)
    assert answers(server) == 1


@ours("the original never tries it again")
def test_versions_that_are_copied_slowly_into_place_are_served_in_the_end(server: Server, base_path: Path) -> None:
    """A version that failed because its copy had not ended is tried again once its files have come to rest."""
    late = add_version(base_path, 2, ARITHMETIC.read_bytes()[:1000])
    wait_until(lambda: server.states().get(2) == ("END", 3))
    (late / "model.tflite").write_bytes(ARITHMETIC.read_bytes())
    wait_until(lambda: server.states() == {1: ("END", 0), 2: ("AVAILABLE", 0)})
    assert answers(server) == 2


def test_versions_without_a_model_keep_their_error(server: Server, base_path: Path) -> None:
    """A folder without model.tflite ends with NOT_FOUND."""
    (base_path / "2").mkdir()
    wait_until(lambda: server.states().get(2) == ("END", 5))
    assert answers(server) == 1


def test_versions_whose_warm_up_fails_are_not_served(server: Server, base_path: Path) -> None:
    """A warm-up file that is no TFRecord file, and a warm-up request that the model refuses, each end the version."""
    add_warm_up(base_path, 2, b"no records at all")
    wait_until(lambda: failed(server, 2))
    add_warm_up(base_path, 3, tf_record(log(request({"nonsense": ROW}))))
    wait_until(lambda: failed(server, 3))
    assert answers(server) == 1


def test_versions_warm_up_and_serve(server: Server, base_path: Path) -> None:
    """A good warm-up file lets the version become available."""
    add_warm_up(base_path, 2, tf_record(log(request({"x": ROW}))) * 3)
    wait_until(lambda: server.states().get(2) == ("AVAILABLE", 0))
    assert answers(server) == 2


def test_versions_other_than_numbers_are_ignored(server: Server, base_path: Path) -> None:
    """A folder with another name, and a file with a number for a name, are no versions."""
    (base_path / "3-staged").mkdir()
    (base_path / "4").write_text("")
    add_version(base_path, 2)
    wait_until(lambda: server.states().get(2) == ("AVAILABLE", 0))
    assert set(server.states()) == {1, 2}


@ours("reads our log")
def test_versions_survive_a_lost_base_path(server: Server, base_path: Path) -> None:
    """A base path that vanishes (a lost mount) unloads nothing; its return is noticed."""
    moved = base_path.rename(base_path.with_name("gone"))
    wait_until(lambda: "base_path_unreadable" in server.log.read_text())
    assert answers(server) == 1
    add_version(moved, 2)
    moved.rename(base_path)
    wait_until(lambda: server.states().get(2) == ("AVAILABLE", 0))


@ours("the original waits for every model, for ever")
def test_versions_that_are_named_are_served_together() -> None:
    """The policy `specific` serves these and no others; a second model that is bad does not keep them from serving."""
    with folder() as home:
        for version in (1, 2, 3):
            add_version(home / "arithmetic", version)
        add_version(home / "broken", 1, b"nothing")
        config = home / "config"
        config.write_text(
            f'model_config_list {{ config {{ name: "arithmetic" base_path: "{home}/arithmetic" '
            'model_platform: "tensorflow" model_version_policy { specific { versions: 1 versions: 3 } } } '
            f'config {{ name: "broken" base_path: "{home}/broken" model_platform: "tensorflow" }} '
            f'config {{ name: "absent" base_path: "{home}/absent" model_platform: "tensorflow" }} }}'
        )
        with running(f"--model_config_file={config}", *QUICK) as server:
            assert server.states() == {1: ("AVAILABLE", 0), 3: ("AVAILABLE", 0)}
            assert answers(server) == 3
            assert server.states("broken") == {1: ("END", 3)}


def add_warm_up(base_path: Path, version: int, content: bytes) -> None:
    """Put a version with a warm-up file in place."""
    staged = base_path / "staged"
    (staged / "assets.extra").mkdir(parents=True)
    (staged / "assets.extra" / "tf_serving_warmup_requests").write_bytes(content)
    (staged / "model.tflite").write_bytes(ARITHMETIC.read_bytes())
    (staged / "saved_model.pb").write_bytes(SAVED_MODEL.read_bytes())
    staged.rename(base_path / str(version))


def log(asked: PredictRequest) -> bytes:
    """Return a request as a PredictionLog."""
    return PredictionLog(predict_log=PredictLog(request=asked)).SerializeToString()


def tf_record(data: bytes) -> bytes:
    """Return one TFRecord."""
    length = len(data).to_bytes(8, "little")
    return b"".join([length, masked_crc(length).to_bytes(4, "little"), data, masked_crc(data).to_bytes(4, "little")])
