"""Where in a frame a network's deltas are."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from rrm_extract.errors import LayerError
from rrm_extract.graph import Op, Program
from rrm_extract.graph.linear import FullyConnected

__all__ = ["DensityMaps", "painted_layers", "pixel_density"]


def painted_layers(program: Program, name: str | None) -> tuple[str, ...]:
    """Names of the linear operations that a layer's name stands for.

    Args:
        program: up to the feature.
        name: of an operation, of the module it came from, or of a module that contains some, as
            for thresholds; None for all of them.

    Raises:
        LayerError: the feature depends on no such convolution or fully-connected layer.
    """
    ops = program.linear_ops
    if name is None:
        return tuple(op.name for op in ops)
    found = tuple(
        op.name
        for op in ops
        if any(own == name or own.startswith(f"{name}.") for own in (op.name, op.source))
    )
    if not found:
        names = list(program.linear_names().values())
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.4) or names[:3]
        raise LayerError(
            f"layer {name!r} has no deltas to show: expected a convolution or fully-connected "
            f"layer that the feature depends on, or a module with some, such as {', '.join(near)}"
        )
    return found


def pixel_density(op: Op, deltas: Tensor) -> Tensor | None:
    """Share of the channels of each pixel whose delta is not zero.

    Args:
        op: the linear layer.
        deltas: (T, N, C, h, w) of a convolution, (T, N, h, w, C) of a fully-connected layer.

    Returns:
        (T, h, w) float32, mean over lanes; None for an input without pixels.
    """
    if deltas.dim() != 5 or min(deltas.shape) < 1:
        return None
    channels = 4 if isinstance(op.call, FullyConnected) else 2
    lanes_and_channels = (1, channels)
    count = deltas.shape[1] * deltas.shape[channels]
    return torch.count_nonzero(deltas, dim=lanes_and_channels).float() / count


class DensityMaps:
    """Watches a recurrent network; see :meth:`rrm_extract.rrm.RecurrentNetwork.observe`.

    The density of several layers is their mean, weighted by MACs: at each place the share of the
    work there that was done, so that the mean of the map is the layers' share of work. Layers
    without pixels are left out. A frame that a layer computed densely counts as 1 everywhere.

    Args:
        macs: of the layers to look at, by their operations' names.
        size: (h, w) of the network's input, to which maps of several sizes are brought.
    """

    def __init__(self, macs: Mapping[str, int], size: tuple[int, int]) -> None:
        self._macs = macs
        self._size = size
        self._seen: dict[str, list[Tensor]] = {}

    def see(self, op: Op, deltas: Tensor, dense: Tensor) -> None:
        """See :data:`rrm_extract.rrm.DeltaObserver`."""
        if op.name not in self._macs:
            return
        density = pixel_density(op, deltas)
        if density is None:
            return
        density[dense.to(density.device)] = 1.0
        # A network that mixes frames is called once for each.
        self._seen.setdefault(op.name, []).append(density)

    def forget(self) -> None:
        """Drops the frames seen since the last time, as those of a call that was interrupted."""
        self._seen = {}

    def take(self) -> NDArray[np.float32]:
        """(T, h, w) float32 of the frames seen since the last time, 0..1.

        Raises:
            LayerError: none of the layers reads pixels.
        """
        seen, self._seen = self._seen, {}
        if not seen:
            names = ", ".join(list(self._macs)[:3])
            raise LayerError(
                f"layer {names} reads numbers without a place in the frame; expected a layer that "
                "reads pixels, such as a convolution"
            )
        sums: dict[tuple[int, ...], Tensor] = {}
        for name, frames in seen.items():
            part = torch.cat(frames) * self._macs[name]
            size = tuple(part.shape[1:])
            sums[size] = sums[size] + part if size in sums else part
        total = sum(self._macs[name] for name in seen)
        if len(sums) == 1:
            (whole,) = sums.values()
        else:
            whole = torch.stack([_resized(part, self._size) for part in sums.values()]).sum(0)
        density: NDArray[np.float32] = (whole / total).clamp_(0, 1).cpu().numpy()
        return density


def _resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """(T, h, w) to (T, *size): every pixel of the input has the cell's value that covers it."""
    return F.interpolate(maps[:, None], size=size, mode="nearest-exact")[:, 0]
