"""The operator's settings, from OPERATOR_… variables; the chart sets those that have no default."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from healthguard.settings import Settings


class OperatorSettings(Settings):
    """What a person decides about the operator when installing it."""

    model_config = SettingsConfigDict(env_prefix="OPERATOR_")

    port: int = Field(default=8080, ge=1, le=65535)
    """TCP port of /livez, /readyz and /metrics."""

    namespaces: frozenset[str] = frozenset()
    """Namespaces whose ServedModels are looked after, as a JSON list; empty: those of the whole cluster."""

    image: str
    """The operator's own image, in which stager and prober run too."""

    modelserver_image: str
    """Image of HealthGuard's model server, for the runtime `embedded`."""

    tensorflow_serving_image: str
    """Image of TensorFlow Serving for CPUs."""

    tensorflow_serving_gpu_image: str
    """Image of TensorFlow Serving for GPUs, used where a device is asked for."""

    image_pull_policy: str = Field(default="IfNotPresent", pattern="^(Always|IfNotPresent|Never)$")
    """When kubelets pull the images of model pods."""

    image_pull_secrets: tuple[str, ...] = ()
    """Secrets with which kubelets pull them, as a JSON list of names."""

    gateway_labels: dict[str, str] = Field(default={"app.kubernetes.io/component": "gateway"}, min_length=1)
    """Labels of the pods that may send predictions to model pods, as a JSON object; in the same namespace."""

    scraper_labels: dict[str, str] | None = None
    """Labels of the namespaces whose pods may read model pods' metrics, as a JSON object; none: nobody may."""

    dns_ports: tuple[Annotated[int, Field(ge=1, le=65535)], ...] = Field(default=(53,), min_length=1, max_length=16)
    """Where name servers' pods answer, as a JSON list: model pods whose files are in a remote store may ask there."""

    model_tls_secret: str = ""
    """The Secret with the certificate, key and authority of model servers, in each namespace that has models; they then
    speak TLS alone, and to nobody without a certificate of that authority. Empty: plain gRPC."""

    model_tls_name: str = ""
    """The DNS name in that certificate, which the probers check."""

    model_tls_cert_file: Path | None = None
    """That certificate, without its key, as this pod sees it: when it changes, model pods are replaced in turn."""

    gateway_service: str = Field(default="", max_length=63)
    """The gateways' Service. They are asked what they measured, for rollouts and scaling; empty: they are not, so that
    no rollout goes on by itself."""

    gateway_namespace: str = Field(default="", max_length=63)
    """Where that Service is; empty: in each model's own namespace."""

    gateway_ca_file: Path | None = None
    """PEM file with the authority of the gateways' certificates; none: they are asked by plain HTTP."""

    gateway_interval_s: float = Field(default=3.0, ge=0.5, le=60.0)
    """How often they are asked, seconds."""

    see_devices: bool = False
    """Whether it may list nodes, and the pods of the whole cluster: only so it knows which GPUs are free."""

    drain_pods_s: int = Field(default=15, ge=1, le=600)
    """How long a leaving model pod goes on answering, so that gateways can leave it first; seconds."""

    resync_s: float = Field(default=300.0, ge=1.0, le=86_400.0)
    """How often every ServedModel is looked at although nothing happened, seconds."""

    metrics_provider: Literal["none", "builtin", "keda", "prometheus-adapter"] = "none"
    """Where autoscalers learn what is in flight: from this operator's own external metrics API, from KEDA, from the
    Prometheus adapter, or not at all; then the use of CPUs alone counts."""

    metrics_service: str = Field(default="", pattern=r"^[a-z0-9-]*$")
    """The Service under which the API server finds the external metrics API; for `builtin`."""

    metrics_port: int = Field(default=8443, ge=1, le=65535)
    """TCP port of the external metrics API; for `builtin`."""

    own_namespace: str = Field(default="", pattern=r"^[a-z0-9-]*$")
    """The namespace of this operator; for `builtin`."""

    prometheus_url: str = Field(default="", max_length=1024)
    """Where KEDA asks Prometheus, as in http://prometheus.monitoring.svc:9090; for `keda`."""

    @model_validator(mode="after")
    def _certificate_has_a_name(self) -> Self:
        if self.model_tls_secret and not self.model_tls_name:
            raise ValueError(
                "model_tls_secret needs model_tls_name: a certificate that anybody may have proves nothing"
            )
        return self

    @model_validator(mode="after")
    def _provider_has_its_address(self) -> Self:
        if self.metrics_provider == "builtin" and not (self.metrics_service and self.own_namespace):
            raise ValueError("metrics_provider builtin needs metrics_service and own_namespace")
        if self.metrics_provider == "keda" and not self.prometheus_url:
            raise ValueError("metrics_provider keda needs prometheus_url")
        return self
