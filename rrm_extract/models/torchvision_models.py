"""torchvision's classification networks: the list, and how one is built."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from torch import nn
from torchvision import models

from ..errors import PreprocessError, WeightsError
from .checkpoint import all_nan_keys, load_chosen_file
from .download import ensure_cached
from .entry import ModelEntry
from .loaded import LoadedModel, Transform, freeze, hash_state
from .preset import from_preset
from .weights import WeightsChoice, seeded

__all__ = ["is_torchvision_model", "load_torchvision", "torchvision_entries"]

_NOT_CNN = frozenset({"vision_transformer", "swin_transformer", "maxvit"})
"""Families that compute attention."""

_PAPER = frozenset({"alexnet", "vgg16", "resnet18"})
"""The networks of the paper's tables."""

_AUX_HEADS = {"googlenet": ("aux1", "aux2"), "inception_v3": ("AuxLogits",)}
"""Heads that exist for training only."""


def torchvision_entries() -> list[ModelEntry]:
    """Every classification network of torchvision, by name. Nothing is built or downloaded."""
    return [_entry(name) for name in _names()]


def is_torchvision_model(name: str) -> bool:
    """Whether ``name`` is one of torchvision's classification networks."""
    return name in _names()


def _names() -> list[str]:
    return sorted(models.list_models(module=models))


def _entry(name: str) -> ModelEntry:
    family = models.get_model_builder(name).__module__.rpartition(".")[2]
    default = models.get_model_weights(name).DEFAULT
    n_parameters = default.meta.get("num_params")
    return ModelEntry(
        name=name,
        family=family,
        source="torchvision",
        is_cnn=family not in _NOT_CNN,
        paper=name in _PAPER,
        default_weights=repr(default),
        n_parameters=int(n_parameters) if n_parameters is not None else None,
        input_shape=from_preset(default.transforms()).output_shape,
    )


def load_torchvision(name: str, choice: WeightsChoice, preprocess: Transform | None) -> LoadedModel:
    """Build ``name`` with the weights of ``choice``.

    Without ``preprocess`` the transform is that of the published weights that are chosen, by name
    or by the name of their file; of others that of the network's default weights.

    The architecture does not depend on ``choice``: googlenet and inception_v3 always transform
    their input as their published weights need it, and have no heads for training. But vision
    transformers are made for one size of frames: that of the published weights that are chosen by
    name, and else that of the transform. Random weights are those that torchvision itself would
    draw.

    Raises:
        WeightsError: the weights cannot be had, or do not fit.
        PreprocessError: a vision transformer cannot be made for the size of the frames.
    """
    default = models.get_model_weights(name).DEFAULT
    entry = None
    unexpected: frozenset[str] = frozenset()
    if choice.kind in ("default", "named"):
        entry = default if choice.kind == "default" else _find_weights(name, choice.text)
    published = entry or _published_as(name, choice)
    transform: Transform = preprocess or from_preset((published or default).transforms())
    is_assumed = choice.kind == "file" and preprocess is None and published is None
    if entry is not None:
        ensure_cached(name, entry.url, weights_id=repr(entry))
        with seeded(None):  # the constructor draws weights before the real ones are loaded
            module = _drop_aux_heads(models.get_model(name, weights=entry, progress=False), name)
    else:
        with seeded(choice.seed):
            module = models.get_model(name, weights=None, **_construction(name, transform))
        unexpected = load_chosen_file(module, choice)
        module = _drop_aux_heads(module, name)
    freeze(module)
    return LoadedModel(
        name=name,
        module=module,
        transform=transform,
        preprocess=transform.describe(),
        assumed_transform=repr(default) if is_assumed and _has_several_transforms(name) else None,
        input_shape=transform.output_shape,
        weights_id=repr(entry) if entry is not None else choice.weights_id,
        weights_sha256=hash_state(module),
        missing_keys=all_nan_keys(module),
        unexpected_keys=unexpected,
        source="torchvision",
        categories=tuple(entry.meta["categories"]) if entry is not None else None,
    )


def _published_as(name: str, choice: WeightsChoice) -> Any:
    """The published weights whose file has the name of the chosen one; None if there are none."""
    if choice.kind != "file":
        return None
    file = Path(choice.text).name
    published = models.get_model_weights(name)
    return next((entry for entry in published if Path(urlparse(entry.url).path).name == file), None)


def _has_several_transforms(name: str) -> bool:
    published = models.get_model_weights(name)
    return len({from_preset(entry.transforms()) for entry in published}) > 1


def _construction(name: str, transform: Transform) -> dict[str, Any]:
    if name.startswith("vit_"):
        shape = transform.output_shape
        side, patch = shape[-1], int(name.rpartition("_")[2])
        if shape != (3, side, side) or side % patch:
            raise PreprocessError(
                f"{name} takes 3xSxS with S a multiple of {patch}, preprocess gives "
                f"{'x'.join(map(str, shape))}: change crop or layout"
            )
        return {"image_size": side}
    if name not in _AUX_HEADS:
        return {}
    # init_weights=True is what None means, without the warning that it will change.
    return {"transform_input": True, "init_weights": True}


def _drop_aux_heads(module: nn.Module, name: str) -> nn.Module:
    for head in _AUX_HEADS.get(name, ()):
        module.aux_logits = False  # type: ignore[assignment]
        setattr(module, head, None)
    return module


def _find_weights(name: str, text: str) -> Any:
    """The weights called "IMAGENET1K_V2" or "ResNet50_Weights.IMAGENET1K_V2"."""
    enum = models.get_model_weights(name)
    known = {entry.name: entry for entry in enum} | {repr(entry): entry for entry in enum}
    if text in known:
        return known[text]
    near = difflib.get_close_matches(text, known, n=1)
    hint = f"did you mean {near[0]}?" if near else "or default, random:SEED, or a file"
    raise WeightsError(
        f"{name} has no weights {text!r}; it has {', '.join(entry.name for entry in enum)}; {hint}"
    )
