"""Who answers: the part of a ServedModel's spec about how requests are split, and how a new version is brought in."""

from typing import Annotated, Literal

from pydantic import Field

from serving.operator.part import VERSION_MAX, Part


class Canary(Part):
    """A version that answers a part of the requests."""

    version: int = Field(ge=1, le=VERSION_MAX)
    """The version on trial."""

    percent: int | None = Field(default=None, ge=0, le=100)
    """Its share of the requests. With `rollout` the operator decides the share by its steps; where `rollout.automatic`
    is false, never more than this."""

    sticky: bool = False
    """Whether a caller stays with the version that they once got."""


class Shadow(Part):
    """A version that is asked beside a part of the requests, and whose answers nobody is given."""

    version: int = Field(ge=1, le=VERSION_MAX)
    """The version that is asked beside."""

    percent: int = Field(default=100, ge=0, le=100)
    """The share of the requests of which it gets a copy."""


class Traffic(Part):
    """Which version answers, and which ones are tried beside it."""

    stable: int = Field(ge=1, le=VERSION_MAX)
    """The version that answers."""

    canary: Canary | None = None
    """A new version that answers a part of the requests."""

    shadow: Shadow | None = None
    """A new version that gets copies of requests and is compared with the stable one."""


class Gates(Part):
    """What the gateways must have measured of a canary before it gets more; other than `errorRate`, a gate that is left
    out is not asked."""

    # Never None: a rollout that nobody gave a gate would promote whatever answers, also with nothing but errors.
    error_rate: float = Field(default=0.01, ge=0, le=1)
    """The largest share of its requests that may fail; 1 asks nothing."""

    p99_ms: float | None = Field(default=None, gt=0, le=600_000)
    """The longest that 99 of 100 of its requests may take, milliseconds."""

    agreement: float | None = Field(default=None, ge=0, le=1)
    """The smallest share of compared requests in which it finds what the stable version finds."""


class Rollout(Part):
    """How a canary becomes the version that answers, or is taken back, without a person."""

    steps: list[Annotated[int, Field(ge=1, le=99)]] = Field(default=[5, 25, 50], min_length=1, max_length=16)
    """Shares of the requests that the canary gets one after the other, percent; after the last one it gets all."""

    interval_seconds: int = Field(default=120, ge=1, le=86_400)
    """How long each step takes at least."""

    min_requests: int = Field(default=50, ge=1, le=1_000_000)
    """How many requests the canary must have answered in a step before it is judged well."""

    automatic: bool = True
    """Off: the operator stays at `traffic.canary.percent` at most and never promotes; it still takes a bad canary
    back."""

    timeout_seconds: int = Field(default=1800, ge=10, le=604_800)
    """How long a step, or getting ready, may take before the canary is taken back."""

    gates: Gates = Gates()
    """What must be so of the canary."""

    when_no_device: Literal["Refuse", "Recreate"] = "Refuse"
    """What to do where no node has a device (a GPU) free for a new version's pod. Refuse: nothing is begun, and
    RolloutBlocked says why. Recreate: pods of the version before go first, one at a time, and the larger half answers,
    so that at the worst half of the pods do, rounded down (one of three, of a single one none); a canary, which needs a
    device beside, is refused all the same."""
