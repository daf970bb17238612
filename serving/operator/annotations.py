"""
What a person says about a rollout, in the annotations of the ServedModel: pause, resume, promote, abort.

An annotation stays on the object, so each word names the rollout that it means; whether it is obeyed is for `rollout`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args

from serving.operator.rollout_status import read_time
from serving.operator.spec import GROUP

WORD = f"{GROUP}/rollout"
"""Annotation by which a person says pause, resume, promote or abort."""
WORD_VERSION = f"{GROUP}/rollout-version"
"""
Annotation that names what is meant: a version, and after an @ when its rollout began, as `4@2026-11-22T10:00:00Z`.

A word without the version is not obeyed, lest it hit the next one. With the time it is not obeyed either when the same
version comes on trial again. One annotation holds both: of two, the time of an older word could be left behind.
"""

Verb = Literal["pause", "resume", "promote", "abort"]
VERBS: tuple[Verb, ...] = get_args(Verb)


@dataclass(frozen=True)
class Word:
    """What a person said by annotation."""

    verb: Verb
    version: int
    started_at: datetime | None = None
    """When the rollout began that is meant; None: any of that version."""


def word_of(annotations: Mapping[str, str]) -> Word | None:
    """Return a person's word, if there is one that can be obeyed."""
    version, at, started = annotations.get(WORD_VERSION, "").partition("@")
    try:
        started_at = read_time(started) if at else None
    except ValueError:
        return None
    for verb in VERBS:
        if annotations.get(WORD) == verb and version.isascii() and version.isdigit():
            return Word(verb, int(version), started_at)
    return None


def meaning(version: int, started_at: str) -> str:
    """Return how a word names a rollout: its version, and when it began as `status.rollout.startedAt` has it."""
    return f"{version}@{started_at}"
