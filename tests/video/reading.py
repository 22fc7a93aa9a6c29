"""Reads a whole clip, as the tests want to see it."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from rrm_extract.errors import ClipDamagedError
from rrm_extract.video import ClipReader, SampledFrame, Sampling, count_chunks, scan_clip
from tests.clips import read_number

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from rrm_extract.video import ClipInfo


@dataclass
class Chunk:
    """What reading one chunk gave."""

    frames: list[SampledFrame] = field(default_factory=list)
    reason: str | None = None

    @property
    def numbers(self) -> list[int]:
        return [read_number(frame.image) for frame in self.frames]


def sampling(fps: Fraction | int | None = 24, *, chunk: Fraction | int = 10) -> Sampling:
    return Sampling(fps=None if fps is None else Fraction(fps), chunk=Fraction(chunk))


def read_chunk(reader: ClipReader, chunk: int) -> Chunk:
    result = Chunk()
    try:
        for frame in reader.read(chunk):
            result.frames.append(frame)
    except ClipDamagedError as error:
        result.reason = str(error)
    return result


def read_clip(path: Path, setting: Sampling | None = None) -> Chunk:
    """All chunks in order, by one reader, up to the first damage."""
    setting = setting or sampling()
    info = scan_clip(path)
    result = Chunk()
    with ClipReader(info, setting) as reader:
        for chunk in range(count_chunks(info, setting)):
            part = read_chunk(reader, chunk)
            result.frames += part.frames
            if part.reason is not None:
                result.reason = part.reason
                break
    return result


def read_fresh(info: ClipInfo, setting: Sampling, chunks: Iterable[int]) -> dict[int, Chunk]:
    """Each chunk by a reader of its own."""
    result = {}
    for chunk in chunks:
        with ClipReader(info, setting) as reader:
            result[chunk] = read_chunk(reader, chunk)
    return result


def assert_same(one: Chunk, other: Chunk) -> None:
    """Bit-exact: this is what chunks promise whoever reads them."""
    assert one.reason == other.reason
    assert len(one.frames) == len(other.frames)
    for a, b in zip(one.frames, other.frames, strict=True):
        assert (a.sample_index, a.timestamp, a.pts, a.frame_index, a.rotation) == (
            b.sample_index,
            b.timestamp,
            b.pts,
            b.frame_index,
            b.rotation,
        )
        assert np.array_equal(a.image, b.image)


def assert_any_order(path: Path, setting: Sampling) -> list[Chunk]:
    """Read in order, on fresh readers backwards, and on one reader crosswise: all the same."""
    info = scan_clip(path)
    count = count_chunks(info, setting)
    with ClipReader(info, setting) as reader:
        in_order = [read_chunk(reader, chunk) for chunk in range(count)]
    # Past damage a reader may do what it likes: those chunks are dropped.
    until = next((n for n, part in enumerate(in_order) if part.reason is not None), count - 1) + 1
    fresh = read_fresh(info, setting, reversed(range(until)))
    crosswise = sorted(range(until), key=lambda chunk: (chunk * 7) % 5)
    with ClipReader(info, setting) as reader:
        mixed = {chunk: read_chunk(reader, chunk) for chunk in crosswise}
    for chunk in range(until):
        assert_same(in_order[chunk], fresh[chunk])
        assert_same(in_order[chunk], mixed[chunk])
    return in_order[:until]
