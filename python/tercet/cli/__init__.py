"""The `tercet` command. Each group of commands has its file; this one joins them."""

from __future__ import annotations

import sys

import typer

from tercet.cli import demo, graph, info, kge, label, qa, speech

app = typer.Typer(
    name="tercet",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Differentiable knowledge-graph traversal with question answering on it, knowledge-graph embedding, spoken"
    " digits recognised at less compute, and labels of dialogues.",
)
app.add_typer(graph.app, name="graph")
app.add_typer(qa.app, name="qa")
app.add_typer(kge.app, name="kge")
app.add_typer(speech.app, name="speech")
app.add_typer(label.app, name="label")
app.command("info")(info.command)
app.command("demo")(demo.command)


def main() -> None:
    """Run the command line; errors a user can cure print one line and exit with 2, without a traceback."""
    try:
        app()
    except (ValueError, TypeError, OSError, ImportError) as error:
        message = str(error)
        print(message if message.startswith("tercet") else f"tercet: {message}", file=sys.stderr)
        sys.exit(2)
