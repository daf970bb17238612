"""Add up what several gateways counted, although each may restart at any time. Pure; `gateways` asks them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from serving.operator.gates import Measured

CALLS = "healthguard_model_call_duration_seconds_bucket"
FAILURES = "healthguard_model_call_failures_total"
COMPARISONS = "healthguard_version_comparisons_total"
ANSWERED = "healthguard_predictions_total"
IN_FLIGHT = "healthguard_predictions_in_flight"

_DETAIL = {CALLS: "le", FAILURES: "code", COMPARISONS: "result", ANSWERED: "outcome"}
"""The label that tells the series of one version apart, by metric."""
_WANTED = (*_DETAIL, IN_FLIGHT + "{")


class Series(NamedTuple):
    """One counter of one version."""

    model: str
    version: int
    metric: str
    detail: str


Counts = Mapping[Series, float]


@dataclass(frozen=True)
class Heard:
    """What one gateway says at one moment."""

    counts: Counts
    in_flight: Mapping[str, float]
    """Predictions being made, by model."""


def read(text: str) -> Heard:
    """
    Read what a gateway answers at /metrics, of it the few metrics that are needed here.

    Raises:
        ValueError: it is not in Prometheus' text form, or a number is none.
    """
    # Reading costs ten times what looking at the first letters does, and most lines are about something else.
    lines = "\n".join(line for line in text.splitlines() if line.startswith(_WANTED))
    counts: dict[Series, float] = {}
    in_flight: dict[str, float] = {}
    for family in text_string_to_metric_families(lines + "\n"):
        for sample in family.samples:
            if sample.name == IN_FLIGHT:
                in_flight[sample.labels.get("model", "")] = _number(sample.value)
                continue
            series = _series(sample)
            if series is not None and math.isfinite(sample.value):
                # Answers' outcomes are of no interest, so several series of a version may be one here.
                counts[series] = counts.get(series, 0.0) + sample.value
    return Heard(counts, in_flight)


def _number(value: float) -> float:
    """
    Return a value that can be added up.

    Raises:
        ValueError: it is none.
    """
    if not math.isfinite(value):
        raise ValueError("no number")
    return value


def _series(sample: Sample) -> Series | None:
    """
    Return which counter it is; None: none of a version.

    Raises:
        ValueError: the bound of a bucket is no number.
    """
    labels = sample.labels
    model, version = labels.get("model") or labels.get("condition", ""), labels.get("version", "")
    if sample.name not in _DETAIL or not (version.isascii() and version.isdigit()):
        return None
    detail = "" if sample.name == ANSWERED else labels.get(_DETAIL[sample.name], "")
    if sample.name == CALLS and math.isnan(float(detail)):
        raise ValueError("no bound")
    return Series(model, int(version), sample.name, detail)


@dataclass
class Tally:
    """
    What the gateways of one namespace have counted since each was first heard.

    What a gateway counted before that is left out, since nobody knows when it was; and what one counted after it was
    heard last, and before it ended, is lost. Both make fewer requests, never better ones.
    """

    totals: dict[Series, float] = field(default_factory=dict)
    _last: dict[str, Counts] = field(default_factory=dict)

    def take(self, gateway: str, counts: Counts) -> None:
        """Account for what a gateway says; one that counts from 0 again was restarted meanwhile."""
        before = self._last.get(gateway)
        self._last[gateway] = counts
        if before is None:
            return
        for series, value in counts.items():
            more = value - before.get(series, 0.0)
            self.totals[series] = self.totals.get(series, 0.0) + (more if more >= 0 else value)

    def keep(self, gateways: frozenset[str]) -> None:
        """Forget where the others stood: they are gone, and their names may come again for others."""
        for gone in self._last.keys() - gateways:
            del self._last[gone]

    def of(self, model: str, version: int) -> Counts:
        """Return what was counted of one version."""
        return {series: total for series, total in self.totals.items() if series[:2] == (model, version)}

    def answered(self, model: str) -> dict[int, float]:
        """Return how many predictions each version of a model made that clients got."""
        return {
            series.version: total
            for series, total in self.totals.items()
            if series.model == model and series.metric == ANSWERED
        }


def measured(now: Counts, then: Counts, *, complete: bool) -> Measured:
    """Return what was counted of one version between two moments."""
    durations: dict[float, int] = {}
    errors = agreed = differed = 0
    for series, total in now.items():
        more = round(total - then.get(series, 0.0))
        if series.metric == CALLS:
            durations[float(series.detail)] = more
        elif series.metric == FAILURES:
            errors += more
        elif series.metric == COMPARISONS:
            agreed += more if series.detail == "agree" else 0
            differed += more if series.detail == "differ" else 0
    requests = durations.get(math.inf, 0)
    return Measured(requests, errors, durations, agreed, differed, complete)
