"""What a benchmark found, as build/bench.json keeps it: limits, cases, starts; other parts add cases of their own."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self


@dataclass(frozen=True)
class Limit:
    """What this machine can do with a model and nothing around it; where *image* names JPEGs, with decoding them."""

    backend: str
    model: str
    images_per_s: float
    before: float
    after: float
    alone_p50_ms: float
    cpu_ms: float
    """CPU time per image, which other load on the machine changes little."""
    image: str | None = None

    @property
    def key(self) -> str:
        """Return what names it in the file."""
        return "/".join(filter(None, (self.backend, self.model, self.image)))

    @classmethod
    def of(
        cls,
        backend: str,
        model: str,
        before: Mapping[str, float],
        after: Mapping[str, float],
        image: str | None = None,
    ) -> Self:
        """Join what was measured before the server and after it; the better of both is the limit."""
        return cls(
            backend,
            model,
            images_per_s=round(max(before["images_per_s"], after["images_per_s"]), 1),
            before=round(before["images_per_s"], 1),
            after=round(after["images_per_s"], 1),
            alone_p50_ms=round(min(before["alone_p50_ms"], after["alone_p50_ms"]), 2),
            cpu_ms=round(min(before["cpu_ms"], after["cpu_ms"]), 3),
            image=image,
        )


@dataclass(frozen=True)
class Case:
    """One point: a part of the product under one load."""

    part: str
    backend: str
    model: str
    concurrency: int
    rps: float
    share_of_limit: float
    share_beside_generator: float
    """The share of what the generator leaves of the machine, on which it would not run otherwise."""
    p50_ms: float
    p99_ms: float
    p50_over_bare_ms: float
    errors: Mapping[str, int]
    cpu_ms: float
    """CPU time of the part per request."""
    generator_cpu_ms: float
    cpu_share: float
    """The bare loop's CPU time per image as a share of the part's and the generator's together."""
    others_cores: float
    """Cores that others used meanwhile; a figure with much of it says little."""

    @property
    def label(self) -> str:
        """Return what names it in the picture."""
        return f"{self.part} {self.backend} {self.model}, {self.concurrency} at once"

    @classmethod
    def of(cls, limit: Limit, point: Mapping[str, Any], *, cores: int) -> Self:
        """Set a point beside its limit."""
        left = 1 - point["generator_cpu_ms"] * point["rps"] / 1e3 / cores
        return cls(
            part="modelserver",
            backend=limit.backend,
            model=limit.model,
            concurrency=point["concurrency"],
            rps=round(point["rps"], 1),
            share_of_limit=round(point["rps"] / limit.images_per_s, 3),
            share_beside_generator=round(point["rps"] / limit.images_per_s / left, 3),
            p50_ms=round(point["p50_ms"], 2),
            p99_ms=round(point["p99_ms"], 2),
            p50_over_bare_ms=round(point["p50_ms"] - limit.alone_p50_ms, 2),
            errors=point["errors"],
            cpu_ms=round(point["server_cpu_ms"], 2),
            generator_cpu_ms=round(point["generator_cpu_ms"], 2),
            cpu_share=round(limit.cpu_ms / (point["server_cpu_ms"] + point["generator_cpu_ms"]), 3),
            others_cores=round(point["others_cores"], 2),
        )


@dataclass(frozen=True)
class StackCase:
    """One point of the product: HTTP in, decoded, asked, stored (`full`) or not (`norecords`), answered."""

    stack: str
    network: str
    image: str
    concurrency: int
    rps: float
    share_of_limit: float
    share_beside_generator: float
    p50_ms: float
    p99_ms: float
    p50_over_bare_ms: float
    errors: Mapping[str, int]
    cpu_ms_per_request: Mapping[str, float]
    """By process; PostgreSQL with its children."""
    beyond_limit_cpu_ms: float
    """Of gateway and model server together, less what the bare loop takes to decode and run: HTTP and gRPC."""
    phase_ms: Mapping[str, float]
    """How long each phase took by the gateway's own metrics; not all of it is work."""
    others_cores: float
    requests: int
    part: str = "gateway"

    @property
    def label(self) -> str:
        """Return what names it in the picture."""
        return f"{self.stack} {self.network} {self.image}, {self.concurrency} at once"

    @classmethod
    def of(cls, limit: Limit, point: Mapping[str, Any], *, stack: str, cores: int) -> Self:
        """Set a point beside its limit."""
        cpu = point["cpu_ms"]
        left = 1 - cpu["generator"] * point["rps"] / 1e3 / cores
        return cls(
            stack=stack,
            network=limit.model,
            image=limit.image or "",
            concurrency=point["concurrency"],
            rps=round(point["rps"], 1),
            share_of_limit=round(point["rps"] / limit.images_per_s, 3),
            share_beside_generator=round(point["rps"] / limit.images_per_s / left, 3),
            p50_ms=round(point["p50_ms"], 2),
            p99_ms=round(point["p99_ms"], 2),
            p50_over_bare_ms=round(point["p50_ms"] - limit.alone_p50_ms, 2),
            errors=point["errors"],
            cpu_ms_per_request={name: round(value, 3) for name, value in cpu.items()},
            beyond_limit_cpu_ms=round(cpu["gateway"] + cpu["modelserver"] - limit.cpu_ms, 3),
            phase_ms={name: round(value, 3) for name, value in point["phase_ms"].items()},
            others_cores=round(point["others_cores"], 2),
            requests=point["requests"],
        )


AnyCase = Case | StackCase


@dataclass(frozen=True)
class Start:
    """How soon a server is ready, and how large it is then."""

    backend: str
    ready_s: float
    rss_mb: float
    pss_mb: float


def document(
    machine: Mapping[str, Any], limits: list[Limit], cases: Sequence[AnyCase], starts: list[Start]
) -> dict[str, Any]:
    """Return what build/bench.json holds."""
    return {
        "machine": machine,
        "limit": {each.key: asdict(each) for each in limits},
        "cases": [asdict(each) for each in cases],
        "start": [asdict(each) for each in starts],
    }
