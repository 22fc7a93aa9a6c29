"""Darknet's .weights files, read and written.

A file is little-endian: int32 major, minor and revision of the version; the number of images seen
in training, int64 from version 0.2 on and int32 before; then float32 numbers, for each convolution
in the order of the .cfg: with batch normalisation its bias, scale, mean and variance, without it
the convolution's bias; then the weights (C_out, C_in / groups, size, size).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import WeightsError
from .network import DarknetNetwork

__all__ = ["read_weights", "write_weights"]

SUFFIX = ".weights"

_VERSION = (0, 2, 0)
"""What is written: the last version of the Darknet project."""

_TRANSPOSED = 1000
"""A version number from here on marks files of old, whose fully-connected layers lie otherwise;
the header of such files is the short one."""


def read_weights(network: DarknetNetwork, path: Path) -> None:
    """Copy the weights of a file into a network, in place.

    Raises:
        WeightsError: the file cannot be read, has more or fewer numbers than the network has
            parameters, or holds numbers that no training leaves behind.
    """
    tensors = _in_order(network)
    count = sum(tensor.numel() for tensor in tensors)
    try:
        have = path.stat().st_size
        with path.open("rb") as file:
            header = _header_bytes(file.read(12))
            wanted = header + 4 * count
            # Nothing is read of a file that does not fit: it may be anything, of any length.
            file.seek(header)
            content = file.read(4 * count) if have == wanted else b""
    except OSError as error:
        reason = error.strerror or str(error)
        raise WeightsError(f"weights file {str(path)!r} cannot be read: {reason}") from error
    if len(content) != 4 * count:
        what = "too long" if have > wanted else "truncated"
        raise WeightsError(
            f"weights file {str(path)!r} has {have:,} bytes, expected {wanted:,} (a header of "
            f"{header} and 4 for each of the network's {count:,} parameters): it is {what}, or of "
            "another network"
        )
    values = np.frombuffer(content, "<f4")
    begin = 0
    with torch.no_grad():
        for tensor in tensors:
            part = values[begin : begin + tensor.numel()]
            tensor.copy_(torch.from_numpy(part.astype(np.float32)).reshape(tensor.shape))
            begin += tensor.numel()
    _check(network, path)


def write_weights(network: DarknetNetwork, path: Path, *, seen: int = 0) -> None:
    """Write a network's weights as Darknet, OpenCV and :func:`read_weights` read them.

    Args:
        network: any network of a .cfg file.
        path: an existing file is replaced.
        seen: number of images seen in training; nothing but training looks at it.

    Raises:
        WeightsError: the file cannot be written.
    """
    try:
        with path.open("wb") as file:
            file.write(np.array(_VERSION, "<i4").tobytes())
            file.write(np.array([seen], "<i8").tobytes())
            for tensor in _in_order(network):
                file.write(tensor.detach().cpu().numpy().astype("<f4").tobytes())
    except OSError as error:
        reason = error.strerror or str(error)
        raise WeightsError(f"cannot write weights file {str(path)!r}: {reason}") from error


def _header_bytes(begin: bytes) -> int:
    """From the first 12 bytes, or fewer of a short file."""
    if len(begin) < 12:
        return 20
    major, minor, _ = np.frombuffer(begin, "<i4").tolist()
    # As Darknet decides it.
    is_long = major * 10 + minor >= 2 and major < _TRANSPOSED and minor < _TRANSPOSED
    return 20 if is_long else 16


def _in_order(network: DarknetNetwork) -> list[Tensor]:
    """The network's tensors in the order of a file."""
    tensors: list[Tensor] = []
    for layer in network.layers:
        conv, norm = getattr(layer, "conv", None), getattr(layer, "norm", None)
        if not isinstance(conv, nn.Conv2d):
            continue
        if isinstance(norm, nn.BatchNorm2d):
            tensors += [norm.bias, norm.weight, *_statistics(norm)]
        elif conv.bias is not None:
            tensors.append(conv.bias)
        tensors.append(conv.weight)
    return tensors


def _statistics(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    if norm.running_mean is None or norm.running_var is None:
        msg = "expected batch normalisation with running statistics"
        raise TypeError(msg)
    return norm.running_mean, norm.running_var


def _check(network: DarknetNetwork, path: Path) -> None:
    """Numbers in other places than expected are seldom all finite, nor variances at least 0."""
    for number, layer in enumerate(network.layers):
        for name, tensor in layer.state_dict().items():
            if not bool(tensor.isfinite().all()):
                problem = "has numbers that are not finite"
            elif name.endswith("running_var") and bool((tensor < 0).any()):
                problem = "has variances below 0"
            else:
                continue
            raise WeightsError(
                f"weights file {str(path)!r}: layer {number} {problem} ({name}); the file is "
                "damaged, or of another network"
            )
