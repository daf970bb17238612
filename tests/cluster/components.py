"""What runs on the node, as pure data: each component's command line, and the files that they read."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.network import API_PORT, DNS_SERVICE, NODE, NODE_ADDRESS, PODS, SERVICES

PAUSE_IMAGE = "healthguard.test/pause:1"
CONTAINERD_SOCKET = "/run/healthguard/containerd.sock"
_AGENT = (sys.executable, "-m", "tests.cluster")


@dataclass(frozen=True)
class Component:
    """A process of the node: *after* names the TCP port that has to answer before it starts (0: none)."""

    name: str
    command: tuple[str, ...]
    after: int = 0


def components(folder: Path, program: Callable[[str], Path]) -> tuple[Component, ...]:
    """Return the node's processes in the order in which they start, for a run kept in *folder*."""
    return (
        Component("etcd", (str(program("etcd")), *_etcd())),
        Component("containerd", (str(program("containerd")), f"--config={folder}/containerd.toml")),
        Component("apiserver", (str(program("kube-apiserver")), *_apiserver(folder)), after=2379),
        Component(
            "controller-manager", (str(program("kube-controller-manager")), *_controllers(folder)), after=API_PORT
        ),
        Component("scheduler", (str(program("kube-scheduler")), *_scheduler(folder)), after=API_PORT),
        Component("kubelet", (str(program("kubelet")), *_kubelet(folder)), after=API_PORT),
        Component("proxy", (str(program("kube-proxy")), *_proxy(folder)), after=API_PORT),
        Component("policies", (*_AGENT, "policies", f"{folder}/pki"), after=API_PORT),
        Component("storage", (*_AGENT, "storage", f"{folder}/pki", f"{folder}/volumes"), after=API_PORT),
    )


def files(folder: Path, cgroup: str, cni_plugins: Path) -> dict[str, str]:
    """Return the configuration files of a run: name in *folder* → text."""
    return {
        "kubelet.json": json.dumps(_kubelet_config(folder, cgroup), indent=1),
        "audit-policy.json": json.dumps(_AUDIT_POLICY, indent=1),
        "containerd.toml": _containerd_config(folder, cni_plugins),
        "cni/10-healthguard.conflist": json.dumps(_CNI, indent=1),
        # Pods resolve names of the cluster and no others: a suite that asks the outside is wrong.
        "resolv.conf": "",
    }


def _etcd() -> tuple[str, ...]:
    # In memory: a test cluster's state is thrown away, so nothing is gained by waiting for a disk.
    return (
        "--name=healthguard",
        "--data-dir=/run/healthguard/etcd",
        "--listen-client-urls=http://127.0.0.1:2379",
        "--advertise-client-urls=http://127.0.0.1:2379",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--initial-advertise-peer-urls=http://127.0.0.1:2380",
        "--initial-cluster=healthguard=http://127.0.0.1:2380",
        "--quota-backend-bytes=2147483648",
    )


def _apiserver(folder: Path) -> tuple[str, ...]:
    pki = folder / "pki"
    return (
        "--etcd-servers=http://127.0.0.1:2379",
        f"--advertise-address={NODE_ADDRESS}",
        f"--secure-port={API_PORT}",
        f"--service-cluster-ip-range={SERVICES}",
        "--allow-privileged=true",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        f"--client-ca-file={pki}/ca.crt",
        f"--tls-cert-file={pki}/apiserver.crt",
        f"--tls-private-key-file={pki}/apiserver.key",
        f"--kubelet-certificate-authority={pki}/ca.crt",
        # The node's name is no name that anybody resolves.
        "--kubelet-preferred-address-types=InternalIP",
        f"--kubelet-client-certificate={pki}/kubelet-client.crt",
        f"--kubelet-client-key={pki}/kubelet-client.key",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={pki}/sa.pub",
        f"--service-account-signing-key-file={pki}/sa.key",
        # Aggregated APIs (metrics, external metrics) fail without these.
        "--enable-aggregator-routing=true",
        f"--requestheader-client-ca-file={pki}/front-ca.crt",
        "--requestheader-allowed-names=front-proxy",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-username-headers=X-Remote-User",
        f"--proxy-client-cert-file={pki}/front-proxy.crt",
        f"--proxy-client-key-file={pki}/front-proxy.key",
        f"--audit-policy-file={folder}/audit-policy.json",
        f"--audit-log-path={folder}/audit.log",
        "--event-ttl=1h",
        # Debian's etcd cannot tell how far a watch is: a watch that begins with all objects would be refused each time.
        "--feature-gates=WatchList=false",
    )


def _controllers(folder: Path) -> tuple[str, ...]:
    pki = folder / "pki"
    config = f"{pki}/controller-manager.kubeconfig"
    return (
        f"--kubeconfig={config}",
        f"--authentication-kubeconfig={config}",
        f"--authorization-kubeconfig={config}",
        "--use-service-account-credentials=true",
        f"--root-ca-file={pki}/ca.crt",
        f"--service-account-private-key-file={pki}/sa.key",
        f"--cluster-signing-cert-file={pki}/ca.crt",
        f"--cluster-signing-key-file={pki}/ca.key",
        "--leader-elect=false",
        # A third of the default, so that a test of autoscaling takes seconds.
        "--horizontal-pod-autoscaler-sync-period=5s",
    )


def _scheduler(folder: Path) -> tuple[str, ...]:
    config = f"{folder}/pki/scheduler.kubeconfig"
    return (
        f"--kubeconfig={config}",
        f"--authentication-kubeconfig={config}",
        f"--authorization-kubeconfig={config}",
        "--leader-elect=false",
    )


def _kubelet(folder: Path) -> tuple[str, ...]:
    return (
        f"--config={folder}/kubelet.json",
        f"--kubeconfig={folder}/pki/kubelet.kubeconfig",
        f"--root-dir={folder}/kubelet",
        f"--hostname-override={NODE}",
        f"--node-ip={NODE_ADDRESS}",
    )


def _proxy(folder: Path) -> tuple[str, ...]:
    return (
        f"--kubeconfig={folder}/pki/proxy.kubeconfig",
        f"--hostname-override={NODE}",
        f"--cluster-cidr={PODS}",
        "--proxy-mode=iptables",
        # The table's size belongs to the whole machine, and a namespace may not change it.
        "--conntrack-max-per-core=0",
    )


def _kubelet_config(folder: Path, cgroup: str) -> dict[str, object]:
    pki = folder / "pki"
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE_ADDRESS,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{pki}/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"{pki}/kubelet-server.crt",
        "tlsPrivateKeyFile": f"{pki}/kubelet-server.key",
        "clusterDomain": "cluster.local",
        "clusterDNS": [DNS_SERVICE],
        "resolvConf": f"{folder}/resolv.conf",
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{cgroup}",
        "failSwapOn": False,
        "failCgroupV1": False,
        "podLogsDir": "/var/log/pods",
        "staticPodPath": "",
        "maxPods": 250,
        # The machine's disk is not the cluster's: a full one must not make the kubelet remove images that cannot be
        # pulled again.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "seccompDefault": True,
    }


_AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        # The control plane's own traffic would bury what the tests ask for: who used which right.
        {
            "level": "None",
            "users": [
                "system:apiserver",
                "system:kube-scheduler",
                "system:kube-controller-manager",
                "system:kube-proxy",
            ],
        },
        {"level": "None", "userGroups": ["system:nodes"]},
        {
            "level": "None",
            "nonResourceURLs": ["/healthz*", "/livez*", "/readyz*", "/openapi*", "/api", "/apis", "/version"],
        },
        {"level": "Metadata"},
    ],
}

_CNI = {
    "cniVersion": "0.4.0",
    "name": "healthguard",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": True,
            "ipMasq": True,
            "hairpinMode": True,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": PODS}]], "routes": [{"dst": "0.0.0.0/0"}]},
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ],
}


def _containerd_config(folder: Path, cni_plugins: Path) -> str:
    return f"""
version = 2
root = "{folder}/containerd"
state = "/run/healthguard/containerd"
oom_score = 0
disabled_plugins = [{", ".join(f'"io.containerd.snapshotter.v1.{name}"' for name in ("aufs", "btrfs", "zfs"))}]

[grpc]
address = "{CONTAINERD_SOCKET}"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE_IMAGE}"
# Without CAP_SYS_RESOURCE every sandbox would die otherwise, saying only "can't get final child's PID from pipe: EOF".
restrict_oom_score_adj = true

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{cni_plugins}"
conf_dir = "{folder}/cni"

[plugins."io.containerd.grpc.v1.cri".containerd]
default_runtime_name = "runc"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
"""
