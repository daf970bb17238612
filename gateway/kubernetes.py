"""Watch ServedModels and EndpointSlices: list once, then be told; whatever fails is tried again, for ever."""

import asyncio
import random
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import structlog
from pydantic_core import from_json

from gateway.cluster import GROUP, MODEL_LABEL, BadObject, Object, read
from gateway.discovery import DeclaredModel, Found
from healthguard.answers import read_bounded
from healthguard.tls import trusting

log = structlog.get_logger()

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")

LIST_BYTES_MAX = 16 * 1024 * 1024
EVENT_BYTES_MAX = 2 * 1024 * 1024
PAGE = 250
WATCH_S = 50
"""The API server ends a watch after so long. Short, so that one that is dead without saying so is noticed soon."""
SILENCE_S = WATCH_S + 10
CALL_TIMEOUT_S = 15.0
BACKOFF_MIN_S, BACKOFF_MAX_S = 0.2, 10.0


class Expired(Exception):
    """The API server no longer knows the place from which we wanted to be told: list again."""


class Refused(Exception):
    """The API server answered with an error."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


@dataclass(frozen=True)
class Access:
    """Where the API server is, and the service account's files, which are read anew: tokens live an hour."""

    server: str
    namespace: str
    folder: Path = SERVICE_ACCOUNT

    def headers(self) -> dict[str, str]:
        """
        Return what lets us in.

        Raises:
            OSError: the token cannot be read.
        """
        return {"Authorization": f"Bearer {(self.folder / 'token').read_text().strip()}", "Accept": "application/json"}

    def tls(self) -> ssl.SSLContext | bool:
        """
        Return the context that trusts the cluster's own authority.

        Raises:
            OSError: it cannot be read.
        """
        return trusting(self.folder / "ca.crt") if self.server.startswith("https://") else True


def in_cluster(environment: Mapping[str, str], namespace: str = "", folder: Path = SERVICE_ACCOUNT) -> Access:
    """
    Return the way in that every pod has.

    Raises:
        ValueError: this is no pod.
        OSError: the service account's files cannot be read.
    """
    host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise ValueError("discovery by Kubernetes works in a pod only")
    server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    return Access(server, namespace or (folder / "namespace").read_text().strip(), folder)


@dataclass
class Collection:
    """The objects of one kind in our namespace, as last heard of."""

    path: str
    selector: str = ""
    objects: dict[str, Object] = field(default_factory=dict)
    version: str = ""
    """From here on we want to be told; empty: list first."""
    listed: bool = False
    heard_at: float = 0.0

    def query(self, **more: str) -> dict[str, str]:
        """Return the query of a call."""
        return ({"labelSelector": self.selector} if self.selector else {}) | more

    def take(self, event: Object) -> bool:
        """
        Account for one event of a watch; tell whether an object changed.

        Raises:
            Expired: our place is no longer known.
            Refused: the event says that something else is wrong.
            BadObject: it is no event.
        """
        try:
            kind, found = event["type"], event["object"]
            if kind == "ERROR":
                raise Expired if found.get("code") == 410 else Refused(int(found.get("code", 0)))
            metadata = found["metadata"]
            self.version = metadata["resourceVersion"]
            if kind == "BOOKMARK":
                return False
            if kind == "DELETED":
                self.objects.pop(metadata["name"], None)
            else:
                self.objects[metadata["name"]] = found
        except (KeyError, TypeError, AttributeError, ValueError) as exc:
            raise BadObject from exc
        return True


class Cluster:
    """The models of one namespace."""

    def __init__(self, session: aiohttp.ClientSession, access: Access, found: Found) -> None:
        self._session = session
        self._access = access
        self._found = found
        self._told: Sequence[DeclaredModel] = ()
        within = f"namespaces/{access.namespace}"
        self.collections = (
            Collection(f"/apis/{GROUP}/v1alpha1/{within}/servedmodels"),
            Collection(f"/apis/discovery.k8s.io/v1/{within}/endpointslices", MODEL_LABEL),
        )

    async def watch(self) -> None:
        """Tell of the models whenever they change, for ever; while the API server is away all stays as it was."""
        async with asyncio.TaskGroup() as tasks:
            for collection in self.collections:
                tasks.create_task(self._follow(collection))

    def age_s(self) -> float:
        """Return how long ago the quieter watch was last heard of, seconds."""
        return time.monotonic() - min(collection.heard_at for collection in self.collections)

    async def _follow(self, collection: Collection) -> None:
        backoff_s = BACKOFF_MIN_S
        while True:
            try:
                if not collection.version:
                    await self._list(collection)
                await self._watch(collection)
                backoff_s = BACKOFF_MIN_S
                continue
            except Expired:
                collection.version = ""
            # Whatever it was, the next try begins with a list: the only way to be sure that nothing was missed.
            except Exception as exc:
                collection.version = ""
                status = exc.status if isinstance(exc, Refused) else None
                log.warning("discovery_watch_failed", exception=type(exc).__qualname__, status=status)
            await asyncio.sleep(random.uniform(0.5, 1.0) * backoff_s)  # noqa: S311 - gateways that part in time
            backoff_s = min(2 * backoff_s, BACKOFF_MAX_S)

    async def _list(self, collection: Collection) -> None:
        """
        Take all objects, page by page.

        Raises:
            Expired, Refused, aiohttp.ClientError, OSError, ValueError: it did not work.
        """
        objects: dict[str, Object] = {}
        query = collection.query(limit=str(PAGE))
        while True:
            async with self._get(collection.path, query, total_s=CALL_TIMEOUT_S) as response:
                _check(response)
                page = from_json(await read_bounded(response.content, LIST_BYTES_MAX))
            objects |= {one["metadata"]["name"]: one for one in page["items"]}
            if not (more := page["metadata"].get("continue")):
                break
            query["continue"] = more
        collection.objects, collection.version = objects, page["metadata"]["resourceVersion"]
        collection.listed, collection.heard_at = True, time.monotonic()
        self._tell()

    async def _watch(self, collection: Collection) -> None:
        """
        Be told of changes until the API server ends it.

        Raises:
            Expired, Refused, BadObject, aiohttp.ClientError, TimeoutError, OSError, ValueError: it did not work.
        """
        query = collection.query(
            watch="true",
            resourceVersion=collection.version,
            allowWatchBookmarks="true",
            timeoutSeconds=str(WATCH_S),
        )
        async with self._get(collection.path, query, total_s=None) as response:
            _check(response)
            async for line in response.content:
                changed = collection.take(from_json(line))
                collection.heard_at = time.monotonic()
                if changed:
                    self._tell()
        collection.heard_at = time.monotonic()

    def _get(self, path: str, query: Mapping[str, str], *, total_s: float | None) -> Any:
        timeout = aiohttp.ClientTimeout(total=total_s, sock_connect=CALL_TIMEOUT_S, sock_read=SILENCE_S)
        return self._session.get(
            self._access.server + path,
            params=query,
            headers=self._access.headers(),
            ssl=self._access.tls(),
            timeout=timeout,
            allow_redirects=False,
            read_bufsize=EVENT_BYTES_MAX,
        )

    def _tell(self) -> None:
        """Tell of the models, once both kinds are known: models without their endpoints would all be unavailable."""
        served, slices = self.collections
        if not (served.listed and slices.listed):
            return
        found = read(served.objects.values(), slices.objects.values(), self._told)
        for name in found.refused:
            log.error("discovery_object_refused", object=name)
        self._told = found.models
        self._found(found.models)


def _check(response: aiohttp.ClientResponse) -> None:
    """
    Go on where the answer is a 200.

    Raises:
        Expired: 410.
        Refused: any other.
    """
    if response.status == 410:
        raise Expired
    if response.status != 200:
        raise Refused(response.status)
