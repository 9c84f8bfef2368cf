"""A gated block against torch's dense layer and against other ways to skip frames, arbitrators included.

    python -m pytest benchmarks/bench_gating.py --tercet-size full --benchmark-json gating.json
    python benchmarks/table.py gating.json --title "Gated blocks" --out benchmarks/results/gating.md

Arbitrators are calibrated to the keep rate. Calls go round a few batches of random frames; torch's dense layer, which
has no arbitrators, runs without its fused inference path. After timing, every rival's result on the last batch is
compared with ours for the same gates, and ours in inference with masked dense, which is torch alone. Training draws its
gates, without dropout; the step is forward and backward, to the frames and all weights. What streams is timed by
bench_streaming.py.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn

from rivals_of_gating import BLOCKS, Block, Gates, masked_dense, tercet
from tercet.nn import ArbitratedEncoderLayer
from timing import assert_close, measure

CUDA = torch.cuda.is_available()
SIZES = {
    "small": [(2, 50, 64)],
    "full": [(5, 200, 512), (20, 400, 512), (80, 400, 512), (5, 200, 1024), (20, 400, 1024), (80, 400, 1024)]
    if CUDA
    else [(8, 400, 512)],
}  # sequences, frames, width
RATES = {"small": [0.4], "full": [0.7, 0.4, 0.2]}
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 4e-2}  # of the largest value


class Case(NamedTuple):
    size: tuple[int, int, int]
    dtype: torch.dtype
    keys: str
    keep: float
    trains: bool
    name: str

    def __str__(self) -> str:
        return f"{self.group}-{self.name}".replace(", ", "-").replace(" ", "_")

    @property
    def group(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        step = ", forward + backward" if self.trains else ""
        return f"{dtype}, {' x '.join(map(str, self.size))}, keys {self.keys}, keep {self.keep}{step}"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    size = metafunc.config.getoption("--tercet-size")
    dtypes = (torch.bfloat16,) if CUDA else (torch.float32, torch.bfloat16)
    cases = [
        Case(*case, False, name)
        for case in itertools.product(SIZES[size], dtypes, ("kept", "all"), RATES[size])
        for name, block in BLOCKS.items()
        if block.forward and (name != "compiled top-k" or size == "full" or case[1:3] == (dtypes[0], "kept"))  # slow
    ]
    cases += [
        Case(shape, torch.float32, "kept", 0.4, True, name)
        for shape in SIZES[size]
        for name, block in BLOCKS.items()
        if block.trains
    ]
    metafunc.parametrize("case", cases, ids=str)


class Rivals(NamedTuple):
    dense: nn.TransformerEncoderLayer
    ours: ArbitratedEncoderLayer
    frames: Iterator[Tensor]
    capacity: int  # no sequence of the frames keeps more


def prepared(case: Case) -> Rivals:
    """Layers with the same weights, calibrated, and frames that come round."""
    batch, num_frames, width = case.size
    torch.manual_seed(0)
    where: dict[str, Any] = {"device": "cuda" if CUDA else "cpu", "dtype": case.dtype}
    dense = nn.TransformerEncoderLayer(width, 8, 4 * width, 0.0, batch_first=True, norm_first=True, **where)
    options = dict(BLOCKS[case.name].options) if case.trains else {}
    ours = ArbitratedEncoderLayer.from_torch(dense.train(case.trains), keys=case.keys, **options)
    pool = [torch.randn(batch, num_frames, width, **where) for _ in range(4)]
    with torch.no_grad():
        if case.trains:  # drawn with a probability near the keep rate
            for arbiter in (ours.attention_arbiter, ours.feed_forward_arbiter):
                arbiter.weight.mul_(0.1)
                arbiter.bias.fill_(math.log(case.keep / (1 - case.keep)))
        else:
            ours.calibrate_(torch.cat(pool), keep=(case.keep, case.keep))
        capacity = max(int(gate.sum(1).max()) for x in pool for gate in decisions(ours, x))
    if case.name == "tercet, capacity":
        ours.capacity = capacity
    return Rivals(dense, ours, itertools.cycle(pool), capacity)


def decisions(layer: ArbitratedEncoderLayer, x: Tensor) -> tuple[Tensor, Tensor]:
    """What its arbitrators open: bool [B, T] each."""
    _, attention, feed_forward = layer.run(x, torch.ones(x.shape[:2], dtype=torch.bool, device=x.device))
    return attention.on, feed_forward.on


def the_best(layer: ArbitratedEncoderLayer, x: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Gates that open `count` frames of each sequence, of random ones."""
    shape = x.shape[:2]
    scores = (torch.rand(shape, device=x.device) for _ in range(2))
    on, also_on = (
        torch.zeros_like(score, dtype=torch.bool).scatter(1, score.topk(count).indices, True) for score in scores
    )
    return on, also_on


def compiled(block: Block, *arguments: Any) -> Block:
    """It, compiled for such arguments; skips where that does not work."""
    block.run(*arguments)  # an error of its own is none of the compiler's
    torch.compiler.reset()  # or it would give up after a few cases
    run = torch.compile(block.run, dynamic=False)
    try:
        run(*arguments)
    except Exception as error:  # whatever the compiler of this machine lacks
        pytest.skip(f"torch.compile does not work here: {str(error).splitlines()[0]}")
    return Block(run)


def bench_block(benchmark: BenchmarkFixture, case: Case) -> None:
    benchmark.group = case.group
    block, rivals = BLOCKS[case.name], prepared(case)
    count = round(case.keep * case.size[1])
    layer: Any = rivals.dense if case.name == "torch dense" else rivals.ours
    weights = list(layer.parameters()) if case.trains else []
    last: dict[str, Any] = {}
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.inference_mode(not case.trains), torch.random.fork_rng():
            if case.name == "compiled top-k":
                block = compiled(block, layer, next(rivals.frames), None, count)

            def call(x: Tensor) -> None:
                out = block.run(layer, x, None, count)
                if case.trains:
                    torch.autograd.grad(out, [x, *weights], last["probe"])
                if CUDA:
                    torch.cuda.synchronize()

            def fresh() -> tuple[Tensor]:
                last["x"] = next(rivals.frames).requires_grad_(case.trains)
                last.setdefault("probe", torch.randn_like(last["x"]))
                return (last["x"],)

            measure(benchmark, call, fresh)
            compare(case, block, layer, rivals, last["x"], last["probe"])
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
    batch, num_frames, width = case.size
    benchmark.extra_info.update(engine=case.name, width=width, batch=batch, num_frames=num_frames, keep=case.keep)
    if benchmark.enabled:
        benchmark.extra_info["frames_per_second"] = batch * num_frames / benchmark.stats.stats.median


def compare(case: Case, block: Block, layer: Any, rivals: Rivals, x: Tensor, probe: Tensor) -> None:
    """The rival's output, and in training gradients, with those of ours for the same gates; ours in inference with
    masked dense."""
    count = round(case.keep * case.size[1])
    everything = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
    gates: Gates = the_best(rivals.ours, x, count)
    if case.name == "torch dense":
        gates = (everything, everything)
    exact = ArbitratedEncoderLayer.from_torch(rivals.dense, keys=case.keys, mode="compact")
    independent = block.run is tercet and not case.trains
    got = block.run(layer, x, gates, count)
    want = masked_dense(exact, x, gates, count) if independent else exact(x, gates=gates)
    assert_close(got.detach().float(), want.detach().float(), TOLERANCE[case.dtype])
    if case.trains:
        shared = [name for name, _ in rivals.dense.named_parameters()]
        of_got, of_want = ([x, *map(one.get_parameter, shared)] for one in (layer, exact))
        results = (torch.autograd.grad(out, of, probe) for out, of in ((got, of_got), (want, of_want)))
        for ours, theirs in zip(*results, strict=True):
            assert_close(ours, theirs, TOLERANCE[case.dtype])
