"""A whole network: which of its weights are compressed, and how."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from torch import nn

from ...errors import ModelError, WeightsError
from ..loaded import LoadedModel
from .densities import layer_densities
from .layer import CompressedLayer, LayerKind, compress_weights
from .published import CODE_BITS, INDEX_BITS, PUBLISHED

__all__ = ["LayerPlan", "compress_layers", "plan_compression"]


@dataclass(frozen=True, kw_only=True)
class LayerPlan:
    """What is to be done to one layer."""

    module: str
    """Name of the module."""
    paper_name: str | None
    """What the paper calls the layer, in a network of the paper."""
    kind: LayerKind
    shape: tuple[int, ...]
    density: float
    """Share of the weights to keep, above 0 and up to 1."""
    bits: int
    """Width of a code, 1 to 8."""
    index_bits: int
    """Width of a gap, 1 to 8."""

    @property
    def name(self) -> str:
        """Of the weight in the state dict."""
        return f"{self.module}.weight"

    @property
    def n_weights(self) -> int:
        """Of the dense layer."""
        return int(np.prod(self.shape, dtype=np.int64))


def plan_compression(
    loaded: LoadedModel,
    *,
    densities: Mapping[str | None, float] | None = None,
    bits: Mapping[LayerKind, int] | None = None,
    index_bits: Mapping[LayerKind, int] | None = None,
    own: Mapping[str, CompressedLayer] | None = None,
) -> tuple[LayerPlan, ...]:
    """Choose what is done to every convolution and fully-connected layer, in the network's order.

    Args:
        loaded: the network.
        densities: by layer, those of the others under None; the paper's for what is not given.
        bits: widths of codes; 8 and 5 for what is not given.
        index_bits: widths of gaps; those of the paper's table, or 8 and 5, for what is not given.
        own: what is compressed already, by the name of the weight: it stays as it is, where nothing
            else is given.

    Raises:
        ModelError: nothing to compress.
        WeightsError: weights that are not finite.
        ConfigError: a layer has no density, or a given one no layer.
    """
    state = loaded.module.state_dict()
    kinds: dict[str, LayerKind] = {}
    # Layers that share a weight are two names in the state dict, and are compressed twice alike.
    for name, module in loaded.module.named_modules(remove_duplicate=False):
        kind = _kind(module)
        if kind is not None and name and f"{name}.weight" in state:
            kinds[name] = kind
    weights = {name: state[f"{name}.weight"] for name in kinds}
    weights = {name: weight for name, weight in weights.items() if weight.numel()}
    if not weights:
        raise ModelError(
            f"{loaded.name} has no convolution and no fully-connected layer to compress"
        )
    for name, weight in weights.items():
        if not bool(weight.isfinite().all()):
            raise WeightsError(
                f"weights {loaded.weights_id} of layer {name!r} are missing or not finite; "
                "give weights of the whole network"
            )
    network = loaded.architecture or loaded.name
    published = PUBLISHED.get(network)
    already = {name: own[f"{name}.weight"] for name in weights if own and f"{name}.weight" in own}
    chosen = layer_densities(network, weights, densities or {}, pruned=already)
    table_bits = dict.fromkeys(INDEX_BITS, published.index_bits) if published else INDEX_BITS
    bits, index_bits = bits or {}, index_bits or {}

    def widths(name: str, kind: LayerKind) -> tuple[int, int]:
        layer = already.get(name)
        usual = (CODE_BITS[kind], table_bits[kind])
        code, gap = usual if layer is None else (layer.bits, layer.index_bits)
        return bits.get(kind, code), index_bits.get(kind, gap)

    planned = {name: widths(name, kinds[name]) for name in weights}
    return tuple(
        LayerPlan(
            module=name,
            paper_name=published.layers[name].name if published else None,
            kind=kinds[name],
            shape=tuple(weight.shape),
            density=chosen[name],
            bits=planned[name][0],
            index_bits=planned[name][1],
        )
        for name, weight in weights.items()
    )


def compress_layers(
    loaded: LoadedModel, plans: tuple[LayerPlan, ...]
) -> Iterator[tuple[LayerPlan, CompressedLayer]]:
    """Compress the layers one by one, as they are asked for."""
    state = loaded.module.state_dict()
    for plan in plans:
        yield (
            plan,
            compress_weights(
                state[plan.name].numpy(),
                name=plan.name,
                kind=plan.kind,
                density=plan.density,
                bits=plan.bits,
                index_bits=plan.index_bits,
            ),
        )


def _kind(module: nn.Module) -> LayerKind | None:
    if isinstance(module, nn.modules.conv._ConvNd):
        return "convolution"
    return "fully-connected" if isinstance(module, nn.Linear) else None
