"""--enable_serialization_as_tensor_content."""

from tests.contract.tfs.harness import QUICK, add_version, floats, folder, request, running

ROW = floats((1, 2))


def test_predict_answers_raw_bytes_when_told_to() -> None:
    """--enable_serialization_as_tensor_content changes the form of the outputs."""
    with folder() as home:
        add_version(home / "arithmetic", 1)
        base_path = f"--model_base_path={home / 'arithmetic'}"
        flags = ("--model_name=arithmetic", "--enable_serialization_as_tensor_content")
        with running(base_path, *flags, *QUICK) as server:
            answer = server.predict(request({"x": ROW})).outputs["y"]
            assert (list(answer.float_val), answer.tensor_content) == ([], floats((2, 4)).tobytes())
