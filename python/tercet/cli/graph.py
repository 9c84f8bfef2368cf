"""`tercet graph`: build a graph file, describe it, look at an entity."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from tercet.cli import common
from tercet.graph.knowledge_graph import KnowledgeGraph

app = typer.Typer(no_args_is_help=True, help="Build and inspect graph files.")

_Graph = Annotated[Path, typer.Argument(metavar="KB", help="A graph file that `tercet graph build` wrote.")]


@app.command()
def build(
    inputs: Annotated[
        list[Path],
        typer.Argument(metavar="INPUT...", help="Text (tab or |, .gz), N-Triples (.nt, .nt.gz) or .parquet."),
    ],
    out: Annotated[Path, typer.Option(help="The graph file to write.")],
    inverses: Annotated[bool, typer.Option("--inverses", help="Add the inverse of every edge.")] = False,
    threads: common.Threads = None,
    as_json: common.Json = False,
) -> None:
    """Build a graph file from triples with names."""
    common.set_up("cpu", threads)
    if not out.parent.is_dir():
        raise FileNotFoundError(f"--out {out}: its folder does not exist")
    start = time.perf_counter()
    columns = TextColumn("reading"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
    console = Console(stderr=True)
    quiet = as_json or not console.is_terminal
    with Progress(*columns, console=console, disable=quiet, transient=True) as progress:
        task = progress.add_task("reading", total=None)
        graph = KnowledgeGraph.read(
            *inputs, progress=lambda done, total: progress.update(task, completed=done, total=total)
        )
    if inverses:
        graph = graph.with_inverses()
    graph.save(out)
    summary = _summary(graph) | {"seconds": round(time.perf_counter() - start, 3), "file": str(out)}
    _show(summary, as_json)


@app.command()
def info(path: _Graph, as_json: common.Json = False) -> None:
    """Describe a graph file; every check of loading runs."""
    _show(_summary(KnowledgeGraph.load(path)) | {"file": str(path), "bytes": path.stat().st_size}, as_json)


@app.command()
def neighbors(
    path: _Graph,
    name: Annotated[str, typer.Argument(metavar="NAME", help="An entity's name.")],
    limit: Annotated[int, typer.Option(min=1, help="Print at most this many edges of each entity.")] = 50,
    as_json: common.Json = False,
) -> None:
    """Print the edges that leave the entities of a name."""
    graph = KnowledgeGraph.load(path)
    found = []
    for entity in graph.find_entity(name):
        edges = [(graph.relation_name(r), graph.entity_name(o)) for r, o in graph.neighbors(entity)[:limit]]  # type: ignore[arg-type]
        degree = int(graph.row_offsets[entity + 1] - graph.row_offsets[entity])
        found.append({"id": entity, "name": name, "edges": degree, "neighbors": edges})
    if as_json:
        common.print_json({"entities": found})
        return
    console = Console(highlight=False)
    for entity_found in found:
        table = Table("relation", "object", title=f"{name} (id {entity_found['id']}, {entity_found['edges']} edges)")
        for edge in entity_found["neighbors"]:  # type: ignore[attr-defined]
            table.add_row(*map(_plain, edge))
        console.print(table)


def _plain(text: str) -> Any:
    from rich.text import Text

    return Text(text)  # a name may hold what rich would take for markup


def _summary(graph: KnowledgeGraph) -> dict[str, Any]:
    return {
        "entities": graph.num_entities,
        "relations": graph.num_relations,
        "edges": graph.num_edges,
        "inverses": graph.has_inverses,
        "named": graph.entity_names is not None,
        "attributes": list(graph.attributes),
        "max_degree": graph.max_degree,
        "fingerprint": graph.fingerprint,
    }


def _show(summary: dict[str, Any], as_json: bool) -> None:
    if as_json:
        common.print_json(summary)
        return
    table = Table(show_header=False, box=None)
    for key, value in summary.items():
        shown = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
        table.add_row(key.replace("_", " "), _plain(shown))
    Console(highlight=False).print(table)
