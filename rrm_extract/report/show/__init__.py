"""A clip with what was recomputed painted over it."""

from __future__ import annotations

from rrm_extract.report.show.overlay import Moment, Overlay, OverlaySummary, overlay_text
from rrm_extract.report.show.sink import check_output

__all__ = ["Moment", "Overlay", "OverlaySummary", "check_output", "overlay_text"]
