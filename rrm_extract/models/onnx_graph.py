"""Two repairs of an ONNX graph that its conversion depends on."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["inline_constants"]


def inline_constants(proto: Any) -> Any:
    """A copy of ``proto`` in which every constant operand is an initializer.

    torch's exporter stores equal weights once and gives the others as Identity of the first, and
    older exporters write weights as Constant nodes; onnx2torch looks for the weights of a
    convolution among the initializers only.

    Args:
        proto: onnx.ModelProto; not changed.
    """
    copy = type(proto)()
    copy.CopyFrom(proto)
    graph = copy.graph
    outputs = {value.name for value in graph.output}
    constants = {initializer.name for initializer in graph.initializer}
    # Before version 4 of the format an initializer is a default that a caller may override.
    constants -= {value.name for value in graph.input} if copy.ir_version > 3 else set()
    renamed: dict[str, str] = {}
    kept = []
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = renamed.get(name, name)
        value = _constant_value(node)
        if value is not None and node.output[0] not in outputs:
            value.name = node.output[0]
            graph.initializer.append(value)
            constants.add(value.name)
        elif (
            node.op_type == "Identity"
            and node.input[0] in constants
            and node.output[0] not in outputs
        ):
            renamed[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)
    return copy


def _constant_value(node: Any) -> Any:
    """The TensorProto of a Constant node, or None."""
    if node.op_type != "Constant" or len(node.attribute) != 1:
        return None
    onnx = importlib.import_module("onnx")
    attribute = node.attribute[0]
    if attribute.name == "value":
        value = onnx.TensorProto()
        value.CopyFrom(attribute.t)
        return value
    numbers = {
        "value_int": ("INT64", [], [attribute.i]),
        "value_ints": ("INT64", [len(attribute.ints)], list(attribute.ints)),
        "value_float": ("FLOAT", [], [attribute.f]),
        "value_floats": ("FLOAT", [len(attribute.floats)], list(attribute.floats)),
    }
    if attribute.name not in numbers:
        return None
    dtype, dims, values = numbers[attribute.name]
    return onnx.helper.make_tensor("", getattr(onnx.TensorProto, dtype), dims, values)
