"""
What has been decided about a rollout, and how `status.rollout` holds it: all that the next operator goes on from.

What is written is read again as it was; what nobody could go on from is read as nothing, and the rollout begins anew.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, Self, get_args

Phase = Literal["Preparing", "Shadowing", "Progressing", "Paused", "Promoted", "RolledBack", "Blocked"]
PHASES: tuple[Phase, ...] = get_args(Phase)

_TIME = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True)
class Observation:
    """What was measured, as the status tells it."""

    requests: int
    error_rate: float | None
    p99_ms: float | None
    agreement: float | None
    time: datetime


@dataclass(frozen=True)
class RolloutState:
    """What has been decided; all of it stands in `status.rollout`."""

    version: int
    stable: int
    phase: Phase
    step: int
    """0 for the first of the ladder."""
    canary_percent: int
    """The share of requests that gateways give it now."""
    started_at: datetime
    step_started_at: datetime
    """Since then the step is measured, or its pods are waited for."""
    reason: str
    message: str
    observed: Observation | None = None

    @property
    def over(self) -> bool:
        """Whether nothing but a person, or another spec, changes it."""
        return self.phase in ("Promoted", "RolledBack")

    def status(self) -> dict[str, Any]:
        """Return what `status.rollout` holds."""
        found = {
            "version": self.version,
            "stable": self.stable,
            "phase": self.phase,
            "step": self.step,
            "canaryPercent": self.canary_percent,
            "startedAt": self.started_at.strftime(_TIME),
            "stepStartedAt": self.step_started_at.strftime(_TIME),
            "reason": self.reason,
            "message": self.message,
        }
        return found | ({"observed": _observation(self.observed)} if self.observed else {})

    @classmethod
    def read(cls, found: Any) -> Self | None:
        """Return what `status.rollout` says; None where nobody could go on from it: it is begun anew then."""
        try:
            return cls(
                version=int(found["version"]),
                stable=int(found["stable"]),
                phase=_phase(found["phase"]),
                step=int(found["step"]),
                canary_percent=int(found["canaryPercent"]),
                started_at=read_time(found["startedAt"]),
                step_started_at=read_time(found["stepStartedAt"]),
                reason=str(found["reason"]),
                message=str(found["message"]),
                observed=_read_observation(found.get("observed")),
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            return None


def _observation(observed: Observation) -> dict[str, Any]:
    found = {
        "requests": observed.requests,
        "errorRate": _rounded(observed.error_rate, 4),
        "p99Ms": _rounded(observed.p99_ms, 1),
        "agreement": _rounded(observed.agreement, 4),
        "time": observed.time.strftime(_TIME),
    }
    return {name: value for name, value in found.items() if value is not None}


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def _phase(text: str) -> Phase:
    """
    Return a phase.

    Raises:
        ValueError: there is none of this name.
    """
    return PHASES[PHASES.index(text)]


def _read_observation(found: Any) -> Observation | None:
    if not found:
        return None
    error_rate, p99_ms, agreement = (found.get(name) for name in ("errorRate", "p99Ms", "agreement"))
    return Observation(int(found["requests"]), error_rate, p99_ms, agreement, read_time(found["time"]))


def read_time(text: str) -> datetime:
    """
    Return a time, as the status and annotations have it.

    Raises:
        ValueError: it is none.
    """
    return datetime.strptime(text, _TIME).replace(tzinfo=UTC)
