"""The feature file: one schema, an atomic part per video, the merge, the reader.

`docs/format.md` is the specification. This package knows nothing of video or networks.
"""

from rrm_extract.store.chunkfile import load_chunk, save_chunk
from rrm_extract.store.compare import same_content
from rrm_extract.store.export import LAYOUTS, ExportSummary, Layout, export
from rrm_extract.store.found import (
    FrameDetections,
    FramePeople,
    StoredDetections,
    StoredPeople,
)
from rrm_extract.store.names import escape, unescape
from rrm_extract.store.part import DoneVideo, PartWriter
from rrm_extract.store.reader import FeatureFile, VideoFeatures
from rrm_extract.store.schema import (
    FORMAT_NAME,
    FORMAT_VERSION,
    TASK_FORMAT_VERSION,
    ChunkResult,
    FailureRecord,
    Source,
    canonical_json,
    is_volatile,
)
from rrm_extract.store.taskrows import Found, TaskRows
from rrm_extract.store.writer import OutputStore

__all__ = [
    "FORMAT_NAME",
    "FORMAT_VERSION",
    "LAYOUTS",
    "TASK_FORMAT_VERSION",
    "ChunkResult",
    "DoneVideo",
    "ExportSummary",
    "FailureRecord",
    "FeatureFile",
    "Found",
    "FrameDetections",
    "FramePeople",
    "Layout",
    "OutputStore",
    "PartWriter",
    "Source",
    "StoredDetections",
    "StoredPeople",
    "TaskRows",
    "VideoFeatures",
    "canonical_json",
    "escape",
    "export",
    "is_volatile",
    "load_chunk",
    "same_content",
    "save_chunk",
    "unescape",
]
