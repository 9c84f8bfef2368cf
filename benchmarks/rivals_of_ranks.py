"""transe_rank and the ways in which others rank, behind one interface."""

from __future__ import annotations

import time
from typing import Any, ClassVar, Protocol

import numpy as np
import pytest
import torch
from torch import Tensor

import tercet
from workloads import RankingLoad


class Ranker(Protocol):
    """One way to compute filtered realistic ranks of heads and tails."""

    norms: ClassVar[tuple[str, ...]]

    def __init__(self, load: RankingLoad, dim: int, norm: str) -> None: ...
    def prepare(self, entities: Tensor, relations: Tensor, triples: Tensor) -> None:
        """What is done once, before timing."""

    def ranks(self, entities: Tensor, relations: Tensor, triples: Tensor) -> Tensor:
        """[num_triples, 2]: heads, tails."""

    def facts(self) -> dict[str, Any]:
        """What the saved result should tell."""


class Tercet:
    """transe_rank with a prepared FilterIndex."""

    norms: ClassVar[tuple[str, ...]] = ("l1", "l2", "dot")

    def __init__(self, load: RankingLoad, dim: int, norm: str) -> None:
        self.known: Any = load.index
        self.norm = norm

    def prepare(self, entities: Tensor, relations: Tensor, triples: Tensor) -> None:
        pass

    def ranks(self, entities: Tensor, relations: Tensor, triples: Tensor) -> Tensor:
        return tercet.transe_rank(entities, relations, triples, known=self.known, norm=self.norm).realistic

    def facts(self) -> dict[str, Any]:
        return {}


class TercetRaw(Tercet):
    """transe_rank that makes the index in every call."""

    def __init__(self, load: RankingLoad, dim: int, norm: str) -> None:
        super().__init__(load, dim, norm)
        self.known = load.known


class PlainTorch(Tercet):
    """Batches of torch.cdist (dot: a GEMM), the known entities of each query written out, two counts.

    The lists of known entities are looked up in our index: cheaper than a search through all triples.
    """

    batch = 128

    def ranks(self, entities: Tensor, relations: Tensor, triples: Tensor) -> Tensor:
        sides = []
        for column, anchor in ((0, 2), (2, 0)):
            parts = []
            for rows in triples.split(self.batch):
                scores = self._scores(entities, relations, rows, tails=column == 2)
                true = scores.gather(1, rows[:, column, None])
                ranges, members = self.known.ranges(rows[:, anchor].int(), rows[:, 1].int(), tails=column == 2)
                lengths = ranges.diff(dim=1)[:, 0]
                row = torch.repeat_interleave(torch.arange(len(rows)), lengths)
                places = torch.arange(len(row)) - (lengths.cumsum(0) - lengths)[row] + ranges[row, 0]
                scores[row, members[places].long()] = -torch.inf
                better, equal = (scores > true).sum(1), (scores == true).sum(1)
                parts.append(1 + better + equal / 2)  # the target itself is among the known
            sides.append(torch.cat(parts))
        return torch.stack(sides, dim=1).double()

    def _scores(self, entities: Tensor, relations: Tensor, rows: Tensor, tails: bool) -> Tensor:
        heads, kinds, ends = entities[rows[:, 0]], relations[rows[:, 1]], entities[rows[:, 2]]
        if self.norm == "dot":
            return (heads + kinds if tails else ends) @ entities.T
        return -torch.cdist(heads + kinds if tails else ends - kinds, entities, p=int(self.norm[1]))


class PyKEEN:
    """RankBasedEvaluator on PyKEEN's own TransE."""

    norms: ClassVar[tuple[str, ...]] = ("l1", "l2")
    evaluator = "RankBasedEvaluator"
    batch_sizes = (8, 16, 32, 64, 128, 256)

    def __init__(self, load: RankingLoad, dim: int, norm: str) -> None:
        pytest.importorskip("pykeen", reason="pykeen is not installed (tercet[pykeen])")
        from pykeen.evaluation import evaluator_resolver
        from pykeen.models import TransE
        from pykeen.triples import KGInfo

        import tercet.integrations.pykeen  # noqa: F401  (registers ours by name)

        info = KGInfo(load.num_entities, load.num_relations, create_inverse_triples=False)
        self.model = TransE(triples_factory=info, embedding_dim=dim, scoring_fct_norm=int(norm[1]), random_seed=0)
        self.rival = evaluator_resolver.make(
            self.evaluator, {"metrics": ["mrr"], "add_defaults": False, "clear_on_finalize": False}
        )
        # All test triples, of which a benchmark may rank some: as in our index.
        self.known, self.batch_size = [load.train, load.valid, load.test], self.batch_sizes[0]

    def prepare(self, entities: Tensor, relations: Tensor, triples: Tensor) -> None:
        seconds = {}
        for size in self.batch_sizes:
            self.batch_size = size
            sample = triples.repeat(-(-size // len(triples)), 1)[: max(size, 32)]
            start = time.perf_counter()
            self.ranks(entities, relations, sample)
            seconds[size] = (time.perf_counter() - start) / len(sample)
            if seconds[size] > 2 * min(seconds.values()):
                break
        self.batch_size = min(seconds, key=seconds.__getitem__)

    def ranks(self, entities: Tensor, relations: Tensor, triples: Tensor) -> Tensor:
        state = dict(zip(self.model.state_dict(), (entities, relations), strict=True))
        self.model.load_state_dict(state, assign=True)
        self.rival.clear()
        self.rival.evaluate(self.model, triples, batch_size=self.batch_size, additional_filter_triples=self.known,
                            use_tqdm=False)  # fmt: skip
        columns = [np.concatenate(self.rival.ranks[side, "realistic"]) for side in ("head", "tail")]
        return torch.from_numpy(np.stack(columns, axis=1)).double()

    def facts(self) -> dict[str, Any]:
        return {"batch_size": self.batch_size}


class TercetInPyKEEN(PyKEEN):
    """TercetRankBasedEvaluator on PyKEEN's own TransE."""

    evaluator = "TercetRankBasedEvaluator"
    batch_sizes = (32,)  # it does nothing


RANKERS: dict[str, type[Ranker]] = {
    "tercet": Tercet,
    "tercet, raw triples": TercetRaw,
    "tercet in PyKEEN": TercetInPyKEEN,
    "PyKEEN": PyKEEN,
    "plain torch": PlainTorch,
}
