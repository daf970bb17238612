"""What happens in the server that is worth counting; monitoring makes metrics of it, and without it nobody listens."""

from typing import Literal

Entrypoint = Literal["GRPC", "REST"]


class Observer:
    """Hears of each event and does nothing; also called from worker threads, so what overrides it is thread-safe."""

    def request_ended(
        self, *, model: str, version: int | None, api: str, entrypoint: Entrypoint, status: str, seconds: float
    ) -> None:
        """
        Hear that a request was answered or refused.

        Args:
            model: the client's own text, which need not be the name of any model: bound what is kept of it.
            version: the version that it ran on, or None where it came to none.
            api: the method, as the entrypoint's own metrics write it: `Predict` in gRPC, `predict` in REST.
            entrypoint: the door that it came through.
            status: the gRPC code's name.
            seconds: from the request's arrival to its answer.
        """

    def queued(self, *, model: str, version: int, rows: int, waited_s: float) -> None:
        """Hear that a request left its queue to be run."""

    def ran(
        self,
        *,
        model: str,
        version: int,
        platform: str,
        signature: str,
        rows: int,
        padding: int,
        tasks: int,
        seconds: float,
    ) -> None:
        """Hear that a batch of *rows*, and *padding* rows beside them, was run for *tasks* requests."""

    def examples_read(self, *, model: str, count: int) -> None:
        """Hear that a Classify, Regress or MultiInference on *count* examples was answered."""

    def warmed_up(self, *, model_path: str, status: str, seconds: float) -> None:
        """Hear that the warm-up of a version ended."""
