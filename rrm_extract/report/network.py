"""What a network consists of, as the recurrence sees it."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from rrm_extract.engine.lower import results_of
from rrm_extract.graph import Program, default_layer, fold, layer_names
from rrm_extract.models import load_model
from rrm_extract.models.darknet import is_darknet_model
from rrm_extract.models.registry import carries_weights
from rrm_extract.report.table import number, table
from rrm_extract.rrm import LayerCost, RecurrentNetwork, by_frame

__all__ = ["NetworkDescription", "any_weights", "describe_network", "layer_costs"]


@dataclass(frozen=True, kw_only=True)
class NetworkDescription:
    """A network's layers.

    Attributes:
        name: as it was asked for.
        input_shape: (C, h, w) after the transform.
        default_layer: whose value is the feature when none is named.
        layer_names: every name that can be asked for, in order of execution.
        kinds: how many operations of each kind.
        layers: the convolutions and fully-connected layers, the ones that become recurrent.
    """

    name: str
    input_shape: tuple[int, ...]
    default_layer: str
    layer_names: tuple[str, ...]
    kinds: dict[str, int]
    layers: tuple[LayerCost, ...]

    def to_json(self) -> dict[str, Any]:
        """All of it; densities are left out, for nothing was run."""
        values = asdict(self)
        for layer in values["layers"]:
            del layer["density"], layer["density_delta"]
        return values

    def to_text(self) -> str:
        """For a person."""
        total = sum(layer.macs for layer in self.layers)
        rows = [
            [layer.name, number(layer.macs / 1e6, 1), f"{layer.input_elements:,}"]
            for layer in self.layers
        ]
        others = ", ".join(f"{count} {kind}" for kind, count in sorted(self.kinds.items()))
        return "\n".join(
            [
                f"{self.name}: input {tuple(self.input_shape)}, default layer {self.default_layer}",
                "",
                table(["recurrent layer", "MMACs", "input elements"], rows),
                "",
                f"{number(total / 1e6, 1)} MMACs a frame; operations: {others}",
            ]
        )


def describe_network(name: str, *, preprocess: str | None = None) -> NetworkDescription:
    """Describes a network by name, with weights that need no download.

    Args:
        name: as for an extraction.
        preprocess: description of the network's input, for models without one of their own.

    Raises:
        UsageError: there is no such network, or it cannot be traced or run.
    """
    model = load_model(name, weights=any_weights(name), preprocess=preprocess)
    whole = model.trace()
    values = results_of(whole, model.input_shape)
    program = fold(whole)
    return NetworkDescription(
        name=name,
        input_shape=model.input_shape,
        default_layer=default_layer(whole),
        layer_names=tuple(one for one in layer_names(whole) if _is_feature(values[one])),
        kinds=dict(Counter(op.kind for op in program.ops)),
        layers=layer_costs(program, model.input_shape),
    )


def layer_costs(program: Program, input_shape: tuple[int, int, int]) -> tuple[LayerCost, ...]:
    """Sizes and MACs of the linear layers for one frame; densities are those of zeros."""
    network = RecurrentNetwork(by_frame(program))  # of which sizes alone are of interest
    network.step(torch.zeros(1, *input_shape, dtype=torch.float32, device="cpu"))
    return network.stats()


def _is_feature(value: object) -> bool:
    """Whether a frame's value is one row of floats, and no size, index or the like."""
    return isinstance(value, Tensor) and value.is_floating_point() and value.shape[:1] == (1,)


def any_weights(name: str) -> str:
    """Weights of a network that can be had without a download, for its shape alone."""
    brings = carries_weights(name) and not is_darknet_model(name)
    return "default" if brings else "random:0"
