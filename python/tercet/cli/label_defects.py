"""`tercet label defects`: the requests that go wrong, by what users show or say."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tercet.cli.common import Json, print_json
from tercet.cli.progress import counting
from tercet.labeling.data.reading import DialogueReader, check_suffix, write_dialogues
from tercet.labeling.feedback.signals import FeedbackModel, fit_feedback

_USER_HELP = "The key of metadata that names the user; where it is absent each dialogue has a user of its own."
_ALWAYS_HELP = "A signal that counts as false where the log leaves it out, on the system's turns; may be repeated."
User = Annotated[str, typer.Option(help=_USER_HELP)]
Always = Annotated[list[str] | None, typer.Option(help=_ALWAYS_HELP)]
Cap = Annotated[float, typer.Option(help="What all turns of one user in a request count for at most.")]


def defects_command(
    data: Annotated[Path, typer.Option(help="A .jsonl or .parquet file of dialogues with feedback.")],
    top: Annotated[int, typer.Option(min=1, help="Show so many requests.")] = 20,
    user: User = "user",
    always: Always = None,
    cap: Cap = 1.0,
    alpha: Annotated[float, typer.Option(help="A bound is wrong with this probability.")] = 0.05,
    out: Annotated[
        Path | None, typer.Option(help="Write the dialogues here with weak labels of defects, to train on alone.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Rank requests by a lower bound of how often they go wrong: feedback of all users, each signal by how it errs.

    A request is what was asked, in the same words, and what the system did. How signals err is learnt from the file,
    with what gold labels of defects it has. With --out, dialogues without labels of defects get an annotation by
    `feedback` that judges the turns of which there is evidence, with confidence and weight: soft targets of training.
    """
    if out is not None:
        check_suffix(out)
    if not 0 < alpha < 0.5:
        raise ValueError(f"--alpha must be between 0 and 0.5, got {alpha}")
    model = fitted(data, as_json, user, always, cap)
    ranked = model.ranked(alpha=alpha, top=top)
    if out is not None:
        write_dialogues(out, map(model.annotated, DialogueReader(data)))
    if as_json:
        print_json({
            "file": str(data),
            "alpha": alpha,
            "defect_rate": model.votes.prior_moments[0],
            "signals": {name: vars(each) for name, each in model.signals.items()},
            "requests": len(model.requests),
            "ranked": [each.to_json() for each in ranked],
        })  # fmt: skip
        return
    console = Console(highlight=False)
    show_signals(console, model)
    table = Table("request", "what the system did", "users", "turns", "defects", f"at least ({1 - alpha:.0%} sure)")
    for each in ranked:
        names = Text(each.request.text), Text(each.request.action)  # they may hold what rich would take for markup
        table.add_row(*names, f"{each.users:,}", f"{each.turns:,}", f"{each.defect_rate:.0%}", f"{each.lower:.0%}")
    console.print(table)
    console.print(f"{data}: {len(model.requests):,} requests with feedback", markup=False, soft_wrap=True)


def fitted(data: Path, as_json: bool, user: str, always: list[str] | None, cap: float) -> FeedbackModel:
    """What is learnt from the feedback in a file."""
    with counting("reading", quiet=as_json) as (progress, bar):
        reader = DialogueReader(data, progress=lambda done, total: progress.update(bar, completed=done, total=total))
        try:
            return fit_feedback(reader, user=user, always=always or (), cap=cap)
        except ValueError as error:
            if str(error).startswith("tercet.fit_feedback: dialogues"):
                raise ValueError(f"{data}: {str(error).removeprefix('tercet.fit_feedback: ')}") from error
            raise


def show_signals(console: Console, model: FeedbackModel) -> None:
    """How signals err, and those of which nothing could be learnt."""
    table = Table("signal", "observed", "speaks of a defect", "where there is one", "where there is none")
    for name, each in model.signals.items():
        rates = (f"{each.sensitivity:.0%}", f"{each.false_alarm:.0%}") if each.learnt else ("not learnt", "not learnt")
        table.add_row(Text(name), f"{each.observed:,}", f"{each.shown:,}", *rates)
    if model.signals:
        console.print(table)
    for name, each in model.signals.items():
        if not each.learnt:
            said = "never" if not each.shown else "always"
            cure = f"; if the log leaves it out where it does not occur: --always {name}" if each.shown else ""
            console.print(f"{name} {said} speaks of a defect, so how it errs is a guess{cure}", markup=False)
