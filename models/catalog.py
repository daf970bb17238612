"""Say what each model of this repository is for: everything of its contract that is decided, not measured."""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

SIDE_PX = 224
"""Height and width of every model's input. Source: the two applications that HealthGuard replaces."""


@dataclass(frozen=True)
class Purpose:
    """
    One model's meaning, and how it is trained.

    `labels` and `thresholds`: label i is chosen by the number of thresholds at or below the score. `seed` is the root
    of all randomness; `training`, `validation` and `test` count phantoms; `mirrors` are the image axes (1 vertical, 2
    horizontal) along which a mirrored image is as good as the original. `modes` is the kind of subgroup whose members
    look so different from each other that each has a familiarity of its own. `guided_everywhere`: where the truth mask
    is not, the truth is Negative; otherwise nothing is known there.
    """

    model: str
    title: str
    task: Literal["binary", "risk"]
    labels: tuple[str, ...]
    thresholds: tuple[float, ...]
    recommendations: MappingProxyType[str, str]
    intended_use: str
    version: int
    seed: int
    training: int
    validation: int
    test: int
    epochs: int
    mirrors: tuple[int, ...]
    modes: str
    guided_everywhere: bool


_UNSUITED = "The image is unlike those that the model was made for: no result. Check the image and take it again."

PURPOSES: MappingProxyType[str, Purpose] = MappingProxyType(
    {
        "cancer": Purpose(
            model="cancer",
            title="Breast cancer",
            task="binary",
            labels=("Negative", "Positive"),
            thresholds=(0.5,),
            recommendations=MappingProxyType(
                {
                    "Negative": "No sign of malignancy found. Keep to the usual screening interval.",
                    "Positive": "Signs of malignancy found. Refer for assessment by a breast specialist.",
                    "Indeterminate": _UNSUITED,
                }
            ),
            intended_use="Demonstration of serving a mammography classifier. Not for clinical use.",
            version=2,
            seed=20_260_001,
            training=4_800,
            validation=1_600,
            test=2_000,
            epochs=12,
            mirrors=(1, 2),
            modes="side",
            guided_everywhere=True,
        ),
        "anemia": Purpose(
            model="anemia",
            title="Anemia risk",
            task="risk",
            labels=("LOW", "MEDIUM", "HIGH"),
            thresholds=(0.3, 0.7),
            recommendations=MappingProxyType(
                {
                    "LOW": "No sign of anemia found. No action needed on this result alone.",
                    "MEDIUM": "Consult with a healthcare provider",
                    "HIGH": "See a healthcare provider soon: a blood count is advised.",
                    "Indeterminate": _UNSUITED,
                }
            ),
            intended_use="Demonstration of serving an anemia risk model on photographs. Not for clinical use.",
            version=2,
            seed=20_260_002,
            training=3_600,
            validation=1_200,
            test=1_200,
            epochs=20,
            mirrors=(2,),
            modes="site",
            guided_everywhere=False,
        ),
    }
)
