"""How many pods answer: the part of a ServedModel's spec about autoscaling, in the HorizontalPodAutoscaler's words."""

from typing import Literal

from pydantic import Field

from serving.operator.part import Part


class ScalingPolicy(Part):
    """How fast the number of pods may change."""

    type: Literal["Pods", "Percent"]
    """What `value` counts."""

    value: int = Field(ge=1, le=1000)
    """How many pods, or how many percent of them, in one period."""

    period_seconds: int = Field(ge=1, le=1800)
    """The period."""


class ScalingRules(Part):
    """How the number of pods changes in one direction."""

    stabilization_window_seconds: int | None = Field(default=None, ge=0, le=3600)
    """For how long the most careful of the recommendations counts."""

    select_policy: Literal["Max", "Min", "Disabled"] = "Max"
    """Which of the policies counts; Disabled: no change in this direction."""

    policies: list[ScalingPolicy] = Field(default=[], max_length=8)
    """How fast it may change."""


class Behavior(Part):
    """How the number of pods changes; what is left out is the operator's own careful default."""

    scale_up: ScalingRules | None = None
    """When there is more to do."""

    scale_down: ScalingRules | None = None
    """When there is less."""


class Autoscaling(Part):
    """The number of pods follows what they have to do."""

    metric: Literal["inFlight"] = "inFlight"
    """inFlight: requests that the gateways have in flight, which tells one waiting request from fifty where a GPU's
    use does not."""

    target: int = Field(default=8, ge=1, le=10_000)
    """How many of them one pod is to have."""

    cpu_percent: int = Field(default=80, ge=10, le=100)
    """A second signal where `resources` ask for CPUs: their use, percent. With two, the loss of one never shrinks."""

    behavior: Behavior = Behavior()
    """How fast, and how patiently."""
