"""Pieces of an HTML page that needs no script and no network; every text that they take is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence

_STYLE = """
body{font:15px/1.45 system-ui,"Segoe UI",Helvetica,Arial,sans-serif;color:#1f2328;background:#fff;max-width:72rem;
margin:2rem auto;padding:0 1.5rem}
h1{font-size:1.7rem;margin:0 0 .3rem}h2{font-size:1.25rem;margin:2.4rem 0 .6rem;padding-bottom:.25rem;border-bottom:1px
solid #d5d9de}h3{font-size:1rem;margin:1.4rem 0 .4rem}p,li{max-width:60rem}.quiet{color:#5c6670}
.wide{overflow-x:auto;margin:.5rem 0 1rem}table{border-collapse:collapse;font-size:.88rem}
th,td{padding:.28rem .6rem;border-bottom:1px solid #e4e7eb;text-align:left;vertical-align:top}
thead th{border-bottom:1px solid #aab2bb;font-weight:600;vertical-align:bottom}
td.number,th.number{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
td.cell{padding:.28rem .3rem;text-align:center;white-space:nowrap;font-variant-numeric:tabular-nums;min-width:2.2rem}
div.upright{font-weight:500;writing-mode:vertical-rl;transform:rotate(180deg);max-height:11rem;text-align:left;
padding:.6rem .28rem;border-bottom:0}
details{margin:.6rem 0;border:1px solid #dfe3e8;border-radius:6px;padding:.5rem .9rem}summary{cursor:pointer;
font-weight:600}.turn{white-space:pre-wrap;overflow-wrap:anywhere;min-width:16rem}.notes{min-width:9rem}
.system td.turn{color:#4a5560}
mark{background:#fdeebd;border-radius:3px;padding:0 .15rem}mark small{color:#7a5b00;margin-left:.2rem}
.label{display:inline-block;border-radius:3px;padding:0 .35rem;margin:0 .25rem .15rem 0;background:#e8edf4}
.right{background:#dff1e1}.wrong{background:#fbe0dc}.sure{color:#5c6670;font-size:.85em;margin-left:.25rem}
.gold{color:#a1291b;font-size:.88em;white-space:nowrap}
figure{display:inline-block;margin:.3rem 1.2rem .8rem 0;vertical-align:top}
figcaption{font-size:.88rem;font-weight:600}svg text{font:11px system-ui,Arial,sans-serif;fill:#4a5560}
"""

_CONTROL = {code: "\ufffd" for code in (*range(32), 127) if chr(code) not in "\t\n"}  # no text in HTML


def escape(text: str) -> str:
    """Text as HTML shows it."""
    return html.escape(text.translate(_CONTROL))


def page(title: str, parts: Iterable[str]) -> str:
    """A whole page of parts that are HTML."""
    head = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport"'
        f' content="width=device-width,initial-scale=1"><title>{escape(title)}</title><style>{_STYLE}</style></head>'
    )
    return "\n".join([head, f"<body><h1>{escape(title)}</h1>", *parts, "</body></html>\n"])


def section(name: str, heading: str, parts: Iterable[str]) -> str:
    """Parts that are HTML, under a heading that links lead to by its name."""
    return "\n".join([f'<section id="{escape(name)}"><h2>{escape(heading)}</h2>', *parts, "</section>"])


def paragraph(text: str, kind: str = "") -> str:
    """Text; its kind is of the style: quiet."""
    return f'<p class="{escape(kind)}">{escape(text)}</p>'


def shown(value: object) -> str:
    """Text of a cell: numbers with separators or three digits, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int) or (value == int(value) and abs(value) >= 10):
        return f"{value:,.0f}"
    return f"{value:.3f}" if abs(value) < 1000 else f"{value:,.0f}"


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Rows of names and numbers under their columns; numbers are flush right."""
    rows = [list(row) for row in rows]

    def is_number(value: object) -> bool:
        return isinstance(value, (int, float)) and not isinstance(value, bool)

    numeric = [any(is_number(row[place]) for row in rows) for place in range(len(columns))]
    kinds = [' class="number"' if number else "" for number in numeric]
    head = "".join(f"<th{kind}>{escape(name)}</th>" for kind, name in zip(kinds, columns, strict=True))
    body = "\n".join(
        "<tr>" + "".join(f"<td{kind}>{escape(shown(v))}</td>" for kind, v in zip(kinds, row, strict=True)) + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>'


def confusion_table(counts: Mapping[tuple[str, str], int], names: Sequence[str]) -> str:
    """How often each name of a row was called the name of a column; shaded by the share of its row.

    Args:
        counts: by name (gold, given).
        names: of rows and columns, in order; those that are in none of the counts have none.
    """
    columns = [name for name in names if any(counts.get((gold, name)) for gold in names)]
    head = "".join(f'<th><div class="upright">{escape(name)}</div></th>' for name in columns)
    rows = []
    for gold in names:
        own = [counts.get((gold, name), 0) for name in columns]
        whole = sum(own)
        cells = []
        for name, count in zip(columns, own, strict=True):
            share = count / whole if whole else 0.0
            color = f"rgba({'46,125,50' if name == gold else '198,64,42'},{0.75 * share:.3f})"
            ink = ";color:#fff" if share > 0.7 else ""
            cells.append(f'<td class="cell" style="background:{color}{ink}">{f"{count:,}" if count else ""}</td>')
        if whole:
            rows.append(f'<tr><th>{escape(gold)}</th>{"".join(cells)}<td class="number">{whole:,}</td></tr>')
    return (
        f'<div class="wide"><table><thead><tr><th>gold, by what was given</th>{head}<th class="number">all</th></tr>'
        f"</thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def curve(caption: str, points: Sequence[tuple[float, float]], *, across: str, up: str) -> str:
    """A line through points in 0..1 x 0..1 as SVG, with what its axes mean; the second axis begins where it is used."""
    width, height, left, bottom, top, right = 348, 230, 46, 36, 10, 22
    low = min(0.9, max(0.0, min(int(10 * y) / 10 for _, y in points)))

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            left + x * (width - left - right),
            height - bottom - (y - low) / (1 - low) * (height - bottom - top),
        )

    lines = []
    steps = [low + (1 - low) * step / 5 for step in range(6)]
    for y in steps:
        x0, y0 = place(0, y)
        lines.append(f'<line x1="{x0}" y1="{y0:.1f}" x2="{width - right}" y2="{y0:.1f}" stroke="#e4e7eb"/>')
        lines.append(f'<text x="{x0 - 6}" y="{y0 + 4:.1f}" text-anchor="end">{100 * y:.0f} %</text>')
    for step in range(6):
        x0, y0 = place(step / 5, low)
        lines.append(f'<text x="{x0:.1f}" y="{y0 + 15:.1f}" text-anchor="middle">{20 * step} %</text>')
    middle = (left + width - right) / 2
    lines.append(f'<text x="{middle}" y="{height - 4}" text-anchor="middle">{escape(across)}</text>')
    path = " ".join("{:.1f},{:.1f}".format(*place(x, y)) for x, y in points)
    lines.append(f'<polyline points="{path}" fill="none" stroke="#1c5fa8" stroke-width="2"/>')
    for x, y in (points[-1],):
        x0, y0 = place(x, y)
        lines.append(f'<circle cx="{x0:.1f}" cy="{y0:.1f}" r="3" fill="#1c5fa8"/>')
    meaning = escape(f"{up} over {across}: {caption}")
    return (
        f'<figure><figcaption>{escape(caption)}</figcaption><svg width="{width}" height="{height}" role="img"'
        f' aria-label="{meaning}" viewBox="0 0 {width} {height}">{"".join(lines)}</svg>'
        "</figure>"
    )


def label(name: str, confidence: float | None = None, *, right: bool | None = None, gold: str | None = None) -> str:
    """A label as a chip: how sure it is, whether it is right where that is known, and what gold says instead."""
    kind = "" if right is None else " right" if right else " wrong"
    sure = "" if confidence is None else f'<span class="sure">{confidence:.2f}</span>'
    instead = "" if gold is None else f' <span class="gold">gold: {escape(gold)}</span>'
    return f'<span class="label{kind}">{escape(name)}{sure}</span>{instead}'


def folded(summary: str, inside: str, *, opened: bool = False) -> str:
    """HTML under a line that opens it."""
    return f"<details{' open' if opened else ''}><summary>{escape(summary)}</summary>{inside}</details>"


def nested_tables(figures: Mapping[str, object]) -> list[str]:
    """Tables of JSON: one for each key that holds an object, of all numbers and names in it, a row for each object."""
    made = []
    plain = [(key, value) for key, value in figures.items() if not isinstance(value, (Mapping, list))]
    if plain:
        made.append(table(("", ""), plain))
    for key, value in figures.items():
        if not isinstance(value, Mapping):
            continue
        rows = list(_rows(value, ""))
        columns = list(dict.fromkeys(name for _, row in rows for name in row))
        cells = [[where, *(row.get(name) for name in columns)] for where, row in rows]
        made.append(f"<h3>{escape(key)}</h3>" + table(("", *columns), cells))
    return made


def _rows(value: Mapping[str, object], where: str) -> Iterable[tuple[str, Mapping[str, object]]]:
    leaves = {key: each for key, each in value.items() if not isinstance(each, (Mapping, list))}
    if leaves:
        yield where, leaves
    for key, each in value.items():
        if isinstance(each, Mapping):
            yield from _rows(each, f"{where} / {key}" if where else key)
