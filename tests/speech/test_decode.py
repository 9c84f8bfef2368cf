"""Greedy and prefix beam decoding against what all paths say."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tercet.speech.decode import beam_search, collapse, greedy


def probabilities(frames: int, symbols: int, seed: int, zeros: bool) -> np.ndarray:
    """Random log-probabilities [frames, symbols]; with `zeros`, some are -inf, but not a whole frame."""
    rng = np.random.default_rng(seed)
    chances = rng.dirichlet(np.ones(symbols), frames)
    if zeros:
        chances[rng.random(chances.shape) < 0.3] = 0
        chances[np.arange(frames), rng.integers(symbols, size=frames)] += 0.1
        chances /= chances.sum(1, keepdims=True)
    with np.errstate(divide="ignore"):
        return np.log(chances)


def by_all_paths(log_probs: np.ndarray, blank: int) -> dict[tuple[int, ...], float]:
    """The probability of everything that a path can say."""
    said: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(log_probs.shape[1]), repeat=len(log_probs)):
        words = tuple(symbol for symbol, _ in itertools.groupby(path) if symbol != blank)
        chance = math.exp(sum(log_probs[frame, symbol] for frame, symbol in enumerate(path)))
        said[words] = said.get(words, 0.0) + chance
    return said


cases = {
    "frames": st.integers(0, 5),
    "symbols": st.integers(2, 3),
    "seed": st.integers(0, 2**32),
    "zeros": st.booleans(),
}


@given(**cases, data=st.data())
def test_a_wide_beam_finds_the_likeliest_of_all_strings(
    frames: int, symbols: int, seed: int, zeros: bool, data: st.DataObject
) -> None:
    log_probs = probabilities(frames, symbols, seed, zeros)
    blank = data.draw(st.integers(0, symbols - 1))
    everything = by_all_paths(log_probs, blank)
    said, chance = beam_search(log_probs, blank, width=1000)
    assert math.exp(chance) == pytest.approx(max(everything.values()))
    assert everything[said] == pytest.approx(math.exp(chance))


@given(**cases, width=st.integers(1, 4))
def test_a_narrow_beam_never_claims_more_than_its_string_has(
    frames: int, symbols: int, seed: int, zeros: bool, width: int
) -> None:
    log_probs = probabilities(frames, symbols, seed, zeros)
    said, chance = beam_search(log_probs, 0, width)
    assert math.exp(chance) <= by_all_paths(log_probs, 0)[said] + 1e-12


@given(**cases)
def test_greedy_says_what_the_likeliest_path_says(frames: int, symbols: int, seed: int, zeros: bool) -> None:
    log_probs = probabilities(frames, symbols, seed, zeros)
    paths = itertools.product(range(symbols), repeat=frames)
    best = max(paths, key=lambda path: sum(log_probs[frame, symbol] for frame, symbol in enumerate(path)))
    assert greedy(log_probs, 0) == tuple(symbol for symbol, _ in itertools.groupby(best) if symbol != 0)


@given(st.lists(st.integers(0, 3)), st.data())
def test_a_path_cut_in_two_says_the_same(path: list[int], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(path)))
    first, second = path[:cut], path[cut:]
    assert collapse(path, 3) == collapse(first, 3) + collapse(second, 3, first[-1] if first else None)


def test_a_beam_sums_paths_where_greedy_sees_one() -> None:
    log_probs = np.log([[0.4, 0.6], [0.4, 0.6]])  # two blanks .36; the digit in any of three paths .64
    assert greedy(log_probs, blank=1) == ()
    said, chance = beam_search(log_probs, blank=1)
    assert (said, math.exp(chance)) == ((0,), pytest.approx(0.64))


def test_a_digit_twice_needs_a_blank_between() -> None:
    sure = np.log(np.array([[1, 0], [0, 1], [1, 0]]) + 1e-9)
    assert beam_search(sure, blank=1)[0] == (0, 0)
    assert beam_search(sure[[0, 0, 0]], blank=1)[0] == (0,)


def test_no_frames_say_nothing() -> None:
    assert beam_search(np.zeros((0, 11)), blank=10) == ((), 0.0)
    assert greedy(np.zeros((0, 11)), blank=10) == ()


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"log_probs must be \[T, symbols\], got \[3\]"):
        beam_search(np.zeros(3), blank=0)
    with pytest.raises(ValueError, match="width must be at least 1, got 0"):
        beam_search(np.zeros((2, 3)), blank=0, width=0)
