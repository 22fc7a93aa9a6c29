"""What the layers of a feature file would take on EIE: a model, nothing that was measured."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from rrm_extract.errors import ConfigError, InputError
from rrm_extract.report.table import number, table
from rrm_extract.rrm.cost import LayerCost
from rrm_extract.rrm.eie import (
    EIE,
    EieMachine,
    Estimate,
    analytic_seconds,
    elementwise_seconds,
    simulate_layer,
)

__all__ = ["EieLayer", "EieModel", "eie_csv_names", "model_on_eie", "read_weight_density"]


@dataclass(frozen=True, kw_only=True)
class EieLayer:
    """Modelled microseconds of one layer for one frame.

    Attributes:
        name: the layer.
        weight_density: share of its weights taken to be non-zero.
        theoretical_us_dense: no zeros skipped.
        theoretical_us_input: without the recurrence, zeros of weights and inputs skipped.
        theoretical_us_delta: with it, on a delta frame. These three are MACs at the peak.
        simulated_us_input, simulated_us_delta: cycle by cycle; None if not asked for.
        simulated_us_input_error, simulated_us_delta_error: their standard errors.
    """

    name: str
    weight_density: float
    theoretical_us_dense: float
    theoretical_us_input: float
    theoretical_us_delta: float
    simulated_us_input: float | None = None
    simulated_us_input_error: float | None = None
    simulated_us_delta: float | None = None
    simulated_us_delta_error: float | None = None

    def speedup(self, kind: str) -> float:
        """Of the recurrence on a delta frame; ``kind`` is "theoretical" or "simulated"."""
        return _ratio(getattr(self, f"{kind}_us_input"), getattr(self, f"{kind}_us_delta"))


@dataclass(frozen=True, kw_only=True)
class EieModel:
    """A network on EIE.

    Attributes:
        machine: the model's parameters.
        layers: each for itself; a frame takes their sum.
        frames, delta_frames: of the file; a key frame takes what it takes without the recurrence.
        theoretical_us_elementwise: what Eq. 6 adds to the deltas' MACs, in all layers.
        simulated: whether cycles were counted.
    """

    machine: EieMachine
    layers: tuple[EieLayer, ...]
    frames: int
    delta_frames: int
    theoretical_us_elementwise: float
    simulated: bool

    def totals(self) -> dict[str, float]:
        """Of the whole network, microseconds for one frame, and what the recurrence wins."""
        totals = {
            "theoretical_us_dense": self._sum("theoretical_us_dense"),
            "theoretical_us_elementwise": self.theoretical_us_elementwise,
        }
        for kind in self._kinds():
            plain, delta = self._sum(f"{kind}_us_input"), self._sum(f"{kind}_us_delta")
            keys = self.frames - self.delta_frames
            deltas = delta * self.delta_frames if self.delta_frames else 0.0
            mean = (plain * keys + deltas) / self.frames if self.frames else math.nan
            totals[f"{kind}_us_input"] = plain
            totals[f"{kind}_us_delta"] = delta
            totals[f"{kind}_us_mean"] = mean
            totals[f"{kind}_speedup_delta_frames"] = _ratio(plain, delta)
            totals[f"{kind}_speedup"] = _ratio(plain, mean)
        dense = totals["theoretical_us_dense"]
        for of in ("input", "delta", "mean"):
            totals[f"theoretical_speedup_over_dense_{of}"] = _ratio(
                dense, totals[f"theoretical_us_{of}"]
            )
        if self.simulated:
            for of in ("input", "delta"):
                errors = [getattr(layer, f"simulated_us_{of}_error") for layer in self.layers]
                totals[f"simulated_us_{of}_error"] = math.sqrt(sum(e * e for e in errors))
        return totals

    def to_json(self) -> dict[str, Any]:
        """Everything."""
        return {
            "kind": "modelled, not measured",
            "machine": asdict(self.machine),
            "layers": [
                {
                    **{name: value for name, value in asdict(layer).items() if value is not None},
                    **{f"{kind}_speedup": layer.speedup(kind) for kind in self._kinds()},
                }
                for layer in self.layers
            ],
            "totals": self.totals(),
        }

    def to_text(self) -> str:
        """A table of layers and the totals, for a person."""
        head = ["layer", "weight density"]
        for kind in self._kinds():
            head += [f"{kind} us, plain", "us, deltas", "speedup"]
        rows = [self._row(layer) for layer in self.layers]
        return "\n".join(
            [
                f"Modelled on EIE ({self.machine.pes} PEs at {self.machine.clock_hz / 1e6:.0f} "
                "MHz, arXiv 1602.01528): microseconds for a frame, theoretical, not measured",
                "",
                table(head, rows),
                "",
                self._summary(),
                "",
                "Not counted: subtracting inputs and adding to outputs (Eq. 6), "
                f"{number(self.theoretical_us_elementwise, 2)} us at one element in each PE and "
                "cycle.",
            ]
        )

    def _summary(self) -> str:
        totals = self.totals()
        kinds = self._kinds()
        dense = number(totals["theoretical_us_dense"], 2)
        rows = [["dense, no zeros skipped", dense, *[""] * (2 * len(kinds))]]
        for label, of, speedup in (
            ("without the recurrence", "input", ""),
            ("with it, delta frames", "delta", "speedup_delta_frames"),
            ("with it, all frames", "mean", "speedup"),
        ):
            row = [label]
            for kind in kinds:
                row.append(_us(totals, f"{kind}_us_{of}"))
                if kind == "theoretical":
                    row.append(number(totals[f"theoretical_speedup_over_dense_{of}"], 2))
                row.append(number(totals[f"{kind}_{speedup}"], 2) if speedup else "")
            rows.append(row)
        head = ["the network"]
        for kind in kinds:
            head += [f"{kind} us", *(["over dense"] if kind == "theoretical" else []), "speedup"]
        return table(head, rows)

    def _kinds(self) -> tuple[str, ...]:
        return ("theoretical", "simulated") if self.simulated else ("theoretical",)

    def _sum(self, name: str) -> float:
        return float(sum(getattr(layer, name) for layer in self.layers))

    def _row(self, layer: EieLayer) -> list[str]:
        row = [layer.name, number(layer.weight_density)]
        for kind in self._kinds():
            row += [
                _us(asdict(layer), f"{kind}_us_input"),
                _us(asdict(layer), f"{kind}_us_delta"),
                number(layer.speedup(kind), 2),
            ]
        return row


def model_on_eie(
    layers: Sequence[LayerCost],
    *,
    frames: int,
    delta_frames: int,
    weight_density: float | Mapping[str, float] = 1.0,
    cycles: bool = False,
    machine: EieMachine = EIE,
    seed: int = 0,
) -> EieModel:
    """Models the layers of a file.

    Args:
        layers: with the densities of their inputs and deltas.
        frames: how many there were.
        delta_frames: those of them that were not key frames.
        weight_density: share of non-zero weights, of all layers or by name; a layer without a name
            there keeps all of its weights.
        cycles: whether to simulate, too, which takes seconds.
        machine: the model's parameters.
        seed: of the simulated weights and activations.

    Raises:
        ConfigError: a weight density is not between 0 and 1, or belongs to no layer.
        InputError: ``cycles``, and the channels of a layer are not known.
    """
    densities = _by_layer(weight_density, layers)
    modelled = []
    for layer in layers:
        density = densities[layer.name]
        theoretical = {
            f"theoretical_us_{of}": 1e6
            * analytic_seconds(layer, of=of, weight_density=density, machine=machine)
            for of in ("dense", "input", "delta")
        }
        simulated = _simulated(layer, density, machine, seed) if cycles else {}
        modelled.append(
            EieLayer(name=layer.name, weight_density=density, **theoretical, **simulated)
        )
    return EieModel(
        machine=machine,
        layers=tuple(modelled),
        frames=frames,
        delta_frames=delta_frames,
        theoretical_us_elementwise=1e6
        * sum(elementwise_seconds(layer, machine=machine) for layer in layers),
        simulated=cycles,
    )


def eie_csv_names(model: EieModel | None) -> dict[str, str]:
    """The attributes of :class:`EieLayer` that a table shows, with the names of its columns."""
    if model is None:
        return {}
    names = [field.name for field in fields(EieLayer) if field.name != "name"]
    if not model.simulated:
        names = [name for name in names if not name.startswith("simulated")]
    return {name: f"eie_{name}" for name in names}


def read_weight_density(given: str) -> float | dict[str, float]:
    """A number, or the path of a JSON file with an object of numbers by layer.

    Raises:
        ConfigError: it is neither.
    """
    try:
        return float(given)
    except ValueError:
        pass
    try:
        values = json.loads(Path(given).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        msg = (
            f"weight density {given!r} is neither a number nor a readable JSON file ({error}); "
            'expected 0 to 1, or a file such as {"fc6": 0.09}'
        )
        raise ConfigError(msg) from error
    if not isinstance(values, dict) or not all(_is_number(value) for value in values.values()):
        msg = f'{given} is no object of numbers by layer; expected one such as {{"fc6": 0.09}}'
        raise ConfigError(msg)
    return {name: float(value) for name, value in values.items()}


def _simulated(
    layer: LayerCost, weight_density: float, machine: EieMachine, seed: int
) -> dict[str, float]:
    if layer.channels is None:
        msg = (
            f"the file does not say how many channels {layer.name} has, for an earlier version "
            "made it; extract its features again, or leave --eie-cycles out"
        )
        raise InputError(msg)
    values = {}
    for of, density in (("input", layer.density), ("delta", layer.density_delta)):
        estimate = Estimate(cycles=math.nan, standard_error=math.nan, samples=0, share=0.0)
        if density == density:  # there were such frames
            estimate = simulate_layer(
                layer,
                min(density, 1.0),  # a mean of ones can be more by rounding
                weight_density=weight_density,
                random=np.random.default_rng([seed, *layer.name.encode()]),
                machine=machine,
            )
        values[f"simulated_us_{of}"] = 1e6 * machine.seconds(estimate.cycles)
        values[f"simulated_us_{of}_error"] = 1e6 * machine.seconds(estimate.standard_error)
    return values


def _by_layer(
    weight_density: float | Mapping[str, float], layers: Sequence[LayerCost]
) -> dict[str, float]:
    names = [layer.name for layer in layers]
    if isinstance(weight_density, Mapping):
        for name in weight_density:
            if name not in names:
                some = ", ".join(names[:3]) or "none"
                msg = f"weight density of a layer {name!r}; expected one of {len(names)}: {some}"
                raise ConfigError(msg)
        densities = {name: weight_density.get(name, 1.0) for name in names}
    else:
        densities = dict.fromkeys(names, weight_density)
    for name, density in densities.items():
        if not 0 <= density <= 1:
            msg = f"weight density of {name} is {density}; expected 0 to 1"
            raise ConfigError(msg)
    return densities


def _us(values: Mapping[str, Any], name: str) -> str:
    """Microseconds, with their standard error where there is one."""
    error = values.get(f"{name}_error")
    text = number(values[name], 2)
    return text if error is None or error != error else f"{text} ±{number(error, 2)}"


def _ratio(plain: float, delta: float) -> float:
    if delta != delta or plain != plain:
        return math.nan
    return plain / delta if delta else (math.inf if plain else math.nan)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
