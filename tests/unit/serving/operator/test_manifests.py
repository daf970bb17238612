"""The objects that serve a version."""

from typing import Any

import pytest
from google.protobuf import text_format

from serving.operator import server_config
from serving.operator.manifests import CONNECTED_S, children, revision_of
from serving.operator.spec import read
from serving.tfs.batching_parameters_pb2 import BatchingParameters
from serving.tfs.protos import ModelServerConfig
from tests.unit.serving.operator import served


def made(operator: dict[str, Any] | None = None, **changes: Any) -> dict[str, dict[str, Any]]:
    """Return the objects of a ServedModel by kind."""
    manifests = children(served.OWNER, read(served.spec(**changes)), served.settings(**(operator or {})))
    return {manifest["kind"]: manifest for manifest in manifests}


def pod(**changes: Any) -> dict[str, Any]:
    """Return the pod's spec of a ServedModel."""
    found: dict[str, Any] = made(**changes)["Deployment"]["spec"]["template"]["spec"]
    return found


def containers(**changes: Any) -> dict[str, dict[str, Any]]:
    """Return the pod's containers by name."""
    found = pod(**changes)
    return {container["name"]: container for container in [*found["initContainers"], *found["containers"]]}


def stored(uri: str) -> list[dict[str, Any]]:
    """Return versions of one that is stored at *uri*."""
    return [{"version": 1, "storageUri": uri, "digest": served.DIGEST}]


def test_every_object_goes_with_its_model() -> None:
    """Each child is owned by the ServedModel, so that Kubernetes removes it, and nothing waits for a finalizer."""
    for manifest in made().values():
        (owner,) = manifest["metadata"]["ownerReferences"]
        assert (owner["uid"], owner["controller"], owner["blockOwnerDeletion"]) == (served.OWNER.uid, True, False)
        assert manifest["metadata"]["name"] == "model-cancer-v1"


def test_selectors_choose_the_pods() -> None:
    """Service, budget, policy and Deployment select by labels that the pods have, model and version among them."""
    objects = made()
    labels = objects["Deployment"]["spec"]["template"]["metadata"]["labels"]
    selectors = [
        objects["Service"]["spec"]["selector"],
        objects["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
        objects["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        objects["Deployment"]["spec"]["selector"]["matchLabels"],
    ]
    for selector in selectors:
        assert selector.items() <= labels.items()
        assert {"serving.healthguard.io/model", "serving.healthguard.io/version"} <= selector.keys()


def test_pod_is_available_once_gateways_had_time_to_hear_of_it() -> None:
    """Only then may one that serves go, or its version answer alone."""
    assert made()["Deployment"]["spec"]["minReadySeconds"] == CONNECTED_S > 0


@pytest.mark.parametrize("runtime", ["tensorflow-serving", "embedded"])
def test_every_container_passes_restricted(runtime: str) -> None:
    """No container may do what Pod Security *restricted* forbids, and none has a token of the API."""
    found = pod(runtime={"name": runtime})
    assert found["automountServiceAccountToken"] is False
    assert found["securityContext"]["runAsNonRoot"] is True
    assert found["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in containers(runtime={"name": runtime}).values():
        context = container["securityContext"]
        assert (context["allowPrivilegeEscalation"], context["readOnlyRootFilesystem"]) == (False, True)
        assert context["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize("runtime", ["tensorflow-serving", "embedded"])
def test_pod_outlives_its_wait(runtime: str) -> None:
    """The grace period is longer than the wait in which gateways leave the pod."""
    found = pod(runtime={"name": runtime})
    wait_s = containers(runtime={"name": runtime})["server"]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert found["terminationGracePeriodSeconds"] > wait_s > 0


def test_official_server_is_started_without_a_shell() -> None:
    """TensorFlow Serving is process 1, guarded against malformed tensors, with ports for both APIs and metrics."""
    server = containers()["server"]
    assert server["command"] == ["/usr/bin/tensorflow_model_server"]
    assert {"--port=8500", "--rest_api_port=8501"} <= set(server["args"])
    assert {"name": "TF_ENABLE_ONEDNN_OPTS", "value": "0"} in server["env"]
    assert server["image"] == "registry.test/serving:1"


def test_gpus_choose_image_and_memory() -> None:
    """A model that asks for a device gets the GPU image, and TensorFlow does not take all of its memory."""
    server = containers(resources={"limits": {"nvidia.com/mig-1g.10gb": 1}})["server"]
    assert server["image"] == "registry.test/serving:1-gpu"
    assert {"name": "TF_FORCE_GPU_ALLOW_GROWTH", "value": "true"} in server["env"]
    assert server["resources"] == {"limits": {"nvidia.com/mig-1g.10gb": "1"}}


def test_embedded_server_gets_only_flags_that_it_honours() -> None:
    """Our own server refuses flags that it does not know: it accepts all that it is given here."""
    from serving.modelserver.flags import parse

    changes = {"runtime": {"name": "embedded"}, "batching": {}, "resources": {"limits": {"cpu": "1500m"}}}
    server = containers(**changes)["server"]
    flags = parse(server["args"])
    assert server["command"] == ["python", "-m", "serving.modelserver"]
    assert (flags.port, flags.enable_batching, flags.tensorflow_inter_op_parallelism) == (8500, True, 2)


def test_persons_flags_and_images_are_taken() -> None:
    """What the spec says about the runtime has the last word."""
    server = containers(runtime={"image": "mine:1", "args": ["--mixed_precision=bfloat16"]})["server"]
    assert (server["image"], server["args"][-1]) == ("mine:1", "--mixed_precision=bfloat16")


def test_prober_is_the_pods_readiness() -> None:
    """Only the prober has a readiness probe; liveness of the server never asks for the model."""
    found = containers()
    assert found["prober"]["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "prober"}
    assert "readinessProbe" not in found["server"]
    assert "tcpSocket" in found["server"]["livenessProbe"]


def test_startup_is_given_the_load_timeout() -> None:
    """The kubelet waits for the server as long as the spec allows for loading."""
    probe = containers(loadTimeoutSeconds=91)["server"]["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 91


def test_only_the_stager_writes_where_versions_lie() -> None:
    """Server and prober see the models read-only."""
    mounts = {
        name: next(mount for mount in container["volumeMounts"] if mount["name"] == "models")
        for name, container in containers().items()
    }
    assert {name: mount["readOnly"] for name, mount in mounts.items()} == {
        "stager": False,
        "server": True,
        "prober": True,
    }


def test_claims_are_mounted_read_only_where_the_stager_looks() -> None:
    """pvc://models/… is the claim models."""
    assert {"name": "claim", "persistentVolumeClaim": {"claimName": "models", "readOnly": True}} in pod()["volumes"]
    mount = {"name": "claim", "mountPath": "/mnt/claims/models", "readOnly": True}
    assert mount in containers()["stager"]["volumeMounts"]


def test_image_volumes_lie_where_the_server_looks() -> None:
    """oci://… is mounted as the version folder itself, read-only for all; the stager only checks it."""
    changes = {"versions": stored("oci://registry.test/models/cancer@sha256:00")}
    (volume,) = [volume for volume in pod(**changes)["volumes"] if volume["name"] == "models"]
    assert volume["image"]["reference"] == "registry.test/models/cancer@sha256:00"
    for container in containers(**changes).values():
        assert {"name": "models", "mountPath": "/models/cancer/1", "readOnly": True} in container["volumeMounts"]


@pytest.mark.parametrize(
    ("uri", "more", "ports"),
    [
        pytest.param("pvc://models/cancer/1", [], [], id="a claim needs no network"),
        pytest.param("oci://registry.test/cancer", [], [], id="an image is pulled by the node"),
        pytest.param("s3://bucket/cancer/1", [], [53, 53, 443], id="a store needs names and HTTPS"),
        pytest.param("s3://bucket/cancer/1", [9000], [53, 53, 443, 9000], id="a store of one's own needs its port"),
        pytest.param("https://files.test:8443/1.tar", [], [53, 53, 8443], id="an address names its port"),
    ],
)
def test_policy_lets_out_only_what_the_stager_needs(uri: str, more: list[int], ports: list[int]) -> None:
    """Model pods reach nothing but the place of their version."""
    policy = made(versions=stored(uri), storage={"ports": more})["NetworkPolicy"]["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert [port["port"] for rule in policy["egress"] for port in rule["ports"]] == ports


def test_policy_lets_names_be_asked_for_where_they_answer() -> None:
    """An unprivileged name server cannot listen at 53, and a policy sees the pod's port."""
    policy = made({"dns_ports": (1053, 53)}, versions=stored("s3://bucket/cancer/1"))["NetworkPolicy"]["spec"]
    asked = {(port["port"], port["protocol"]) for port in policy["egress"][0]["ports"]}
    assert asked == {(1053, "UDP"), (1053, "TCP"), (53, "UDP"), (53, "TCP")}


def test_policy_lets_in_only_gateways_and_named_scrapers() -> None:
    """Without scrapers only the gateways' pods reach the model server, and only its gRPC port."""
    (rule,) = made({"gateway_labels": {"app": "gateway"}})["NetworkPolicy"]["spec"]["ingress"]
    assert rule["from"] == [{"podSelector": {"matchLabels": {"app": "gateway"}}}]
    assert [port["port"] for port in rule["ports"]] == [8500]
    _, scrape = made({"scraper_labels": {"name": "monitoring"}})["NetworkPolicy"]["spec"]["ingress"]
    assert 8500 not in [port["port"] for port in scrape["ports"]]


def test_server_files_are_what_tensorflow_serving_reads() -> None:
    """Both files parse as the official messages, and name the version by its number."""
    data = made(batching={"maxBatchSize": 16, "numBatchThreads": 2})["ConfigMap"]["data"]
    config = text_format.Parse(data["models.config"], ModelServerConfig()).model_config_list.config[0]
    assert (config.name, config.base_path, list(config.model_version_policy.specific.versions)) == (
        "cancer",
        "/models/cancer",
        [1],
    )
    batching = text_format.Parse(data["batching.config"], BatchingParameters())
    assert (batching.max_batch_size.value, batching.num_batch_threads.value) == (16, 2)


def revision(**changes: Any) -> str:
    """Return the revision of a ServedModel's pods."""
    return revision_of(children(served.OWNER, read(served.spec(**changes)), served.settings()))


def test_revision_changes_with_pods_and_files_only() -> None:
    """Pods are replaced when their template or their server's files change, and not for a replica more."""
    assert revision() == revision(minReplicas=3)
    assert (
        len(
            {
                revision(),
                revision(batching={}),
                revision(batching={"maxBatchSize": 2}),
                revision(nodeSelector={"a": "b"}),
            }
        )
        == 4
    )


@pytest.mark.parametrize(("quantity", "cores"), [("2", 2), ("1500m", 2), ("0.5", 1), ("", 0), ("2Gi", 0)])
def test_cores_are_counted(quantity: str, cores: int) -> None:
    """CPU quantities are rounded up to cores."""
    assert server_config.cores_of(quantity) == cores
