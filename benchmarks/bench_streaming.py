"""Frames a second of a streaming stack, one frame a step, against the same loop written with torch modules.

    python -m pytest benchmarks/bench_streaming.py --tercet-size full --benchmark-json streaming.json
    python benchmarks/table.py streaming.json [AGAIN.json ...] --title Streaming --out benchmarks/results/streaming.md
    python benchmarks/bench_streaming.py streaming.json [AGAIN.json ...] --out benchmarks/results/streaming.png

The arbitrators are calibrated to the keep rate; a call is a run of frames of one or more streams, from an empty window.
Streams stepped together share one read of the weights: one that is off saves its own products, but the read is saved
only where all of them are off. The picture shows the share of time that gates save over the number of streams, beside
the share of sub-blocks that were off for all of them.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from table import pooled
from tercet.nn import ArbitratedEncoder, ArbitratedEncoderLayer
from tercet.plotting import new_figure, write_figure
from timing import assert_close, measure

WINDOW = 64
SIZES = {"small": [(32, 2, 20)], "full": [(144, 6, 400), (256, 6, 400), (512, 6, 200)]}  # width, blocks, frames
RATES = {"small": [1.0, 0.4], "full": [1.0, 0.7, 0.4, 0.2]}
STREAMS = {"small": [1, 2], "full": [1, 2, 4, 8]}
COLORS = "#4c6a92", "#c05a2e", "#5a8f5a"  # of keep rates


def torch_loop(encoder: ArbitratedEncoder, frames: Tensor) -> Tensor:
    """`if gate: block(frame)` for one stream [1, T, dim], in torch: a ring of keys and values, attention over it."""
    rings = [torch.zeros(2, WINDOW + 1, block.dim) for block in encoder.blocks]
    seen = [torch.full((WINDOW + 1,), -WINDOW - 2) for _ in encoder.blocks]
    out = []
    for t in range(frames.shape[1]):
        x = frames[:, t]
        slot = t % (WINDOW + 1)
        for block, ring, frame_of in zip(encoder.blocks, rings, seen, strict=True):
            inputs = block.norm1(x)
            if block.attention_arbiter(inputs) > block.attention_threshold:
                attention = block.self_attn
                query, key, value = F.linear(inputs, attention.in_proj_weight, attention.in_proj_bias).chunk(3, -1)
                ring[0, slot], ring[1, slot], frame_of[slot] = key[0], value[0], t
                heads = (part.unflatten(-1, (block.num_heads, -1)).transpose(0, 1) for part in (query, *ring))
                mixed = F.scaled_dot_product_attention(*heads, attn_mask=(frame_of >= t - WINDOW)[None])
                x = x + attention.out_proj(mixed.transpose(0, 1).flatten(1))
            inputs = block.norm2(x)
            if block.feed_forward_arbiter(inputs) > block.feed_forward_threshold:
                x = x + block.linear2(block.activation(block.linear1(inputs)))
        out.append(x)
    return torch.stack(out, 1)


def tercet_loop(encoder: ArbitratedEncoder, frames: Tensor) -> Tensor:
    """A step for each frame of all streams [B, T, dim]."""
    state = encoder.initial_state(len(frames))
    out = []
    for t in range(frames.shape[1]):
        frame, state = encoder.step(frames[:, t : t + 1], state)
        out.append(frame)
    return torch.cat(out, 1)


LOOPS: dict[str, Callable[[ArbitratedEncoder, Tensor], Tensor]] = {"tercet": tercet_loop, "torch modules": torch_loop}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    size = metafunc.config.getoption("--tercet-size")
    cases = itertools.product(SIZES[size], RATES[size], STREAMS[size], LOOPS)
    kept = [case for case in cases if case[2] == 1 or case[3] == "tercet"]
    names = [f"{shape[0]}x{shape[1]}-{keep}-{streams}-{name}" for shape, keep, streams, name in kept]
    metafunc.parametrize(("shape", "keep", "streams", "name"), kept, ids=names)


@torch.inference_mode()
def bench_frames(
    benchmark: BenchmarkFixture, shape: tuple[int, int, int], keep: float, streams: int, name: str
) -> None:
    width, blocks, num_frames = shape
    benchmark.group = f"width {width}, {blocks} blocks, keep {keep}, {streams} streams"
    torch.manual_seed(0)
    layer = ArbitratedEncoderLayer(width, 4, 4 * width, causal=True, window=WINDOW)
    encoder = ArbitratedEncoder(layer, blocks).eval()
    encoder.calibrate_(torch.randn(1, 2000, width), keep=(keep, keep))
    last: dict[str, Any] = {}

    def fresh() -> tuple[Tensor]:
        last["frames"] = torch.randn(streams, num_frames, width)
        return (last["frames"],)

    def call(frames: Tensor) -> None:
        last["got"] = LOOPS[name](encoder, frames)

    measure(benchmark, call, fresh)
    benchmark.extra_info.update(engine=name, width=width, blocks=blocks, keep=keep, streams=streams)
    if benchmark.enabled:
        benchmark.extra_info["frames_per_second"] = streams * num_frames / benchmark.stats.stats.median
    wanted, cost = encoder(last["frames"])
    assert_close(last["got"], wanted)
    benchmark.extra_info["skipped"] = float((~cost.gates).all(2).float().mean())  # off for all streams


def savings(benchmarks: list[dict[str, Any]]) -> dict[int, dict[float, list[tuple[int, float, float]]]]:
    """By width and keep rate: streams, the share of time saved against every gate on, and sub-blocks skipped."""
    cases = [(entry["extra_info"], entry["stats"]["median"]) for entry in benchmarks]
    ours = [(info, seconds) for info, seconds in cases if info["engine"] == "tercet"]
    every = {(info["width"], info["streams"]): seconds for info, seconds in ours if info["keep"] == 1.0}
    found: dict[int, dict[float, list[tuple[int, float, float]]]] = {}
    for info, seconds in ours:
        whole = every.get((info["width"], info["streams"]))
        if info["keep"] < 1.0 and whole is not None:
            point = info["streams"], 1 - seconds / whole, info["skipped"]
            found.setdefault(info["width"], {}).setdefault(info["keep"], []).append(point)
    return found


def draw(benchmarks: list[dict[str, Any]], path: Path) -> None:
    """A panel for each width, a colour for each keep rate."""
    found = savings(benchmarks)
    if not found:
        raise ValueError("no saving to draw: run keep rate 1.0 and another at one width and number of streams")
    figure = new_figure(1.5 + 3 * len(found), 4)
    panels = figure.subplots(1, len(found), sharey=True, squeeze=False)[0]
    for axes, (width, by_rate) in zip(panels, found.items(), strict=True):
        for color, (keep, points) in zip(COLORS, by_rate.items(), strict=False):
            streams, saved, skipped = zip(*sorted(points), strict=True)
            label = f"keep {keep:g}"
            axes.plot(streams, [100 * share for share in saved], color=color, marker="o", markersize=5, label=label)
            axes.plot(streams, [100 * share for share in skipped], color=color, linestyle=":", linewidth=1.2)
        axes.set_xscale("log", base=2)
        axes.set_xticks(streams, [str(number) for number in streams])
        axes.minorticks_off()
        axes.set_xlabel("streams stepped together")
        axes.set_title(f"width {width}", loc="left", fontsize="medium")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#eeeeee")
        axes.axhline(0, color="#888888", linewidth=0.8)
    panels[0].set_ylabel("time saved, %")
    handles = panels[0].get_legend_handles_labels()[0]
    handles += panels[0].plot([], [], color="#888888", linestyle=":", label="sub-blocks off for all streams")
    columns = len(handles) if len(found) > 1 else 2
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize="small")
    write_figure(figure, path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draw what pytest-benchmark measured.")
    parser.add_argument("files", nargs="+", type=Path, help="of pytest-benchmark, of one machine")
    parser.add_argument("--out", type=Path, required=True, help="the PNG")
    arguments = parser.parse_args()
    draw(pooled(json.loads(file.read_text()) for file in arguments.files), arguments.out)
