"""Building and reading graphs: ours against numpy (lexsort, then dropping repeats) and Python's dictionaries.

    pytest benchmarks/bench_graph_build.py            # 200,000 triples
    python benchmarks/bench_graph_build.py --triples 20000000 --entities 5000000 --folder /tmp

The second form takes each measurement in a fresh process and prints seconds and peak memory as JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tercet import KnowledgeGraph

SIZES = {"triples": 200_000, "entities": 50_000, "relations": 500}


def power_law(triples: int, entities: int, relations: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Triples whose subjects and objects follow a power law, in random order."""
    rng = np.random.default_rng(0)
    label = rng.permutation(entities).astype(np.int32)
    draw = [
        label[np.minimum((entities * rng.random(triples) ** power).astype(np.int64), entities - 1)] for power in (2, 3)
    ]
    return draw[0], rng.integers(0, relations, triples, dtype=np.int32), draw[1]


def numpy_graph(
    heads: np.ndarray, relations: np.ndarray, tails: np.ndarray, num_entities: int, num_relations: int
) -> Any:
    """(row_offsets, relations, objects) with inverses."""
    s, r, o = (
        np.concatenate([heads, tails]),
        np.concatenate([relations, relations + num_relations]),
        np.concatenate([tails, heads]),
    )
    order = np.lexsort((o, r, s))
    s, r, o = s[order], r[order], o[order]
    kept = np.ones(len(s), bool)
    kept[1:] = (s[1:] != s[:-1]) | (r[1:] != r[:-1]) | (o[1:] != o[:-1])
    s, r, o = s[kept], r[kept], o[kept]
    return np.concatenate([[0], np.cumsum(np.bincount(s, minlength=num_entities))]), r, o


def native_graph(columns: Any, num_entities: int, num_relations: int) -> KnowledgeGraph:
    return KnowledgeGraph.from_triples(*columns, num_entities=num_entities, num_relations=num_relations).with_inverses()


@pytest.mark.benchmark(group="build with inverses")
@pytest.mark.parametrize("rival", ["tercet", "numpy"])
def test_build(benchmark: Any, rival: str) -> None:
    columns = power_law(**SIZES)
    sizes = SIZES["entities"], SIZES["relations"]
    expected = numpy_graph(*columns, *sizes)
    if rival == "numpy":
        result = benchmark(numpy_graph, *columns, *sizes)
    else:
        graph = benchmark(native_graph, columns, *sizes)
        result = graph.row_offsets, graph.relations, graph.objects
    assert all(np.array_equal(a, b) for a, b in zip(result, expected, strict=True))
    if benchmark.stats is not None:
        benchmark.extra_info["triples_per_second"] = SIZES["triples"] / benchmark.stats.stats.median


def write_text(path: Path, triples: int, entities: int, relations: int) -> None:
    columns = power_law(triples, entities, relations)
    with open(path, "w", encoding="utf-8") as stream:
        for start in range(0, triples, 1 << 20):
            rows = zip(*(column[start : start + (1 << 20)].tolist() for column in columns), strict=True)
            stream.write("".join(f"entity_{h}\trelation_{r}\tentity_{t}\n" for h, r, t in rows))


def python_read(path: Path) -> tuple[dict[str, int], list[tuple[int, int, int]]]:
    entities: dict[str, int] = {}
    relations: dict[str, int] = {}
    triples = []
    with open(path, encoding="utf-8") as stream:
        for line in stream:
            h, r, t = line.rstrip("\n").split("\t")
            head = entities.setdefault(h, len(entities))
            triples.append((head, relations.setdefault(r, len(relations)), entities.setdefault(t, len(entities))))
    return entities, triples


@pytest.mark.benchmark(group="read text")
@pytest.mark.parametrize("rival", ["tercet", "python"])
def test_read(benchmark: Any, rival: str, tmp_path: Path) -> None:
    path = tmp_path / "kb.tsv"
    write_text(path, **SIZES)
    entities, triples = python_read(path)
    if rival == "python":
        benchmark(python_read, path)
    else:
        graph = benchmark(KnowledgeGraph.read, path)
        assert list(graph.entity_names) == list(entities)
        assert graph.num_edges == len(set(triples))
    if benchmark.stats is not None:
        benchmark.extra_info["lines_per_second"] = SIZES["triples"] / benchmark.stats.stats.median


@pytest.mark.benchmark(group="save and load")
@pytest.mark.parametrize("step", ["save", "load"])
def test_storage(benchmark: Any, step: str, tmp_path: Path) -> None:
    graph = native_graph(power_law(**SIZES), SIZES["entities"], SIZES["relations"])
    graph.save(tmp_path / "kb")
    if step == "save":
        benchmark(lambda: KnowledgeGraph.load(tmp_path / "kb").save(tmp_path / "copy"))
    else:
        assert benchmark(KnowledgeGraph.load, tmp_path / "kb").fingerprint == graph.fingerprint


def _status(field: str) -> float:
    """A field of /proc/self/status, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1e3 for line in lines if line.startswith(field + ":"))


def _measure(step: str, folder: Path, triples: int, entities: int, relations: int) -> dict[str, Any]:
    torch.set_num_threads(2)
    figures: dict[str, Any] = {"step": step}
    imported, size = _status("VmRSS"), 0.0
    columns = power_law(triples, entities, relations) if step == "build" else None
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before, start = _status("VmRSS"), time.perf_counter()
    if step == "build":
        graph = native_graph(columns, entities, relations)
        figures["seconds"] = time.perf_counter() - start
        peak = _status("VmHWM")
        size = (graph.row_offsets.nbytes + graph.relations.nbytes + graph.objects.nbytes) / 1e6
        start = time.perf_counter()
        graph.save(folder / "built.kg")
        figures["save_seconds"] = time.perf_counter() - start
    elif step == "read":
        graph = KnowledgeGraph.read(folder / "kb.tsv")
        figures["seconds"], peak = time.perf_counter() - start, _status("VmHWM")
        size = (folder / "kb.tsv").stat().st_size / 1e6
        graph.save(folder / "read.kg")
    else:
        path = folder / ("built.kg" if step == "load" else "read.kg")
        graph = KnowledgeGraph.load(path)
        figures["seconds"], peak = time.perf_counter() - start, _status("VmHWM")
        size = path.stat().st_size / 1e6
    memory = {"import_mb": imported, "size_mb": size, "peak_beyond_inputs_mb": peak - before, "peak_mb": peak}
    figures |= memory | {"peak_over_size": (peak - before) / size, "graph": repr(graph)}
    return {key: round(value, 2) if isinstance(value, float) else value for key, value in figures.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in SIZES.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument(
        "--folder", type=Path, required=True, help="where files of about 50 bytes a triple may be written"
    )
    parser.add_argument(
        "--step", choices=["write", "build", "load", "read", "load-named"], help="one step, in this process"
    )
    args = parser.parse_args()
    sizes = {name: getattr(args, name) for name in SIZES}
    if args.step == "write":
        write_text(args.folder / "kb.tsv", **sizes)
    elif args.step:
        print(json.dumps(_measure(args.step, args.folder, **sizes)))
    else:
        for step in ("build", "load", "write", "read", "load-named"):
            subprocess.run([sys.executable, __file__, *sys.argv[1:], "--step", step], check=True)
        for name in ("kb.tsv", "built.kg", "read.kg"):
            (args.folder / name).unlink()


if __name__ == "__main__":
    main()
