"""The figures as a picture: a bar for each case, as a share of its limit; SVG, by hand, without a library for it."""

from collections.abc import Sequence
from html import escape

from tests.load.bench.result import AnyCase

ROW_PX, LEFT_PX, WIDTH_PX, TOP_PX = 18, 220, 520, 30
COLOURS = {1: "#9db8d2", 8: "#5b8db8", 32: "#2f5d8a"}


def svg(cases: Sequence[AnyCase]) -> str:
    """Return the picture; a line stands at the limit, another at 0.95 of it."""
    height = TOP_PX + ROW_PX * len(cases) + 20
    scale = WIDTH_PX / max([1.05, *(case.share_of_limit for case in cases)])
    lines = [
        f'<line x1="{LEFT_PX + share * scale:.0f}" x2="{LEFT_PX + share * scale:.0f}" y1="{TOP_PX}" '
        f'y2="{height - 20}" stroke="{colour}"/>'
        f'<text x="{LEFT_PX + share * scale:.0f}" y="{TOP_PX - 6}" text-anchor="middle">{share}</text>'
        for share, colour in ((0.95, "#c0392b"), (1.0, "#333"))
    ]
    bars = [_bar(case, TOP_PX + at * ROW_PX, scale) for at, case in enumerate(cases)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT_PX + WIDTH_PX + 180}" height="{height}" '
        f'font-family="sans-serif" font-size="11"><text x="4" y="16">requests per second, as a share of the bare '
        f"loop</text>{''.join(lines)}{''.join(bars)}</svg>\n"
    )


def _bar(case: AnyCase, top: int, scale: float) -> str:
    label = escape(case.label)
    width = case.share_of_limit * scale
    figures = f"{case.share_of_limit:.2f}: {case.rps:.0f}/s, p50 {case.p50_ms:.1f} p99 {case.p99_ms:.1f} ms"
    return (
        f'<text x="4" y="{top + 12}">{label}</text>'
        f'<rect x="{LEFT_PX}" y="{top + 2}" width="{width:.0f}" height="{ROW_PX - 5}" '
        f'fill="{COLOURS.get(case.concurrency, "#888")}"/>'
        f'<text x="{LEFT_PX + width + 5:.0f}" y="{top + 12}">{figures}</text>'
    )
