"""What features are made into: objects in frames, and people with the parts of their bodies."""

from __future__ import annotations

from rrm_extract import light_torchvision  # noqa: F401 - before torchvision is imported
from rrm_extract.tasks.detect import Detections, Detector
from rrm_extract.tasks.pose import PoseEstimator, Poses
from rrm_extract.tasks.region import Boxes, decode_region

__all__ = ["Boxes", "Detections", "Detector", "PoseEstimator", "Poses", "decode_region"]
