"""A network of Darknet's: its layers, and which of them read which."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ..region import Region

__all__ = ["DarknetNetwork", "Shape"]

Shape = tuple[int, int, int]


class DarknetNetwork(nn.Module):
    """The layers of a .cfg file, up to a [region], whose raw input is what it returns.

    ``layers.3`` is layer 3 as Darknet counts them; a [region] at the end is none of them.

    Attributes:
        layers: one module for each section.
        sources: for each layer the numbers of those it reads; -1 is the network's input.
        input_shape: (C, h, w) that it was built for.
        region: how a detector's output is to be read; None for other networks.
    """

    def __init__(
        self,
        layers: Sequence[nn.Module],
        sources: Sequence[tuple[int, ...]],
        *,
        input_shape: Shape,
        region: Region | None,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.sources = tuple(sources)
        self.input_shape = input_shape
        self.region = region
        self._last_reader = {
            source: number for number, read in enumerate(sources) for source in read
        }

    def forward(self, x: Tensor) -> Tensor:
        """(N, *input_shape) float32 -> the last layer's output."""
        values = {-1: x}
        for number, (layer, sources) in enumerate(zip(self.layers, self.sources, strict=True)):
            values[number] = layer(*(values[source] for source in sources))
            for source in set(sources):
                if self._last_reader[source] == number:
                    del values[source]
        return values[len(self.layers) - 1]
