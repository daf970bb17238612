"""
Make a kubeconfig for a job of GitHub Actions: `python k8s/delivery/access.py kubeconfig FILE`.

Where the cluster's API server trusts GitHub's OpenID Connect issuer, nothing is stored: the kubeconfig names this
program as its credential plugin, and each client asks GitHub for a fresh token whenever the last one has run out, which
is within minutes. Where it does not, the environment's secret is the kubeconfig.
"""

# ruff: noqa: T201 - a command for the terminal, whose output a Kubernetes client reads

import argparse
import base64
import json
import os
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

_TIMEOUT_S = 30
_ANSWER_BYTES_MAX = 65536
_API = "client.authentication.k8s.io/v1"


class NoAccess(Exception):
    """The environment does not say how to reach the cluster; the message says what is missing."""


def kubeconfig(environment: Mapping[str, str]) -> str:
    """
    Return the kubeconfig that *environment* asks for.

    Raises:
        NoAccess: it has neither a server nor a kubeconfig.
    """
    if server := environment.get("KUBE_SERVER"):
        return json.dumps(_by_token(server, environment.get("KUBE_CA", ""), environment.get("KUBE_AUDIENCE", "")))
    if stored := environment.get("KUBE_CONFIG"):
        return stored
    raise NoAccess("set the variables KUBE_SERVER, KUBE_CA and KUBE_AUDIENCE, or the secret KUBE_CONFIG")


def _by_token(server: str, certificates: str, audience: str) -> dict[str, Any]:
    if urlsplit(server).scheme != "https" or not certificates or not audience:
        raise NoAccess("KUBE_SERVER is an https address, and comes with KUBE_CA (PEM) and KUBE_AUDIENCE")
    authority = base64.b64encode(certificates.encode()).decode()
    plugin = {
        "apiVersion": _API,
        "command": sys.executable,
        "args": [str(Path(__file__).resolve()), "token", audience],
        "interactiveMode": "Never",
    }
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "target", "cluster": {"server": server, "certificate-authority-data": authority}}],
        "users": [{"name": "job", "user": {"exec": plugin}}],
        "contexts": [{"name": "target", "context": {"cluster": "target", "user": "job"}}],
        "current-context": "target",
    }


def credential(token: str) -> dict[str, Any]:
    """Return *token* as Kubernetes' clients take it, with the time at which they must ask again."""
    payload = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    expires = datetime.fromtimestamp(claims["exp"], UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    status = {"token": token, "expirationTimestamp": expires}
    return {"apiVersion": _API, "kind": "ExecCredential", "status": status}


def fetch_token(environment: Mapping[str, str], audience: str) -> str:
    """
    Ask GitHub for a token that says which job this is, and that only *audience* should accept.

    Raises:
        NoAccess: the job has no right to one (`id-token: write`).
    """
    try:
        url = environment["ACTIONS_ID_TOKEN_REQUEST_URL"]
        right = environment["ACTIONS_ID_TOKEN_REQUEST_TOKEN"]
    except KeyError as exc:
        raise NoAccess("the job has no right to a token: give it id-token: write") from exc
    joint = "&" if urlsplit(url).query else "?"
    request = urllib.request.Request(  # noqa: S310 - the address is the runner's own
        f"{url}{joint}{urlencode({'audience': audience})}", headers={"Authorization": f"Bearer {right}"}
    )
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310 - as above
        token: str = json.loads(answer.read(_ANSWER_BYTES_MAX))["value"]
    return token


def write(path: Path, text: str) -> None:
    """Write a file that its owner alone may read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0].strip())
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("kubeconfig", help="write a kubeconfig").add_argument("file", type=Path)
    commands.add_parser("token", help="print a credential; what the kubeconfig calls").add_argument("audience")
    return parser.parse_args(arguments)


def main() -> None:
    """Do what the command line asks for."""
    options = parse()
    try:
        if options.command == "kubeconfig":
            write(options.file, kubeconfig(os.environ))
        else:
            print(json.dumps(credential(fetch_token(os.environ, options.audience))))
    except NoAccess as exc:
        sys.exit(str(exc))


if __name__ == "__main__":
    main()
