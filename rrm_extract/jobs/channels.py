"""Where a map has its channels, as far as a Program's operations and the shapes of values tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import Permute

from rrm_extract.engine.lower import results_of
from rrm_extract.errors import EngineError
from rrm_extract.graph import Convolution, FullyConnected, Op, Program, Ref
from rrm_extract.graph.dimensions import dimensions
from rrm_extract.graph.trace import MethodCall

__all__ = ["channels_first"]

_BY_FIRST = (
    *(nn.BatchNorm2d, nn.GroupNorm, nn.InstanceNorm2d, nn.ConvTranspose2d),
    *(nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d),
)
_MOVES = ("permute", "transpose")
_RESHAPES = ("view", "reshape", "flatten", "unflatten")

_Shape = tuple[int, ...]


def channels_first(program: Program, input_shape: tuple[int, int, int]) -> Program:
    """The same where the first output, if it is a map, has its channels as convolutions have them.

    Transformers such as Swin keep them last, behind fully-connected layers and normalisation by
    pixel; a mean over "space" would then be one over columns and channels.

    Args:
        program: the network.
        input_shape: of one frame; one of zeros is computed where that could be so.
    """
    if not any(_is_by_pixel(op) or _called(op) in _MOVES for op in program.ops):
        return program
    output = program.outputs[0]
    if dimensions(program).get(output, 4) != 4:  # unknown, it may be a map
        return program
    try:
        results = results_of(program, input_shape)
    except EngineError:
        return program  # no such frame can be computed: said where the network is to be run
    shapes = {
        name: tuple(value.shape) for name, value in results.items() if isinstance(value, Tensor)
    }
    if len(shapes.get(output, ())) != 4 or _places(program, shapes).get(output) != 3:
        return program
    name = f"{output}.channels_first"
    op = Op(name=name, kind="reshape", call=MethodCall("permute"), args=(Ref(output), 0, 3, 1, 2))
    return replace(program, ops=(*program.ops, op), outputs=(name, *program.outputs[1:]))


def _places(program: Program, shapes: Mapping[str, _Shape]) -> dict[str, int]:
    """The dimension of channels of maps, and of sequences of pixels, by the value's name."""
    places: dict[str, int] = {}
    for op in program.ops:
        shape = shapes.get(op.name, ())
        place = _place(op, shape, shapes, places) if len(shape) in (3, 4) else None
        if place is not None:
            places[op.name] = place
    return places


def _place(
    op: Op, shape: _Shape, shapes: Mapping[str, _Shape], places: Mapping[str, int]
) -> int | None:
    if isinstance(op.call, (Convolution, *_BY_FIRST)):
        return 1
    if _is_by_pixel(op):
        return len(shape) - 1
    known = [(places[name], shapes[name]) for name in op.inputs if name in places]
    if not known:
        return None
    before, of = known[0]
    dims = _moves(op, len(of))
    if dims is not None:
        return dims.index(before)
    if _called(op) in _RESHAPES or op.kind == "reshape":
        # Pixels in a row and by rows and columns, channels last: the last dimension stays.
        stays = before == len(of) - 1 and shape[-1] == of[-1]
        return len(shape) - 1 if stays else None
    alike = {place for place, each in known if len(each) == len(shape)}
    if len(alike) != 1:
        return None
    (place,) = alike
    sizes = {each[place] for one, each in known if one == place and len(each) == len(shape)}
    # A concatenation may be of channels; what else changes their number is unknown.
    return place if op.kind == "concat" or shape[place] in sizes else None


def _called(op: Op) -> str:
    if isinstance(op.call, MethodCall):
        return op.call.name
    return "permute" if isinstance(op.call, Permute) else getattr(op.call, "__name__", "")


def _is_by_pixel(op: Op) -> bool:
    """A fully-connected layer, or a normalisation, over the last dimension."""
    if isinstance(op.call, FullyConnected):
        return True
    if type(op.call) is nn.LayerNorm:  # subclasses have the channels where they like
        return len(op.call.normalized_shape) == 1
    if op.call is F.layer_norm or op.call is torch.layer_norm:
        shape = op.args[1] if len(op.args) > 1 else op.kwargs.get("normalized_shape")
        return isinstance(shape, (tuple, list, torch.Size)) and len(shape) == 1
    return False


def _moves(op: Op, count: int) -> list[int] | None:
    """Which dimension each of the result's was before, of an operation that only moves them."""
    called, given = _called(op), cast(Any, op.args[1:])
    if called not in _MOVES:
        return None
    if isinstance(op.call, Permute):
        given = op.call.dims
    elif called == "permute":
        given = given or (op.kwargs.get("dims"),)
        given = given[0] if isinstance(given[0], (tuple, list)) else given
    else:
        named = dict(zip(("dim0", "dim1"), given, strict=False)) | dict(op.kwargs)
        given = [named.get("dim0"), named.get("dim1")]
    if not all(isinstance(dim, int) for dim in given):
        return None
    dims = [int(dim) % count for dim in given]
    if called == "transpose":
        one, other = dims
        dims = list(range(count))
        dims[one], dims[other] = other, one
    return dims if sorted(dims) == list(range(count)) else None
