"""A new configuration while the server runs: by RPC and by the file, and the labels that it gives."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf import text_format

from serving.tfs.protos import GetModelStatusRequest, ModelSpec, PredictRequest, ReloadConfigRequest
from tests.contract.tfs.harness import QUICK, Server, add_version, floats, folder, ours, request, running, wait_until

ROW = floats((1, 2))
TWO_VERSIONS = "model_version_policy { specific { versions: 1 versions: 2 } }"


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """Make two models with two versions each, one that is broken, and a configuration of the first."""
    with folder() as path:
        for model in ("first", "second"):
            add_version(path / model, 1)
            add_version(path / model, 2)
        add_version(path / "broken", 1, b"nothing")
        (path / "config").write_text(config(entry(path, "first")))
        yield path


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[Server]:
    """Run a server with the first model."""
    with running(f"--model_config_file={home / 'config'}", *QUICK) as started:
        yield started


@pytest.fixture(autouse=True)
def first_alone(server: Server, home: Path) -> None:
    """Serve the first model's two versions, without labels."""
    reload(server, entry(home, "first", TWO_VERSIONS))
    wait_until(lambda: server.states("first").get(1) == server.states("first").get(2) == ("AVAILABLE", 0))


def entry(home: Path, name: str, more: str = "") -> str:
    """Return one model's entry."""
    return f'name: "{name}" base_path: "{home / name}" model_platform: "tensorflow" {more}'


def config(*entries: str) -> str:
    """Return a configuration file's text."""
    return "model_config_list {" + " ".join(f"config {{ {each} }}" for each in entries) + "}"


def label(name: str, version: int) -> str:
    """Return one label of an entry."""
    return f'version_labels {{ key: "{name}" value: {version} }}'


def reload_request(text: str) -> ReloadConfigRequest:
    """Return a reload of a configuration's text."""
    asked = ReloadConfigRequest()
    text_format.Parse(text, asked.config)
    return asked


def reload(server: Server, *entries: str) -> None:
    """Reload these models and no others; the answer says OK."""
    answer = server.models.HandleReloadConfigRequest(reload_request(config(*entries)), timeout=20)
    assert (answer.HasField("status"), answer.status.error_code) == (True, 0)


def refusal(server: Server, asked: ReloadConfigRequest) -> tuple[str, str]:
    """Return code and text of a refused reload."""
    with pytest.raises(grpc.RpcError) as caught:
        server.models.HandleReloadConfigRequest(asked, timeout=20)
    return caught.value.code().name, caught.value.details() or ""


def labelled(model: str, name: str) -> PredictRequest:
    """Return a request for a label."""
    built = request({"x": ROW}, model=model)
    built.model_spec.version_label = name
    return built


def answers(server: Server, asked: PredictRequest) -> int:
    """Return the version that answered."""
    return int(server.predict(asked).model_spec.version.value)


def refused_code(server: Server, asked: PredictRequest) -> str:
    """Return the code of a request that is refused."""
    with pytest.raises(grpc.RpcError) as caught:
        server.predict(asked)
    code: str = caught.value.code().name
    return code


def test_reload_answers_when_new_models_are_available(server: Server, home: Path) -> None:
    """A model that is new is ready when the call returns."""
    reload(server, entry(home, "first"), entry(home, "second"))
    assert answers(server, request({"x": ROW}, model="second")) == 2


def test_reload_replaces_the_whole_set(server: Server, home: Path) -> None:
    """What is left out is unloaded, and stays listed as ended; it comes back when it is named again."""
    reload(server, entry(home, "second"))
    wait_until(lambda: server.states("first") == {1: ("END", 0), 2: ("END", 0)})
    assert refused_code(server, request({"x": ROW}, model="first")) == "NOT_FOUND"
    reload(server, entry(home, "second"), entry(home, "first"))
    assert answers(server, request({"x": ROW}, model="first")) == 2


def test_reload_of_an_empty_list_serves_nothing(server: Server) -> None:
    """A list without models unloads them all, and the server lives."""
    reload(server)
    wait_until(lambda: server.states("first") == {1: ("END", 0), 2: ("END", 0)})


def test_reload_changes_the_policy_of_a_known_model(server: Server, home: Path) -> None:
    """Other versions are loaded and unloaded as the new policy says."""
    reload(server, entry(home, "first", "model_version_policy { specific { versions: 1 } }"))
    wait_until(lambda: server.states("first") == {1: ("AVAILABLE", 0), 2: ("END", 0)})


def test_reload_says_which_model_did_not_come(server: Server, home: Path) -> None:
    """A new model that fails is UNKNOWN, with its version and reason; the good one serves."""
    code, text = refusal(server, reload_request(config(entry(home, "first"), entry(home, "broken"))))
    assert code == "UNKNOWN"
    assert text.startswith("1 model(s) did not become available: {{{name: broken version: 1} due to error: ")
    assert text.endswith("}, }")
    assert answers(server, request({"x": ROW}, model="first")) == 2


REFUSED = {
    "a doubled name": (
        'config { name: "a" base_path: "/a" model_platform: "tensorflow" } ' * 2,
        "Illegal to list model a multiple times in config list",
    ),
    "a relative path": (
        'config { name: "a" base_path: "a" model_platform: "tensorflow" }',
        "Expected model a to have an absolute path",
    ),
    "no platform": ('config { name: "a" base_path: "/a" }', ""),
    "an unknown platform": ('config { name: "a" base_path: "/a" model_platform: "onnx" }', ""),
}


@pytest.mark.parametrize(("entries", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_reload_refuses_a_wrong_configuration(server: Server, entries: str, words: str) -> None:
    """What is wrong is INVALID_ARGUMENT, and what was served is served on."""
    code, text = refusal(server, reload_request(f"model_config_list {{ {entries} }}"))
    assert (code, text[: len(words)]) == ("INVALID_ARGUMENT", words)
    assert answers(server, request({"x": ROW}, model="first")) == 2


def test_reload_takes_only_a_list_of_models(server: Server) -> None:
    """An empty request, and a configuration of another kind, are refused."""
    for asked in (ReloadConfigRequest(), reload_request("custom_model_config { }")):
        code, text = refusal(server, asked)
        assert (code, text.split(".")[0]) == (
            "INVALID_ARGUMENT",
            "ServerModelConfig type not supported by HandleReloadConfigRequest",
        )


@ours("the original waits for ever, and holds up every later reload")
def test_reload_waits_no_longer_than_its_caller(server: Server, home: Path) -> None:
    """A model whose folder never appears ends the call at its deadline, and another reload goes through meanwhile."""
    waiting = server.models.HandleReloadConfigRequest.future(
        reload_request(config(entry(home, "first"), entry(home, "absent"))), timeout=2
    )
    reload(server, entry(home, "first"), entry(home, "absent"), entry(home, "second"))
    assert waiting.exception(timeout=20).code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert answers(server, request({"x": ROW}, model="second")) == 2


def test_labels_name_versions_and_move(server: Server, home: Path) -> None:
    """A label is asked for in place of a number; a reload moves it, and takes it away."""
    reload(server, entry(home, "first", TWO_VERSIONS + label("stable", 1) + label("canary", 2)))
    assert (answers(server, labelled("first", "stable")), answers(server, labelled("first", "canary"))) == (1, 2)
    reload(server, entry(home, "first", TWO_VERSIONS + label("stable", 2)))
    assert answers(server, labelled("first", "stable")) == 2
    with pytest.raises(grpc.RpcError) as caught:
        server.predict(labelled("first", "canary"))
    assert (caught.value.code().name, caught.value.details()) == (
        "INVALID_ARGUMENT",
        "Unrecognized servable version label: canary",
    )


@ours("the original ignores a label here and lists every version")
def test_labels_narrow_the_status(server: Server, home: Path) -> None:
    """The status of a label is that of its version."""
    reload(server, entry(home, "first", TWO_VERSIONS + label("stable", 1)))
    asked = GetModelStatusRequest(model_spec=ModelSpec(name="first", version_label="stable"))
    found = server.models.GetModelStatus(asked, timeout=20).model_version_status
    assert [status.version for status in found] == [1]


def test_labels_point_only_to_available_versions(server: Server, home: Path) -> None:
    """A label on another version is FAILED_PRECONDITION, and no model of that request is loaded."""
    wrong = config(entry(home, "first", TWO_VERSIONS + label("stable", 7)), entry(home, "second"))
    assert refusal(server, reload_request(wrong)) == (
        "FAILED_PRECONDITION",
        "Request to assign label to version 7 of model first, which is not currently available for inference",
    )
    assert refused_code(server, labelled("first", "stable")) == "INVALID_ARGUMENT"
    assert answers(server, request({"x": ROW}, model="first")) == 2


def test_labels_of_versions_to_come_need_a_flag(home: Path) -> None:
    """With the flag a new label may wait for its version; one that is used may not be moved to such."""
    with folder() as other:
        file = other / "config"
        file.write_text(config(entry(home, "first", label("soon", 9))))
        flags = (f"--model_config_file={file}", "--allow_version_labels_for_unavailable_models", *QUICK)
        with running(*flags) as server:
            assert refused_code(server, labelled("first", "soon")) == "NOT_FOUND"
            reload(server, entry(home, "first", label("soon", 2)))
            assert answers(server, labelled("first", "soon")) == 2
            code, _ = refusal(server, reload_request(config(entry(home, "first", label("soon", 9)))))
            assert code == "FAILED_PRECONDITION"


def test_reload_follows_the_file() -> None:
    """The file is read again; a broken one changes nothing, also where a link to it is swapped."""
    with folder() as home:
        for model in ("first", "second"):
            add_version(home / model, 1)
        link, one = home / "config", home / "one"
        one.write_text(config(entry(home, "first")))
        link.symlink_to(one)
        with running(f"--model_config_file={link}", "--model_config_file_poll_wait_seconds=1", *QUICK) as server:
            (home / "two").write_text("nonsense {")
            point(link, home / "two")
            wait_until(lambda: "rror parsing text-format" in server.log.read_text())
            assert answers(server, request({"x": ROW}, model="first")) == 1
            (home / "three").write_text(config(entry(home, "second")))
            point(link, home / "three")
            wait_until(lambda: served(server, "second"))
            wait_until(lambda: server.states("first") == {1: ("END", 0)})


def point(link: Path, target: Path) -> None:
    """Swap a link in one step, as Kubernetes does with a ConfigMap."""
    staged = link.with_name("staged")
    staged.symlink_to(target)
    staged.replace(link)


def served(server: Server, model: str) -> bool:
    """Say whether a model answers."""
    try:
        server.predict(request({"x": ROW}, model=model))
    except grpc.RpcError:
        return False
    return True
