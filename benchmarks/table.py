"""One Markdown table from a file of pytest-benchmark: medians, and how many times ours each rival takes.

python benchmarks/table.py traversal.json [MORE.json ...] --out benchmarks/results/traversal.md

Files may hold other cases, or the same ones again: their medians are then of all rounds together, which a slow phase of
the machine moves less than those of one run.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

OURS = "tercet"
ENDING = "_per_second"
NOTES = {
    "Traversal": "Each call gets fresh relation weights; drawing them and laying them out is not timed, nor is building"
    " a rival's matrices. edges/s counts the edges that leave the frontier.",
    "Translation scores": "Each call gets fresh random tables; drawing them is not timed. terms/s counts the dimensions"
    " of all pairs of a query and an entity.",
    "Gated blocks": "Sequences x frames x width. Arbitrators are included, except in torch's dense layer, which has"
    " none and computes every frame. frames/s counts all frames, kept or not.",
    "Streaming": "A call steps through all frames from an empty window. frames/s counts those of all streams.",
    "Annotators": "Fifty iterations. labels/s counts each label in each iteration. The peak is the resident memory of a"
    " fresh process that draws the labels and fits them, torch included. The labels are generated.",
    "Sessions of logs": "DuckDB held to 256 MB. The logs are generated. turns of a core/s divides by the time of all"
    " cores together, which other work on the machine changes little. The peak is the resident memory of a fresh"
    " process, torch included.",
    "Filtered ranking": "Heads and tails of every triple. Each call gets fresh random tables; drawing them is not"
    " timed, nor is preparing an index of the known triples, except where the triples are raw, as PyKEEN takes them.",
}  # by title


def duration(seconds: float) -> str:
    """Three digits in us, ms or s."""
    for unit, size in (("µs", 1e-6), ("ms", 1e-3)):
        if seconds < 1000 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def rate(per_second: float) -> str:
    """Three digits in G, M, k or units a second."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if per_second >= size:
            return f"{per_second / size:.3g} {unit}"
    return f"{per_second:.3g}"


def pooled(runs: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The benchmarks of several runs, each once: its median is that of the rounds of all, and its rates are of that."""
    found: dict[str, dict[str, Any]] = {}
    for entry in (entry for run in runs for entry in run["benchmarks"]):
        before = found.setdefault(entry["fullname"], entry)
        if before is entry:
            continue
        rounds = before["stats"]["data"] + entry["stats"]["data"]
        slower = median(rounds) / before["stats"]["median"]
        info = {key: value / slower if key.endswith(ENDING) else value for key, value in before["extra_info"].items()}
        stats = {"data": rounds, "median": median(rounds)}
        found[entry["fullname"]] = {**before, "extra_info": info, "stats": stats}
    return list(found.values())


def rows(benchmarks: list[dict[str, Any]]) -> Iterator[str]:
    """A header, then a row for each group in the order of the file; what names no engine is not of this table."""
    benchmarks = [entry for entry in benchmarks if "engine" in entry["extra_info"]]
    engines = list(dict.fromkeys(entry["extra_info"]["engine"] for entry in benchmarks))
    rivals = [name for name in engines if name != OURS]
    ours_info = (entry["extra_info"] for entry in benchmarks if entry["extra_info"]["engine"] == OURS)
    rates = list(dict.fromkeys(key for info in ours_info for key in info if key.endswith(ENDING)))
    peaks = ["peak_gb"] if any("peak_gb" in entry["extra_info"] for entry in benchmarks) else []
    names = [
        "what",
        OURS,
        *(key.removesuffix(ENDING) + "/s" for key in rates),
        *("peak memory" for _ in peaks),
        *rivals,
    ]
    yield "| " + " | ".join(names) + " |"
    yield "|---|" + "---:|" * (len(names) - 1)
    groups: dict[str, dict[str, dict[str, Any]]] = {}
    for entry in benchmarks:
        groups.setdefault(entry["group"], {})[entry["extra_info"]["engine"]] = entry
    for group, by_engine in groups.items():
        if OURS not in by_engine:
            continue
        ours = by_engine[OURS]["stats"]["median"]
        info = by_engine[OURS]["extra_info"]
        cells = [group, duration(ours), *(rate(info[key]) if key in info else "" for key in rates)]
        cells += [f"{info[key]:.3g} GB" if key in info else "" for key in peaks]
        for name in rivals:
            theirs = by_engine[name]["stats"]["median"] if name in by_engine else None
            cells.append("" if theirs is None else f"{duration(theirs)} ({theirs / ours:.3g}x)")
        yield "| " + " | ".join(cells) + " |"


def document(saved: dict[str, Any], commands: list[str], title: str) -> str:
    """The table under its title, with the machine, the versions and the commands."""
    machine, ours = saved["machine_info"], saved["machine_info"]["tercet"]
    cpu = machine["cpu"]
    head = [
        f"# {title}",
        "",
        f"Medians; in brackets how many times ours. {NOTES.get(title, '')} An empty cell: not run (the rival absent or"
        " not made for the case, or more memory needed than there was).",
        "",
        f"- machine: {cpu.get('brand_raw', machine['processor'])}, {ours['threads']} threads, {ours['isa']};"
        f" load before: {', '.join(map(str, ours['load_before']))}",
        f"- versions: tercet {ours['version']}, torch {ours['torch']}, Python {machine['python_version']};"
        f" {saved['datetime'][:10]}",
        *(f"- command: `{command}`" for command in commands),
        "",
    ]
    return "\n".join([*head, *rows(saved["benchmarks"]), ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("saved", type=Path, nargs="+", help="what pytest --benchmark-json wrote, on one machine")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--title", default="Traversal")
    arguments = parser.parse_args()
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in arguments.saved]
    saved = {**runs[0], "benchmarks": pooled(runs)}
    commands = [run["machine_info"][OURS]["command"] for run in runs]
    text = document(saved, commands, arguments.title)
    partial = arguments.out.with_name(arguments.out.name + ".part")
    partial.write_text(text, encoding="utf-8")
    partial.replace(arguments.out)


if __name__ == "__main__":
    main()
