"""The cluster itself does what the product's tests rely on."""

import datetime
import json
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from healthguard.install.certificates import issue, make_authority
from tests.cluster import certificates, network, tools, workloads
from tests.cluster.cluster import Cluster, CommandFailed
from tests.cluster.fake_nodes import fake_nodes
from tests.cluster.runs import wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster"), pytest.mark.timeout(1800)]

_READY = ("--for=condition=Ready", "--timeout=120s")
_SOON_S = 60.0


@pytest.fixture
def web(cluster: Cluster, namespace: str, python_image: str) -> str:
    """Run a Python web server behind a Service and an Ingress, and return the name of all three."""
    objects = workloads.text(
        workloads.web_server("web", python_image),
        workloads.service("web", type="NodePort"),
        workloads.ingress("web", f"{namespace}.test"),
    )
    cluster.apply(objects, f"--namespace={namespace}")
    cluster.kubectl("wait", "pod", "web", f"--namespace={namespace}", *_READY)
    return "web"


def test_node_is_ready_and_of_the_pinned_release(cluster: Cluster) -> None:
    """The kubelet reports Ready, and it and the API server are of the release that tools/ pins."""
    node: Any = cluster.get("node", network.NODE)
    conditions = {condition["type"]: condition["status"] for condition in node["status"]["conditions"]}
    assert conditions["Ready"] == "True"
    server = json.loads(cluster.kubectl("version", "--output=json"))["serverVersion"]["gitVersion"]
    assert {server, node["status"]["nodeInfo"]["kubeletVersion"]} == {f"v{tools.KUBERNETES}"}


def test_restricted_namespace_refuses_a_pod_that_asks_for_more(cluster: Cluster, namespace: str) -> None:
    """Pod Security admission works: the same pod is admitted as it is and refused as root."""
    good = workloads.sleeper("good")
    bad = workloads.sleeper("bad")
    bad["spec"]["securityContext"] = {"runAsUser": 0}
    cluster.apply(workloads.text(good), f"--namespace={namespace}")
    with pytest.raises(CommandFailed, match="violates PodSecurity"):
        cluster.apply(workloads.text(bad), f"--namespace={namespace}")


def test_python_pod_is_reached_by_its_node_port(cluster: Cluster, namespace: str, web: str) -> None:
    """A Service of type NodePort leads from 127.0.0.1 to the pod."""
    found: Any = cluster.get("service", web, f"--namespace={namespace}")
    with cluster.node_port(found["spec"]["ports"][0]["nodePort"]) as port:
        wait_until(lambda: _answer(f"http://127.0.0.1:{port}/") == workloads.ANSWER, "the node port", _SOON_S)


def test_python_pod_is_reached_by_its_ingress(cluster: Cluster, namespace: str, web: str) -> None:
    """The ingress controller leads from 127.0.0.1 to the pod by the host's name, and refuses others."""
    url = f"http://127.0.0.1:{cluster.http_port}/"
    wait_until(lambda: _answer(url, host=f"{namespace}.test") == workloads.ANSWER, f"the ingress of {web}", _SOON_S)
    assert _answer(url, host="nobody.test") == "404 page not found\n"


def test_ingress_shows_the_certificate_of_its_secret(
    cluster: Cluster, namespace: str, web: str, tmp_path: Path
) -> None:
    """Over HTTPS the ingress answers with the chain that the namespace's secret holds, and a client verifies it."""
    host = f"secure.{namespace}.test"
    now = datetime.datetime.now(datetime.UTC)
    authority = make_authority(now)
    certificates.write_pair(tmp_path, "web", issue(authority, (host,), now))
    pair = (f"--cert={tmp_path}/web.crt", f"--key={tmp_path}/web.key")
    cluster.kubectl("create", "secret", "tls", "web", *pair, f"--namespace={namespace}")
    secured = workloads.ingress(web, host)
    secured["metadata"]["name"] = "secured"
    secured["spec"]["tls"] = [{"hosts": [host], "secretName": "web"}]
    cluster.apply(workloads.text(secured), f"--namespace={namespace}")
    context = ssl.create_default_context(cadata=authority.certificate.decode())
    url = f"https://127.0.0.1:{cluster.https_port}/"
    wait_until(lambda: _answer(url, host=host, context=context) == workloads.ANSWER, "the secured ingress", _SOON_S)


def test_python_pod_is_reached_by_a_gateway_route(cluster: Cluster, namespace: str, web: str) -> None:
    """The same controller serves the Gateway API: a route's host leads to the pod."""
    cluster.apply(workloads.text(*workloads.gateway(web, f"routed.{namespace}.test")), f"--namespace={namespace}")
    url = f"http://127.0.0.1:{cluster.http_port}/"
    wait_until(lambda: _answer(url, host=f"routed.{namespace}.test") == workloads.ANSWER, "the route", _SOON_S)


def test_names_of_services_resolve_in_pods(cluster: Cluster, namespace: str, web: str, python_image: str) -> None:
    """A pod finds a Service by its short name, and no name outside of the cluster."""
    cluster.apply(workloads.text(workloads.client("client", python_image)), f"--namespace={namespace}")
    cluster.kubectl("wait", "pod", "client", f"--namespace={namespace}", *_READY)
    execute = ("exec", "client", f"--namespace={namespace}", "--")
    assert cluster.kubectl(*execute, *workloads.fetch(f"http://{web}/")) == workloads.ANSWER
    with pytest.raises(CommandFailed, match="Name or service not known"):
        cluster.kubectl(*execute, *workloads.fetch("http://outside.example/"))


def test_resource_metrics_answer_kubectl_top(cluster: Cluster) -> None:
    """The metrics server knows the node's CPU and memory."""
    wait_until(lambda: network.NODE in _try(cluster, "top", "node", "--no-headers"), "kubectl top", 120)


def test_gpu_pod_waits_for_a_gpu_and_then_runs(cluster: Cluster, namespace: str) -> None:
    """A pod that asks for nvidia.com/gpu is not scheduled before the node has one."""
    cluster.set_gpus(0)
    pod = workloads.sleeper("gpu", resources={"limits": {"nvidia.com/gpu": "1"}})
    cluster.apply(workloads.text(pod), f"--namespace={namespace}")
    cluster.kubectl(
        "wait", "pod", "gpu", f"--namespace={namespace}", "--for=condition=PodScheduled=False", "--timeout=60s"
    )
    waiting: Any = cluster.get("pod", "gpu", f"--namespace={namespace}")
    assert "Insufficient nvidia.com/gpu" in waiting["status"]["conditions"][0]["message"]
    cluster.set_gpus(2)
    cluster.kubectl("wait", "pod", "gpu", f"--namespace={namespace}", *_READY)


def test_volume_claim_is_bound_by_the_default_class(cluster: Cluster, namespace: str) -> None:
    """A claim without a class gets a volume when a pod mounts it; its group is the pod's; it goes with the claim."""
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
    }
    pod = workloads.sleeper("writer", volumeMounts=[{"name": "data", "mountPath": "/data"}])
    pod["spec"]["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    pod["spec"]["securityContext"]["fsGroup"] = 1234
    cluster.apply(workloads.text(claim, pod), f"--namespace={namespace}")
    cluster.kubectl("wait", "pod", "writer", f"--namespace={namespace}", *_READY)
    script = "echo kept > /data/x && cat /data/x && /bin/busybox stat -c %g /data"
    write = ("exec", "writer", f"--namespace={namespace}", "--", "/bin/sh", "-c", script)
    assert cluster.kubectl(*write) == "kept\n1234\n"
    volume: Any = cluster.get("persistentvolumeclaim", "data", f"--namespace={namespace}")
    cluster.kubectl("delete", "pod/writer", "persistentvolumeclaim/data", f"--namespace={namespace}")
    gone = ("wait", "persistentvolume", volume["spec"]["volumeName"], "--for=delete", "--timeout=60s")
    cluster.kubectl(*gone)


def test_network_policies_are_enforced(cluster: Cluster, namespace: str, web: str, python_image: str) -> None:
    """Default deny cuts a pod off, an allowing rule for exactly this caller opens it, and another caller stays out."""
    callers = ("friend", "stranger")
    pods = (workloads.client(name, python_image) for name in callers)
    cluster.apply(workloads.text(*pods), f"--namespace={namespace}")
    for name in callers:
        cluster.kubectl("wait", "pod", name, f"--namespace={namespace}", *_READY)
        _eventually(cluster, namespace, name, web, reached=True)
    deny = workloads.policy("deny", policyTypes=["Ingress"])
    cluster.apply(workloads.text(deny), f"--namespace={namespace}")
    for name in callers:
        _eventually(cluster, namespace, name, web, reached=False)
    friend = [{"podSelector": {"matchLabels": {"app": "friend"}}}]
    allow = workloads.policy("allow", policyTypes=["Ingress"], ingress=[{"from": friend, "ports": [{"port": "web"}]}])
    cluster.apply(workloads.text(allow), f"--namespace={namespace}")
    _eventually(cluster, namespace, "friend", web, reached=True)
    assert not _reaches(cluster, namespace, "stranger", web)
    # What the node sends to its own pods always passes, or no probe would work.
    cluster.kubectl("wait", "pod", web, f"--namespace={namespace}", *_READY)


def test_egress_policy_holds_towards_the_api_server(cluster: Cluster, namespace: str) -> None:
    """A pod that may send nothing reaches not even the API server, which answers on the node itself."""
    cluster.apply(workloads.text(workloads.sleeper("quiet")), f"--namespace={namespace}")
    cluster.kubectl("wait", "pod", "quiet", f"--namespace={namespace}", *_READY)
    script = f"echo | /bin/busybox nc -w 2 {network.API_SERVICE} 443"
    dial = ("exec", "quiet", f"--namespace={namespace}", "--", "/bin/sh", "-c", script)
    wait_until(lambda: _succeeds(cluster, *dial), "the API server from a pod", _SOON_S)
    cluster.apply(workloads.text(workloads.policy("deny", policyTypes=["Egress"])), f"--namespace={namespace}")
    wait_until(lambda: not _succeeds(cluster, *dial), "the policy to hold", _SOON_S)


def test_audit_log_tells_who_used_which_right(cluster: Cluster, namespace: str) -> None:
    """A call is in the audit log with its user, verb and object, and without its content."""
    if cluster.audit_log is None:
        pytest.skip("The audit log is read only from the suite's own node; unset KUBECONFIG to use it.")
    cluster.kubectl("create", "configmap", "audited", "--from-literal=key=not-to-be-logged", f"--namespace={namespace}")
    log = cluster.audit_log
    wait_until(lambda: '"name":"audited"' in log.read_text(), "the call in the audit log", _SOON_S)
    events = [json.loads(line) for line in log.read_text().splitlines() if '"name":"audited"' in line]
    assert (events[0]["verb"], events[0]["user"]["username"]) == ("create", "healthguard:admin")
    assert "not-to-be-logged" not in log.read_text()


def test_helm_installs_and_uninstalls_a_chart(
    helm: Callable[..., str], cluster: Cluster, namespace: str, tmp_path: Path
) -> None:
    """Both major versions of Helm install, list and uninstall a chart of one object."""
    (tmp_path / "templates").mkdir()
    (tmp_path / "Chart.yaml").write_text("apiVersion: v2\nname: tiny\nversion: 0.1.0\n")
    object_ = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "tiny"}, "data": {"from": "chart"}}
    (tmp_path / "templates" / "object.yaml").write_text(json.dumps(object_))
    helm("install", "tiny", str(tmp_path), f"--namespace={namespace}", "--wait")
    found: Any = cluster.get("configmap", "tiny", f"--namespace={namespace}")
    assert found["data"] == {"from": "chart"}
    helm("uninstall", "tiny", f"--namespace={namespace}", "--wait")
    assert "tiny" not in cluster.kubectl("get", "configmap", f"--namespace={namespace}", "--output=name")


def test_fake_nodes_take_pods(cluster: Cluster, namespace: str) -> None:
    """Nodes without a machine behind them become Ready with GPUs, and pods on them become Running."""
    with fake_nodes(cluster, 20, gpus=4) as names:
        pod = workloads.sleeper("far", resources={"limits": {"nvidia.com/gpu": "4"}})
        pod["spec"]["tolerations"] = [{"key": "kwok.x-k8s.io/node", "operator": "Exists"}]
        pod["spec"]["nodeSelector"] = {"type": "kwok"}
        cluster.apply(workloads.text(pod), f"--namespace={namespace}")
        cluster.kubectl("wait", "pod", "far", f"--namespace={namespace}", *_READY)
        placed: Any = cluster.get("pod", "far", f"--namespace={namespace}")
        assert placed["spec"]["nodeName"] in names
    assert "kwok" not in cluster.kubectl("get", "nodes", "--output=name")


def _eventually(cluster: Cluster, namespace: str, caller: str, service: str, *, reached: bool) -> None:
    what = f"{caller} to {'reach' if reached else 'lose'} {service}"
    wait_until(lambda: _reaches(cluster, namespace, caller, service) is reached, what, _SOON_S)


def _reaches(cluster: Cluster, namespace: str, caller: str, service: str) -> bool:
    # By address: whether names resolve is another question.
    found: Any = cluster.get("service", service, f"--namespace={namespace}")
    command = workloads.fetch(f"http://{found['spec']['clusterIP']}/")
    return _succeeds(cluster, "exec", caller, f"--namespace={namespace}", "--", *command)


def _succeeds(cluster: Cluster, *arguments: str) -> bool:
    try:
        cluster.kubectl(*arguments)
    except CommandFailed:
        return False
    return True


def _try(cluster: Cluster, *arguments: str) -> str:
    try:
        return cluster.kubectl(*arguments)
    except CommandFailed:
        return ""


def _answer(url: str, host: str = "127.0.0.1", context: ssl.SSLContext | None = None) -> str:
    try:
        with httpx.Client(verify=context or True, timeout=5, trust_env=False) as client:
            return client.get(url, headers={"Host": host}, extensions={"sni_hostname": host}).text
    except httpx.HTTPError:
        return ""
