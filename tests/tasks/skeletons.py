"""Raw outputs drawn for people whose parts are known, as the network is trained to give them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor

from rrm_extract.models.rtpose import COCO_BODY

STANDING = {
    "nose": (0.0, -1.8), "neck": (0.0, -1.3),
    "right_shoulder": (-0.5, -1.3), "right_elbow": (-0.7, -0.7), "right_wrist": (-0.8, -0.1),
    "left_shoulder": (0.5, -1.3), "left_elbow": (0.7, -0.7), "left_wrist": (0.8, -0.1),
    "right_hip": (-0.3, 0.1), "right_knee": (-0.35, 0.9), "right_ankle": (-0.35, 1.7),
    "left_hip": (0.3, 0.1), "left_knee": (0.35, 0.9), "left_ankle": (0.35, 1.7),
    "right_eye": (-0.15, -1.95), "left_eye": (0.15, -1.95),
    "right_ear": (-0.3, -1.85), "left_ear": (0.3, -1.85),
}  # fmt: skip
"""x and y of each part around the middle of the body; right is at the left."""

Body = dict[int, tuple[float, float]]

_SIGMA = 7.0
"""Of a part's heat map, pixels of the network's input; as in training."""

_LIMB_WIDTH = 1.0
"""Of a limb's field, cells to each side."""


def person(x: float, y: float, size: float, *, without: Iterable[str] = ()) -> Body:
    """Someone who stands, in pixels of the network's input: part -> place."""
    return {
        number: (x + size * STANDING[name][0], y + size * STANDING[name][1])
        for number, name in enumerate(COCO_BODY.parts)
        if name not in set(without)
    }


def draw(people: Iterable[Mapping[int, tuple[float, float]]], grid: tuple[int, int]) -> Tensor:
    """(57, H, W): the highest of the people's heat maps, the mean of their fields."""
    rows, columns = grid
    stride, parts = COCO_BODY.stride, len(COCO_BODY.parts)
    y, x = np.mgrid[:rows, :columns] * stride + stride / 2
    heat = np.zeros((parts, rows, columns))
    fields = np.zeros((len(COCO_BODY.limbs), 2, rows, columns))
    count = np.zeros((len(COCO_BODY.limbs), rows, columns))
    for body in people:
        for part, (px, py) in body.items():
            bump = np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * _SIGMA**2))
            heat[part] = np.maximum(heat[part], bump)
        for limb in COCO_BODY.limbs:
            if limb.begin in body and limb.end in body:
                begin, end = np.array(body[limb.begin]), np.array(body[limb.end])
                length = np.linalg.norm(end - begin)
                ux, uy = (end - begin) / length
                along = (x - begin[0]) * ux + (y - begin[1]) * uy
                beside = np.abs((x - begin[0]) * uy - (y - begin[1]) * ux)
                width = _LIMB_WIDTH * stride
                inside = (along >= -width) & (along <= length + width) & (beside <= width)
                fields[limb.field] += np.array([ux, uy])[:, None, None] * inside
                count[limb.field] += inside
    fields /= np.maximum(count, 1)[:, None]
    background = 1 - heat.max(0, keepdims=True)
    maps = [heat, background, fields.reshape(-1, rows, columns)]
    return torch.from_numpy(np.concatenate(maps).astype(np.float32))
