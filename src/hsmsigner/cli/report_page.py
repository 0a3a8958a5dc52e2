"""A report as one HTML file: no script, nothing from elsewhere, readable on paper. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from hsmsigner.cli.report_data import OUTCOMES, Report

_COLOURS = {"signed": "#2a6f97", "refused": "#d1495b", "failed": "#edae49", "interrupted": "#8d6a9f"}
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1f24;background:#fff}
h1{font-size:1.5rem;margin:0}h2{font-size:1.1rem;margin:2.2rem 0 .6rem}p.sub{color:#57606a;margin:.2rem 0 1.5rem}
table{border-collapse:collapse;width:100%}th,td{padding:.35rem .6rem;border-bottom:1px solid #d8dee4;text-align:left}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}td{overflow-wrap:anywhere}
.tiles{display:flex;gap:1rem;flex-wrap:wrap}
.tile{flex:1;min-width:8rem;padding:.8rem 1rem;border:1px solid #d8dee4;border-radius:6px}
.tile b{display:block;font-size:1.6rem;font-variant-numeric:tabular-nums}.tile span{color:#57606a}
svg{width:100%;height:auto}text{font:11px system-ui,sans-serif;fill:#57606a}
.legend i{display:inline-block;width:.8em;height:.8em;margin:0 .3em 0 1em}
@media print{body{margin:0}}
"""
_WIDTH, _HEIGHT, _LEFT, _BELOW = 900, 220, 50, 24


def page(report: Report, origin: str, checkpoint: str) -> str:
    """The whole file. `checkpoint` says which state of the log this was made from."""
    period = f"{report.begin:%Y-%m-%d %H:%M} to {report.end:%Y-%m-%d %H:%M} UTC"
    tiles = "".join(
        f'<div class="tile"><b>{report.total(outcome):,}</b><span>{outcome}</span></div>' for outcome in OUTCOMES
    )
    parts = [
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Signatures, {escape(period)}</title>',
        f"<style>{_STYLE}</style><h1>Signatures of {escape(origin)}</h1>",
        f'<p class="sub">{escape(period)} · {report.records:,} records · {escape(checkpoint)}</p>',
        f'<div class="tiles">{tiles}</div>',
        "<h2>Over time</h2>",
        _over_time(report),
        "<h2>Refusals by reason</h2>",
        _bars([(reason, count, f"{count:,}") for reason, count in report.reasons.most_common(20)], _COLOURS["refused"]),
        "<h2>How close to the limits</h2>",
        _bars(
            [
                (f"{key} · {quota}", peak.share, f"{peak.observed:,} of {peak.limit:,} at {peak.time[:16]}")
                for (key, quota), peak in sorted(report.peaks.items(), key=lambda item: -item[1].share)[:20]
            ],
            _COLOURS["signed"],
            whole=1.0,
        ),
        "<h2>By key and principal</h2>",
        _table(report),
        "</html>\n",
    ]
    return "\n".join(parts)


def _over_time(report: Report) -> str:
    columns = list(zip(*(report.over_time[outcome] for outcome in OUTCOMES), strict=True))
    most = max(map(sum, columns)) or 1
    step = (_WIDTH - _LEFT) / len(columns)
    drawn = []
    for index, column in enumerate(columns):
        top = float(_HEIGHT)
        begin = report.begin + index * report.stretch
        for outcome, count in zip(OUTCOMES, column, strict=True):
            height = _HEIGHT * count / most
            top -= height
            if count:
                title = f"{begin:%Y-%m-%d %H:%M}: {count:,} {outcome}"
                drawn.append(
                    f'<rect x="{_LEFT + index * step:.1f}" y="{top:.1f}" width="{step * 0.85:.1f}"'
                    f' height="{height:.1f}" fill="{_COLOURS[outcome]}"><title>{title}</title></rect>'
                )
    marks = "".join(
        f'<text x="{_LEFT + index * step:.1f}" y="{_HEIGHT + 16}">'
        f"{report.begin + index * report.stretch:%m-%d %H:%M}</text>"
        for index in range(0, len(columns), len(columns) // 6)
    )
    legend = "".join(f'<i style="background:{_COLOURS[outcome]}"></i>{outcome}' for outcome in OUTCOMES)
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT + _BELOW}" role="img" aria-label="Requests over time">'
        f'<text x="0" y="12">{most:,}</text><text x="0" y="{_HEIGHT}">0</text>'
        f'<line x1="{_LEFT}" y1="{_HEIGHT}" x2="{_WIDTH}" y2="{_HEIGHT}" stroke="#d8dee4"/>'
        f'{"".join(drawn)}{marks}</svg><div class="legend">{legend}</div>'
    )


def _bars(rows: Sequence[tuple[str, float, str]], colour: str, whole: float | None = None) -> str:
    if not rows:
        return "<p>None.</p>"
    most = whole or max(value for _, value, _ in rows) or 1
    cells = "".join(
        f'<tr><td>{escape(name)}</td><td style="width:45%"><div style="height:.9em;min-width:2px;background:{colour};'
        f'width:{100 * min(value / most, 1):.1f}%"></div></td><td class="n">{escape(text)}</td></tr>'
        for name, value, text in rows
    )
    return f"<table>{cells}</table>"


def _table(report: Report) -> str:
    head = "".join(f'<th class="n">{outcome}</th>' for outcome in OUTCOMES)
    rows = "".join(
        f"<tr><td>{escape(key)}</td><td>{escape(principal)}</td>"
        + "".join(f'<td class="n">{counts[outcome]:,}</td>' for outcome in OUTCOMES)
        + "</tr>"
        for (key, principal), counts in sorted(report.counts.items())
    )
    return f"<table><tr><th>key</th><th>principal</th>{head}</tr>{rows}</table>"
