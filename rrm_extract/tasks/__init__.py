"""What features are made into: objects in frames."""

from __future__ import annotations

from rrm_extract.tasks.detect import Detections, Detector
from rrm_extract.tasks.region import Boxes, decode_region

__all__ = ["Boxes", "Detections", "Detector", "decode_region"]
