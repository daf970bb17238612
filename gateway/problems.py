"""
The gateway's own problems.

    Problem
    ├── UnsupportedImage     415  the content is neither JPEG nor PNG
    ├── BrokenImage          422  a JPEG or PNG that cannot be decoded to its end
    ├── TooManyPixels        422  more pixels than are decoded here
    ├── SeveralPictures      422  an animation: which picture is meant is not ours to guess
    ├── Indeterminate        422  the image is unlike anything the model knows (old paths only)
    ├── NoExplanation        422  the version that answers gives no heat map
    ├── UploadTooSlow        408  the body did not arrive in time
    ├── TooManyRequests      429  a caller asked too often
    ├── BadTensor            400  a tensor is not what the model takes (/v2)
    ├── UnknownModel         404  no such model is served here
    ├── UnknownVersion       404  this version of the model is not served here
    ├── BadUpstream          502  a service behind us answered what cannot be passed on
    ├── PredictionTimeout    504  the model did not answer in time
    └── Unavailable          503
        ├── Overloaded           too much is in flight already
        ├── ModelUnavailable     the model is loading or away
        ├── NotStored            the prediction was made and could not be stored
        └── UpstreamUnavailable  auth or records is away
"""

from collections.abc import Mapping
from typing import ClassVar

from healthguard.problems import Problem, Unavailable


class UnsupportedImage(Problem):
    """The content is no image of a kind that is taken here (JPEG and PNG), whatever its name or type says."""

    status, slug, title = 415, "unsupported-image", "The content is neither a JPEG nor a PNG image"


class BrokenImage(Problem):
    """The image begins like a JPEG or PNG and cannot be decoded to its end: truncated, damaged, or of a rare kind."""

    status, slug, title = 422, "broken-image", "The image is damaged or incomplete"


class TooManyPixels(Problem):
    """The image's header says more pixels than are decoded here; `limit_pixels` says how many are."""

    status, slug, title = 422, "too-many-pixels", "The image has too many pixels"
    members: ClassVar[Mapping[str, type]] = {"limit_pixels": int}


class SeveralPictures(Problem):
    """The file is an animation; which of its pictures is meant cannot be known."""

    status, slug, title = 422, "several-pictures", "The file holds several pictures"


class Indeterminate(Problem):
    """The image is unlike what the model was made for; paths that can answer so do, and the old ones say it thus."""

    status, slug, title = 422, "indeterminate", "The image is outside what the model can judge"


class NoExplanation(Problem):
    """The version that answers has no heat map; without `explain` the same request gives a prediction."""

    status, slug, title = 422, "no-explanation", "This model does not explain its predictions"


class UploadTooSlow(Problem):
    """The body did not arrive in the time that an upload may take."""

    status, slug, title = 408, "upload-too-slow", "The body did not arrive in time"


class TooManyRequests(Problem):
    """A caller, or an address without a token, has used up this minute's requests; RateLimit says more."""

    status, slug, title = 429, "too-many-requests", "Too many requests"
    members: ClassVar[Mapping[str, type]] = {"retry_after_ms": int}


class UnknownModel(Problem):
    """No model of this name is served here."""

    status, slug, title = 404, "unknown-model", "No such model is served here"


class UnknownVersion(Problem):
    """The model is served here, and not in this version."""

    status, slug, title = 404, "unknown-version", "This version of the model is not served here"


class BadTensor(Problem):
    """What was sent to /v2 is not of the Open Inference Protocol's form, or no tensor that the model takes."""

    status, slug, title = 400, "bad-tensor", "The tensors are not what the model takes"


class BadUpstream(Problem):
    """A service behind the gateway gave an answer that is too large or not of the agreed form."""

    status, slug, title = 502, "bad-upstream", "A service behind the gateway gave no usable answer"


class PredictionTimeout(Problem):
    """The model did not answer in time; nothing was stored."""

    status, slug, title = 504, "prediction-timeout", "The model did not answer in time"


class Overloaded(Unavailable):
    """So much is in flight that this request would wait too long; nothing was done with it."""

    slug, title = "overloaded", "Too much is in flight; try again shortly"


class ModelUnavailable(Unavailable):
    """The model is declared here, and is loading or away."""

    slug, title = "model-unavailable", "The model is not available at the moment"


class NotStored(Unavailable):
    """
    The prediction was made and records could not be asked to keep it, so no answer is given.

    Whether it was stored is not known; with an Idempotency-Key the same request can be sent again without a second
    record.
    """

    slug, title = "not-stored", "The prediction could not be stored"

    def __init__(self) -> None:
        super().__init__(
            "It is not known whether the prediction was stored. "
            "Send it again with an Idempotency-Key to have it stored once."
        )


class UpstreamUnavailable(Unavailable):
    """The service that answers this path is away."""

    slug, title = "upstream-unavailable", "The service behind this path is away"
