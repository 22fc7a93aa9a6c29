"""From a .caffemodel file to named weights.

Only these fields of https://github.com/BVLC/caffe/blob/master/src/caffe/proto/caffe.proto matter:
the layers (``layer``, 100; in files of before 2015 ``layers``, 2), of each the name, the type and
the blobs, and of each blob its shape and numbers.
"""

from __future__ import annotations

import math
import mmap
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import WeightsError
from .wire import Field, MessageError, WireReader

__all__ = ["read_caffemodel"]

_ROLES = ("weight", "bias")
"""What the first blobs of a convolution and of a fully-connected layer are."""

_MOST_SIDES = 32
"""As Caffe has it."""

_SHOWN = 60
"""Letters of a layer's name in a message; damaged ones can have any number."""

_SHAPE, _SIDE = 7, 1
_DATA, _DOUBLE_DATA = 5, 8
_OLD_SIDES = (1, 2, 3, 4)
"""num, channels, height, width: the shape in files of before 2015."""


@dataclass(frozen=True, kw_only=True)
class _Version:
    """The numbers of a layer's fields."""

    name: int
    kind: int
    blobs: int


_LAYERS = {100: _Version(name=1, kind=2, blobs=7), 2: _Version(name=4, kind=5, blobs=6)}
_FULLY_CONNECTED = (b"InnerProduct", 14)
"""The type's name, and its number in files of before 2015."""


def read_caffemodel(path: Path) -> dict[str, NDArray[np.floating]]:
    """Read the weights of a file.

    Returns:
        For each layer with blobs "NAME.weight" (C_out, C_in / groups, h, w) or (out, in), and
        "NAME.bias" (C_out,); further blobs are "NAME.blobs.2" and so on. float32 (float64 where
        the file has it), in memory of their own.

    Raises:
        WeightsError: the file cannot be read, is damaged, or holds no weights.
    """
    what = f"weights file {str(path)!r}"
    try:
        with path.open("rb") as file:
            # Unmapped with the last view of it, of which an error's traceback may hold some.
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        found = _read(memoryview(mapped))
    except MessageError as error:
        raise WeightsError(f"{what} is damaged or no .caffemodel file: it has {error}") from error
    except (OSError, ValueError) as error:  # a file of 0 bytes is a ValueError of mmap's
        reason = getattr(error, "strerror", None) or str(error)
        raise WeightsError(f"{what} cannot be read: {reason}") from error
    if not found:
        raise WeightsError(f"{what} holds no layer with weights; expected a trained .caffemodel")
    return found


def _read(content: memoryview) -> dict[str, NDArray[np.floating]]:
    reader = WireReader(content)
    found: dict[str, NDArray[np.floating]] = {}
    for field in reader.fields():
        version = _LAYERS.get(field.number)
        if version is None:
            continue
        name, blobs = _layer(reader, field, version)
        for number, blob in enumerate(blobs):
            role = _ROLES[number] if number < len(_ROLES) else f"blobs.{number}"
            if f"{name}.{role}" in found:
                raise MessageError(f"two layers {name[:_SHOWN]!r} with weights")
            found[f"{name}.{role}"] = blob
    return found


def _layer(
    reader: WireReader, layer: Field, version: _Version
) -> tuple[str, list[NDArray[np.floating]]]:
    name, connected, blobs = "", False, []
    for field in reader.fields(layer):
        if field.number == version.name and field.content is not None:
            name = bytes(field.content).decode("utf-8", "replace")
        elif field.number == version.kind:
            kind = field.value if field.content is None else bytes(field.content)
            connected = kind in _FULLY_CONNECTED
        elif field.number == version.blobs:
            blobs.append(field)
    return name, [
        _blob(reader, blob, is_bias=number > 0, connected=connected, layer=name)
        for number, blob in enumerate(blobs)
    ]


def _blob(
    reader: WireReader, blob: Field, *, is_bias: bool, connected: bool, layer: str
) -> NDArray[np.floating]:
    shape: tuple[int, ...] | None = None
    old = dict.fromkeys(_OLD_SIDES, 1)
    is_old = False
    parts: list[NDArray[np.floating]] = []
    for field in reader.fields(blob):
        if field.number == _SHAPE:
            shape = _shape(reader, field)
        elif field.number in (_DATA, _DOUBLE_DATA):
            parts.append(_numbers(field))
        elif field.number in old and field.content is None:
            is_old = True
            old[field.number] = field.value
    if shape is None and is_old:
        shape = _without_filling(tuple(old.values()), is_bias=is_bias, connected=connected)
    numbers = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    if shape is None:
        shape = (len(numbers),)
    where = f"layer {layer[:_SHOWN]!r}"
    if math.prod(shape) != len(numbers):
        raise MessageError(f"{len(numbers):,} numbers in a blob of {where}, whose shape is {shape}")
    if not np.isfinite(numbers).all():
        raise MessageError(f"numbers that are not finite in {where}")
    return numbers.reshape(shape)


def _shape(reader: WireReader, shape: Field) -> tuple[int, ...]:
    """Sides may be packed into one field, or have one each."""
    sides: list[int] = []
    for field in reader.fields(shape):
        if field.number != _SIDE:
            continue
        for side in [field.value] if field.content is None else reader.packed(field):
            if len(sides) == _MOST_SIDES:
                raise MessageError(f"a shape at byte {shape.begin} of over {_MOST_SIDES} sides")
            sides.append(side)
    return tuple(sides)


def _without_filling(sides: tuple[int, ...], *, is_bias: bool, connected: bool) -> tuple[int, ...]:
    """Old blobs have four sides always: a matrix is 1 x 1 x out x in, a bias 1 x 1 x 1 x out."""
    if is_bias:
        return (math.prod(sides),)
    return sides[2:] if connected and sides[:2] == (1, 1) else sides


def _numbers(field: Field) -> NDArray[np.floating]:
    kind = np.dtype("<f4" if field.number == _DATA else "<f8")
    # Caffe packs the numbers of a blob into one field. One alone has the bytes of that one.
    if field.content is None or len(field.content) % kind.itemsize:
        raise MessageError(f"something other than numbers at byte {field.begin}")
    return np.frombuffer(bytes(field.content), kind).astype(kind.newbyteorder("="))
