"""``xnor_alexnet`` and ``xnor_resnet18``."""

from __future__ import annotations

from torch import nn

from ...errors import WeightsError
from ...graph.binary import BINARY_MODULES
from ..checkpoint import all_nan_keys, load_chosen_file
from ..loaded import LoadedModel, Transform, freeze, hash_state
from ..weights import WeightsChoice, seeded
from .published import NETWORKS

__all__ = ["is_xnor_model", "load_xnor"]


def is_xnor_model(name: str) -> bool:
    """Whether ``name`` is one of the XNOR-Nets."""
    return name in NETWORKS


def load_xnor(name: str, choice: WeightsChoice, preprocess: Transform | None) -> LoadedModel:
    """Build the network with the weights of ``choice``, a file or random ones.

    Weights of binary layers are real numbers, as training keeps them, or binary already; either
    way each filter becomes its signs times the mean of its magnitudes, and the hash is of that.

    Raises:
        WeightsError: others are asked for, or the file cannot be read or does not fit.
    """
    network = NETWORKS[name]
    if choice.kind in ("default", "named"):
        raise WeightsError(
            f"{name} has no weights {choice.text!r}; give a .safetensors or .pth file with its "
            "state dict, or random:SEED for an untrained network"
        )
    with seeded(choice.seed):
        module = freeze(network.build())
    unexpected = load_chosen_file(module, choice)
    _binarise(module)
    transform = preprocess or network.preprocess
    return LoadedModel(
        name=name,
        module=module,
        transform=transform,
        preprocess=transform.describe(),
        input_shape=transform.output_shape,
        weights_id=choice.weights_id,
        weights_sha256=hash_state(module),
        missing_keys=all_nan_keys(module),
        unexpected_keys=unexpected,
        source="xnor",
    )


def _binarise(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, BINARY_MODULES):
            part.binarise()
