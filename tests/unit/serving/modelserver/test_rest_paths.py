"""Paths of the REST API."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.modelserver.model_spec import Asked
from serving.modelserver.refusals import Refused
from serving.modelserver.rest_paths import Call, is_api, read_path


@pytest.mark.parametrize(
    ("method", "path", "call"),
    [
        ("POST", "/v1/models/a:predict", Call("predict", Asked("a"))),
        ("POST", "/v1/models/a/versions/7:Classify", Call("classify", Asked("a", version=7))),
        ("POST", "/V1/MODELS/a/labels/canary:regress", Call("regress", Asked("a", label="canary"))),
        ("GET", "/v1/models/a", Call("status", Asked("a"))),
        ("GET", "/v1/models/a/versions/7/metadata", Call("metadata", Asked("a", version=7))),
        ("GET", "/v1/models/a/labels/b", Call("status", Asked("a", label="b"))),
        ("GET", "/v1/models/with%2Fslash%3A", Call("status", Asked("with/slash:"))),
    ],
)
def test_read_path_understands(method: str, path: str, call: Call) -> None:
    """Names keep their case, the fixed words have none; what is encoded is decoded after the path was cut."""
    assert read_path(method, path) == call


@pytest.mark.parametrize("path", ["/v1/models/a/versions/", "/v1/models/a/versions/-1", "/v1/models/a/versions/٣"])
def test_read_path_refuses_versions_that_are_no_numbers(path: str) -> None:
    """Only the digits 0 to 9 are a version."""
    with pytest.raises(Refused, match="Malformed request"):
        read_path("GET", path)


@given(st.sampled_from(["GET", "POST", "DELETE"]), st.text())
def test_read_path_refuses_or_reads_whatever_is_sent(method: str, tail: str) -> None:
    """Any text below /v1/ is read or refused; nothing else can happen."""
    path = f"/v1/{tail}"
    assert is_api(path)
    with suppress(Refused):
        read_path(method, path)
