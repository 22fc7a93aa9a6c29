"""Networks and clips as the benchmarks take them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from subjects import (
    Subject,
    clip_chunks,
    clip_frames,
    even_sample,
    load_clip,
    load_subject,
    noise_frames,
    usable_batches,
)

from rrm_extract.errors import ModelError
from rrm_extract.jobs.compress import compress_network
from tests.clips import write_clip
from tests.tiny import MODEL


@pytest.fixture(scope="module")
def subject() -> Subject:
    return load_subject(MODEL)


def test_a_network_has_its_feature_and_its_reference(subject: Subject) -> None:
    frames = noise_frames(subject, count=3)
    assert (subject.name, subject.input_shape) == (MODEL, (3, 32, 32))
    assert subject.reference(frames).shape == (3, 16)
    assert subject.sampling.frames_per_chunk == 240


def test_weights_may_stand_with_the_name() -> None:
    own, other = load_subject(f"{MODEL}=random:3"), load_subject(MODEL, weights="random:4")
    assert (own.weights_id, other.weights_id) == ("random:3", "random:4")


def test_an_unknown_network_fails() -> None:
    with pytest.raises(ModelError, match="no_such_network"):
        load_subject("no_such_network=random:0")


def test_a_clip_is_cut_to_whole_batches(subject: Subject, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", n_frames=40)
    assert clip_frames(clip, subject, count=None).shape == (32, 3, 32, 32)
    assert clip_frames(clip, subject, count=20).shape == (16, 3, 32, 32)
    short = clip_frames(clip, subject, count=6)
    assert torch.equal(short, clip_frames(clip, subject, count=None)[:6])


def test_chunks_of_native_frames_are_as_long_as_the_clips_rate_makes_them(tmp_path: Path) -> None:
    native = load_subject(MODEL, fps="native", chunk=0.5)
    for rate, expected in ((10, 5), (24, 12)):
        path = write_clip(tmp_path / f"{rate}.mp4", n_frames=30, rate=rate)
        clip = load_clip(path, native, count=16)
        assert (len(clip), clip.chunk) == (16, expected)
        first = next(clip_chunks(path, native, count=16))
        assert len(first) == expected
    sampled = load_subject(MODEL, fps="4", chunk=0.5)
    assert load_clip(path, sampled, count=None).chunk == 2


def test_every_pixel_of_noise_is_new(subject: Subject) -> None:
    frames = noise_frames(subject, count=6)
    same = (frames[1:] == frames[:-1]).float().mean()
    assert float(same) < 0.01  # of 256 levels two may be equal by chance
    assert torch.equal(frames, noise_frames(subject, count=6))


def test_frames_for_calibration_are_spread_over_all_clips() -> None:
    clips = [torch.arange(100), torch.arange(100, 103)]
    assert even_sample(clips, 6).tolist() == [0, 50, 99, 100, 101, 102]
    assert len(even_sample(clips, 48)) == 24 + 3


def test_batches_divide_every_clip() -> None:
    assert usable_batches([torch.zeros(32), torch.zeros(48)]) == (1, 8, 16)
    assert usable_batches([torch.zeros(32), torch.zeros(8)]) == (1, 8)
    assert usable_batches([torch.zeros(6)]) == (1,)


def test_a_compressed_network_brings_its_weights(tmp_path: Path) -> None:
    path = tmp_path / "net.dcz"
    compress_network("squeezenet1_1", path, weights="random:0", densities={None: 0.3})
    subject = load_subject(str(path))
    assert (subject.name, subject.weights_id) == ("net.dcz", "file:net.dcz of random:0")
