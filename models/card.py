"""Write the model card from the training record, so that no figure on it was typed by hand."""

from typing import Any

from models.catalog import SIDE_PX, Purpose

_ABOUT = {
    "cancer": {
        "data": (
            "Drawn mammograms: a breast in projection with glandular texture of a mammogram's power spectrum, four "
            "density classes, and one finding or none. Negative: no finding, a smooth mass, or coarse calcifications. "
            "Positive: a spiculated mass, or clustered microcalcifications. Both classes also have scattered fine "
            "calcifications. Detector gain, gamma, blur, noise and JPEG compression vary."
        ),
        "score": (
            "The calibrated probability that the phantom is malignant. Positive from 0.5. Confidence is the score, or "
            "1 minus the score for Negative."
        ),
        "factors": "Breast density (A to D) and kind of finding; table below.",
        "limits": (
            "The phantoms are far simpler than mammograms: no ducts, vessels, muscle, implants, marks, compression "
            "artefacts, prior images or second view, and half of them are malignant. Nothing follows from these "
            "figures for real images."
        ),
    },
    "anemia": {
        "data": (
            "Drawn photographs of a lower eyelid, a palm or a nail bed. Tissue absorbs light by hemoglobin, perfusion "
            "(which varies by 4 % between people) and melanin. Skin tone, lighting, white balance, blur, noise and "
            "JPEG compression vary. A third of the phantoms each has 12 to 16, 8 to 12 and 4 to 8 g/dL."
        ),
        "score": (
            "A risk score that falls with hemoglobin: 0.3 stands for 12 g/dL and 0.7 for 8 g/dL, the limits of no and "
            "of severe anemia in the WHO guideline of 2024 for non-pregnant women. LOW below 0.3, MEDIUM below 0.7, "
            "HIGH from 0.7. It is not the probability of a disease. Confidence is the share of validation phantoms "
            "with such a score whose class was right."
        ),
        "factors": "Site, skin tone (Fitzpatrick, in pairs) and lighting; table below.",
        "limits": (
            "Real pallor depends on much that is not drawn here: temperature, make-up, nail varnish, jaundice, "
            "inflammation, camera processing. Each picture here holds something white to compare with, and each "
            "class is a third. Nothing follows from these figures for real images. A score is not a hemoglobin "
            "measurement."
        ),
    },
}


def render(purpose: Purpose, record: dict[str, Any]) -> str:
    """
    Return the card as Markdown.

    Source of the sections: Mitchell et al., "Model cards for model reporting" (2019).
    """
    about = _ABOUT[purpose.model]
    labels = ", ".join(purpose.labels)
    sets = record["phantoms"]
    error = record["calibration_error"]
    return f"""\
Trained on synthetic phantoms: a demonstration, not for clinical use.

# {purpose.title} (`{purpose.model}`), version {purpose.version}

## Model details

A convolutional network of {record["parameters"]:,} parameters: strided convolutions with batch normalisation, average
pooling, a linear head. Apache-2.0. Weights: `{record["weights_digest"]}`.
Task: {purpose.task}; classes {labels}.

{about["score"]}

## Intended use

{purpose.intended_use}
Users: engineers who try, test or operate HealthGuard. Out of scope: every decision about a person.

## Factors

{about["factors"]}

## Metrics

Each figure is of {sets["test"]:,} test phantoms, with its 95 % bootstrap interval in brackets.

| figure | value |
|---|---|
{_figures(record)}
| expected calibration error, 15 bins | {error["after"]:.3f} |
| the same before calibration, on the validation phantoms | {error["before"]:.3f} |{_baseline(record)}

## Preprocessing

Decode to 8-bit RGB. Resize to {SIDE_PX} by {SIDE_PX} without keeping the aspect ratio, by OpenCV's INTER_AREA where the
image shrinks and INTER_LINEAR where it grows. The network takes these bytes; scaling to 0..1 is in the graph.

## Out of distribution

Mean and spread of the pixels and of every channel of every layer are compared with those of the phantoms
(Mahalanobis distance, covariance shrunk to its diagonal). Above {record["ood_limit"]:.3f} the answer is
*Indeterminate*: the limit refuses 1 % of the validation phantoms. Share that it refused of others:

| images | refused |
|---|---|
{_refused(record)}

A photograph of the right kind but of poor quality may still pass; so may a real mammogram or eyelid, for which the
figures above say nothing.

## Training data

{sets["training"]:,} phantoms, seed {purpose.seed}. {about["data"]}

## Evaluation data

{sets["validation"]:,} validation phantoms, on which temperature {record["temperature"]:.3f}, limit and confidence were
fitted, and {sets["test"]:,} test phantoms for the figures above. The three sets are drawn by the same program from
different seeds and share no image.

## Quantitative analyses

Share of test phantoms whose class was right, by subgroup:

| factor | subgroup | right |
|---|---|---|
{_subgroups(record)}

## Ethical considerations

No image of a person was used. A demonstration that answers like a medical device may be taken for one: every contract
carries `"demonstration": true`, and interfaces must show it.

## Caveats and recommendations

{about["limits"]}
The golden cases of this version were chosen because the model answers them rightly; they test servers, not accuracy.
"""


def _figures(record: dict[str, Any]) -> str:
    return "\n".join(
        f"| {name} | {figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f}) |"
        for name, figure in record["figures"].items()
    )


def _baseline(record: dict[str, Any]) -> str:
    auc = record["thumbnail_auc"]
    return "" if auc is None else f"\n| for comparison: AUC of logistic regression on 16 by 16 thumbnails | {auc:.3f} |"


def _refused(record: dict[str, Any]) -> str:
    return "\n".join(f"| {kind} | {share:.3f} |" for kind, share in record["refused"].items())


def _subgroups(record: dict[str, Any]) -> str:
    return "\n".join(
        f"| {kind} | {name} | {right:.3f} |"
        for kind, shares in record["subgroups"].items()
        for name, right in shares.items()
    )
