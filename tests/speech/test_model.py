"""The recogniser: streams equal whole recordings, nothing looks ahead, compute is counted to the last multiply-add."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spoken import tones
from tercet.speech import DigitRecognizer, ModelSettings, Stream, evaluate, measure_latency, strings_to_test
from tercet.speech.decode import greedy
from tercet.speech.digits import BLANK
from tercet.speech.evaluating import Evaluation, word_errors
from tercet.speech.features import BINS, FRAME, SILENCE, STACK
from tercet.speech.transcribing import transcribe

SIZES = ModelSettings(dim=16, num_layers=3, num_heads=2, feed_forward_dim=32, window=5, context=3)


def recognizer(seed: int, gates: str = "learnt") -> DigitRecognizer:
    """Random weights; arbitrators that open about half of the frames."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = DigitRecognizer(replace(SIZES, gates=gates)).eval()
        for block in model.encoder.blocks:
            for arbiter in (block.attention_arbiter, block.feed_forward_arbiter):
                torch.nn.init.normal_(arbiter.weight, std=0.5)
                torch.nn.init.zeros_(arbiter.bias)
        for name, value in model.named_parameters():
            if "end_layers" in name and "output" in name:  # which start at zero
                torch.nn.init.normal_(value, std=0.3)
    return model


def sound(frames: int, seed: int) -> torch.Tensor:
    return 0.1 * torch.randn(frames * FRAME, generator=torch.Generator().manual_seed(seed))


@given(st.integers(0, 2**32), st.sampled_from(["learnt", "on"]), st.lists(st.integers(0, 900), max_size=8))
@settings(max_examples=25)
def test_a_stream_says_what_the_whole_recording_says(seed: int, gates: str, pieces: list[int]) -> None:
    model, samples = recognizer(seed, gates), sound(12, seed)[: max(sum(pieces), 1)]
    with torch.inference_mode():
        rows = model.features(samples[None])
        wanted, cost, _ = model(rows, torch.zeros(rows.shape[:2], dtype=torch.bool))
    stream, said, ran = Stream(model), (), []
    bounds = np.cumsum([0, *pieces]).tolist()
    for start, end in itertools.pairwise(bounds):
        said += stream.hear(samples[start:end])
        ran.append(stream.gates)
    heard = sum(min(end, len(samples)) - min(start, len(samples)) for start, end in itertools.pairwise(bounds))
    whole = heard // FRAME
    assert said == stream.digits == greedy(wanted[0, :whole].numpy(), BLANK)
    if ran:
        assert torch.equal(torch.cat(ran, 2), cost.gates[:, :, 0, :whole])


def test_streamed_log_probabilities_are_those_of_the_whole() -> None:
    model, samples = recognizer(3), sound(20, 4)
    with torch.inference_mode():
        rows = model.features(samples[None])
        wanted = model(rows, torch.zeros(1, 20, dtype=torch.bool)).log_probs[0]
        stream = Stream(model)
        got = torch.cat([stream.log_probs(part) for part in samples.split(FRAME)])
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)


def test_the_model_does_not_hear_the_future_nor_its_neighbours() -> None:
    model = recognizer(5)
    samples = torch.stack([sound(10, 1), sound(10, 2)])
    padding = torch.zeros(2, 10, dtype=torch.bool)
    padding[0, 7:] = True
    with torch.inference_mode():
        both = model(model.features(samples), padding)
        alone = model(model.features(samples[:1, : 7 * FRAME]), padding[:1, :7])
    torch.testing.assert_close(both.log_probs[0, :7], alone.log_probs[0], atol=1e-5, rtol=1e-5)
    assert torch.equal(both.total.spent[0, :7], alone.total.spent[0])
    assert not both.total.spent[0, 7:].any()
    assert not both.total.dense[0, 7:].any()


def test_compute_is_what_a_count_by_hand_gives() -> None:
    model = recognizer(6)
    rows = model.features(sound(9, 7)[None])
    with torch.inference_mode():
        _, cost, total = model(rows, torch.zeros(1, 9, dtype=torch.bool))
    dim, hidden = SIZES.dim, SIZES.feed_forward_dim
    log_mel = 200 + 5 * 256 * 8 // 4 + 2 * 129 + 24 * 129  # window, transform, power, filters
    fixed = 4 * log_mel + STACK * BINS * dim + SIZES.context * dim + 5 * (5 * dim + dim * dim) + 11 * dim
    assert cost.gates.any()
    assert not cost.gates.all()
    for frame in range(9):
        spent = dense = fixed
        for attention, feed_forward in cost.gates[:, :, 0]:
            first = max(0, frame - SIZES.window)
            spent += 2 * dim  # arbitrators
            if attention[frame]:
                spent += 4 * dim * dim + 2 * dim * int(attention[first : frame + 1].sum())
            spent += 2 * dim * hidden * int(feed_forward[frame])
            dense += 4 * dim * dim + 2 * dim * (frame + 1 - first) + 2 * dim * hidden
        assert (int(total.spent[0, frame]), int(total.dense[0, frame])) == (spent, dense)


def test_with_gates_on_no_arbitrator_is_paid_for() -> None:
    model = recognizer(8, gates="on")
    rows, padding = model.features(sound(6, 9)[None]), torch.zeros(1, 6, dtype=torch.bool)
    with torch.inference_mode():
        found = model(rows, padding)
    assert found.cost.gates.all()
    assert torch.equal(found.total.spent, found.total.dense)
    assert found.total.share == 1.0


def test_figures_of_an_evaluation_are_those_of_its_strings() -> None:
    pytest.importorskip("jiwer", reason="jiwer is not installed (extra `speech`)")
    model, strings = recognizer(10), strings_to_test(tones(), "ann", (30.0, 0.0))
    found = evaluate(model, strings)
    errors, shares, speech = [], [], []
    for string in strings:
        silence = torch.zeros(SILENCE * FRAME)  # behind the string's own end
        rows = model.features(torch.cat([torch.from_numpy(string.samples), silence])[None])
        with torch.inference_mode():
            log_probs, _, total = model(rows, torch.zeros(rows.shape[:2], dtype=torch.bool))
        errors.append(word_errors(string.digits, greedy(log_probs[0].numpy(), BLANK)))
        own = len(string.speech)
        shares.append((int(total.spent[0, :own].sum()), int(total.dense[0, :own].sum())))
        marks = torch.nn.functional.pad(torch.from_numpy(string.speech), (0, SILENCE))
        speech.append((int(total.spent[0, marks].sum()), int(total.dense[0, marks].sum())))
    assert found.errors.tolist() == errors
    assert list(zip(found.spent.tolist(), found.dense.tolist(), strict=True)) == shares
    assert list(zip(found.spent_speech.tolist(), found.dense_speech.tolist(), strict=True)) == speech
    assert found.words.tolist() == [len(string.digits) for string in strings]
    part = found.where(np.array([string.snr == 0 for string in strings]))
    assert len(part.words) == sum(string.snr == 0 for string in strings)
    both = Evaluation(*(np.array([a, b]) for a, b in [(1, 2), (4, 6), (3, 1), (5, 5), (1, 0), (2, 2)]))
    assert (both.word_error_rate, both.compute_share, both.compute_share_speech) == (0.3, 0.4, 0.25)


def test_an_evaluation_hears_what_a_transcript_hears() -> None:
    """Of strings of many lengths, side by side; also digits that are named only behind a string's end."""
    pytest.importorskip("jiwer", reason="jiwer is not installed (extra `speech`)")
    strings = strings_to_test(tones(), "ann", (30.0, 0.0)) + strings_to_test(tones(), "bob", (10.0,))
    late = 0
    for seed in range(3):
        model = recognizer(seed)
        heard = [transcribe(model, torch.from_numpy(string.samples)).digits for string in strings]
        errors = [word_errors(string.digits, digits) for string, digits in zip(strings, heard, strict=True)]
        assert evaluate(model, strings).errors.tolist() == errors
        for string, digits in zip(strings, heard, strict=True):
            late += Stream(model).hear(torch.from_numpy(string.samples)) != digits
    assert late


@pytest.mark.parametrize(
    ("said", "heard", "errors"),
    [((1, 2, 3), (1, 2, 3), 0), ((1, 2, 3), (), 3), ((1,), (1, 1), 1), ((1, 2, 3), (1, 4, 3), 1), ((7, 7), (7,), 1)],
)
def test_word_errors(said: tuple[int, ...], heard: tuple[int, ...], errors: int) -> None:
    pytest.importorskip("jiwer", reason="jiwer is not installed (extra `speech`)")
    assert word_errors(said, heard) == errors


def test_nothing_to_evaluate_is_an_error() -> None:
    with pytest.raises(ValueError, match="a string must say at least one digit"):
        word_errors((), (1,))
    with pytest.raises(ValueError, match="strings must be at least one, got none"):
        evaluate(recognizer(0), [])
    with pytest.raises(ValueError, match="strings must be at least one, got none"):
        measure_latency(recognizer(0), [])


def test_latency_counts_every_step_but_the_first_strings() -> None:
    strings = strings_to_test(tones(), "ann", (30.0,))[:2]
    threads = torch.get_num_threads()
    found = measure_latency(recognizer(1), strings)
    assert found.steps == sum(len(string.speech) for string in strings)
    assert 0 < found.median_ms <= found.percentile_95_ms
    assert found.real_time_factor > 0
    assert torch.get_num_threads() == threads


def test_a_transcript_hears_the_end_and_takes_any_length() -> None:
    model = recognizer(11)
    for count in (0, 1, FRAME - 1, FRAME, 5 * FRAME + 3):
        found = transcribe(model, sound(6, 2)[:count])
        frames = -(-count // FRAME) + 3
        assert found.gates.shape == (3, 2, frames)
        assert len(found.path) == frames
    assert transcribe(model, sound(6, 2), beam=4).gates.shape == (3, 2, 9)


@given(st.integers(0, 2**32), st.integers(0, 6 * FRAME), st.lists(st.integers(1, 900), max_size=4))
@settings(max_examples=15)
def test_a_finished_stream_has_said_what_a_transcript_says(seed: int, count: int, pieces: list[int]) -> None:
    model, samples = recognizer(seed), sound(6, seed)[:count]
    stream, said = Stream(model), ()
    for part in samples.tensor_split(np.cumsum(pieces).tolist()):
        said += stream.hear(part)
    said += stream.finish()
    found = transcribe(model, samples)
    assert said == stream.digits == found.digits
    assert not len(stream.waiting)
    assert torch.equal(stream.gates[:, :, -3:], found.gates[:, :, -3:])


def test_many_frames_in_one_call_are_the_whole_recording() -> None:
    """More than the window and both ends' convolutions reach back, and as many behind."""
    model, samples = recognizer(14), sound(45, 6)
    with torch.inference_mode():
        rows = model.features(samples[None])
        wanted, cost, _ = model(rows, torch.zeros(1, 45, dtype=torch.bool))
        stream = Stream(model)
        got = [stream.log_probs(samples[: 5 * FRAME]), stream.log_probs(samples[5 * FRAME :])]
    torch.testing.assert_close(torch.cat(got), wanted[0], atol=1e-4, rtol=1e-4)
    assert torch.equal(stream.gates, cost.gates[:, :, 0, 5:])
    other = Stream(model)
    assert other.hear(samples[: 40 * FRAME]) == greedy(wanted[0, :40].numpy(), BLANK)
    assert torch.equal(other.gates, cost.gates[:, :, 0, :40])


def test_a_buffer_may_be_used_again_after_each_call() -> None:
    model, samples = recognizer(15), sound(6, 7)
    stream, other, buffer = Stream(model), Stream(model), torch.empty(500)
    for part in samples.split(500):
        own = buffer[: len(part)]
        own.copy_(part)
        assert stream.hear(own) == other.hear(part.clone())
        assert torch.equal(stream.gates, other.gates)
        buffer.fill_(0.9)
    assert torch.equal(stream.waiting, other.waiting)
    assert torch.equal(stream.features.total, other.features.total)


def test_a_model_in_training_mode_is_refused() -> None:
    model, strings = recognizer(16).train(), strings_to_test(tones(), "ann", (30.0,))[:1]
    for name, ask in (
        ("Stream", lambda: Stream(model)),
        ("Stream", lambda: measure_latency(model, strings)),
        ("transcribe", lambda: transcribe(model, sound(1, 1))),
        ("evaluate", lambda: evaluate(model, strings)),
    ):
        with pytest.raises(RuntimeError, match=rf"tercet\.speech\.{name}: .* call model\.eval\(\) first"):
            ask()


@pytest.mark.parametrize(
    ("samples", "kind", "message"),
    [
        (torch.zeros(1, 9), ValueError, r"samples must be \[n\], got \[1, 9\]"),
        (torch.zeros(()), ValueError, r"samples must be \[n\], got \[\]"),
        (torch.tensor([0.0, torch.nan]), ValueError, "samples must be finite and at most 1000 in size, got nan"),
        (torch.tensor([-torch.inf]), ValueError, "samples must be finite and at most 1000 in size, got -inf"),
        (torch.tensor([0.1, -2000.0]), ValueError, "samples must be finite and at most 1000 in size, got -2000.0"),
        (torch.full((2,), 1e300, dtype=torch.float64), ValueError, "at most 1000 in size, got 1e\\+300"),
        (torch.zeros(400, dtype=torch.int16), TypeError, "samples must be a floating tensor, got torch.int16"),
        ([0.0], TypeError, "samples must be a floating tensor, got list"),
    ],
)
def test_samples_that_are_no_sound_are_refused_and_a_stream_goes_on(
    samples: torch.Tensor, kind: type[Exception], message: str
) -> None:
    model, good = recognizer(12), sound(5, 3)
    with pytest.raises(kind, match="tercet.speech.transcribe: .*" + message):
        transcribe(model, samples)
    stream, other = Stream(model), Stream(model)
    stream.hear(good[:500])
    other.hear(good[:500])
    with pytest.raises(kind, match="tercet.speech.Stream: .*" + message):
        stream.hear(samples)
    assert stream.hear(good[500:]) == other.hear(good[500:])
    assert torch.equal(stream.gates, other.gates)
    assert torch.equal(stream.features.total, other.features.total)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_samples_of_any_floating_dtype_are_heard_as_float32(dtype: torch.dtype) -> None:
    model, samples = recognizer(13), sound(4, 5).to(dtype)
    stream, other = Stream(model), Stream(model)
    assert stream.hear(samples) == other.hear(samples.float())
    assert torch.equal(stream.features.total, other.features.total)
    assert torch.equal(transcribe(model, samples).path, transcribe(model, samples.float()).path)


def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


_one_thread = pytest.fixture(autouse=True)(_threads)
