"""
A model pod: the stager fetches and checks the version, the server serves it, the prober says when it is right.

Every container passes Pod Security *restricted*, has a read-only root, and no token of the Kubernetes API.
"""

from typing import Any

from serving.operator import certificates, server_config, storage
from serving.operator.settings import OperatorSettings
from serving.operator.spec import ServedModelSpec, Version

Manifest = dict[str, Any]

GRPC, REST, PROBER = 8500, 8501, 8502
USER = 10001

STAGER_NAME, SERVER_NAME, PROBER_NAME = "stager", "server", "prober"

_OFFICIAL_GRACE_S = 5
"""TensorFlow Serving ignores SIGTERM: after the wait there is nothing more to wait for."""
_EMBEDDED_GRACE_S = 30
"""Our server ends what is in flight first."""

_PERIOD_S = 5


def pod_spec(
    model: str, spec: ServedModelSpec, settings: OperatorSettings, *, config_map: str, version: Version | None = None
) -> Manifest:
    """
    Return the spec of the pods of one version; what Kubernetes would fill in by itself is left out where it can be.

    Args:
        version: which one; without one the stable.
    """
    version = version or spec.stable
    grace = _OFFICIAL_GRACE_S if spec.runtime.name == "tensorflow-serving" else _EMBEDDED_GRACE_S
    pod: Manifest = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": settings.drain_pods_s + grace,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "initContainers": [_stager(model, spec, version, settings)],
        "containers": [_server(model, spec, version, settings), _prober(model, spec, version, settings)],
        "volumes": _volumes(spec, version, settings, config_map),
    }
    if spec.node_selector:
        pod["nodeSelector"] = dict(spec.node_selector)
    if spec.tolerations:
        pod["tolerations"] = [
            toleration.model_dump(by_alias=True, exclude_defaults=True) for toleration in spec.tolerations
        ]
    if settings.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in settings.image_pull_secrets]
    return pod


def _container(name: str, image: str, command: list[str], args: list[str], settings: OperatorSettings) -> Manifest:
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": settings.image_pull_policy,
        # Without a shell between: the program is process 1 and gets its signals itself.
        "command": command,
        "args": args,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }


def _stager(model: str, spec: ServedModelSpec, version: Version, settings: OperatorSettings) -> Manifest:
    args = [
        f"--model={model}",
        f"--version={version.version}",
        f"--uri={version.storage_uri}",
        f"--digest={version.digest}",
        f"--target={_folder(model, version)}",
        f"--mebibytes-max={spec.storage.max_mebibytes}",
        f"--timeout-s={spec.storage.timeout_seconds}",
    ]
    args += [f"--trusted-key={key}" for key in spec.approval.trusted_keys]
    args += ["--approval-required"] if spec.approval.required else []
    args += ["--signature-required"] if spec.approval.signature_required else []
    stager = _container(STAGER_NAME, settings.image, ["python", "-m", "serving.operator.stager"], args, settings)
    stager["volumeMounts"] = [_models_mount(model, version, writer=True), {"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108
    if settings.model_tls_secret:
        stager["args"].append(f"--ssl-config={certificates.SSL_CONFIG}")
        stager["volumeMounts"] += [_CERTIFICATE_MOUNT, _ssl_config_mount(writer=True)]
    address = storage.parse(version.storage_uri)
    if address.scheme == "pvc":
        mount = {"name": "claim", "mountPath": f"{storage.CLAIMS}/{address.place}", "readOnly": True}
        stager["volumeMounts"].append(mount)
    if spec.storage.secret_name:
        stager["envFrom"] = [{"secretRef": {"name": spec.storage.secret_name}}]
    stager["resources"] = {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}}
    return stager


def _server(model: str, spec: ServedModelSpec, version: Version, settings: OperatorSettings) -> Manifest:
    official = spec.runtime.name == "tensorflow-serving"
    command = ["/usr/bin/tensorflow_model_server"] if official else ["python", "-m", "serving.modelserver"]
    # HTTP has no TLS there, and answers predictions too: it is open only where somebody reads metrics from it.
    rest = None if settings.model_tls_secret and settings.scraper_labels is None else REST
    ssl_config = certificates.SSL_CONFIG if settings.model_tls_secret else None
    flags = server_config.flags(spec, grpc=GRPC, rest=rest, ssl_config=ssl_config)
    server = _container(SERVER_NAME, _server_image(spec, settings), command, flags, settings)
    server["ports"] = [{"name": "grpc", "containerPort": GRPC}]
    if official and rest:
        server["ports"].append({"name": "rest", "containerPort": rest})
    if official:
        server["env"] = _official_environment(spec)
    server["resources"] = _resources(spec)
    server["volumeMounts"] = [
        _models_mount(model, version),
        {"name": "config", "mountPath": str(server_config.CONFIG), "readOnly": True},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a volume of the pod's own
    ]
    if settings.model_tls_secret:
        server["volumeMounts"].append(_ssl_config_mount())
    # The kubelet waits before it signals: endpoints and gateways learn first that the pod leaves.
    server["lifecycle"] = {"preStop": {"sleep": {"seconds": settings.drain_pods_s}}}
    # Neither asks for the model: a restart would not mend it. The port opens when the version is loaded and warm.
    server["startupProbe"] = _tcp(failures=-(-spec.load_timeout_seconds // _PERIOD_S))
    server["livenessProbe"] = _tcp(failures=6)
    # Where the server dies, its last lines are the only reason there is.
    server["terminationMessagePolicy"] = "FallbackToLogsOnError"
    return server


def _server_image(spec: ServedModelSpec, settings: OperatorSettings) -> str:
    if spec.runtime.image:
        return spec.runtime.image
    if spec.runtime.name == "embedded":
        return settings.modelserver_image
    return settings.tensorflow_serving_gpu_image if spec.gpus else settings.tensorflow_serving_image


def _official_environment(spec: ServedModelSpec) -> list[Manifest]:
    # oneDNN ends the process on a tensor of the wrong rank; without it that is an INVALID_ARGUMENT.
    environment = {"TF_ENABLE_ONEDNN_OPTS": "0"}
    if spec.gpus:
        # Otherwise TensorFlow takes all memory of a GPU that may be shared in time slices.
        environment["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
    return [{"name": name, "value": value} for name, value in environment.items()]


def _resources(spec: ServedModelSpec) -> Manifest:
    given = {"requests": dict(spec.resources.requests), "limits": dict(spec.resources.limits)}
    return {kind: {name: str(amount) for name, amount in amounts.items()} for kind, amounts in given.items() if amounts}


def _tcp(*, failures: int) -> Manifest:
    probe: Manifest = {"tcpSocket": {"port": "grpc"}, "periodSeconds": _PERIOD_S, "timeoutSeconds": 3}
    return probe | {"failureThreshold": failures}


def _prober(model: str, spec: ServedModelSpec, version: Version, settings: OperatorSettings) -> Manifest:
    args = [
        f"--model={model}",
        f"--version={version.version}",
        f"--folder={_folder(model, version)}",
        f"--target=127.0.0.1:{GRPC}",
        f"--port={PROBER}",
    ]
    if spec.golden_test.max_difference is not None:
        args.append(f"--max-difference={spec.golden_test.max_difference}")
    if not spec.golden_test.required:
        args.append("--golden-optional")
    prober = _container(PROBER_NAME, settings.image, ["python", "-m", "serving.operator.prober"], args, settings)
    prober["ports"] = [{"name": "prober", "containerPort": PROBER}]
    prober["volumeMounts"] = [_models_mount(model, version)]
    if settings.model_tls_secret:
        prober["args"] += [f"--certificate={certificates.SECRET}", f"--server-name={settings.model_tls_name}"]
        prober["volumeMounts"].append(_CERTIFICATE_MOUNT)
    prober["resources"] = {"requests": {"cpu": "20m", "memory": "96Mi"}, "limits": {"memory": "256Mi"}}
    # A pod is ready when all of its containers are, so the prober's answer is the pod's.
    prober["readinessProbe"] = _http("/readyz", period_s=2, failures=2)
    prober["livenessProbe"] = _http("/livez", period_s=10, failures=3)
    prober["startupProbe"] = _http("/livez", period_s=1, failures=60)
    return prober


def _http(path: str, *, period_s: int, failures: int) -> Manifest:
    probe: Manifest = {"httpGet": {"path": path, "port": "prober"}, "periodSeconds": period_s, "timeoutSeconds": 2}
    return probe | {"failureThreshold": failures}


def _folder(model: str, version: Version) -> str:
    return str(server_config.MODELS / model / str(version.version))


def _in_image(version: Version) -> bool:
    return storage.parse(version.storage_uri).scheme == "oci"


def _models_mount(model: str, version: Version, *, writer: bool = False) -> Manifest:
    if _in_image(version):
        # An image cannot change under its mount, so it is checked where it lies, and never copied.
        return {"name": "models", "mountPath": _folder(model, version), "readOnly": True}
    return {"name": "models", "mountPath": str(server_config.MODELS), "readOnly": not writer}


_CERTIFICATE_MOUNT: Manifest = {"name": "certificate", "mountPath": str(certificates.SECRET), "readOnly": True}


def _ssl_config_mount(*, writer: bool = False) -> Manifest:
    return {"name": "ssl-config", "mountPath": str(certificates.SSL_CONFIG.parent), "readOnly": not writer}


def _certificate_volumes(secret: str) -> list[Manifest]:
    return [
        # The key is read by the pod's group, which is the stager's and the prober's.
        {"name": "certificate", "secret": {"secretName": secret, "defaultMode": 0o440}},
        {"name": "ssl-config", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
    ]


def _volumes(spec: ServedModelSpec, version: Version, settings: OperatorSettings, config_map: str) -> list[Manifest]:
    address = storage.parse(version.storage_uri)
    # There is never more than one copy; the rest is what a file system needs for itself.
    models: Manifest = {"name": "models", "emptyDir": {"sizeLimit": f"{spec.storage.max_mebibytes + 16}Mi"}}
    if _in_image(version):
        image = {"reference": address.place, "pullPolicy": settings.image_pull_policy}
        models = {"name": "models", "image": image}
    volumes = [
        models,
        {"name": "config", "configMap": {"name": config_map}},
        {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}},
    ]
    if settings.model_tls_secret:
        volumes += _certificate_volumes(settings.model_tls_secret)
    if address.scheme == "pvc":
        claim = {"claimName": address.place, "readOnly": True}
        volumes.append({"name": "claim", "persistentVolumeClaim": claim})
    return volumes
