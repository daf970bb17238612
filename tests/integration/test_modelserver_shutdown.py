"""SIGTERM: what is in flight is answered, nothing new is taken, and the process ends well in time."""

import signal

import grpc
import pytest

from tests.contract.tfs.harness import QUICK, add_version, floats, folder, request, running, slow, start, wait_until
from tests.contract.tfs.stubs import PredictionServiceStub


def test_modelserver_answers_what_is_in_flight_before_it_ends() -> None:
    """A running call and those that wait behind it get their answers after SIGTERM; the exit status is 0."""
    with folder() as home:
        add_version(home / "arithmetic", 1)
        flags = (f"--model_base_path={home / 'arithmetic'}", "--model_name=arithmetic", *QUICK)
        with running(*flags) as server:
            server.predict(request({"x": floats((1, 2))}))
            # Over one connection, in this order: once the last one is refused, the others have arrived.
            busy = server.predictions.Predict.future(slow(5000), timeout=60)
            waiting = [server.predictions.Predict.future(request({"x": floats((n, n))}), timeout=60) for n in range(20)]
            with pytest.raises(grpc.RpcError):
                server.predict(request({"x": floats((1, 2))}, model="absent"))
            server.process.send_signal(signal.SIGTERM)
            wait_until(lambda: "model_server_draining" in server.log.read_text())
            assert not busy.done()
            with grpc.insecure_channel(server.address) as late:
                stub = PredictionServiceStub(late)
                with pytest.raises(grpc.RpcError) as refused:
                    stub.Predict(request({"x": floats((1, 2))}), timeout=60)
            assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
            assert list(busy.result(timeout=60).outputs["done"].int_val) == [5000]
            for n, future in enumerate(waiting):
                assert list(future.result(timeout=60).outputs["y"].float_val) == [2 * n, 2 * n]
            assert server.process.wait(30) == 0
            assert "model_server_stopped" in server.log.read_text()


def test_modelserver_ends_while_it_still_waits_for_a_model() -> None:
    """SIGTERM before the first version came ends the process well too."""
    with folder() as home:
        log = home / "log"
        process = start(f"--model_base_path={home / 'absent'}", "--port=0", f"--grpc_socket_path={home / 's'}", log=log)
        try:
            wait_until(lambda: "base_path_unreadable" in log.read_text())
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0, log.read_text()
        finally:
            process.kill()
            process.wait()
