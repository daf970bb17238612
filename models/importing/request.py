"""What a person asks for when they import a model, and how an import says no."""

import dataclasses
import itertools
import json
import re
from dataclasses import dataclass, field
from typing import Any, Literal

Explain = Literal["grad-cam", "occlusion", "none"]
Output = Literal["probability", "logit"]

# The gateway and records take the same.
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_LABEL = re.compile(r"[A-Za-z][A-Za-z0-9 _-]{0,62}")

SIDE_PX_MIN, SIDE_PX_MAX = 8, 4096
"""What a contract may say of the input; it bounds the memory that pictures of that size need, too."""

_SENTENCE_MAX = 500
_USE_MAX = 2000

OCCLUSION_CELLS = 7
"""Height and width of an occlusion map: each of its cells costs one more run of the network."""


class CannotImport(Exception):
    """A model cannot become a version; the text says why and, where an option would help, names it."""


@dataclass(frozen=True)
class Request:
    """
    One import. None stands for "find out, and stop if that cannot be known".

    `source` is a path; `input_size` is height and width in pixels; `thresholds` rise between 0 and 1, one fewer than
    `labels`; `calibrate` and `golden` are paths of folders with pictures, or None.
    """

    source: str
    task: Literal["binary", "risk"]
    labels: tuple[str, ...]
    name: str
    version: int
    title: str
    intended_use: str
    demonstration: bool = True
    thresholds: tuple[float, ...] | None = None
    input_size: tuple[int, int] | None = None
    scaling: str | None = None
    output: Output | None = None
    signature: str | None = None
    explain: Explain | None = None
    calibrate: str | None = None
    golden: str | None = None
    recommendations: dict[str, str] = field(default_factory=dict)

    def check(self) -> None:
        """
        Refuse what no contract may say, before anything is read.

        Raises:
            CannotImport: a name, label or number is not what it must be.
        """
        if not _NAME.fullmatch(self.name):
            raise CannotImport("--name takes lower-case letters, digits and hyphens, at most 63.")
        wrong = [label for label in self.labels if not _LABEL.fullmatch(label) or label == "Indeterminate"]
        if wrong or not 2 <= len(self.labels) <= 16 or len(set(self.labels)) != len(self.labels):
            raise CannotImport(
                "--labels takes 2 to 16 different ones, in the order of the scores and with commas between them; each "
                "begins with a letter. Indeterminate is our own."
            )
        if self.input_size is not None and not fits(self.input_size):
            raise CannotImport(f"--input-size takes height x width, each {SIDE_PX_MIN} to {SIDE_PX_MAX}.")
        if self.thresholds is not None and not _rises(self.thresholds):
            raise CannotImport("--thresholds takes rising numbers between 0 and 1.")
        if not set(self.recommendations) <= {*self.labels, "Indeterminate"}:
            raise CannotImport("--recommend takes LABEL=SENTENCE, with a label that --labels names.")
        if not all(0 < len(sentence) <= _SENTENCE_MAX for sentence in self.recommendations.values()):
            raise CannotImport(f"--recommend takes sentences of at most {_SENTENCE_MAX} letters.")
        if not 0 < len(self.intended_use) <= _USE_MAX or not 0 < len(self.title) <= _SENTENCE_MAX:
            raise CannotImport(f"--intended-use takes 1 to {_USE_MAX} letters, and --title 1 to {_SENTENCE_MAX}.")

    def to_json(self) -> str:
        """Return the request as text, for the process that has TensorFlow."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Request":
        """Read what `to_json` wrote."""
        members: dict[str, Any] = json.loads(text)
        for name in ("labels", "thresholds", "input_size"):
            if members[name] is not None:
                members[name] = tuple(members[name])
        return cls(**members)


def fits(size: tuple[int, int]) -> bool:
    """Tell whether a contract may say that pictures are of this *size*, height and width in pixels."""
    return all(SIDE_PX_MIN <= side <= SIDE_PX_MAX for side in size)


def _rises(numbers: tuple[float, ...]) -> bool:
    return all(low < high for low, high in itertools.pairwise((0.0, *numbers, 1.0)))
