"""OpenPose's network for bodies, COCO model (Cao et al., CVPR 2017, arXiv 1611.08050)."""

from __future__ import annotations

from .coco import COCO_BODY
from .load import RTPOSE, RTPOSE_PREPROCESS, load_rtpose, rtpose_entries
from .network import RtPose

__all__ = [
    "COCO_BODY",
    "RTPOSE",
    "RTPOSE_PREPROCESS",
    "RtPose",
    "load_rtpose",
    "rtpose_entries",
]
