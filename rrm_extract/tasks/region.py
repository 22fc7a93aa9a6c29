"""YOLOv2's region layer: from a network's raw output to boxes with scores (arXiv 1612.08242)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rrm_extract.errors import ConfigError
from rrm_extract.models import Region

__all__ = ["Boxes", "decode_region"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Boxes:
    """Every box of N frames, P = H * W * A: rows, columns in them, anchors in these.

    Attributes:
        boxes: (N, P, 4) float64: centre x, centre y, width, height, as shares of the network's
            input.
        objectness: (N, P) float64, 0..1.
        classes: (N, P, C) float64: probability of each class if there is an object.
    """

    boxes: Tensor
    objectness: Tensor
    classes: Tensor

    @property
    def scores(self) -> Tensor:
        """(N, P, C) float64: objectness times the class's probability."""
        return self.objectness[:, :, None] * self.classes


def decode_region(raw: Tensor, region: Region) -> Boxes:
    """Read a raw output.

    For the cell in row i and column j and an anchor (pw, ph), in cells:
    ``x = (j + sigmoid(tx)) / W``, ``y = (i + sigmoid(ty)) / H``, ``w = pw * exp(tw) / W``,
    ``h = ph * exp(th) / H``; the objectness is ``sigmoid(to)``.

    Args:
        raw: (N, A * (5 + C), H, W) float.
        region: what the channels are.

    Raises:
        ConfigError: ``raw`` has another shape.
    """
    if raw.dim() != 4 or raw.shape[1] != region.channels or 0 in raw.shape[2:]:
        raise ConfigError(
            f"a raw output is {tuple(raw.shape)}; expected (N, {region.channels}, H, W) for "
            f"{len(region.anchors)} anchors and {region.classes} classes"
        )
    frames, _, rows, columns = raw.shape
    # In float64: exp() of what an untrained network says overflows float32.
    t = (
        raw.detach()
        .cpu()
        .double()
        .reshape(frames, len(region.anchors), region.values, rows, columns)
    )
    t = t.permute(0, 3, 4, 1, 2)  # (N, H, W, A, 5 + C)
    anchors = t.new_tensor(region.anchors)
    i = torch.arange(rows, dtype=t.dtype, device=t.device)[:, None, None]
    j = torch.arange(columns, dtype=t.dtype, device=t.device)[:, None]
    boxes = torch.stack(
        [
            (j + t[..., 0].sigmoid()) / columns,
            (i + t[..., 1].sigmoid()) / rows,
            anchors[:, 0] * t[..., 2].exp() / columns,
            anchors[:, 1] * t[..., 3].exp() / rows,
        ],
        dim=-1,
    )
    classes = t[..., 5:].softmax(-1) if region.softmax else t[..., 5:].sigmoid()
    return Boxes(
        boxes=boxes.flatten(1, 3),
        objectness=t[..., 4].sigmoid().flatten(1),
        classes=classes.flatten(1, 3),
    )
