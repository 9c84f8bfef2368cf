"""Clips and the strings that are made of them, on clips made of tones (not real speech)."""

from __future__ import annotations

import io
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spoken import tones, write_tones
from tercet.speech.decode import collapse
from tercet.speech.digits import BLANK, Clips, read_clips, resize, trim
from tercet.speech.features import FRAME, HOP
from tercet.speech.strings import MOST_SILENCE, NOISES, TEST_SEED, StringMaker, collate, strings_to_test


@given(
    st.integers(0, 2**32),
    st.sampled_from(NOISES),
    st.floats(-5, 40),
    st.lists(st.integers(0, 59), min_size=3, max_size=7),
)
@settings(max_examples=30)
def test_a_string_keeps_what_is_promised(seed: int, noise: str, snr: float, places: list[int]) -> None:
    clips = tones()
    own = [place for place in places if clips.speakers[place] == clips.speakers[places[0]]]
    string = StringMaker(clips).string(np.random.default_rng(seed), np.array(own), clips, snr, noise)
    assert len(string.samples) == len(string.speech) * FRAME
    assert string.samples.dtype == np.float32
    assert string.digits == tuple(clips.digits[own])
    assert string.speaker == clips.speakers[own[0]]
    spoken = sum(len(clips.audio[place]) for place in own)
    frames = len(string.speech)
    assert frames == -(-spoken // FRAME) or frames * FRAME * (1 - MOST_SILENCE) <= spoken
    assert (~string.speech).mean() <= MOST_SILENCE
    assert string.speech.sum() * FRAME >= spoken
    assert collapse(string.symbols.tolist(), BLANK) == string.digits
    assert len(string.symbols) * HOP == len(string.samples)


@pytest.mark.parametrize("noise", NOISES)
def test_the_noise_has_the_level_that_was_asked_for(noise: str) -> None:
    clips = tones()
    places = np.arange(4)
    # The gain, the pauses and the noise are drawn alike, whatever the ratio.
    clean, noisy = (
        StringMaker(clips).string(np.random.default_rng(5), places, clips, snr, noise).samples.astype(np.float64)
        for snr in (200.0, 6.0)
    )
    spoken = sum(len(clips.audio[place]) for place in places)
    ratio = 10 * np.log10(np.sum(clean**2) / spoken / np.mean((noisy - clean) ** 2))
    assert ratio == pytest.approx(6.0, abs=0.01)


def test_a_tilt_keeps_the_level_and_turns_the_spectrum() -> None:
    clips = tones()
    maker, places = StringMaker(clips), np.arange(4)
    plain, tilted = (
        maker.string(np.random.default_rng(5), places, clips, 200.0, "white", tilt).samples.astype(np.float64)
        for tilt in (0.0, 0.5)
    )
    assert np.sum(tilted**2) == pytest.approx(np.sum(plain**2), rel=1e-4)
    spectra = [np.abs(np.fft.rfft(samples)) for samples in (plain, tilted)]
    low = len(spectra[0]) // 8
    assert spectra[1][:low].sum() < spectra[0][:low].sum()


def test_every_clip_is_said_once_at_each_ratio() -> None:
    clips = tones()
    strings = strings_to_test(clips, "ann", (20.0, 5.0))
    for snr in (20.0, 5.0):
        said = Counter(digit for string in strings if string.snr == snr for digit in string.digits)
        assert said == Counter(clips.digits[clips.speakers == "ann"].tolist())
    assert {string.speaker for string in strings} == {"ann"}
    assert all(len(string.digits) <= 7 for string in strings)
    again = strings_to_test(clips, "ann", (20.0, 5.0))
    assert all(np.array_equal(a.samples, b.samples) for a, b in zip(strings, again, strict=True))


def test_the_same_strings_stand_at_each_ratio() -> None:
    """Digits, pauses and gain; the kinds of noise go round."""
    strings = strings_to_test(tones(), "ann", (300.0, 20.0, 5.0))
    count = len(strings) // 3
    clean, *others = (strings[first : first + count] for first in range(0, 3 * count, count))
    for others_of_ratio in others:
        for string, other in zip(clean, others_of_ratio, strict=True):
            assert string.digits == other.digits
            assert np.array_equal(string.speech, other.speech)
            assert np.array_equal(string.symbols, other.symbols)
            speech, heard = string.samples.astype(np.float64), other.samples.astype(np.float64)
            gain = (speech @ heard) / (speech @ speech)  # noise is no part of speech, but for chance
            assert gain == pytest.approx(1, abs=0.15)
    assert [string.noise for string in strings] == [NOISES[place % len(NOISES)] for place in range(3 * count)]
    other = strings_to_test(tones(), "ann", (300.0,), seed=1)
    assert [string.digits for string in other] != [string.digits for string in clean]


def test_noise_of_tests_is_not_that_of_training() -> None:
    clips, snrs = tones(), (-60.0, 300.0)
    tested = strings_to_test(clips, "ann", snrs)
    trained = StringMaker(clips.to_test("ann"), clips).every_clip_once(TEST_SEED, snrs)
    kinds = set()
    for test, train in zip(tested, trained, strict=True):
        assert (test.digits, test.noise) == (train.digits, train.noise)
        a, b = test.samples.astype(np.float64), train.samples.astype(np.float64)
        likeness = (a @ b) / np.sqrt((a @ a) * (b @ b))
        if test.snr == 300:
            assert likeness == pytest.approx(1)
        else:
            assert abs(likeness) < 0.9
            kinds.add(test.noise)
    assert kinds == set(NOISES)


def test_babble_leaves_the_speaker_out() -> None:
    clips = tones()
    silent = [
        np.zeros_like(clip) if name == "ann" else clip for clip, name in zip(clips.audio, clips.speakers, strict=True)
    ]

    def heard(others: Clips, speaker: str) -> np.ndarray:
        own = np.flatnonzero(clips.speakers == speaker)[:3]
        maker = StringMaker(clips, others)
        return maker.string(np.random.default_rng(4), own, clips, 0.0, "babble").samples

    without = replace(clips, audio=silent)
    assert np.array_equal(heard(clips, "ann"), heard(without, "ann"))
    assert not np.array_equal(heard(clips, "bob"), heard(without, "bob"))
    alone = clips.where(clips.speakers == "ann")  # with no one else, the speaker's own clips
    string = StringMaker(alone).string(np.random.default_rng(4), np.arange(3), alone, 0.0, "babble")
    assert np.isfinite(string.samples).all()


def test_training_batches_are_a_function_of_seed_and_epoch() -> None:
    def make(seed: int, epoch: int) -> list[torch.Tensor]:
        maker = StringMaker(tones(), speeds=(0.9, 1.0))
        return [batch.samples for batch in maker.training_batches(seed, epoch, 3, 4, (0.0, 20.0))]

    first, again, other = make(1, 2), make(1, 2), make(1, 3)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert any(a.shape != b.shape or not torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_a_batch_holds_its_strings() -> None:
    strings = strings_to_test(tones(), "bob", (10.0,))[:3]
    batch = collate(strings)
    assert batch.frames.tolist() == [len(string.speech) for string in strings]
    assert batch.lengths.tolist() == [len(string.digits) for string in strings]
    assert batch.digits.tolist() == [digit for string in strings for digit in string.digits]
    assert torch.equal((~batch.padding()).sum(1), batch.frames)
    for row, string in enumerate(strings):
        assert torch.equal(batch.samples[row, : len(string.samples)], torch.from_numpy(string.samples))
        assert not batch.samples[row, len(string.samples) :].any()
        assert batch.speech[row].sum() == string.speech.sum()
        assert batch.symbols[row, : len(string.symbols)].tolist() == string.symbols.tolist()
        assert (batch.symbols[row, len(string.symbols) :] == BLANK).all()


def test_no_string_without_clips() -> None:
    clips = tones()
    with pytest.raises(ValueError, match="clips must be at least one, got none"):
        StringMaker(clips.where(np.zeros(len(clips), bool)))


@given(st.integers(300, 2000), st.floats(0.5, 2.0))
def test_resizing_a_low_tone_keeps_its_shape(length: int, factor: float) -> None:
    cycles = 6
    wave = np.sin(2 * np.pi * cycles * np.arange(length) / length).astype(np.float32)
    size = max(40, round(length / factor))
    wanted = np.sin(2 * np.pi * cycles * np.arange(size) / size)
    np.testing.assert_allclose(resize(wave, size), wanted, atol=1e-4)


def test_trimming_takes_silence_away_and_nothing_else() -> None:
    tone = np.sin(np.arange(1600) * 0.3).astype(np.float32)
    clip = np.concatenate([np.zeros(800, np.float32), tone, 1e-3 * tone])
    cut = trim(clip)
    assert 1600 <= len(cut) <= 1600 + 320
    assert np.array_equal(trim(np.zeros(999, np.float32)), np.zeros(999, np.float32))
    assert len(trim(tone[:100])) == 100


def test_a_file_is_read_split_and_scaled(tmp_path: Path) -> None:
    clips = read_clips(write_tones(tmp_path / "tones.npz"))
    assert clips.names() == ["ann", "bob", "cy"]
    assert len(clips) == 60
    assert all(np.sqrt(np.mean(clip**2)) == pytest.approx(1, abs=1e-4) for clip in clips.audio)
    assert set(clips.to_train("bob").speakers) == {"ann", "cy"}
    assert set(clips.to_test("bob").speakers) == {"bob"}
    assert len(clips.to_train(None)) + len(clips.to_test(None)) == 60
    with pytest.raises(ValueError, match=r"must be one of ann, bob, cy, got 'dan'"):
        clips.to_train("dan")
    alone = clips.where(clips.speakers == "ann")
    with pytest.raises(ValueError, match="'ann' cannot be held out: no other speaker is left to learn from"):
        alone.to_train("ann")
    assert len(alone.to_test("ann")) == 20


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sr": np.array(16000)}, "clips must be of 8000 Hz, got 16000"),
        ({"offsets": np.array([0, 5])}, "offsets must rise from 0 to the "),
        ({"offsets": np.array([0])}, "offsets must rise from 0 to the "),
        ({"digit": np.array([1, 2])}, "digit, speaker and index must each hold 60 values"),
        ({"digit": np.full(60, 11)}, "digits must be 0..9, got 11..11"),
        ({"audio": None}, "expected an npz file of spoken digits"),
        ({"audio": np.zeros((2, 9), np.int16)}, r"audio must be int16 \[samples\], got int16 \[2, 9\]"),
        ({"audio": np.zeros(9)}, r"audio must be int16 \[samples\], got float64 \[9\]"),
        ({"audio": np.zeros(9, np.int32)}, r"audio must be int16 \[samples\], got int32 \[9\]"),
        ({"offsets": np.array(["0", "9"])}, r"offsets must be integers \[clips \+ 1\], got <U1 \[2\]"),
        ({"offsets": np.array([0.0, 9.0])}, r"offsets must be integers \[clips \+ 1\], got float64 \[2\]"),
        ({"offsets": np.array(9)}, r"offsets must be integers \[clips \+ 1\], got int64 \[\]"),
        ({"digit": np.full(60, 1.5)}, r"digit must be integers \[clips\], got float64 \[60\]"),
        ({"index": np.zeros((60, 1), int)}, r"index must be integers \[clips\], got int64 \[60, 1\]"),
        ({"speaker": np.arange(60)}, r"speaker must be strings \[clips\], got int64 \[60\]"),
        ({"sr": np.array([8000, 8000])}, r"sr must be an integer, got int64 \[2\]"),
        ({"sr": np.array("8000")}, r"sr must be an integer, got <U4 \[\]"),
        ({"speaker": np.array([None] * 60)}, "expected an npz file of spoken digits"),
    ],
)
def test_a_file_that_does_not_fit_is_named(tmp_path: Path, change: dict[str, np.ndarray], message: str) -> None:
    path = write_tones(tmp_path / "tones.npz", **change)
    with pytest.raises(ValueError, match=message) as error:
        read_clips(path)
    assert str(error.value).startswith(str(path))


def test_absent_empty_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.npz: no such file of spoken digits"):
        read_clips(tmp_path / "none.npz")
    (tmp_path / "empty.npz").touch()
    with pytest.raises(ValueError, match=r"empty\.npz: expected an npz file of spoken digits"):
        read_clips(tmp_path / "empty.npz")
    whole = write_tones(tmp_path / "tones.npz").read_bytes()
    (tmp_path / "half.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"half\.npz: expected an npz file of spoken digits"):
        read_clips(tmp_path / "half.npz")
    np.save(tmp_path / "one.npy", np.zeros(9, np.int16))
    with pytest.raises(ValueError, match=r"one\.npy: expected an npz file of spoken digits"):
        read_clips(tmp_path / "one.npy")


@given(st.data())
@settings(max_examples=60)
def test_a_file_with_a_few_other_bytes_is_read_or_named(packed: bytes, data: st.DataObject) -> None:
    """Bytes of the compressed data, of headers and of the directory alike."""
    broken = bytearray(packed)
    for _ in range(data.draw(st.integers(1, 4))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tones.npz"
        path.write_bytes(broken)
        clips, message = None, f"{path}: "
        try:
            clips = read_clips(path)
        except ValueError as error:
            message = str(error)
        assert message.startswith(f"{path}: ")
        if clips is not None:
            assert len(clips.audio) == len(clips.digits) == len(clips.speakers) == len(clips.test)


@pytest.fixture(scope="module")
def packed() -> bytes:
    """A small file of two clips, compressed."""
    file = io.BytesIO()
    audio = (1000 * np.sin(np.arange(900))).astype(np.int16)
    np.savez_compressed(file, audio=audio, offsets=np.array([0, 400, 900]), digit=np.array([1, 2]),
                        speaker=np.array(["ann", "bob"]), index=np.array([0, 9]), sr=np.array(8000))  # fmt: skip
    return file.getvalue()


def test_the_spoken_digits(data: Path) -> None:
    path = data / "speech" / "fsdd_8k.npz"
    if not path.is_file():
        pytest.skip(f"{path} is absent: no spoken digits here")
    clips = read_clips(path)
    assert len(clips) == 3000
    assert Counter(clips.speakers.tolist()) == dict.fromkeys(clips.names(), 500)
    assert len(clips.names()) == 6
    strings = strings_to_test(clips, "theo", (10.0,))
    assert sum(len(string.digits) for string in strings) == 500
    assert max((~string.speech).mean() for string in strings) <= MOST_SILENCE


def test_clips_faster_are_shorter() -> None:
    clips: Clips = tones()
    assert [len(clip) for clip in clips.faster(2.0).audio] == [round(len(clip) / 2) for clip in clips.audio]
