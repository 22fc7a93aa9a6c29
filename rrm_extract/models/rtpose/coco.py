"""The body of OpenPose's COCO model: 18 parts and 19 limbs."""

from __future__ import annotations

from ..skeleton import Limb, Skeleton

__all__ = ["COCO_BODY"]

_PARTS = (
    "nose", "neck",
    "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
    "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle",
    "right_eye", "left_eye", "right_ear", "left_ear",
)  # fmt: skip
"""COCO's, with a neck between the shoulders. Right is the person's right."""

_LIMBS = (
    # from, to, field: OpenPose's order of limbs, and the order of its network's output
    (1, 2, 6), (1, 5, 10), (2, 3, 7), (3, 4, 8), (5, 6, 11), (6, 7, 12),
    (1, 8, 0), (8, 9, 1), (9, 10, 2), (1, 11, 3), (11, 12, 4), (12, 13, 5),
    (1, 0, 14), (0, 14, 15), (14, 16, 17), (0, 15, 16), (15, 17, 18),
    (2, 16, 9), (5, 17, 13),
)  # fmt: skip

_TREE = 17
"""So many limbs join 18 parts; those from shoulders to ears come on top."""

COCO_BODY = Skeleton(
    parts=_PARTS,
    limbs=tuple(
        Limb(begin=begin, end=end, field=field, is_extra=number >= _TREE)
        for number, (begin, end, field) in enumerate(_LIMBS)
    ),
    stride=8,
)
