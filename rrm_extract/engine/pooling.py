"""What a pooling operation of PyTorch does, whichever way it is written."""

from __future__ import annotations

from typing import Any

from torch import nn

from rrm_extract.engine.plan import Window
from rrm_extract.engine.refusal import name_of
from rrm_extract.graph import Op

__all__ = ["pool_of"]


def pool_of(
    op: Op, args: tuple[Any, ...], kwargs: dict[str, Any], size: tuple[int, int]
) -> tuple[Window, bool, bool] | str | None:
    """(window, maximum, padding counts), "global", "same", or None."""
    call = op.call
    names: tuple[str, ...]
    if isinstance(call, nn.Module):
        given = {name: getattr(call, name) for name in _POOL_NAMES if hasattr(call, name)}
        kind = type(call).__name__
    else:
        kind, names = _POOL_FUNCTIONS.get(name_of(op), ("", ()))
        given = {**dict(zip(names, args, strict=False)), **kwargs}
    if kind == "mean":
        dims = given.get("dim", ())
        whole = isinstance(dims, (tuple, list)) and sorted(d % 4 for d in dims) == [2, 3]
        return "global" if whole else None
    if kind == "AdaptiveAvgPool2d":
        wanted = given["output_size"]
        wanted = wanted if isinstance(wanted, (tuple, list)) else (wanted, wanted)
        rows, columns = (s if w is None else w for w, s in zip(wanted, size, strict=True))
        if (rows, columns) == size:
            return "same"
        if (rows, columns) == (1, 1):
            return "global"
        if size[0] % rows or size[1] % columns:
            return None
        kernel = (size[0] // rows, size[1] // columns)
        return Window(kernel, kernel), False, True
    if kind not in ("MaxPool2d", "AvgPool2d"):
        return None
    if given.get("return_indices") or given.get("divisor_override") is not None:
        return None
    kernel = _pair(given["kernel_size"])
    stride = given.get("stride")
    window = Window(
        kernel,
        _pair(stride) if stride is not None and stride != [] else kernel,
        _pair(given.get("padding", 0)),
        _pair(given.get("dilation", 1)),
    )
    return window, kind == "MaxPool2d", bool(given.get("count_include_pad", True))


_POOL_NAMES = (
    "kernel_size",
    "stride",
    "padding",
    "dilation",
    "return_indices",
    "count_include_pad",
    "divisor_override",
    "output_size",
)
_MAX_NAMES = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
_AVG_NAMES = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")
_POOL_FUNCTIONS = {
    "mean": ("mean", ("dim", "keepdim")),
    "adaptive_avg_pool2d": ("AdaptiveAvgPool2d", ("output_size",)),
    "avg_pool2d": ("AvgPool2d", (*_AVG_NAMES, "divisor_override")),
    "max_pool2d": ("MaxPool2d", _MAX_NAMES),
}


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, (tuple, list)):
        return (value[0], value[-1])
    return (value, value)
