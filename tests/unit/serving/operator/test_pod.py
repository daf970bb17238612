"""What a model pod is told of the proof that its version needs."""

from serving.operator import stager
from serving.operator.approving import Demand
from serving.operator.pod import pod_spec
from serving.operator.spec import Version, read
from tests.unit.serving.operator.served import DIGEST, settings, spec

KEYS = [f"-----BEGIN PUBLIC KEY-----\n{name}\n-----END PUBLIC KEY-----\n" for name in ("AAAA", "BBBB")]


def demand(**approval: object) -> Demand:
    """Return what the stager of a pod is asked to demand, as the stager itself reads its arguments."""
    pod = pod_spec("cancer", read(spec(approval=approval)), settings(), config_map="c")
    (container,) = pod["initContainers"]
    options = stager.arguments().parse_args(container["args"])
    return stager.demand_of(options)


def test_stager_demands_what_the_spec_does() -> None:
    """Keys come through with their line breaks; what is not demanded is not."""
    assert demand() == Demand("cancer", 1)
    assert demand(required=True, trustedKeys=KEYS) == Demand("cancer", 1, tuple(KEYS), approval=True)
    assert demand(signatureRequired=True, trustedKeys=KEYS[:1]) == Demand("cancer", 1, (KEYS[0],), signature=True)
    assert demand(trustedKeys=KEYS) == Demand("cancer", 1, tuple(KEYS))


def test_pod_is_of_the_version_that_is_asked_for() -> None:
    """A canary's pods fetch, load and prove the canary."""
    other = Version.model_validate({"version": 7, "storageUri": "pvc://models/cancer/7", "digest": DIGEST})
    pod = pod_spec("cancer", read(spec()), settings(), config_map="c", version=other)
    text = str(pod)
    assert "pvc://models/cancer/7" in text
    assert "--version=7" in text
    assert "/models/cancer/1" not in text
