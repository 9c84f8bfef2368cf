"""Question answering on MetaQA: one model for each number of hops, trained on `dev`, tested on `test`.

    TERCET_DATA=... python benchmarks/metaqa.py [--hops 1 2 3] [--questions right shuffled hidden none] [--threads 2]

`shuffled` trains on the questions shuffled against the answers. What that must fall to is chance, which is not 0: one
hop from an actor there is nothing but films. Two rows tell what chance is: `hidden` learns from questions whose words
are taken away, all but the entity; `none` weighs all relations alike, without any training.
MetaQA's training questions are not obtainable, so `dev` serves; figures are of that protocol.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

import tercet
from real_data import real_data
from tercet.answering import Answerer, Question, read_questions, train

KINDS = ("right", "shuffled", "hidden", "none")
COLUMNS = ("hops", "questions", "Hits@1", "F1", "training s", "epochs", "questions / s", "may return to seed", "load")


def prepared(questions: list[Question], kind: str, seed: int) -> list[Question]:
    """The questions to learn from, as `kind` says."""
    if kind == "hidden":
        return [replace(question, text=" ".join(f"[{name}]" for name in question.mentions)) for question in questions]
    if kind == "shuffled":
        answers = [question.answers for question in questions]
        random.Random(seed).shuffle(answers)
        return [replace(question, answers=other) for question, other in zip(questions, answers, strict=True)]
    return questions


def measure(
    graph: tercet.KnowledgeGraph, learnt: list[Question], tested: list[Question], hops: int, kind: str, seed: int
) -> list[str]:
    """Train and test once: the cells of the table."""
    with tempfile.TemporaryDirectory() as folder:
        result = train(
            graph, prepared(learnt, kind, seed), hops=hops, out=Path(folder) / "model", seed=seed,
            epochs=1 if kind == "none" else 20,
        )  # fmt: skip
        answerer = Answerer.load(Path(folder) / "model", graph)
    if kind == "none":
        with torch.no_grad():
            for name, parameter in answerer.model.named_parameters():
                if name.startswith(("relation_logits", "hop_logit")):
                    parameter.zero_()
    figures = answerer.evaluate(prepared(tested, kind, seed) if kind == "hidden" else tested)
    cells = [f"{100 * figures.hits_at_1:.2f}", f"{100 * figures.f1:.2f}"]
    training = [f"{result.seconds:.0f}", str(len(result.epochs))] if kind != "none" else ["", ""]
    returns = "no" if result.exclude_seed else "yes"
    return [*cells, *training, f"{figures.questions_per_second:.0f}", returns, f"{os.getloadavg()[1]:.1f}"]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hops", type=int, nargs="+", default=[1, 2, 3], choices=[1, 2, 3])
    parser.add_argument("--questions", nargs="+", default=["right"], choices=KINDS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data = real_data("kgqa", "metaqa")
    graph = tercet.KnowledgeGraph.read(data / "kb.txt").with_inverses()
    print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS), flush=True)
    for hops in options.hops:
        learnt = read_questions(data / f"{hops}-hop" / "dev.txt")
        tested = read_questions(data / f"{hops}-hop" / "test.txt")
        for kind in options.questions:
            cells = measure(graph, learnt, tested, hops, kind, options.seed)
            print("| " + " | ".join([str(hops), kind, *cells]) + " |", flush=True)


if __name__ == "__main__":
    main()
