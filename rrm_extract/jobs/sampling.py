"""Which frames a job looks at."""

from __future__ import annotations

from rrm_extract.config import JobConfig
from rrm_extract.video import Sampling

__all__ = ["sampling_of"]


def sampling_of(config: JobConfig) -> Sampling:
    """Which frames of a clip the job looks at."""
    return Sampling(fps=config.frame_rate, chunk=config.chunk_seconds)
