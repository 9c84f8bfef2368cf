"""Log-mel features against a plain float64 computation, transformers' own, and themselves in pieces."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tercet.speech.features import (
    BINS,
    FLOOR,
    FRAME,
    HOP,
    PRIOR,
    STACK,
    TRANSFORM,
    WINDOW,
    FeatureState,
    LogMel,
    mask_bins,
    mel_filters,
)


def noise(count: int, seed: int) -> torch.Tensor:
    return 0.1 * torch.randn(count, generator=torch.Generator().manual_seed(seed))


def plain(samples: np.ndarray) -> np.ndarray:
    """Log-mel frames as the module states them, by sums."""
    padded = np.concatenate([np.zeros(WINDOW - HOP), samples])
    hann = 0.5 - 0.5 * np.cos(2 * math.pi * np.arange(WINDOW) / WINDOW)
    points = np.arange(TRANSFORM // 2 + 1)[:, None] * np.arange(WINDOW)
    fourier = np.exp(-2j * math.pi * points / TRANSFORM)
    frames = []
    for start in range(0, len(padded) - WINDOW + 1, HOP):
        power = np.abs(fourier @ (hann * padded[start : start + WINDOW])) ** 2
        frames.append(np.log(FLOOR + mel_filters().double().numpy() @ power))
    return np.array(frames).reshape(-1, BINS)


@given(st.integers(0, 3 * FRAME), st.integers(0, 2**32))
def test_log_mel_frames_are_those_of_the_formula(count: int, seed: int) -> None:
    samples = noise(count, seed)
    got = LogMel().log_mel(torch.nn.functional.pad(samples[None], (WINDOW - HOP, 0)))[0]
    np.testing.assert_allclose(got.numpy(), plain(samples.double().numpy()), atol=2e-4)


def test_log_mel_frames_are_those_of_transformers() -> None:
    audio_utils = pytest.importorskip("transformers.audio_utils", reason="transformers is not installed")
    filters = audio_utils.mel_filter_bank(TRANSFORM // 2 + 1, BINS, 60.0, 3800.0, 8000, norm=None, mel_scale="htk")
    np.testing.assert_allclose(mel_filters().numpy(), filters.T, atol=1e-4)
    samples = noise(4000, 3).numpy()
    window = audio_utils.window_function(WINDOW, "hann", periodic=True)
    theirs = audio_utils.spectrogram(
        np.concatenate([np.zeros(WINDOW - HOP), samples]), window, WINDOW, HOP, TRANSFORM, power=2.0, center=False,
        mel_filters=filters, mel_floor=0.0,
    )  # fmt: skip
    ours = LogMel().log_mel(torch.nn.functional.pad(torch.from_numpy(samples)[None].float(), (WINDOW - HOP, 0)))[0]
    np.testing.assert_allclose(ours.numpy(), np.log(theirs.T + FLOOR), atol=1e-3)


def test_every_filter_hears_something_and_neighbours_overlap() -> None:
    filters = mel_filters()
    assert (filters.sum(1) > 0).all()
    middle = filters[:, (filters.argmax(1)[0] + 1) : filters.argmax(1)[-1]]
    torch.testing.assert_close(middle.sum(0), torch.ones(middle.shape[1]))  # triangles that share corners


@given(st.integers(0, 2**32), st.lists(st.integers(0, 3), max_size=5))
def test_a_stream_in_pieces_gives_the_features_of_the_whole(seed: int, pieces: list[int]) -> None:
    features = LogMel().fit([noise(4000, seed)])
    samples = torch.stack([noise(sum(pieces) * FRAME, seed + row) for row in (1, 2)])
    state, rows = features.initial_state(2), []
    for part in samples.split([frames * FRAME for frames in pieces], 1) if pieces else [samples]:
        found, state = features.step(part, state)
        rows.append(found)
    torch.testing.assert_close(torch.cat(rows, 1), features(samples), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("before", [2**23, 2**26, 2**31 - 2000])
def test_a_long_stream_keeps_its_mean(before: int) -> None:
    """After hours a frame is small beside the sum, after days four are beside their count: float32 would lose a part
    of the one and all of the others."""
    features, piece = LogMel(), noise(FRAME, 7)[None]
    _, state = features.step(piece, features.initial_state(1))
    of_piece = features.log_mel(torch.cat([state.tail, piece], 1))[0].double().sum(0)
    state = FeatureState(state.tail, before * of_piece[None] / STACK, torch.tensor([before]))
    for _ in range(1000):
        _, state = features.step(piece, state)
    wanted = before * of_piece / STACK + 1000 * of_piece
    torch.testing.assert_close(state.total[0], wanted, rtol=0, atol=0.01)
    assert state.count.dtype == torch.int64
    assert state.count.tolist() == [before + 4000]


def test_normalisation_is_the_running_mean_with_a_prior() -> None:
    features, samples = LogMel(), noise(5 * FRAME, 1)
    features.fit([noise(9000, 2)])
    frames = torch.from_numpy(plain(samples.double().numpy()))
    counts = torch.arange(1, len(frames) + 1)[:, None]
    mean = (PRIOR * features.mean.double() + frames.cumsum(0)) / (PRIOR + counts)
    wanted = ((frames - mean) / features.deviation.double()).reshape(5, STACK * BINS)
    torch.testing.assert_close(features(samples[None])[0].double(), wanted, atol=1e-3, rtol=1e-3)


def test_fit_takes_mean_and_deviation_of_all_frames() -> None:
    utterances = [noise(2000, 1), 3 * noise(5000, 2)]
    features = LogMel().fit(utterances)
    frames = np.concatenate([plain(samples.double().numpy()) for samples in utterances])
    np.testing.assert_allclose(features.mean.numpy(), frames.mean(0), atol=1e-3)
    np.testing.assert_allclose(features.deviation.numpy(), frames.std(0, ddof=1), atol=1e-3)


def test_features_do_not_hear_the_future() -> None:
    features, samples = LogMel(), noise(6 * FRAME, 4)
    changed = samples.clone()
    changed[4 * FRAME :] += 1
    assert torch.equal(features(samples[None])[:, :4], features(changed[None])[:, :4])


def test_what_is_over_after_whole_frames_is_not_heard() -> None:
    features, samples = LogMel(), noise(2 * FRAME + 50, 5)
    assert torch.equal(features(samples[None]), features(samples[None, : 2 * FRAME]))
    assert features(samples[None, : FRAME - 1]).shape == (1, 0, STACK * BINS)


@pytest.mark.parametrize("shape", [(FRAME,), (1, FRAME + 1), (1, 1, FRAME)])
def test_a_step_takes_whole_frames(shape: tuple[int, ...]) -> None:
    features = LogMel()
    with pytest.raises(ValueError, match=r"samples must be \[batch, a multiple of 320\], got "):
        features.step(torch.zeros(shape), features.initial_state(1))


@given(st.integers(40, 160), st.lists(st.integers(1, 6), min_size=1, max_size=3), st.integers(0, 2**32))
def test_another_hop_stretches_time_alone(hop: int, frames: list[int], seed: int) -> None:
    features = LogMel()
    samples = [noise(count * FRAME, seed + row) for row, count in enumerate(frames)]
    batch = torch.nn.utils.rnn.pad_sequence(samples, batch_first=True)
    rows, counts = features.stretched(batch, torch.tensor(frames), hop)
    for row, own in enumerate(samples):
        alone, count = features.stretched(own[None], torch.tensor([frames[row]]), hop)
        assert counts[row] == count[0] == alone.shape[1]
        torch.testing.assert_close(rows[row, : counts[row]], alone[0], atol=1e-4, rtol=1e-4)


def test_the_features_own_hop_is_no_stretch() -> None:
    features, samples = LogMel(), noise(5 * FRAME, 6)[None]
    rows, counts = features.stretched(samples, torch.tensor([5]), HOP)
    assert torch.equal(rows, features(samples))
    assert counts.tolist() == [5]


@given(st.integers(0, BINS), st.integers(0, 2**32))
def test_masks_are_two_bands_of_bins_over_all_frames_of_a_string(most: int, seed: int) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        masked = mask_bins(torch.ones(6, 3, STACK * BINS), most).unflatten(-1, (STACK, BINS)) == 0
    of_string = masked[:, 0, 0]
    assert torch.equal(masked, of_string[:, None, None].expand_as(masked))
    edges = torch.nn.functional.pad(of_string, (1, 1)).int().diff(dim=1)
    bands = [
        (edge == -1).nonzero().squeeze(1) - (edge == 1).nonzero().squeeze(1) for edge in edges
    ]  # one where they touch
    assert all(len(band) <= 2 and int(band.sum()) <= 2 * most for band in bands)
    assert all(int(band.max()) <= most for band in bands if len(band) == 2)
    if most == BINS:
        assert len({tuple(row.tolist()) for row in of_string}) > 1
