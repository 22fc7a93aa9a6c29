"""Which fully-connected layers keep their weights as codes, as Deep Compression leaves them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rrm_extract.engine.plan import PlanTensor, Window
from rrm_extract.graph import Convolution

__all__ = ["CODED_DENSITY", "codebook_of"]

CODED_DENSITY = 0.3
"""Share of non-zero weights above which a column is quicker to read as it is, see
scripts/compressed_timings.py."""

MOST_VALUES = 256
"""Different weights besides 0: a code has at most 8 bits."""

MOST_WEIGHTS = 2**32
"""Of a layer: where a column begins is a number of 32 bits."""

PART = 1 << 16
"""Weights that are looked at together: a layer with too many values is told from the first."""


def codebook_of(
    linear: Convolution, window: Window, source: PlanTensor
) -> NDArray[np.float32] | None:
    """The values of a layer's weights, if it is to run on codes.

    That is a layer over its whole input, a fully-connected one above all, with few weights that are
    not 0 and few different ones: what a file of compressed weights decodes to. Where they come from
    does not matter.

    Returns:
        (2^bits,) float32, bits from 1 to 8: all weights but 0, in order, then zeros; None for a
        layer that runs on its weights as they are.
    """
    whole = window.kernel == (source.height, source.width) and window.most_padding == 0
    if not whole or linear.groups > 1:
        return None
    weight = linear.weight.detach().numpy().reshape(-1)
    if weight.size >= MOST_WEIGHTS:
        return None
    left = int(CODED_DENSITY * weight.size)
    values = np.empty(0, np.float32)
    for begin in range(0, weight.size, PART):
        part = weight[begin : begin + PART]
        kept = part[part != 0]
        left -= len(kept)
        if left < 0:
            return None
        values = np.union1d(values, kept)
        if len(values) > MOST_VALUES:
            return None
    if not np.isfinite(values).all():  # times 0 they are NaN, which only the ordinary kernels are
        return None
    bits = max(1, (len(values) - 1).bit_length())
    return np.concatenate([values, np.zeros((1 << bits) - len(values), np.float32)])
