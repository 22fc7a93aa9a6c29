from __future__ import annotations

import subprocess
import sys

import rrm_extract.store as store


def test_public_names() -> None:
    assert store.__all__ == [
        "FORMAT_NAME", "FORMAT_VERSION", "LAYOUTS", "TASK_FORMAT_VERSION", "ChunkResult",
        "DoneVideo", "ExportSummary", "FailureRecord", "FeatureFile", "Found", "FrameDetections",
        "FramePeople", "Layout", "OutputStore", "PartWriter", "Source", "StoredDetections",
        "StoredPeople", "TaskRows", "VideoFeatures", "canonical_json", "escape", "export",
        "is_volatile", "load_chunk", "same_content", "save_chunk", "unescape",
    ]  # fmt: skip
    assert all(hasattr(store, name) for name in store.__all__)


def test_store_needs_no_torch() -> None:
    code = "import sys, rrm_extract.store; sys.exit(bool({'torch', 'av'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
