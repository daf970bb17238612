"""
The few calls of the Kubernetes API that the chart's Jobs make, each with a deadline.

Plain HTTP with the pod's own account: a client library would bring more code than there are calls.
"""

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import httpx

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
FIELD_MANAGER = "helm"
"""The name under which Helm 4 writes definitions at an installation: what the hook of an upgrade wrote under another
would be a conflict for whoever installs a second release."""
_TIMEOUT_S = 15.0
_TOKEN_BYTES_MAX = 16 * 1024

Object = dict[str, Any]


class CallFailed(Exception):
    """The API server refused a call; the message has its status and reason, and nothing of any object."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"the API server answered {status} {reason}")
        self.status = status


class Kubernetes:
    """The API server as this pod's account sees it; paths are those of the REST API."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    @classmethod
    def in_cluster(cls, host: str, port: str, account: Path = ACCOUNT) -> Self:
        """
        Return the API server of the cluster in which this pod runs.

        Raises:
            OSError: the pod has no account.
        """
        token = (account / "token").read_text()[:_TOKEN_BYTES_MAX].strip()
        trusted = ssl.create_default_context(cafile=str(account / "ca.crt"))
        where = f"[{host}]" if ":" in host else host
        headers = {"Authorization": f"Bearer {token}"}
        return cls(
            httpx.Client(
                base_url=f"https://{where}:{port}", headers=headers, verify=trusted, timeout=_TIMEOUT_S, trust_env=False
            )
        )

    def get(self, path: str) -> Object | None:
        """
        Return the object at *path*; none where there is none.

        Raises:
            CallFailed: the API server refused.
        """
        try:
            return self._call("GET", path)
        except CallFailed as refused:
            if refused.status == httpx.codes.NOT_FOUND:
                return None
            raise

    def create(self, path: str, manifest: Object) -> None:
        """
        Create an object in the collection at *path*.

        Raises:
            CallFailed: the API server refused, with 409 where it exists.
        """
        self._call("POST", path, json=manifest)

    def merge(self, path: str, change: Object) -> None:
        """
        Change the object at *path* by a merge patch.

        Raises:
            CallFailed: the API server refused.
        """
        self._call("PATCH", path, json=change, headers={"Content-Type": "application/merge-patch+json"})

    def apply(self, path: str, manifest: bytes) -> None:
        """
        Apply *manifest*, YAML or JSON, to the object at *path* on the server's side; fields of other managers yield.

        Raises:
            CallFailed: the API server refused.
        """
        self._call(
            "PATCH",
            path,
            params={"fieldManager": FIELD_MANAGER, "force": "true", "fieldValidation": "Strict"},
            content=manifest,
            headers={"Content-Type": "application/apply-patch+yaml"},
        )

    def delete(self, path: str) -> None:
        """
        Delete the object at *path*, or all of a collection; what is gone already is fine.

        Raises:
            CallFailed: the API server refused.
        """
        try:
            self._call("DELETE", path)
        except CallFailed as refused:
            if refused.status != httpx.codes.NOT_FOUND:
                raise

    def _call(
        self,
        method: str,
        path: str,
        *,
        json: Object | None = None,
        content: bytes | None = None,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Object:
        answer = self._http.request(method, path, json=json, content=content, params=params, headers=headers)
        if not answer.is_success:
            raise CallFailed(answer.status_code, answer.reason_phrase)
        found = answer.json()
        return found if isinstance(found, dict) else {}
