"""Configuration files are read as TensorFlow Serving reads them; what is not honoured is refused by name."""

from pathlib import Path

import pytest
from google.protobuf import text_format

from serving.modelserver.config import (
    All,
    BadConfig,
    Batching,
    ConfiguredModel,
    Latest,
    Specific,
    batching_from,
    batching_of,
    models_from,
    models_of,
)
from serving.modelserver.flags import Flags
from serving.tfs.batching_parameters_pb2 import BatchingParameters
from serving.tfs.protos import ModelServerConfig


def config(*entries: str) -> ModelServerConfig:
    """Return a configuration of models."""
    text = "model_config_list {" + " ".join(f"config {{ {entry} }}" for entry in entries) + "}"
    return text_format.Parse(text, ModelServerConfig())


def entry(name: str = "m", more: str = "") -> str:
    """Return one model's entry."""
    return f'name: "{name}" base_path: "/models/{name}" model_platform: "tensorflow" {more}'


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("", Latest(1)),
        ("model_version_policy { latest { } }", Latest(1)),
        ("model_version_policy { latest { num_versions: 2 } }", Latest(2)),
        ("model_version_policy { all { } }", All()),
        ("model_version_policy { specific { versions: 1 versions: 4 } }", Specific(frozenset({1, 4}))),
    ],
)
def test_config_reads_policies(policy: str, expected: object) -> None:
    """Each policy has its form; none is the latest version."""
    assert models_from(config(entry(more=policy))) == [ConfiguredModel("m", Path("/models/m"), expected)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([entry(), entry()], "multiple times"),
        (['base_path: "/m" model_platform: "tensorflow"'], "no name"),
        (['name: "m" base_path: "m" model_platform: "tensorflow"'], "absolute path"),
        (['name: "m" base_path: "/m"'], "model_platform"),
        (['name: "m" base_path: "/m" model_platform: "onnx"'], "model_platform"),
        ([entry(more="model_type: TENSORFLOW")], "Illegal setting both"),
        ([entry(more='logging_config { log_collector_config { type: "x" } }')], "logging_config"),
        ([entry(more="model_version_policy { specific { } }")], "without versions"),
    ],
)
def test_config_refuses_by_name(entries: list[str], words: str) -> None:
    """The text says which part is wrong."""
    with pytest.raises(BadConfig, match=words):
        models_from(config(*entries))


def test_config_takes_the_old_model_type() -> None:
    """A file that says model_type in place of model_platform is as good."""
    assert models_from(config('name: "m" base_path: "/m" model_type: TENSORFLOW'))[0].name == "m"


def test_config_of_one_model_comes_from_flags() -> None:
    """Name and base path may be given without a file; a relative path may not."""
    assert models_of(Flags(model_base_path="/m")) == [ConfiguredModel("default", Path("/m"))]
    with pytest.raises(BadConfig, match="absolute"):
        models_of(Flags(model_base_path="m"))


def test_config_files_are_bounded_and_parsed(tmp_path: Path) -> None:
    """A missing, a huge and a broken file are each refused with their reason."""
    path = tmp_path / "models.config"
    flags = Flags(model_config_file=str(path))
    with pytest.raises(BadConfig, match="cannot read"):
        models_of(flags)
    path.write_text("nonsense")
    with pytest.raises(BadConfig, match=r"Error parsing text-format tensorflow\.serving\.ModelServerConfig"):
        models_of(flags)
    path.write_bytes(b"#" * (1024 * 1024 + 1))
    with pytest.raises(BadConfig, match="larger than"):
        models_of(flags)


def batching(text: str) -> Batching:
    """Return the batching that a parameters file gives."""
    return batching_from(text_format.Parse(text, BatchingParameters()))


def test_batching_has_tensorflow_servings_defaults() -> None:
    """An empty file means batches of 1000 rows, 10 of them waiting, and no window."""
    assert batching("") == Batching(rows_max=1000, window_s=0, rows_waiting_max=10_000, enabled=True)


def test_batching_reads_every_field_that_it_honours() -> None:
    """Sizes, window, queue and threads come from the file."""
    text = (
        "max_batch_size { value: 8 } batch_timeout_micros { value: 500 } max_enqueued_batches { value: 3 } "
        'num_batch_threads { value: 2 } thread_pool_name { value: "pool" }'
    )
    assert batching(text) == Batching(rows_max=8, window_s=0.0005, rows_waiting_max=24, workers=2, enabled=True)


def test_batching_reads_sizes_padding_and_splitting() -> None:
    """Allowed sizes end with the largest run, which is max_execution_batch_size where large requests are split."""
    text = "max_batch_size { value: 8 } allowed_batch_sizes: 2 allowed_batch_sizes: 8 pad_variable_length_inputs: true"
    found = batching(text)
    assert (found.allowed_sizes, found.pad_inputs, found.run_rows_max) == ((2, 8), True, None)
    split = batching(
        "max_batch_size { value: 64 } enable_large_batch_splitting { value: true } "
        "max_execution_batch_size { value: 8 } allowed_batch_sizes: 8"
    )
    assert (split.rows_max, split.run_rows_max, split.allowed_sizes) == (64, 8, (8,))
    # Without splitting the size of one run has no meaning, as with the original.
    assert batching("max_execution_batch_size { value: 4 }").run_rows_max is None


def test_config_reads_labels() -> None:
    """Labels are version numbers by name."""
    labels = 'version_labels { key: "stable" value: 1 } version_labels { key: "canary" value: 2 }'
    assert models_from(config(entry(more=labels)))[0].labels == {"stable": 1, "canary": 2}


def test_config_without_models_is_none() -> None:
    """An empty file, and an empty list, serve nothing until a reload says what."""
    assert models_from(ModelServerConfig()) == models_from(config()) == []


@pytest.mark.parametrize(
    "text",
    [
        "allowed_batch_sizes: 8",
        "allowed_batch_sizes: 1000 allowed_batch_sizes: 1000",
        "allowed_batch_sizes: 0 allowed_batch_sizes: 1000",
        "max_execution_batch_size { value: 2000 } enable_large_batch_splitting { value: true }",
        "allowed_batch_sizes: 8 max_execution_batch_size { value: 4 } enable_large_batch_splitting { value: true }",
        "max_batch_size { value: 0 }",
        "max_enqueued_batches { value: -1 }",
        "num_batch_threads { value: 0 }",
    ],
)
def test_batching_refuses_by_name(text: str) -> None:
    """A field that is not honoured, or out of range, is named."""
    with pytest.raises(BadConfig, match=text.split(maxsplit=1)[0].strip(":")):
        batching(text)


def test_batching_is_off_without_its_flag() -> None:
    """Without --enable_batching each request runs alone."""
    assert batching_of(Flags(model_base_path="/m")) == Batching(rows_max=1)
