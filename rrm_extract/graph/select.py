"""Choosing which values of a network to compute, by name."""

from __future__ import annotations

import difflib
import operator
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from rrm_extract.errors import LayerError
from rrm_extract.graph.binary import Sign
from rrm_extract.graph.program import LINEAR_KINDS, Op, Program, needed_for
from rrm_extract.graph.trace import MethodCall, is_fact

_PRODUCTS = (F.linear, torch.matmul, operator.matmul, MethodCall("matmul"), torch.mm)

__all__ = ["default_layer", "layer_names", "prune", "resolve_layer", "select", "sign_readers"]


def layer_names(program: Program) -> tuple[str, ...]:
    """Names that can be asked for, in the order of execution."""
    return tuple(op.name for op in program.ops if op.kind != "constant")


def resolve_layer(program: Program, name: str) -> str:
    """The value that a layer's name stands for.

    An exact node name, or the name of a module: then the last value computed inside it, as
    torchvision's ``create_feature_extractor`` has it.

    Raises:
        LayerError: there is no such node; the nearest names are told.
    """
    names = layer_names(program)
    if name in names:
        return name
    inside = [candidate for candidate in names if candidate.startswith(f"{name}.")]
    if inside:
        return inside[-1]
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    hint = f"; nearest: {', '.join(near)}" if near else ""
    last = ", ".join(names[-3:])
    msg = (
        f"no layer {name!r} in this network; expected one of its {len(names)} nodes "
        f"(last: {last}){hint}"
    )
    raise LayerError(msg)


def default_layer(program: Program) -> str:
    """The penultimate feature: what the last convolution or fully-connected layer reads.

    Dropout and other identities are looked through: 512 numbers for ResNet-18, the activated
    fc7 for AlexNet and VGG-16. The last value itself where there is no classifier: nothing linear
    precedes the output, or a residual sum comes first, or an ``nn.Identity`` stands in its place.
    """
    by_name = {op.name: op for op in program.ops}
    moving = _moving(program)
    op = by_name.get(program.outputs[0])
    if _stands_for_a_classifier(op, by_name):
        return program.outputs[0]
    while op is not None and op.kind not in LINEAR_KINDS and not _is_product(op, moving):
        inputs = [name for name in op.inputs if name in moving]
        if op.kind == "add" and len(inputs) > 1 and not _are_heads(inputs, by_name, moving):
            return program.outputs[0]
        op = by_name.get(inputs[0]) if inputs else None
    if op is None:
        return program.outputs[0]
    feature = op.inputs[0]
    while feature in by_name and by_name[feature].kind == "identity" and by_name[feature].inputs:
        feature = by_name[feature].inputs[0]
    return feature if feature in by_name else program.outputs[0]


def _stands_for_a_classifier(op: Op | None, by_name: Mapping[str, Op]) -> bool:
    """Whether the output is an ``nn.Identity``'s, and not of a head, enlarged at most."""
    found = False
    while op is not None and op.kind in ("identity", "other"):
        found = found or isinstance(op.call, nn.Identity)
        op = by_name.get(op.inputs[0]) if op.inputs else None
    return found and (op is None or op.kind not in LINEAR_KINDS)


def _are_heads(parts: Sequence[str], by_name: Mapping[str, Op], moving: frozenset[str]) -> bool:
    """Whether a sum is of several classifiers: each gives its part, and none is behind another.

    In a residual sum one part, or what a layer in its place reads, is what the other is made from.
    """
    read = []
    for part in parts:
        op = by_name.get(part)
        while op is not None and op.kind in ("multiply", "identity", "reshape", "other"):
            op = next((by_name.get(name) for name in op.inputs if name in moving), None)
        if op is None or op.kind not in LINEAR_KINDS:
            return False
        read.append(op.inputs[0])
    made_from = (needed_for(by_name[name].inputs, by_name) for name in read if name in by_name)
    return all(needed.isdisjoint(read) for needed in made_from)


def _is_product(op: Op, moving: frozenset[str]) -> bool:
    """Whether it multiplies by weights that are computed, as a classifier of cosines does."""
    return op.call in _PRODUCTS and [name in moving for name in op.inputs[:2]] == [True, False]


def _moving(program: Program) -> frozenset[str]:
    """Names of the values that depend on the network's input, which is one of them."""
    moving = {program.input}
    for op in program.ops:
        if not moving.isdisjoint(op.inputs) and not is_fact(op):
            moving.add(op.name)
    return frozenset(moving)


def select(program: Program, outputs: Sequence[str]) -> Program:
    """The part of a Program that computes ``outputs``, which are names of layers.

    Raises:
        LayerError: one of them is not computed by this Program.
    """
    return prune(replace(program, outputs=tuple(resolve_layer(program, name) for name in outputs)))


def prune(program: Program) -> Program:
    """The Program without the operations that none of its outputs needs."""
    wanted = needed_for(program.outputs, {op.name: op for op in program.ops})
    return replace(program, ops=tuple(op for op in program.ops if op.name in wanted))


def sign_readers(program: Program) -> frozenset[str]:
    """Names of the linear operations whose input holds nothing but signs, perhaps moved about."""
    signs: set[str] = set()
    for op in program.ops:
        moved = op.kind in ("identity", "reshape", "concat") and op.inputs
        if isinstance(op.call, Sign) or (moved and signs.issuperset(op.inputs)):
            signs.add(op.name)
    return frozenset(op.name for op in program.linear_ops if signs.issuperset(op.inputs))
