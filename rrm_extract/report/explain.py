"""How the engine would run a network: its steps in order, and what stays plain PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from rrm_extract.engine import NativeNetwork, choose_engine
from rrm_extract.engine.parts import Assembly, Part, Rearrangement
from rrm_extract.engine.plan import (
    NO_ACTIVATION,
    Activation,
    ConvStep,
    GatherStep,
    GlobalAverageStep,
    PlanTensor,
    PointwiseStep,
    PoolStep,
    Step,
    Window,
)
from rrm_extract.graph import default_layer, fold, select
from rrm_extract.models import load_model
from rrm_extract.report.network import any_weights, layer_costs
from rrm_extract.report.table import number, table

__all__ = ["ExplainedIsland", "ExplainedStep", "Explanation", "explain_network"]

_HEAD = ("step", "kernel", "fused", "output", "break-even", "MMACs")


@dataclass(frozen=True, kw_only=True)
class ExplainedStep:
    """One operation of the engine.

    Attributes:
        name: of the last operation of the network that it does.
        kernel: which kernel runs it.
        fused: what it does at its end, in order.
        output: (C, H, W) of one frame.
        break_even: density of the deltas from which on it runs dense; None for a step without one.
        macs: dense multiply-accumulates of one frame; 0 where there is no weight.
    """

    name: str
    kernel: str
    fused: tuple[str, ...]
    output: tuple[int, ...]
    break_even: float | None
    macs: int


@dataclass(frozen=True, kw_only=True)
class ExplainedIsland:
    """An operation that runs as plain PyTorch.

    Attributes:
        name: of the operation.
        reason: why it has no native step.
        macs: dense multiply-accumulates of one frame.
        share: of the MACs of the linear layers; 0 for what is none of them, attention for example.
    """

    name: str
    reason: str
    macs: int
    share: float


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """How a network up to its feature would be run.

    Attributes:
        name: of the network, as it was asked for.
        layer: whose value is the feature.
        engine: "native" or "torch".
        isa: instruction set of the native kernels; "" for torch.
        reason: why it is torch; "" if nothing was missing.
        macs: of one frame, linear layers.
        steps: of the native engine, islands among them as the kernel "torch".
        islands: the operations that run as plain PyTorch, in order.
        batch: frames that pass a layer together at most; None for torch.
        alone: the island for which frames pass all layers one by one; None where they need not.
        state_bytes: memory that each lane has for itself, weights apart; None for torch.
    """

    name: str
    layer: str
    engine: str
    isa: str
    reason: str
    macs: int
    steps: tuple[ExplainedStep, ...]
    islands: tuple[ExplainedIsland, ...]
    batch: int | None = None
    alone: str | None = None
    state_bytes: int | None = None

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        return asdict(self)

    def to_text(self) -> str:
        """For a person."""
        if self.engine != "native":
            why = f": {self.reason}" if self.reason else ""
            return f"{self.name}, layer {self.layer}: PyTorch alone{why}"
        megabytes = number((self.state_bytes or 0) / 1e6, 1)
        lines = [
            f"{self.name}, layer {self.layer}: native engine, {self.isa} kernels",
            "",
            table(_HEAD, [_row(step) for step in self.steps], left=3),
            "",
            f"{number(self.macs / 1e6, 1)} MMACs a frame; a layer runs dense when the density of "
            "its deltas is above its break-even",
            f"{self._together()}; the state of a lane takes {megabytes} MB",
        ]
        if not self.islands:
            lines.append("no islands: every operation is native")
            return "\n".join(lines)
        lines.append(f"islands, run as plain PyTorch ({_percent(self._share())} of these MACs):")
        lines += [
            f"  {island.name}: {island.reason} ({_percent(island.share)})"
            for island in self.islands
        ]
        return "\n".join(lines)

    def _together(self) -> str:
        if self.alone is None:
            return f"up to {self.batch} frames pass a layer together"
        return f"frames pass all layers one by one, for {self.alone} might mix them"

    def _share(self) -> float:
        return sum(island.share for island in self.islands)


def explain_network(name: str, *, preprocess: str | None = None) -> Explanation:
    """Explains a network by name, with weights that need no download.

    Args:
        name: as for an extraction.
        preprocess: description of the network's input, for models without one of their own.

    Raises:
        UsageError: there is no such network, or it cannot be traced.
    """
    model = load_model(name, weights=any_weights(name), preprocess=preprocess)
    whole = model.trace()
    layer = default_layer(whole)
    program = fold(select(whole, (layer,)))
    choice = choose_engine("auto")
    if choice.engine != "native":
        return Explanation(
            name=name,
            layer=layer,
            engine=choice.engine,
            isa=choice.isa,
            reason=choice.reason,
            macs=sum(cost.macs for cost in layer_costs(program, model.input_shape)),
            steps=(),
            islands=(),
        )
    network = NativeNetwork(program, input_shape=model.input_shape)
    names = program.linear_names()
    macs = dict(zip(names, (cost.macs for cost in network.stats()), strict=True))
    # Some of a lane's memory is taken when it is needed first, as where layers begin to run dense.
    frames = 2 * network.batch + 1
    network.run(torch.rand(frames, *model.input_shape, dtype=torch.float32, device="cpu"))
    total = sum(macs.values())
    steps: list[ExplainedStep] = []
    islands: list[ExplainedIsland] = []
    for item in network.sequence:
        if isinstance(item, Part):
            steps += [_explained(step, names, macs) for step in item.steps]
        elif isinstance(item, Rearrangement):
            steps.append(_simple(item.out.name, "transpose", _size(item.out)))
        elif isinstance(item, Assembly):
            steps.append(_simple(item.out.name, "move", _size(item.out)))
        else:
            own = macs.get(item.op.name, 0)
            label = names.get(item.op.name, item.op.name)
            share = own / total if total else 0.0
            output = () if item.out is None else _size(item.out)
            steps.append(
                ExplainedStep(
                    name=label, kernel="torch", fused=(), output=output, break_even=None, macs=own
                )
            )
            islands.append(ExplainedIsland(name=label, reason=item.reason, macs=own, share=share))
    return Explanation(
        name=name,
        layer=layer,
        engine="native",
        isa=network.isa,
        reason="",
        macs=total,
        steps=tuple(steps),
        islands=tuple(islands),
        batch=network.batch,
        alone=None if network.alone is None else names.get(network.alone, network.alone),
        state_bytes=network.state_bytes(),
    )


def _explained(step: Step, names: Mapping[str, str], macs: Mapping[str, int]) -> ExplainedStep:
    if isinstance(step, ConvStep):
        residual = () if step.residual is None else (f"+ {step.residual.name}",)
        return ExplainedStep(
            name=names.get(step.name, step.name),
            kernel=step.form,
            fused=(
                *_scale(step.scale),
                *residual,
                *_activation(step.activation),
                *_maximum(step.pool),
            ),
            output=_size(step.out),
            break_even=step.delta.break_even,
            macs=macs.get(step.name, 0),
        )
    if isinstance(step, PoolStep):
        kind = "maximum" if step.maximum else "average"
        return _simple(step.name, _window(kind, step.window), _size(step.out))
    if isinstance(step, GlobalAverageStep):
        return _simple(step.name, "average of all", _size(step.out))
    if isinstance(step, PointwiseStep):
        what = "pointwise" if len(step.inputs) == 1 else "product" if step.multiply else "sum"
        fused = (*_scale(step.scale), *_activation(step.activation))
        return _simple(step.name, what, _size(step.out), fused)
    kernel = "gather" if isinstance(step, GatherStep) else type(step).__name__
    return _simple(step.name, kernel, _size(step.out))


def _simple(
    name: str, kernel: str, output: tuple[int, ...], fused: tuple[str, ...] = ()
) -> ExplainedStep:
    return ExplainedStep(
        name=name, kernel=kernel, fused=fused, output=output, break_even=None, macs=0
    )


def _scale(scale: object) -> tuple[str, ...]:
    return () if scale is None else ("scale",)


def _activation(activation: Activation) -> tuple[str, ...]:
    return () if activation == NO_ACTIVATION else (activation.kind,)


def _maximum(window: Window | None) -> tuple[str, ...]:
    return () if window is None else (_window("maximum", window),)


def _window(kind: str, window: Window) -> str:
    rows, columns = window.kernel
    return f"{kind} {rows}x{columns}"


def _size(tensor: PlanTensor) -> tuple[int, int, int]:
    return tensor.channels, tensor.height, tensor.width


def _row(step: ExplainedStep) -> list[str]:
    return [
        step.name,
        step.kernel,
        ", ".join(step.fused),
        "x".join(map(str, step.output)),
        number(step.break_even, 3) if step.break_even is not None else "-" if step.macs else "",
        number(step.macs / 1e6, 1) if step.macs else "",
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
