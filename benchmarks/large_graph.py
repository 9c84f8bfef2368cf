"""Build, save, load and walk a large power-law graph in one fresh process; prints seconds and peak memory as JSON.

Usage: python benchmarks/large_graph.py [--entities 5000000] [--triples 20000000] [--seeds 64] [--hops 3]
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import tercet


def peak_gb() -> float:
    """The largest resident memory of this process so far."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)


def power_law_ids(rng: np.random.Generator, count: int, num_entities: int, exponent: float) -> np.ndarray:
    """Entity ids of which few are frequent, drawn in place so that generating takes little memory."""
    draws = rng.random(count, dtype=np.float32)
    np.power(draws, exponent, out=draws)
    ids = np.minimum((draws * num_entities).astype(np.int32), num_entities - 1)
    return rng.permutation(num_entities).astype(np.int32)[ids]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entities", type=int, default=5_000_000)
    parser.add_argument("--triples", type=int, default=20_000_000)
    parser.add_argument("--relations", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=64)
    parser.add_argument("--hops", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    figures: dict[str, object] = {"after import, peak GB": peak_gb()}
    rng = np.random.default_rng(options.seed)
    heads = power_law_ids(rng, options.triples, options.entities, 2)
    tails = power_law_ids(rng, options.triples, options.entities, 3)
    relations = rng.integers(0, options.relations, options.triples, dtype=np.int32)
    figures["after generating, peak GB"] = peak_gb()

    start = time.perf_counter()
    graph = tercet.KnowledgeGraph.from_triples(
        heads, relations, tails, num_entities=options.entities, num_relations=options.relations
    ).with_inverses()
    figures["build with inverses, s"] = round(time.perf_counter() - start, 2)
    figures["after building, peak GB"] = peak_gb()
    seeds = torch.from_numpy(rng.choice(heads, options.seeds)).long()
    del heads, tails, relations

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph"
        start = time.perf_counter()
        graph.save(path)
        figures["save, s"] = round(time.perf_counter() - start, 2)
        del graph
        start = time.perf_counter()
        graph = tercet.KnowledgeGraph.load(path)
        figures["load, s"] = round(time.perf_counter() - start, 2)
        figures["file, GB"] = round(path.stat().st_size / 2**30, 2)
        sets = tercet.EntitySets.one_hot(seeds)
        for hop in range(options.hops):
            weights = torch.rand(len(seeds), graph.num_relations, generator=torch.Generator().manual_seed(hop))
            start = time.perf_counter()
            sets = tercet.follow(graph, sets, weights)
            figures[f"hop {hop + 1}, s"] = round(time.perf_counter() - start, 3)
            figures[f"hop {hop + 1}, members"] = len(sets.entities)
        figures["edges"] = graph.num_edges
        figures["peak GB"] = peak_gb()
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
