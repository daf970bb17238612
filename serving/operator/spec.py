"""
A ServedModel as Python sees it: which versions of a model are served, from where, how fast and with what proof.

These classes are also the source of the CRD's schema (`python -m serving.operator.crd`): a field's description is what
`kubectl explain` says. Only what this release honours is a field, so that the API server refuses the rest by name:
a wish that is silently ignored is worse than one that is refused.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from serving.operator.part import VERSION_MAX, Part
from serving.operator.rules import broken
from serving.operator.scaling import Autoscaling
from serving.operator.storage import URI_PATTERN
from serving.operator.traffic import Rollout, Traffic

GROUP = "serving.healthguard.io"
API_VERSION = "v1alpha1"
KIND = "ServedModel"
PLURAL = "servedmodels"

NAME_LENGTH_MAX = 40
NAME_PATTERN = "^[a-z]([a-z0-9-]*[a-z0-9])?$"
"""A model's name becomes a part of its children's names, of labels and of metric names."""

DIGEST_PATTERN = "^sha256:[0-9a-f]{64}$"
VERSIONS_MAX = 16

OWN_FLAGS = (
    "port",
    "rest_api_port",
    "grpc_socket_path",
    "model_config_file",
    "model_base_path",
    "model_name",
    "enable_batching",
    "batching_parameters_file",
    "monitoring_config_file",
    "ssl_config_file",
)
"""Flags that the operator sets; a second value of one would part the server from its probes."""

Quantity = Annotated[
    str | int,
    Field(json_schema_extra={"x-kubernetes-int-or-string": True}),
]
Flag = Annotated[str, Field(max_length=256, pattern=r"^--[a-z][a-z0-9_]*=[^\s]*$")]
LabelText = Annotated[str, Field(max_length=317)]


class InvalidSpec(Exception):
    """A ServedModel that cannot be understood; the text names the fields and holds none of their values."""


class Runtime(Part):
    """What serves the model."""

    name: Literal["tensorflow-serving", "embedded"] = "tensorflow-serving"
    """tensorflow-serving: the official server, on GPUs too. embedded: HealthGuard's own server with LiteRT, on CPUs."""

    image: str = Field(default="", max_length=512)
    """The server's image; empty: the one that the operator was installed with."""

    args: list[Flag] = Field(
        default=[],
        max_length=32,
        json_schema_extra={
            "x-kubernetes-validations": [
                {
                    "rule": f"self.all(a, !a.matches('^--({'|'.join(OWN_FLAGS)})='))",
                    "message": "runtime.args may not set a flag that the operator sets itself (ports, paths, batching)",
                }
            ]
        },
    )
    """More flags for the server, each as --name=value."""


class Version(Part):
    """One version of the model."""

    version: int = Field(ge=1, le=VERSION_MAX)
    """Its number, which never means anything else again."""

    storage_uri: str = Field(max_length=1024, pattern=URI_PATTERN)
    """A folder (pvc://claim/path, s3://bucket/prefix, gs://bucket/prefix), a tar archive (https://…), or an OCI image
    (oci://…) whose root is the version folder."""

    digest: str = Field(
        max_length=71,
        pattern=DIGEST_PATTERN,
        json_schema_extra={
            "x-kubernetes-validations": [
                {
                    "rule": "self == oldSelf",
                    "message": "a version never changes its digest: add a version with a new number",
                }
            ]
        },
    )
    """SHA-256 over the sorted lines "<sha256>  <path>" of all its files, as `sha256sum` writes them."""


class GoldenTest(Part):
    """The proof that a server answers as the version's maker measured, asked before it gets any request."""

    max_difference: float | None = Field(default=None, gt=0, le=1)
    """How far an output may be from a golden case's; left out: the tolerance that the version itself names."""

    required: bool = True
    """Whether a version without golden cases is refused."""


class Batching(Part):
    """Requests that wait at the same time run together."""

    max_batch_size: int = Field(default=32, ge=1, le=1024)
    """Rows that run together at most."""

    batch_timeout_micros: int = Field(default=0, ge=0, le=1_000_000)
    """How long a batch that is not full waits for more, microseconds."""

    max_enqueued_batches: int = Field(default=8, ge=1, le=1024)
    """Batches that may wait; above it requests are refused at once."""

    num_batch_threads: int = Field(default=1, ge=1, le=256)
    """Batches that run at the same time: on CPUs the number of cores, on a GPU one or two."""


class Resources(Part):
    """What the server asks for, as in a container; `nvidia.com/gpu`, MIG slices and other devices too."""

    requests: dict[str, Quantity] = Field(default={}, max_length=16)
    """Least amounts by resource."""

    limits: dict[str, Quantity] = Field(default={}, max_length=16)
    """Greatest amounts by resource; devices such as GPUs are asked for here."""


class Toleration(Part):
    """A taint that the pods may stand, as in a pod."""

    key: str = Field(default="", max_length=317)
    """The taint's key; empty: any."""

    operator: Literal["Exists", "Equal"] = "Equal"
    """Whether the taint's value matters."""

    value: str = Field(default="", max_length=63)
    """The taint's value."""

    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""
    """The taint's effect; empty: any."""

    toleration_seconds: int | None = Field(default=None, ge=0)
    """How long NoExecute is stood."""


class Storage(Part):
    """How versions are fetched."""

    secret_name: str = Field(default="", max_length=253)
    """A Secret whose keys become the stager's environment: AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL and the like."""

    ports: list[Annotated[int, Field(ge=1, le=65535)]] = Field(default=[], max_length=8)
    """More TCP ports that the stager may connect to than the address names, such as an S3 endpoint's."""

    max_mebibytes: int = Field(default=2048, ge=1, le=1_048_576)
    """How large a version may be; the pods keep a copy of it on their node."""

    timeout_seconds: int = Field(default=600, ge=1, le=86_400)
    """How long fetching and checking may take."""


PublicKey = Annotated[
    str,
    Field(
        max_length=1024,
        pattern=r"^-----BEGIN PUBLIC KEY-----[A-Za-z0-9+/=\s]+-----END PUBLIC KEY-----\s*$",
    ),
]


class Approval(Part):
    """The signed statement, beside each version, of who lets it be used, for what and until when."""

    required: bool = False
    """Whether a version without a valid one is refused."""

    signature_required: bool = False
    """Whether a version without a valid OpenSSF Model Signing signature of its files is refused."""

    trusted_keys: list[PublicKey] = Field(default=[], max_length=8)
    """Public keys (PEM) of those who may approve and sign: the word of any of them is enough."""


class ServedModelSpec(Part):
    """Which versions of a model are served, from where, how fast and with what proof."""

    runtime: Runtime = Runtime()
    """What serves the model."""

    versions: list[Version] = Field(
        min_length=1,
        max_length=VERSIONS_MAX,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["version"]},
    )
    """The versions that may be served."""

    traffic: Traffic
    """Which version answers, and which ones are tried beside it."""

    rollout: Rollout | None = None
    """How a canary is brought in step by step; left out: it gets the share that `traffic.canary.percent` says."""

    approval: Approval = Approval()
    """Who must have approved a version before it is served."""

    golden_test: GoldenTest = GoldenTest()
    """The test that a server passes before it gets any request."""

    batching: Batching | None = None
    """Run waiting requests together; left out: each runs alone."""

    resources: Resources = Resources()
    """What the server asks for."""

    node_selector: dict[str, LabelText] = Field(default={}, max_length=32)
    """Labels that a node must have."""

    tolerations: list[Toleration] = Field(default=[], max_length=32)
    """Taints that the pods may stand."""

    min_replicas: int = Field(default=1, ge=1, le=1000)
    """How many pods serve the model; with `autoscaling`, at least."""

    max_replicas: int | None = Field(default=None, ge=1, le=1000)
    """How many pods serve the model at most; goes with `autoscaling`."""

    autoscaling: Autoscaling | None = None
    """The number of pods follows what they have to do; left out: there are `minReplicas`."""

    storage: Storage = Storage()
    """How versions are fetched."""

    load_timeout_seconds: int = Field(default=600, ge=10, le=86_400)
    """How long a server may take to load the version and to run its warm-up requests, before it is started again."""

    @model_validator(mode="after")
    def _rules_hold(self) -> Self:
        rule = broken(self)
        if rule is not None:
            raise ValueError(rule.message)
        if len(self.numbers) != len(self.versions):
            raise ValueError("a version is named twice in versions")
        return self

    @property
    def numbers(self) -> frozenset[int]:
        """The versions' numbers."""
        return frozenset(version.version for version in self.versions)

    def version(self, number: int) -> Version:
        """
        Return the version of that number.

        Raises:
            KeyError: there is none.
        """
        return {version.version: version for version in self.versions}[number]

    @property
    def stable(self) -> Version:
        """The version that answers."""
        return self.version(self.traffic.stable)

    @property
    def gpus(self) -> dict[str, str]:
        """Devices that it asks for, by resource name: what is not cpu, memory or the like has a domain in its name."""
        return {name: str(amount) for name, amount in self.resources.limits.items() if "/" in name}


def read(document: Any) -> ServedModelSpec:
    """
    Read the `spec` of an object.

    Raises:
        InvalidSpec: it is none. The API server admits no such object, except where the CRD is older than this code.
    """
    try:
        return ServedModelSpec.model_validate(document)
    except ValidationError as error:
        fields = sorted({".".join(str(step) for step in found["loc"]) or _sentence(found) for found in error.errors()})
        raise InvalidSpec(f"these fields are not as the CRD has them: {', '.join(fields)[:500]}") from None


def _sentence(found: Any) -> str:
    """Return what a rule across fields says: our own words, without a value."""
    reason = found.get("ctx", {}).get("error")
    return f"spec ({reason})" if isinstance(reason, ValueError) else "spec"
