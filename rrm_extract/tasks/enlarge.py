"""Maps of few cells enlarged to the pixels that they stand for.

Along each side, enlarging, cutting off and smoothing are one matrix, since all of them are linear:
``rows @ map @ columns.T`` costs a small part of what filters on the enlarged map do.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["enlarging", "smoothing"]


@lru_cache(maxsize=32)
def enlarging(cells: int, factor: int, begin: int, length: int) -> Tensor:
    """Pixels ``begin`` to ``begin + length`` of a side of so many cells: (length, cells) float32.

    Bicubic, as OpenCV and PyTorch have it; the middles of cells stay in place.
    """
    # (cells, 1, cells): one map for each cell.
    single = torch.eye(cells, dtype=torch.float32, device="cpu")[:, None]
    enlarged = F.interpolate(
        single[:, :, None], size=(1, cells * factor), mode="bicubic", align_corners=False
    )
    return enlarged[:, 0, 0, begin : begin + length].T.contiguous()


@lru_cache(maxsize=32)
def smoothing(length: int, sigma: float) -> Tensor:
    """A Gaussian along a side, the border repeated outside: (length, length) float32.

    Args:
        length: pixels.
        sigma: the Gaussian's standard deviation, pixels; it ends at 4 of them.
    """
    reach = math.ceil(4 * sigma)
    steps = torch.arange(-reach, reach + 1, dtype=torch.float64, device="cpu")
    weights = torch.exp(-0.5 * (steps / sigma) ** 2)
    weights /= weights.sum()
    single = torch.eye(length, dtype=torch.float64, device="cpu")[:, None]
    single = F.pad(single, (reach, reach), "replicate")
    return F.conv1d(single, weights[None, None])[:, 0].T.float().contiguous()
