"""
Ask the gateways what they measured, by their own /metrics: a rollout, or scaling, needs no Prometheus.

One task asks all of them every few seconds; whoever wants to know reads what it heard last. A gateway that takes
requests and cannot be asked makes the answer incomplete, and nothing is called good, or idle, by an incomplete answer.
"""

import asyncio
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime

import aiohttp
import structlog

from healthguard.answers import read_bounded
from healthguard.tls import trusting
from serving.operator.gates import Measured
from serving.operator.kubernetes import Api, CallFailed, Object
from serving.operator.rollout_status import RolloutState
from serving.operator.settings import OperatorSettings
from serving.operator.tally import Counts, Heard, Tally, measured, read

log = structlog.get_logger()

ANSWER_BYTES_MAX = 8 * 1024 * 1024
TIMEOUT_S = 3.0
ASKED_AT_ONCE = 8
GATEWAYS_MAX = 256
LIST_S = 15.0
"""How often the API server is asked which gateways there are; sooner where one did not answer."""
SHARES_S = 60.0
"""Over how long the measured split of requests is told."""
FOLLOWED_S = 1800.0
"""A namespace whose models nobody looked at for so long is asked about no more."""

SERVICE_LABEL = "kubernetes.io/service-name"
PORT = "http"


@dataclass(frozen=True)
class Look:
    """What the gateways say of one model, as of their last asking."""

    measured: Measured | None
    """Of the version on trial since its step began; None: there is none, or no gateway was heard."""
    traffic: Mapping[int, float] | None
    """The share of the answers that each version gave over the last minute, percent; None: nobody asked anything."""


@dataclass
class _Followed:
    """What is known of one namespace's gateways; times are of the monotonic clock, seconds."""

    wanted_at: float
    addresses: tuple[str, ...] = ()
    too_many: bool = False
    """Whether there are gateways that are not asked."""
    listed_at: float = -LIST_S
    heard_at: float = -FOLLOWED_S
    complete: bool = False
    in_flight: dict[str, float] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)
    marks: dict[tuple[str, int], tuple[datetime, Counts]] = field(default_factory=dict)
    """Where each version's counters stood when its step began."""
    answered: deque[tuple[float, dict[str, dict[int, float]]]] = field(default_factory=deque)
    """How many answers each version of each model had given, at each asking of the last minute."""


class Gateways:
    """What all gateways measured; use `connect` to make one."""

    def __init__(
        self,
        api: Api,
        settings: OperatorSettings,
        session: aiohttp.ClientSession,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._settings = settings
        self._session = session
        self._clock = clock
        self._followed: dict[str, _Followed] = {}
        self._places = asyncio.Semaphore(ASKED_AT_ONCE)

    # ---- reading what was heard

    def look(self, namespace: str, model: str, state: RolloutState | None) -> Look:
        """Return what was measured of a model, and see to it that its gateways are asked from now on."""
        followed = self._followed.setdefault(self._where(namespace), _Followed(self._clock()))
        followed.wanted_at = self._clock()
        if not self._fresh(followed):
            return Look(None, None)
        found = None if state is None or state.over else self._measured(followed, model, state)
        return Look(found, _shares(followed, model))

    def in_flight(self, namespace: str, model: str) -> float | None:
        """Return how many predictions of a model are being made; None where not every gateway could be asked."""
        # Anybody who may read external metrics may name any namespace: only one whose models we serve is asked about.
        followed = self._followed.get(self._where(namespace))
        if followed is None:
            return None
        followed.wanted_at = self._clock()
        if not self._fresh(followed) or not followed.complete:
            return None
        return followed.in_flight.get(model, 0.0)

    def _where(self, namespace: str) -> str:
        return self._settings.gateway_namespace or namespace

    def _fresh(self, followed: _Followed) -> bool:
        return self._clock() - followed.heard_at < 3 * self._settings.gateway_interval_s + TIMEOUT_S

    @staticmethod
    def _measured(followed: _Followed, model: str, state: RolloutState) -> Measured:
        now = followed.tally.of(model, state.version)
        since, then = followed.marks.get((model, state.version), (None, now))
        if since != state.step_started_at:
            # A step that has just begun, or that this process has not seen the beginning of: it counts from here.
            followed.marks[model, state.version] = (state.step_started_at, now)
            then = now
        return measured(now, then, complete=followed.complete)

    # ---- asking

    async def ask_regularly(self) -> None:
        """Ask all gateways at intervals, for ever."""
        while True:
            await self.ask()
            await asyncio.sleep(self._settings.gateway_interval_s)

    async def ask(self) -> None:
        """Ask all gateways once; what goes wrong makes what is known older, or incomplete."""
        if not self._settings.gateway_service:
            return
        for where in [where for where, each in self._followed.items() if self._forgotten(each)]:
            del self._followed[where]
        await asyncio.gather(*(self._ask_those_in(where, each) for where, each in self._followed.items()))

    def _forgotten(self, followed: _Followed) -> bool:
        return self._clock() - followed.wanted_at > FOLLOWED_S

    async def _ask_those_in(self, namespace: str, followed: _Followed) -> None:
        try:
            await self._list(namespace, followed)
            tls = self._tls()
        except (CallFailed, OSError, ValueError) as error:
            # Those that were known are not asked either: some may be missing among them.
            log.warning("gateways_not_found", namespace=namespace, exception=type(error).__qualname__)
            followed.complete = False
            return
        name = f"{self._settings.gateway_service}.{namespace}.svc"
        heard = dict(
            zip(
                followed.addresses,
                await asyncio.gather(*(self._ask_one(address, name, tls) for address in followed.addresses)),
                strict=True,
            )
        )
        self._account(followed, {address: found for address, found in heard.items() if found is not None})

    def _account(self, followed: _Followed, heard: Mapping[str, Heard]) -> None:
        now = self._clock()
        followed.tally.keep(frozenset(followed.addresses))
        for address, found in heard.items():
            followed.tally.take(address, found.counts)
        all_heard = 0 < len(heard) == len(followed.addresses)
        followed.complete = all_heard and not followed.too_many
        if not all_heard:
            followed.listed_at = -LIST_S
        if not heard:
            return
        followed.heard_at = now
        followed.in_flight = _sum(found.in_flight for found in heard.values())
        models = {series.model for series in followed.tally.totals}
        followed.answered.append((now, {model: followed.tally.answered(model) for model in models}))
        while len(followed.answered) > 2 and now - followed.answered[1][0] >= SHARES_S:
            followed.answered.popleft()

    async def _list(self, namespace: str, followed: _Followed) -> None:
        """
        Find the gateways, if that is some time ago.

        Raises:
            CallFailed: the API server refused, or did not answer.
            ValueError: it answered something else.
        """
        if self._clock() - followed.listed_at < LIST_S:
            return
        slices = await self._api.list("EndpointSlice", namespace, {SERVICE_LABEL: self._settings.gateway_service})
        found = addresses(slices)
        followed.addresses, followed.too_many = found[:GATEWAYS_MAX], len(found) > GATEWAYS_MAX
        if followed.too_many:
            log.warning("too_many_gateways", namespace=namespace, asked=GATEWAYS_MAX, found=len(found))
        followed.listed_at = self._clock()

    def _tls(self) -> ssl.SSLContext | None:
        """
        Return what gateways are trusted by; it is read anew, since authorities are replaced.

        Raises:
            OSError: it cannot be read.
        """
        ca_file = self._settings.gateway_ca_file
        return trusting(ca_file) if ca_file is not None else None

    async def _ask_one(self, address: str, name: str, tls: ssl.SSLContext | None) -> Heard | None:
        """Return what one gateway says; None where it does not answer as it should."""
        scheme = "https" if tls else "http"
        try:
            async with (
                self._places,
                self._session.get(
                    f"{scheme}://{address}/metrics",
                    ssl=tls if tls else True,
                    server_hostname=name if tls else None,
                    allow_redirects=False,
                ) as response,
            ):
                if response.status != 200:
                    log.warning("gateway_not_heard", status=response.status)
                    return None
                text = (await read_bounded(response.content, ANSWER_BYTES_MAX)).decode()
            # Off the event loop: with many models it takes a tenth of a second.
            return await asyncio.to_thread(read, text)
        # Whatever the parser stumbles on: one gateway's text must not end the asking of all others.
        except Exception as error:
            log.warning("gateway_not_heard", exception=type(error).__qualname__)
            return None


@asynccontextmanager
async def connect(api: Api, settings: OperatorSettings) -> AsyncIterator[Gateways]:
    """Yield the gateways; their connections close with the block."""
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    # Not compressed: the bound is one of bytes as they are.
    headers = {"Accept-Encoding": "identity"}
    async with aiohttp.ClientSession(timeout=timeout, headers=headers, trust_env=False) as session:
        yield Gateways(api, settings, session)


def addresses(slices: Iterable[Object]) -> tuple[str, ...]:
    """
    Return where the gateways that take requests answer, each once, of one address family.

    Raises:
        ValueError: it is no EndpointSlice.
    """
    found: dict[str, set[str]] = {}
    try:
        for one in slices:
            port = next((int(each["port"]) for each in one["ports"] if each.get("name") == PORT), None)
            for endpoint in one.get("endpoints") or ():
                if port is not None and endpoint.get("conditions", {}).get("ready", True) is not False:
                    host = str(endpoint["addresses"][0])
                    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
                    found.setdefault(one["addressType"], set()).add(address)
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError("no EndpointSlice") from error
    return tuple(sorted(found.get("IPv4") or found.get("IPv6") or ()))


def _shares(followed: _Followed, model: str) -> dict[int, float] | None:
    """Return the share of each version in the answers of the last minute, percent; None without answers."""
    if not followed.answered:
        return None
    then, now = followed.answered[0][1].get(model, {}), followed.answered[-1][1].get(model, {})
    more = {version: total - then.get(version, 0.0) for version, total in now.items()}
    total = sum(more.values())
    return {version: round(100 * count / total, 1) for version, count in sorted(more.items())} if total else None


def _sum(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for part in parts:
        for model, value in part.items():
            total[model] = total.get(model, 0.0) + value
    return total
