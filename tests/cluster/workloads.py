"""Small objects for the tests of the cluster itself, each admitted under Pod Security *restricted*."""

import json
from typing import Any

from tests.cluster.images import BUSYBOX_IMAGE

Manifest = dict[str, Any]

ANSWER = "answered by a pod"
_SERVER = (
    "import http.server\n"
    "class Handler(http.server.BaseHTTPRequestHandler):\n"
    "    def do_GET(self):\n"
    "        self.send_response(200); self.end_headers(); self.wfile.write(b'" + ANSWER + "')\n"
    "    def log_message(self, *_): pass\n"
    "http.server.ThreadingHTTPServer(('', 8080), Handler).serve_forever()\n"
)


def pod(
    name: str, image: str, command: list[str], *, labels: dict[str, str] | None = None, **container: Any
) -> Manifest:
    """Return a pod of one container that may do nothing which *restricted* forbids."""
    locked = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name, **(labels or {})}},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [
                {
                    "name": "main",
                    "image": image,
                    "imagePullPolicy": "Never",
                    "command": command,
                    "securityContext": locked,
                    **container,
                }
            ],
        },
    }


def web_server(name: str, image: str) -> Manifest:
    """Return a pod in which Python answers HTTP on port 8080, named web, with ANSWER."""
    return pod(
        name,
        image,
        ["/usr/bin/python3", "-c", _SERVER],
        ports=[{"name": "web", "containerPort": 8080}],
        readinessProbe={"httpGet": {"path": "/", "port": "web"}, "periodSeconds": 1},
    )


def client(name: str, image: str) -> Manifest:
    """Return a pod that holds Python and waits to be used; `fetch` says how."""
    return pod(name, image, ["/usr/bin/python3", "-c", "import time; time.sleep(3600)"])


def fetch(url: str) -> list[str]:
    """Return the command by which a client writes what *url* answers."""
    # Debian's static busybox has a wget too, but it crashes where it would look up a name.
    script = f"import urllib.request as r; print(r.urlopen({url!r}, timeout=3).read().decode(), end='')"
    return ["/usr/bin/python3", "-c", script]


def sleeper(name: str, **container: Any) -> Manifest:
    """Return a pod that holds a shell and waits to be used."""
    return pod(name, BUSYBOX_IMAGE, ["/bin/sleep", "3600"], **container)


def service(name: str, **spec: Any) -> Manifest:
    """Return a Service that leads to port web of the pod of the same name."""
    ports = [{"name": "web", "port": 80, "targetPort": "web"}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": ports, **spec},
    }


def ingress(name: str, host: str) -> Manifest:
    """Return an Ingress that leads *host* to the Service called *name*."""
    backend = {"service": {"name": name, "port": {"name": "web"}}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": name},
        "spec": {
            "rules": [{"host": host, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}]
        },
    }


def gateway(name: str, host: str) -> list[Manifest]:
    """Return a Gateway of the ingress controller, and an HTTPRoute that leads *host* to the Service called *name*."""
    api = "gateway.networking.k8s.io/v1"
    # The controller takes a listener whose port is one of its own, as the container counts them.
    listener = {"name": "web", "protocol": "HTTP", "port": 8000}
    rule = {"backendRefs": [{"name": name, "port": 80}]}
    return [
        {
            "apiVersion": api,
            "kind": "Gateway",
            "metadata": {"name": name},
            "spec": {"gatewayClassName": "traefik", "listeners": [listener]},
        },
        {
            "apiVersion": api,
            "kind": "HTTPRoute",
            "metadata": {"name": name},
            "spec": {"parentRefs": [{"name": name}], "hostnames": [host], "rules": [rule]},
        },
    ]


def policy(name: str, **spec: Any) -> Manifest:
    """Return a NetworkPolicy."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name},
        "spec": {"podSelector": {}, **spec},
    }


def text(*manifests: Manifest) -> str:
    """Return *manifests* as one document for kubectl."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(manifests)})
