"""What a path of the REST API asks for; pure. TensorFlow Serving compares paths without regard to case."""

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote

from serving.modelserver.model_spec import Asked
from serving.modelserver.refusals import invalid_argument

What = Literal["predict", "classify", "regress", "status", "metadata"]

VERSION_MAX = 2**63 - 1

# \d alone would take the digits of every script.
_MODEL = r"/v1/models/(?P<name>[^/:]+)(?:/versions/(?P<version>[0-9]+)|/labels/(?P<label>[^/:]+))?"
_POST = re.compile(_MODEL + r":(?P<what>predict|classify|regress)", re.IGNORECASE)
_GET = re.compile(_MODEL + r"(?:/(?P<what>metadata))?", re.IGNORECASE)
_NO_MODEL = re.compile(r"/v1/models(?:/(?:versions|labels)/[^/:]+)?(?:/metadata)?", re.IGNORECASE)
_OURS = re.compile(r"/v1/.*", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Call:
    """A method of the API, and the model that it is for."""

    what: What
    asked: Asked


def is_api(path: str) -> bool:
    """Whether *path* (as sent, still percent-encoded) belongs to the API at all; others are simply not found."""
    return _OURS.fullmatch(path) is not None


def read_path(method: str, path: str) -> Call:
    """
    Return what a request line asks for.

    Args:
        method: the HTTP method.
        path: without the query, as sent: a name may carry percent-encoded characters.

    Raises:
        Refused: INVALID_ARGUMENT, in TensorFlow Serving's words.
    """
    pattern = {"POST": _POST, "GET": _GET}.get(method)
    found = pattern.fullmatch(path) if pattern else None
    if found is None:
        if method == "GET" and _NO_MODEL.fullmatch(path):
            raise invalid_argument("Missing model name in request.")
        raise invalid_argument(f"Malformed request: {method} {path}")
    name = unquote(found["name"])
    if found["version"]:
        asked = Asked(name, version=_version(found["version"]))
    elif found["label"]:
        asked = Asked(name, label=unquote(found["label"]))
    else:
        asked = Asked(name)
    return Call(_what(found["what"]), asked)


def _version(digits: str) -> int:
    """
    Return the number that *digits* say.

    Raises:
        Refused: INVALID_ARGUMENT; it is larger than a version can be.
    """
    # The length first: turning a million digits into a number takes seconds.
    if len(digits) > len(str(VERSION_MAX)) or int(digits) > VERSION_MAX:
        raise invalid_argument(f"Failed to convert version: {digits} to numeric.")
    return int(digits)


def _what(word: str | None) -> What:
    match (word or "status").lower():
        case "predict":
            return "predict"
        case "classify":
            return "classify"
        case "regress":
            return "regress"
        case "metadata":
            return "metadata"
    return "status"
