"""Training a TransE model on the triples of a knowledge graph."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import torch

from tercet.checkpoints import open_run
from tercet.embedding.model import TransE
from tercet.embedding.run import Reporter, Run, TrainingResult
from tercet.embedding.settings import TrainingSettings
from tercet.graph.splits import SPLITS, Splits
from tercet.ops import _checks
from tercet.ops.filter_index import check_triples


def train(
    splits: Splits,
    settings: TrainingSettings | None = None,
    *,
    out: str | PathLike[str] | None = None,
    device: torch.device | str = "cpu",
    num_threads: int | None = None,
    resume: bool = False,
    reporter: Reporter | None = None,
    start: TransE | None = None,
) -> TrainingResult:
    """Train a TransE model, and save it where `out` says.

    A checkpoint is written at each validation. The same arguments give the same model bit for bit on one machine and
    device, at any number of threads, also when the run was broken and resumed. Global random state is left as it was.

    Args:
        splits: triples to learn from and to validate on; those of all splits are no rivals in validation.
        settings: how to train; None: the defaults.
        out: the model directory to make; must be empty or absent unless `resume`. None: nothing is written.
        device: where to compute.
        num_threads: CPU threads, default torch's; the result does not depend on it.
        resume: go on from the checkpoint in `out`, if there is one.
        reporter: hears of steps and epochs.
        start: a model whose tables training starts from, as `settings` would make it; it stays as it is. None: they
            are drawn.

    Raises:
        ValueError: a split is empty, `start` is of another size, there is but one entity, `out` is not empty, the
            checkpoint is of another run, or training diverges.
        OSError: a file cannot be written; the checkpoint before stays.

    Source:
        Bordes et al.: Translating Embeddings for Modeling Multi-relational Data, NIPS 2013.

    Example:
        >>> from tercet.embedding import TrainingSettings, train
        >>> from tercet.graph.splits import Splits
        >>> from tercet.graph.vocabulary import Vocabulary
        >>> names = Vocabulary.from_strings("abcde", ["next"])
        >>> steps = torch.tensor([[i, 0, i + 1] for i in range(4)])
        >>> result = train(Splits(steps[:3], steps[3:], steps[3:], names), TrainingSettings(dim=2, epochs=3))
        >>> len(result.epochs), result.model.dim
        (3, 2)
    """
    op = "embedding.train"
    settings = TrainingSettings() if settings is None else settings
    _checks.threads(op, num_threads)
    for split in SPLITS:
        triples = getattr(splits, split)
        check_triples(op, split, triples)
        if not len(triples) and split != "test":
            raise ValueError(f"tercet.{op}: the {split} split must hold triples, got none")
        _checks.in_range(op, f"{split}[:, ::2]", triples[:, ::2], splits.num_entities)
        _checks.in_range(op, f"{split}[:, 1]", triples[:, 1], splits.num_relations)
    if splits.num_entities < 2:
        raise ValueError(f"tercet.{op}: there must be at least 2 entities to rank, got {splits.num_entities}")
    if resume and out is None:
        raise ValueError(f"tercet.{op}: resume needs out, the directory of the run to go on with")
    if start is not None:
        sizes = splits.num_entities, splits.num_relations * (1 + settings.inverses), settings.dim
        got = len(start.entities), len(start.relations), start.dim
        if got != sizes:
            raise ValueError(
                f"tercet.{op}: start must have {sizes[0]} entities, {sizes[1]} relations and dimension {sizes[2]}, got"
                f" {got[0]}, {got[1]} and {got[2]}"
            )
    folder = None if out is None else Path(out)
    checkpoint = None if folder is None else open_run(folder, resume=resume)
    run = Run(settings, splits, torch.device(device), num_threads, reporter or Reporter(), start)
    if folder is not None and checkpoint is not None:
        run.check_same(folder, checkpoint.state)
        if checkpoint.state.get("finished"):
            return run.finished(checkpoint.state, folder)
        run.restore(checkpoint)
    run.reporter.on_start(splits, len(run.history) + 1)
    return run.finish(folder)
