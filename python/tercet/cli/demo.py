"""`tercet demo`: from a real graph to a trained answerer in one command."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tercet.answering.demo import DemoResult, run_demo
from tercet.answering.demo_graph import CREDIT
from tercet.cli.common import Json, Seed, Threads, print_json, set_up
from tercet.cli.qa import ProgressReporter, describe_evaluations, describe_reply, describe_training


def command(
    out: Annotated[Path | None, typer.Option(help="The folder to make; default: a new tercet-demo here.")] = None,
    threads: Threads = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Build a graph of countries and cities, generate questions, train an answerer, test it and ask it."""
    set_up("cpu", threads)
    folder = out if out is not None else next(name for name in _folders() if not name.exists())
    console = Console(stderr=True, quiet=as_json)
    console.print(f"Data: {CREDIT}. The questions are generated from templates.", highlight=False)
    started = time.perf_counter()
    with closing(ProgressReporter(console)) as reporter:
        result = run_demo(
            folder, seed=seed, reporter=reporter, say=lambda text: console.print(f"- {text}", highlight=False)
        )
    seconds = time.perf_counter() - started
    if as_json:
        print_json(
            {
                "data": CREDIT,
                "generated_questions": True,
                "entities": result.graph.num_entities,
                "edges": result.graph.num_edges,
                "questions": result.questions,
                "training": {**asdict(result.training), "path": str(result.training.path)},
                "seen_wordings": asdict(result.seen),
                "unseen_wordings": asdict(result.unseen),
                "replies": [asdict(reply) for reply in result.replies],
                "files": {name: str(path) for name, path in result.files.items()},
                "seconds": seconds,
            }
        )
        return
    _describe(Console(), result, seconds)


def _describe(console: Console, result: DemoResult, seconds: float) -> None:
    graph = result.graph
    console.print(
        f"\nGraph: {graph.num_entities:,} entities, {graph.num_relations} relations, {graph.num_edges:,} edges,"
        " inverses included.",
        highlight=False,
    )
    describe_training(console, result.training)
    console.print("\nTest on generated questions that training has not seen:", highlight=False)
    describe_evaluations(console, {"seen wordings": result.seen, "unseen wordings": result.unseen})
    console.print("\nSome answers, with the paths that lead to them:", highlight=False)
    for reply in result.replies:
        describe_reply(console, reply)
    console.print("\nWritten:", highlight=False)
    for name, path in result.files.items():
        console.print(f"  {name}: {path}", highlight=False, soft_wrap=True)
    ask = f"tercet qa ask --model {result.files['model']} 'which languages are spoken in [Peru]'"
    console.print(f"Took {seconds:.0f} s. Now ask it: {ask}", highlight=False, markup=False, soft_wrap=True)


def _folders() -> Iterator[Path]:
    yield Path("tercet-demo")
    for number in count(2):
        yield Path(f"tercet-demo-{number}")
