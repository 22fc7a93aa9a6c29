"""From a video file to timed pictures. Knows nothing of networks."""

from __future__ import annotations

from rrm_extract.video.chunks import Sampling, count_chunks, expected_frames
from rrm_extract.video.clip import ClipInfo, scan_clip
from rrm_extract.video.reader import ClipReader, SampledFrame

__all__ = [
    "ClipInfo",
    "ClipReader",
    "SampledFrame",
    "Sampling",
    "count_chunks",
    "expected_frames",
    "scan_clip",
]
