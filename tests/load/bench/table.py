"""The figures as the tables of docs/performance.md."""

from collections.abc import Sequence

from tests.load.bench.result import AnyCase, Case, Limit, StackCase, Start


def markdown(limits: Sequence[Limit], cases: Sequence[AnyCase], starts: Sequence[Start]) -> str:
    """Return the tables, ready to be pasted."""
    parts = [
        _table(
            "part | runtime | model | at once | req/s | share of limit | beside the generator | p50 / p99 ms | "
            "p50 over bare, ms | CPU ms: part + generator | errors | others' cores",
            [_case(case) for case in cases if isinstance(case, Case)],
        ),
        _table(
            "stack | network | image | at once | req/s | share of limit | beside the generator | p50 / p99 ms | "
            "p50 over bare, ms | CPU ms: gateway, model server, records, PostgreSQL, generator | beyond the limit | "
            "errors | others' cores",
            [_stack_case(case) for case in cases if isinstance(case, StackCase)],
        ),
        _table(
            "limit: runtime, model, image | images/s (before, after) | one loop alone, p50 ms | CPU ms per image",
            [
                f"{each.key} | {each.images_per_s} ({each.before}, {each.after}) | {each.alone_p50_ms} | {each.cpu_ms}"
                for each in limits
            ],
        ),
        _table(
            "server with both models: runtime | ready in s | RSS MB | PSS MB",
            [f"{each.backend} | {each.ready_s} | {each.rss_mb} | {each.pss_mb}" for each in starts],
        ),
    ]
    return "\n".join(parts)


def _case(case: Case) -> str:
    return (
        f"{case.part} | {case.backend} | {case.model} | {case.concurrency} | {case.rps} | {case.share_of_limit:.2f} | "
        f"{case.share_beside_generator:.2f} | {case.p50_ms} / {case.p99_ms} | {case.p50_over_bare_ms} | "
        f"{case.cpu_ms} + {case.generator_cpu_ms} | {sum(case.errors.values())} | {case.others_cores}"
    )


def _stack_case(case: StackCase) -> str:
    names = ("gateway", "modelserver", "records", "postgres", "generator")
    cpu = " + ".join(f"{case.cpu_ms_per_request[name]:.2f}" for name in names)
    return (
        f"{case.stack} | {case.network} | {case.image} | {case.concurrency} | {case.rps} | {case.share_of_limit:.2f} | "
        f"{case.share_beside_generator:.2f} | {case.p50_ms} / {case.p99_ms} | {case.p50_over_bare_ms} | {cpu} | "
        f"{case.beyond_limit_cpu_ms} | {sum(case.errors.values())} | {case.others_cores}"
    )


def _table(head: str, rows: Sequence[str]) -> str:
    return "\n".join([f"| {head} |", "|" + "---|" * (head.count("|") + 1), *(f"| {row} |" for row in rows), ""])
