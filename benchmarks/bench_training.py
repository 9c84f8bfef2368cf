"""Training TransE: seconds an epoch against PyKEEN's sLCWA loop, and validation MRR of both after the same epochs.

    python benchmarks/bench_training.py FB15K-237-FOLDER [--rounds 3] [--epochs 50] [--constrained]

prints JSON. l1, margin 1, 32 negatives of its own for every positive, Adagrad with learning rate 0.1 (ours keeps one
step size a row), batches of 1,000, dimension 200; both start from the same tables. Ours with dot, softmax and negatives
that chunks of 50 share runs beside them. Everything of ours is deterministic.

PyKEEN runs as its documentation recommends for speed on a CPU: an explicit batch size without sub-batches, the basic
sampler without filtering, no progress bar, no evaluation in the loop; the data loader gets no worker or one, whichever
is faster in a first round. Its default constraint (entities of length 1 after every step) is off, as ours is;
--constrained switches both on. An epoch is timed from the end of the one before it, so that its setting up is not.
Every measurement has a process of its own, in turn: once PyKEEN has trained in a process, ours is slower there.
pytest runs the same once on UMLS, or with --tercet-size full one epoch of FB15k-237.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

import tercet
from tercet.embedding import TrainingSettings, TransE, train
from tercet.evaluation.ranking import link_prediction_metrics
from tercet.graph.splits import Splits, read_splits

OWN = TrainingSettings(norm="l1", dim=200, num_negatives=32, sampling="uniform", filter_negatives=False, loss="margin",
                       margin=1.0, optimizer="adagrad", learning_rate=0.1, schedule="constant", batch_size=1000,
                       valid_every=1_000_000, patience=1_000_000)  # fmt: skip
SHARED = replace(OWN, norm="dot", loss="softmax", sampling="shared", chunk_size=50, num_negatives=100)
OPTIMIZERS: dict[str, Any] = {"sgd": torch.optim.SGD, "adagrad": torch.optim.Adagrad, "adam": torch.optim.Adam}
Trained = tuple[list[float], tuple[Tensor, Tensor]]  # seconds of each epoch, entities and relations


def ours(splits: Splits, settings: TrainingSettings, epochs: int) -> Trained:
    """`epochs` of tercet.embedding.train; validation after the last one is not timed."""
    result = train(splits, replace(settings, epochs=epochs))
    return [epoch.seconds for epoch in result.epochs], (result.model.entities.detach(), result.model.relations.detach())


def pykeen(splits: Splits, settings: TrainingSettings, epochs: int, num_workers: int) -> Trained:
    """`epochs` of PyKEEN's sLCWA loop from the tables that ours starts from, in float32."""
    from pykeen.losses import MarginRankingLoss
    from pykeen.models import TransE as PyKEENTransE
    from pykeen.training import SLCWATrainingLoop
    from pykeen.training.callbacks import TrainingCallback
    from pykeen.triples import CoreTriplesFactory

    ends: list[float] = []

    class Clock(TrainingCallback):  # type: ignore[misc]
        def post_epoch(self, epoch: int, epoch_loss: float, **kwargs: Any) -> None:
            ends.append(time.perf_counter())

    sizes = {"num_entities": splits.num_entities, "num_relations": splits.num_relations}
    factory = CoreTriplesFactory.create(splits.train, **sizes)
    model = PyKEENTransE(
        triples_factory=factory,
        embedding_dim=settings.dim,
        scoring_fct_norm=int(settings.norm[1]),
        loss=MarginRankingLoss(margin=settings.margin),
        entity_constrainer="normalize" if settings.unit_ball else None,
        random_seed=settings.seed,
    )
    start = TransE(*sizes.values(), settings.dim, norm=settings.norm, seed=settings.seed)
    with torch.no_grad():
        for parameter, table in zip(model.parameters(), (start.entities, start.relations), strict=True):
            parameter.copy_(table)
    loop = SLCWATrainingLoop(
        model=model,
        triples_factory=factory,
        optimizer=OPTIMIZERS[settings.optimizer](model.parameters(), lr=settings.learning_rate),
        negative_sampler="basic",
        negative_sampler_kwargs={"num_negs_per_pos": settings.num_negatives},
    )
    started = time.perf_counter()
    loop.train(
        factory,
        num_epochs=epochs,
        batch_size=settings.batch_size,
        sub_batch_size=settings.batch_size,
        num_workers=num_workers,
        pin_memory=False,
        use_tqdm=False,
        use_tqdm_batch=False,
        callbacks=[Clock()],
    )
    entities, relations = (parameter.detach() for parameter in model.parameters())
    seconds = [after - before for before, after in zip([started, *ends], ends, strict=False)]
    return seconds, (entities, relations)


def apart(engine: Callable[..., Trained], *arguments: Any) -> Trained:
    """What the engine returns from a fresh process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(engine, *arguments).result()


def valid_mrr(splits: Splits, tables: tuple[Tensor, Tensor], norm: str, index: tercet.FilterIndex) -> float:
    """Filtered MRR of heads and tails of the validation triples; known triples of all splits are no rivals."""
    ranks = tercet.transe_rank(*tables, splits.valid, known=index, norm=norm)
    return link_prediction_metrics(ranks).both.mrr


def run(splits: Splits, own: TrainingSettings, shared: TrainingSettings, rounds: int, epochs: int) -> dict[str, Any]:
    """Seconds of second epochs in turn, medians; MRR after `epochs` of l1 (0: left out)."""
    by_workers = {workers: apart(pykeen, splits, own, 2, workers)[0][-1] for workers in (0, 1)}
    workers = min(by_workers, key=by_workers.__getitem__)
    engines: dict[str, Callable[[int], Trained]] = {
        "tercet, l1, margin, own negatives": lambda count: apart(ours, splits, own, count),
        "tercet, dot, softmax, shared negatives": lambda count: apart(ours, splits, shared, count),
        "PyKEEN sLCWA, l1, margin, own negatives": lambda count: apart(pykeen, splits, own, count, workers),
    }
    times: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(rounds):
        for name, engine in engines.items():
            times[name].append(engine(2)[0][-1])
    seconds = {name: statistics.median(values) for name, values in times.items()}
    mine, dot, theirs = seconds.values()
    figures: dict[str, Any] = {
        "seconds an epoch": {name: round(value, 4) for name, value in seconds.items()},
        "PyKEEN's data loader workers": workers,
        "PyKEEN's seconds by workers": {str(key): round(value, 2) for key, value in by_workers.items()},
        "times as fast as PyKEEN": round(theirs / mine, 1),
        "positives a second, dot": round(len(splits.train) / dot),
        "threads": torch.get_num_threads(),
    }
    if epochs:
        index = tercet.FilterIndex(splits.known, num_entities=splits.num_entities, num_relations=splits.num_relations)
        figures[f"validation MRR after {epochs} epochs"] = {
            name: round(valid_mrr(splits, engine(epochs)[1], "dot" if "dot" in name else own.norm, index), 4)
            for name, engine in engines.items()
        }
    return figures


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    metafunc.parametrize("name", ["tercet", "tercet, dot, shared", "PyKEEN"])


@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true:UserWarning")
def bench_epoch(benchmark: BenchmarkFixture, request: pytest.FixtureRequest, data: Path, name: str) -> None:
    """One call of two epochs, of which the second counts."""
    graph = {"small": "UMLS", "full": "FB15k-237"}[request.config.getoption("--tercet-size")]
    splits = read_splits(data / "kge" / graph)
    smaller: dict[str, Any] = {"dim": 20, "num_negatives": 8} if graph == "UMLS" else {}
    own, shared = replace(OWN, **smaller), replace(SHARED, **smaller)
    benchmark.group = f"{graph}, two epochs"
    if name == "PyKEEN":
        pytest.importorskip("pykeen", reason="pykeen is not installed (tercet[pykeen])")
        engine: Callable[[], Trained] = lambda: pykeen(splits, own, 2, 0)  # noqa: E731
    else:
        engine = lambda: ours(splits, shared if "dot" in name else own, 2)  # noqa: E731
    seconds, tables = benchmark.pedantic(engine, rounds=1)
    benchmark.extra_info.update(engine=name, triples=len(splits.train), epoch_seconds=seconds[-1])
    benchmark.extra_info.update(positives_per_second=len(splits.train) / seconds[-1])
    assert all(bool(table.isfinite().all()) for table in tables)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, help="of train.txt, valid.txt and test.txt")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=0, help="also compare validation MRR after so many; 0: do not")
    parser.add_argument("--constrained", action="store_true", help="PyKEEN's unit entities, and our unit ball")
    parser.add_argument("--dim", type=int, default=OWN.dim)
    parser.add_argument("--batch-size", type=int, default=OWN.batch_size)
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default=OWN.optimizer)
    parser.add_argument("--learning-rate", type=float, default=OWN.learning_rate)
    options = parser.parse_args()
    sizes: dict[str, Any] = {"dim": options.dim, "batch_size": options.batch_size}
    rule = {"optimizer": options.optimizer, "learning_rate": options.learning_rate}
    own, shared = replace(OWN, unit_ball=options.constrained, **sizes, **rule), replace(SHARED, **sizes)
    print(json.dumps(run(read_splits(options.folder), own, shared, options.rounds, options.epochs), indent=1))


if __name__ == "__main__":
    main()
