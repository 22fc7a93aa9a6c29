"""The names that PyTorch programs give the network's weights.

- ``model0.0.weight``, ``model1_1.2.bias``, ``model6_2.12.weight``: numbers of the modules of each
  part, with ReLU and pooling counted (github.com/tensorboy/pytorch_Realtime_Multi-Person_Pose_
  Estimation and what descends from it).
- ``conv1_1.weight``, ``Mconv7_stage6_L2.bias``: Caffe's (``body_pose_model.pth`` of
  github.com/Hzzone/pytorch-openpose); once loaded and saved there, ``model0.conv1_1.weight``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache

from torch import Tensor

from .layers import BRANCHES, STAGES, Convolution, Pool, branch, trunk

__all__ = ["with_caffes_names"]

_NAME = re.compile(r"(?P<before>.*\.)?(?P<part>model\d(?:_\d)?)\.(?P<layer>\w+)\.(?P<role>\w+)")


def with_caffes_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same weights under Caffe's names.

    Names that are none of the above stay as they are, and so does one whose Caffe name is in the
    file already.
    """
    names = _names()
    result: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        match = _NAME.fullmatch(name)
        layer = match and names.get((match["part"], match["layer"]))
        own = f"{match['before'] or ''}{layer}.{match['role']}" if match and layer else name
        result[name if own in tensors or own in result else own] = tensor
    return result


@cache
def _names() -> dict[tuple[str, str], str]:
    """(part, number or name in it) -> Caffe's name."""
    parts: dict[str, Sequence[Convolution | Pool]] = {"model0": trunk()}
    for stage in range(1, STAGES + 1):
        for number in BRANCHES:
            parts[f"model{stage}_{number}"] = branch(stage, number)
    found = {}
    for part, layers in parts.items():
        place = 0
        for layer in layers:
            if isinstance(layer, Pool):
                place += 1
                continue
            found[part, str(place)] = found[part, layer.name] = layer.name
            place += 2 if layer.activated else 1
    return found
