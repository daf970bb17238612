"""The one exception by which this server says no; its code and text are TensorFlow Serving's wherever it has one."""

import grpc

DETAILS_MAX = 1024


class Refused(Exception):
    """A request, a version or a configuration that cannot be served; *details* go to the caller as they are."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self.code = code
        self.details = details if len(details) <= DETAILS_MAX else f"{details[:DETAILS_MAX]}...TRUNCATED"

    @property
    def number(self) -> int:
        """The code as the number that GetModelStatus carries."""
        number: int = self.code.value[0]
        return number


def invalid_argument(details: str) -> Refused:
    """Return a refusal for a request that is wrong in itself."""
    return Refused(grpc.StatusCode.INVALID_ARGUMENT, details)
