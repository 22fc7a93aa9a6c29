"""Which share of each layer's weights is kept, from the option or from the paper."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Iterable, Mapping

from ...errors import ConfigError
from .published import PUBLISHED

__all__ = ["layer_densities", "parse_density"]

_EXPECTS = "expected a number above 0 and up to 1, or LAYER=NUMBER, with commas in between"


def parse_density(text: str) -> dict[str | None, float]:
    """Read ``--density``.

    Args:
        text: "0.2" for all layers, "conv1=0.8,fc6=0.1" for some, or both: "0.2,conv1=0.8".

    Returns:
        Density by layer; that of the others under None, if it is there.

    Raises:
        ConfigError: no number, out of range, or a layer named twice.
    """
    densities: dict[str | None, float] = {}
    for part in text.split(","):
        name, equals, number = part.rpartition("=")
        layer = name.strip() if equals else None
        if layer in densities:
            what = "a density for all layers" if layer is None else f"layer {layer!r}"
            raise ConfigError(f"--density {text!r} has {what} twice; {_EXPECTS}")
        densities[layer] = _density(number, text)
    return densities


def _density(number: str, text: str) -> float:
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not 0 < value <= 1:
        raise ConfigError(f"--density {text!r}: {number.strip()!r} is no density; {_EXPECTS}")
    return value


def layer_densities(
    model: str,
    layers: Iterable[str],
    given: Mapping[str | None, float],
    *,
    pruned: Collection[str] = (),
) -> dict[str, float]:
    """The density of each layer.

    Args:
        model: the network's name.
        layers: names of its modules with weights to compress.
        given: see :func:`parse_density`. Layers are named as modules, or as in the paper.
        pruned: those that are compressed already; they keep all that they have.

    Raises:
        ConfigError: a layer has no density, or a given one no layer.
    """
    layers = list(layers)
    published = PUBLISHED[model].layers if model in PUBLISHED else {}
    names = {row.name: module for module, row in published.items()} | {
        name: name for name in layers
    }
    own: dict[str, float] = {}
    for name, density in given.items():
        if name is None:
            continue
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(layers[:4])}, ..."
            raise ConfigError(
                f"--density: {model} has no convolution or linear layer {name!r}; {hint}"
            )
        if names[name] in own:
            raise ConfigError(f"--density: layer {names[name]!r} is given twice, as {name!r} too")
        own[names[name]] = density
    result = {}
    for layer in layers:
        if layer in own:
            result[layer] = own[layer]
        elif None in given:
            result[layer] = given[None]
        elif layer in pruned:
            result[layer] = 1.0
        elif layer in published:
            result[layer] = published[layer].density
        else:
            raise ConfigError(
                f"the paper has no density for layer {layer!r} of {model} (it has AlexNet's and "
                "VGG-16's): give --density NUMBER, for example --density 0.3"
            )
    return result
