"""Compare two versions on a folder of pictures: how often they say the same, and how far their scores are apart."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from models.artifact import ArtifactError
from models.importing.documents import outcome
from models.importing.pictures import read
from models.litert import LiteRtVersion

PICTURES_MAX = 10_000
_ENDINGS = frozenset({".png", ".jpg", ".jpeg"})


@dataclass(frozen=True)
class Pair:
    """What two versions say of one picture."""

    outcomes: tuple[str, str]
    scores: tuple[float, float]


@dataclass(frozen=True)
class Difference:
    """
    Two versions compared over `pictures` pictures.

    `agreement` is the share with the same outcome, 0..1; score differences are absolute; `confusion` counts pictures
    by the outcome of the first version and that of the second.
    """

    pictures: int
    agreement: float
    score_difference_mean: float
    score_difference_max: float
    confusion: dict[str, dict[str, int]]


def compare(one: Path, other: Path, pictures: Path, *, each: Callable[[list[Path]], Iterable[Path]]) -> Difference:
    """
    Ask both versions about all pictures under the folder *pictures*.

    Args:
        each: goes through the files, and may show progress.

    Raises:
        ArtifactError: a version cannot be run, they are not of one kind, or there are no pictures or too many.
        CannotImport: a file is no picture.
    """
    first, second = LiteRtVersion(one), LiteRtVersion(other)
    if first.contract["labels"] != second.contract["labels"]:
        raise ArtifactError("the two versions have other labels: there is nothing to compare")
    files = sorted(_files(pictures))
    if not 0 < len(files) <= PICTURES_MAX:
        raise ArtifactError(f"the folder has {len(files)} pictures; 1 to {PICTURES_MAX} can be compared")
    return measure([_ask(first, second, path) for path in each(files)])


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.suffix.lower() in _ENDINGS and path.is_file())


def _ask(first: LiteRtVersion, second: LiteRtVersion, path: Path) -> Pair:
    answers = [version.score(read(path, version.size)) for version in (first, second)]
    told = [outcome(version.contract, *answer) for version, answer in zip((first, second), answers, strict=True)]
    return Pair((told[0], told[1]), (answers[0][0], answers[1][0]))


def measure(pairs: list[Pair]) -> Difference:
    """Count and measure at least one pair of answers."""
    distances = [abs(pair.scores[0] - pair.scores[1]) for pair in pairs]
    counted = Counter(pair.outcomes for pair in pairs)
    names = sorted({name for outcomes in counted for name in outcomes})
    return Difference(
        pictures=len(pairs),
        agreement=sum(pair.outcomes[0] == pair.outcomes[1] for pair in pairs) / len(pairs),
        score_difference_mean=sum(distances) / len(distances),
        score_difference_max=max(distances),
        confusion={one: {other: counted[one, other] for other in names} for one in names},
    )
