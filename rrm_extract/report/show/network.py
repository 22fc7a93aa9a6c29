"""A recurrent network that tells where its deltas were."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rrm_extract.engine.seen import Seen
from rrm_extract.errors import ConfigError
from rrm_extract.jobs.recipe import Recipe, RecipeNetwork
from rrm_extract.report.show.density import DensityMaps, painted_layers
from rrm_extract.rrm import RecurrentNetwork

__all__ = ["PaintedNetwork"]


class PaintedNetwork(RecipeNetwork):
    """See :class:`rrm_extract.jobs.control.Core`: the feature, and a density map of each frame.

    Args:
        recipe: of the readable engine, the one that has its deltas at hand.
        layer: as for :func:`painted_layers`.
        size: (h, w) of the network's input.

    Raises:
        LayerError: there is no such layer, or it reads no pixels.
        ConfigError: the recipe is the native engine's.
    """

    def __init__(self, recipe: Recipe, layer: str | None, size: tuple[int, int]) -> None:
        super().__init__(recipe)
        if not isinstance(self._network, RecurrentNetwork):
            raise ConfigError("deltas are shown by the readable engine; expected engine 'torch'")
        wanted = painted_layers(recipe.program, layer)
        costs = zip(recipe.program.linear_ops, recipe.layers, strict=True)
        macs = {op.name: cost.macs for op, cost in costs if op.name in wanted}
        self._maps = DensityMaps(macs, size)
        self._network.observe(self._maps.see)
        # A frame of zeros: whether a layer reads pixels shows when it runs.
        self.run(torch.zeros(1, *recipe.input_shape, dtype=torch.float32, device=recipe.device))
        self.reset()

    def run(self, x: Tensor, /) -> tuple[tuple[NDArray[np.float32], ...], Seen]:
        """(T, D) features and (T, h, w) densities in 0..1, and what the layers saw."""
        self._maps.forget()  # of a call that was interrupted
        outputs, seen = super().run(x)
        return (*outputs, self._maps.take()), seen
