"""The monthly report: one self-contained page of HTML with its pictures drawn as SVG. Pure: numbers in, text
out.

The page is well-formed XML too, so that a test can take it apart. No script, nothing loaded from elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Protocol

Sums = Mapping[str, int]
Buckets = Mapping[str, Mapping[str, Sums]]  # factor -> bucket -> sums

STYLE = """
:root { color-scheme: light dark; --ink: #1d2327; --soft: #6b747c; --line: #d9dee2;
  --bar: #3f7cac; --wet: #d08a2e; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8eb; --soft: #98a2aa; --line: #3a4248; --bar: #6aa5d3; --wet: #e0a552; }
  body { background: #14181b; }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); max-width: 60rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; } h2 { font-size: 1.05rem; margin: 2rem 0 .5rem; }
p { margin: .25rem 0; }
.soft { color: var(--soft); } svg { width: 100%; height: auto; display: block; }
svg text { font-size: 12px; fill: var(--soft); } svg text.value { fill: var(--ink); }
svg .bar { fill: var(--bar); } svg .axis { stroke: var(--line); }
svg .wet { fill: none; stroke: var(--wet); stroke-width: 2; }
table { border-collapse: collapse; width: 100%; table-layout: fixed; }
caption { text-align: left; font-weight: 600; padding: 1rem 0 .25rem; }
th, td { text-align: right; padding: .2rem .6rem; border-bottom: 1px solid var(--line);
  font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; }
"""


class FactorLike(Protocol):
    """What the report needs to know of a factor of the weather."""

    @property
    def name(self) -> str: ...
    @property
    def title(self) -> str: ...
    def buckets(self) -> list[str]: ...


def mean(sums: Sums | None) -> float | None:
    """The mean departure delay in minutes; None if nothing departed."""
    return sums["delay"] / sums["departed"] if sums and sums["departed"] else None


def total(buckets: Mapping[str, Sums], name: str) -> int:
    """One sum over all buckets of a factor."""
    return sum(sums[name] for sums in buckets.values())


def bars(
    values: Sequence[tuple[str, float | None]], left: float, width: float, height: float, top: float
) -> str:
    """A small bar chart; all bars of all charts of this row share the scale `top`."""
    made = [f'<line class="axis" x1="{left}" y1="{height}" x2="{left + width}" y2="{height}"/>']
    step = width / max(len(values), 1)
    for place, (label, value) in enumerate(values):
        x = left + place * step
        middle = f'x="{x + step / 2:.1f}" text-anchor="middle"'
        made.append(f'<text {middle} y="{height + 16}">{escape(label)}</text>')
        if value is None:
            continue
        tall = max(value, 0.0) / top * (height - 40)
        box = (
            f'x="{x + step * 0.12:.1f}" y="{height - tall:.1f}" width="{step * 0.76:.1f}" height="{tall:.1f}"'
        )
        made.append(
            f'<rect class="bar" {box}/>'
            f'<text class="value" {middle} y="{height - tall - 5:.1f}">{value:.0f}</text>'
        )
    return "".join(made)


def picture_of_factors(factors: Sequence[FactorLike], buckets: Buckets) -> str:
    """Mean delay by wind, visibility and rain, side by side on one scale."""
    charts = [[(name, mean(buckets.get(f.name, {}).get(name))) for name in f.buckets()] for f in factors]
    top = max([value or 0.0 for chart in charts for _name, value in chart] + [1.0])
    wide, gap = 290.0, 25.0
    made = []
    for place, (factor, chart) in enumerate(zip(factors, charts, strict=True)):
        left = place * (wide + gap)
        made.append(f'<text class="value" x="{left}" y="14">{escape(factor.title)}</text>')
        made.append(bars(chart, left, wide, 200, top))
    span = len(factors) * (wide + gap) - gap
    label = "Mean departure delay in minutes by wind, visibility and rain"
    return f'<svg viewBox="0 0 {span:g} 225" role="img" aria-label="{label}">{"".join(made)}</svg>'


def picture_of_days(days: Mapping[int, Buckets]) -> str:
    """The days of the month: mean delay as bars, the share of departures in rain as a line."""
    delays, wet = [], []
    for start, buckets in days.items():
        rain = buckets.get("rain", {})
        known = {name: sums for name, sums in rain.items() if name != "unknown"}
        departed = total(known, "departed")
        every = sum(sums["departed"] for sums in rain.values())
        delay = total(rain, "delay") / every if every else None
        delays.append((str(datetime.fromtimestamp(start, UTC).day), delay))
        dry = known["none"]["departed"] if "none" in known else 0
        wet.append((departed - dry) / departed if departed else None)
    top = max([value or 0.0 for _day, value in delays] + [1.0])
    step = 920 / max(len(delays), 1)
    line, pen = [], "M"
    for place, share in enumerate(wet):
        if share is None:  # the weather of that day is not known: the line has a gap
            pen = "M"
            continue
        line.append(f"{pen}{(place + 0.5) * step:.1f},{200 - share * 160:.1f}")
        pen = "L"
    path = f'<path class="wet" d="{" ".join(line)}"/>' if line else ""
    label = "Mean departure delay of each day, and the share of departures in rain"
    chart = bars(delays, 0, 920, 200, top)
    return f'<svg viewBox="0 0 920 225" role="img" aria-label="{label}">{chart}{path}</svg>'


def numbers(factor: FactorLike, buckets: Mapping[str, Sums]) -> str:
    """The table of one factor."""
    rows = []
    for name in [*factor.buckets(), "unknown"]:
        sums = buckets.get(name)
        if not sums:
            continue
        delay = mean(sums)
        shown = "-" if delay is None else f"{delay:.1f}"
        share = f"{100 * sums['cancelled'] / sums['flights']:.1f} %" if sums["flights"] else "-"
        rows.append(
            f"<tr><td>{escape(name)}</td><td>{sums['flights']:,}</td><td>{shown}</td><td>{share}</td></tr>"
        )
    head = "<tr><th>bucket</th><th>flights</th><th>mean delay (min)</th><th>cancelled</th></tr>"
    return f"<table><caption>{escape(factor.title)}</caption>{head}{''.join(rows)}</table>"


def page(
    month: datetime,
    factors: Sequence[FactorLike],
    buckets: Buckets,
    days: Mapping[int, Buckets],
    correlation: Mapping[str, float | None],
) -> str:
    """The report of one month. `buckets` are its sums, `days` those of each day by the second it began at."""
    title = f"Does weather explain delays? {month:%B %Y}"
    first = buckets.get(factors[0].name, {})
    found = ", ".join(
        f"{escape(f.name)} {'-' if correlation.get(f.name) is None else format(correlation[f.name], '+.2f')}"
        for f in factors
    )
    tables = "".join(numbers(f, buckets.get(f.name, {})) for f in factors)
    flights, cancelled = total(first, "flights"), total(first, "cancelled")
    legend = "bars: mean delay; line: share of departures in rain, full height is all of them"
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"/><meta name="viewport" content="width=device-width"/>
<title>{escape(title)}</title><style>{STYLE}</style></head><body>
<h1>{escape(title)}</h1>
<p>{flights:,} flights were to leave New York; {cancelled:,} of them were cancelled.</p>
<p class="soft">Correlation with the departure delay: {found}
(1 or -1: explains all of it, 0: nothing). Times are UTC.</p>
<h2>Mean departure delay in minutes</h2>
{picture_of_factors(factors, buckets)}
<h2>Day by day <span class="soft">({legend})</span></h2>
{picture_of_days(days)}
{tables}
</body></html>
"""
