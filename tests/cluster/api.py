"""Read and write the API server from the node's own small agents, each with a certificate and rights of its own."""

import ssl
from pathlib import Path
from typing import Any

import httpx

from tests.cluster.network import API_PORT, NODE_ADDRESS

_REQUEST_S = 5.0

Object = dict[str, Any]


def connect(pki: Path, user: str) -> httpx.Client:
    """Return a client of the API server that speaks as *user*, whose certificate is in *pki*."""
    context = ssl.create_default_context(cafile=pki / "ca.crt")
    context.load_cert_chain(pki / f"{user}.crt", pki / f"{user}.key")
    return httpx.Client(
        base_url=f"https://{NODE_ADDRESS}:{API_PORT}", verify=context, timeout=_REQUEST_S, trust_env=False
    )


def items(client: httpx.Client, path: str) -> list[Object]:
    """
    Return the objects of a collection, as the API server has them in memory.

    Raises:
        httpx.HTTPError: it did not answer, or refused.
    """
    response = client.get(f"/{path}", params={"resourceVersion": "0"})
    response.raise_for_status()
    found: list[Object] = response.json()["items"]
    return found
