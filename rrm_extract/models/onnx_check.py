"""Whether a converted ONNX network computes what ONNX Runtime does."""

from __future__ import annotations

import hashlib
import importlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ModelError

__all__ = ["check_conversion", "graph_text", "input_kind", "inputs_of", "is_close"]

_TOLERANCE = 1e-4
"""Relative difference that two orders of summation may make."""

_MOST_OTHERS = 0.01
"""Share of whole numbers that rounding may have turned into others."""

_HALF_TOLERANCE = 1e-2
"""The same where the file computes in 16 bits, and the converted network in 32."""


def check_conversion(
    name: str, path: Path, proto: Any, example: Tensor, outputs: list[Tensor]
) -> None:
    """Raise ModelError where the conversion gives something else than the file means.

    Converters pass over attributes that they do not know, and nothing of that shows later. What
    ONNX Runtime cannot run, or takes no numbers, stays unchecked.

    Args:
        name: how messages name the file.
        path: the file.
        proto: onnx.ModelProto, as it was read.
        example: (N, ...) float32, an input; whole numbers where the file takes such.
        outputs: what the converted network makes of it.
    """
    onnx = importlib.import_module("onnx")
    runtime = importlib.import_module("onnxruntime")
    (declared,) = inputs_of(proto)
    kind = input_kind(proto)
    if not (np.issubdtype(kind, np.floating) or np.issubdtype(kind, np.integer)):
        return
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        expected = session.run(None, {declared.name: example.numpy().astype(kind)})
    except Exception:  # noqa: BLE001 - its errors have no class of their own that is public
        return
    halves = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
    is_half = any(one.data_type in halves for one in proto.graph.initializer)
    reference = [torch.from_numpy(np.asarray(value)) for value in expected]
    if not is_close(outputs, reference, _HALF_TOLERANCE if is_half else _TOLERANCE):
        kinds = ", ".join(sorted({node.op_type for node in proto.graph.node}))
        raise ModelError(
            f"{name!r} computes something else once converted by onnx2torch than in ONNX Runtime: "
            f"one of its operations ({kinds}) is not converted as it is meant; simplify the file "
            "or export it with another opset"
        )


def is_close(actual: list[Tensor], expected: list[Tensor], tolerance: float = _TOLERANCE) -> bool:
    """Whether outputs have the same shapes and, but for rounding, the same numbers."""
    return len(actual) == len(expected) and all(
        a.shape == b.shape and _is_near(a, b, tolerance)
        for a, b in zip(actual, expected, strict=True)
    )


def _is_near(actual: Tensor, expected: Tensor, tolerance: float) -> bool:
    if not expected.is_floating_point():  # places of maxima and the like, some of them nearly tied
        return bool((actual != expected).double().mean() <= _MOST_OTHERS) or not actual.numel()
    a, b = actual.double(), expected.double()
    return bool((a - b).norm() <= tolerance * b.norm())


def inputs_of(proto: Any) -> list[Any]:
    """The inputs of a file's graph (onnx.ValueInfoProto) that are no weights with a default."""
    weights = {initializer.name for initializer in proto.graph.initializer}
    return [value for value in proto.graph.input if value.name not in weights]


def input_kind(proto: Any) -> np.dtype[Any]:
    """The type that a file (onnx.ModelProto) with one input declares for it, such as uint8."""
    (declared,) = inputs_of(proto)
    helper = importlib.import_module("onnx").helper
    kind: np.dtype[Any] = helper.tensor_dtype_to_np_dtype(declared.type.tensor_type.elem_type)
    return kind


def graph_text(proto: Any) -> str:
    """What a file computes; its numbers by digests.

    Networks with equal weights may differ in it, and in numbers that are no weights to PyTorch:
    bounds, sizes, places.
    """
    parts = [f"{opset.domain} {opset.version}" for opset in proto.opset_import]
    for numbers in [*proto.graph.initializer, *proto.graph.sparse_initializer]:
        parts.append(hashlib.sha256(numbers.SerializeToString(deterministic=True)).hexdigest())
    for node in [*proto.graph.node, *proto.functions]:
        copy = type(node)()
        copy.CopyFrom(node)
        copy.ClearField("doc_string")  # where the exporter's own code lay
        parts.append(copy.SerializeToString(deterministic=True).hex())
    return "\n".join(parts)
