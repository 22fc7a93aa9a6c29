"""Extraction jobs: which videos, who works on them, what happens when one fails.

The process that leads a job, and workers on the native engine, do without torch: what needs it is
not imported before it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rrm_extract.jobs.discover import Video, discover
from rrm_extract.jobs.extractor import ChunkExtractor, batches
from rrm_extract.jobs.run import RunSummary, run_job
from rrm_extract.jobs.sampling import sampling_of

if TYPE_CHECKING:
    from rrm_extract.jobs.recipe import (
        Recipe,
        all_notes,
        check_device,
        make_recipe,
        network_input,
        pooled,
        prepare_process,
    )

__all__ = [
    "ChunkExtractor",
    "Recipe",
    "RunSummary",
    "Video",
    "all_notes",
    "batches",
    "check_device",
    "discover",
    "make_recipe",
    "network_input",
    "pooled",
    "prepare_process",
    "run_job",
    "sampling_of",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    from rrm_extract.jobs import recipe

    return getattr(recipe, name)
