"""Sessions from generated logs of three sizes, with DuckDB held to 256 MB: turns a second, and peak memory.

    python -m pytest benchmarks/bench_labels_logs.py --tercet-size full --benchmark-json logs.json
    python benchmarks/table.py logs.json --title "Sessions of logs" --out benchmarks/results/labels_logs.md

Rows of users and sessions interleave, as they come in. The peak is that of a fresh process that reads the log again.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from tercet.labeling.data.logs import Resources, SessionReader

SIZES = {"small": [20_000], "full": [500_000, 2_000_000, 8_000_000]}  # turns
PER_SESSION, SESSIONS_OF_A_USER = 8, 5
RESOURCES = Resources("256MB", threads=2)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    metafunc.parametrize("num_turns", SIZES[metafunc.config.getoption("--tercet-size")])


def generate(path: Path, num_turns: int) -> Path:
    """A log: sessions of eight turns begin within thirty days, ten seconds from turn to turn, and interleave."""
    duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed (extra `labels`)")
    num_sessions = num_turns // PER_SESSION
    with duckdb.connect() as connection:
        connection.execute(f"""
            COPY (
                SELECT 'user-' || hash(i % {num_sessions}) % {num_sessions // SESSIONS_OF_A_USER} AS user,
                    (hash(i % {num_sessions}, 'at') % 2592000 + i // {num_sessions} * 10)::DOUBLE AS time,
                    CASE WHEN i // {num_sessions} % 2 = 0 THEN 'user' ELSE 'system' END AS speaker,
                    'play number ' || hash(i, 'number') % 1000 || ' of the list ' || hash(i, 'list') % 50 AS text,
                    'domain ' || hash(i, 'domain') % 20 AS domain,
                    hash(i, 'confidence') % 1000 / 1000 AS confidence,
                    hash(i, 'barge in') % 10 = 0 AS barge_in
                FROM range({num_sessions * PER_SESSION}) AS rows(i)
            ) TO '{path}' (FORMAT parquet, ROW_GROUP_SIZE 100000)""")
    return path


def count(path: Path) -> tuple[int, int]:
    """Dialogues and their turns."""
    dialogues = turns = 0
    for dialogue in SessionReader(path, gap=300, resources=RESOURCES):
        dialogues, turns = dialogues + 1, turns + len(dialogue.turns)
    return dialogues, turns


def bench_sessions(benchmark: BenchmarkFixture, tmp_path: Path, num_turns: int) -> None:
    path = generate(tmp_path / "log.parquet", num_turns)
    benchmark.group = f"{num_turns:,} turns, {path.stat().st_size / 1e6:,.0f} MB of Parquet"
    cpu = time.process_time()
    dialogues, turns = benchmark.pedantic(count, (path,))
    cpu = time.process_time() - cpu
    assert turns == num_turns
    assert 0.9 * num_turns / PER_SESSION < dialogues <= num_turns / PER_SESSION
    benchmark.extra_info.update(engine="tercet", turns=turns, dialogues=dialogues, cpu_seconds=cpu)
    if benchmark.enabled:
        benchmark.extra_info["turns_per_second"] = turns / benchmark.stats.stats.median
        benchmark.extra_info["turns of a core_per_second"] = turns / cpu
    fresh = subprocess.run([sys.executable, __file__, path], capture_output=True, text=True, check=True)
    benchmark.extra_info.update(json.loads(fresh.stdout))


if __name__ == "__main__":
    count(Path(sys.argv[1]))
    print(json.dumps({"peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}))
