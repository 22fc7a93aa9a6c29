"""Extraction jobs: which videos, who works on them, what happens when one fails."""

from __future__ import annotations

from rrm_extract.jobs.discover import Video, discover
from rrm_extract.jobs.extractor import ChunkExtractor, batches, network_input
from rrm_extract.jobs.recipe import (
    Recipe,
    check_device,
    make_recipe,
    pooled,
    sampling_of,
    weights_notes,
)
from rrm_extract.jobs.run import RunSummary, run_job
from rrm_extract.jobs.worker import prepare_process

__all__ = [
    "ChunkExtractor",
    "Recipe",
    "RunSummary",
    "Video",
    "batches",
    "check_device",
    "discover",
    "make_recipe",
    "network_input",
    "pooled",
    "prepare_process",
    "run_job",
    "sampling_of",
    "weights_notes",
]
