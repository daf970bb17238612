"""What the API answers, as lines for a person: a clinician reads the outcome first, then why, then what to do."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from healthguard.results import Model, Prediction, Statistics

INDETERMINATE = "Indeterminate"
CONFIDENCE_SHOWN_MAX = 0.99
DEMONSTRATION = "Demonstration weights: not for clinical use."


def prediction(name: str, found: Prediction, limit: float | None = None) -> list[str]:
    """
    Return a stored prediction: the outcome, and under it the recommendation.

    Args:
        name: what the person calls the image.
        limit: the highest out-of-distribution score that the model answers for, where it is known.
    """
    first = "  ".join([f"{name}: {outcome(found, limit)}", *_sure(found), *_made_by(found), found.id])
    return [first, f"  {found.recommendation}"] if found.recommendation else [first]


def outcome(found: Prediction, limit: float | None = None) -> str:
    """Return the outcome; where there is none, with the reason."""
    if found.outcome != INDETERMINATE or found.ood_score is None:
        return found.outcome
    bound = "" if limit is None else f", limit {limit:.2f}"
    return f"{found.outcome} (unlike what the model was made for: {found.ood_score:.1f}{bound})"


def confidence(value: float) -> str:
    """Return a confidence, 0 to 1, which rounding must not turn into certainty."""
    return f">{CONFIDENCE_SHOWN_MAX}" if value > CONFIDENCE_SHOWN_MAX else f"{value:.2f}"


def history(found: Prediction) -> str:
    """Return a stored prediction as one line of a list."""
    return "  ".join([found.created_at, f"{outcome(found):<13}", *_sure(found), *_made_by(found), found.id])


def details(found: Prediction) -> list[str]:
    """Return all that is known of a stored prediction, a line each."""
    known = {name: value for name, value in asdict(found).items() if value is not None and name != "timings"}
    known |= found.timings or {}
    return [f"{name.replace('_', ' '):<18}{value}" for name, value in known.items()]


def model(found: Model) -> str:
    """Return a model as one line of a list."""
    contract = found.contract or {}
    state = "available" if found.available else "not available"
    labels = ", ".join(map(str, contract.get("labels", ())))
    notes = [DEMONSTRATION] if contract.get("demonstration") is True else []
    return "  ".join([f"{found.name} v{found.stable}", state, *([labels] if labels else []), *notes])


def statistics(found: Statistics) -> list[str]:
    """Return the history in numbers."""
    counts = [f"{count.count:>8}  {count.model or count.source}  {count.outcome}" for count in found.counts]
    return [*counts, f"{found.total:>8}  in all"]


def limit_of(contract: Mapping[str, Any]) -> float | None:
    """Return the highest out-of-distribution score that a contract allows."""
    rule = contract.get("out_of_distribution")
    limit = rule.get("limit") if isinstance(rule, Mapping) else None
    return float(limit) if isinstance(limit, int | float) else None


def _sure(found: Prediction) -> list[str]:
    # Of an image that the model was not made for there is nothing to be sure of.
    if found.confidence is None or found.outcome == INDETERMINATE:
        return []
    return [f"confidence {confidence(found.confidence)}"]


def _made_by(found: Prediction) -> list[str]:
    return [] if found.model is None else [f"{found.model} v{found.version}"]
