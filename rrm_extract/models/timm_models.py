"""Networks of timm: ``timm/NAME`` or ``timm/NAME.TAG``."""

from __future__ import annotations

import difflib
import importlib
import math
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.transforms.functional import to_pil_image

from ..errors import ModelError, WeightsError
from .checkpoint import all_nan_keys, load_chosen_file
from .download import TIMEOUT_SECONDS, network_timeout, one_line
from .frames import check_frames
from .loaded import LoadedModel, Transform, freeze, hash_state
from .placement import Placement, centred, check_frame_size
from .weights import WeightsChoice, seeded

__all__ = ["PREFIX", "TimmTransform", "current_name", "is_timms_own", "load_timm"]

PREFIX = "timm/"

_LIBRARY = "timm"
"""In the description of an input: that it is timm's own."""

_TRACEABLE = frozenset({"Conv2dSame", "StdConv2dSame", "ScaledStdConv2dSame", "NormFreeBlock"})
"""Modules that timm has torch.fx not trace into, which can be traced: with ``pad_same`` as one
operation, and with operations in place."""

_HUB_FILES = ("model.safetensors", "pytorch_model.bin")
"""What timm looks for in a hub repository, in this order."""


@dataclass(frozen=True, kw_only=True)
class TimmTransform:
    """timm's own evaluation transform, which works on PIL images.

    Call it with (T, 3, H, W) uint8 RGB frames to get (T, *input_size) float32, frame by frame.
    """

    input_size: tuple[int, int, int]
    """(C, h, w) of the network's input."""
    interpolation: str
    """"bilinear", "bicubic", ..."""
    mean: tuple[float, ...]
    """Of pixel values in 0..1."""
    std: tuple[float, ...]
    crop_pct: float
    """Share of the resized frame that the crop keeps, 0..1."""
    crop_mode: str
    """"center", "squash" or "border"."""

    @property
    def output_shape(self) -> tuple[int, int, int]:
        """One frame of network input: (C, h, w)."""
        return self.input_size

    def describe(self) -> dict[str, object]:
        """JSON-able: timm's data configuration."""
        return {
            "library": _LIBRARY,
            "input_size": list(self.input_size),
            "interpolation": self.interpolation,
            "mean": list(self.mean),
            "std": list(self.std),
            "crop_pct": self.crop_pct,
            "crop_mode": self.crop_mode,
        }

    def place(self, height: int, width: int) -> Placement:
        """Where a frame of this size (pixels) comes to lie.

        Raises:
            PreprocessError: the frame has no pixels.
        """
        check_frame_size(height, width)
        rows, columns = (math.floor(side / self.crop_pct) for side in self.input_size[1:])
        if self.crop_mode == "squash":
            resized = (rows, columns)
        elif self.crop_mode == "border":
            ratio = max(height / rows, width / columns)
            resized = (round(height / ratio), round(width / ratio))
        elif rows != columns:
            ratio = min(height / rows, width / columns)
            resized = (round(height / ratio), round(width / ratio))
        else:  # torchvision's resize, which rounds down
            shorter = min(height, width)
            resized = (int(rows * height / shorter), int(rows * width / shorter))
        return centred(*resized, size=self.input_size[1:])

    def undo(self, points: Tensor, height: int, width: int) -> Tensor:
        """Where points of the network's input lie in the frame; see :meth:`Placement.undo`."""
        return self.place(height, width).undo(points, height, width)

    def __call__(self, frames: Tensor, /) -> Tensor:
        """(T, 3, H, W) uint8 RGB -> (T, *input_size) float32; PreprocessError on other input."""
        check_frames(frames)
        transform = importlib.import_module("timm.data").create_transform(
            input_size=self.input_size,
            interpolation=self.interpolation,
            mean=self.mean,
            std=self.std,
            crop_pct=self.crop_pct,
            crop_mode=self.crop_mode,
            is_training=False,
        )
        out = torch.empty((len(frames), *self.input_size), dtype=torch.float32, device="cpu")
        for target, frame in zip(out, frames, strict=True):
            target.copy_(transform(to_pil_image(frame)))
        return out


def is_timms_own(description: Mapping[str, object] | None) -> bool:
    """Whether a description of an input is none, or one of :class:`TimmTransform`."""
    return description is None or description.get("library") == _LIBRARY


def load_timm(name: str, choice: WeightsChoice, preprocess: Transform | None) -> LoadedModel:
    """Build ``timm/NAME`` with the weights of ``choice``; a weights name is one of timm's tags.

    Raises:
        ModelError: timm is not installed, or has no such network.
        WeightsError: the weights cannot be had, or do not fit.
    """
    timm = _import_timm()
    timm_name = _current_name(timm, name.removeprefix(PREFIX))
    if choice.kind == "named":
        timm_name = _with_tag(timm, timm_name, choice.text)
    if not _is_known(timm, timm_name):
        near = difflib.get_close_matches(timm_name, timm.list_models(), n=3)
        hint = f"did you mean {', '.join(PREFIX + found for found in near)}?" if near else ""
        raise ModelError(f"timm has no model {timm_name!r}; {hint}".rstrip("; "))
    if choice.kind in ("default", "named"):
        module = _pretrained(timm, name, timm_name)
    else:
        with seeded(choice.seed):
            module = timm.create_model(timm_name, pretrained=False)
    unexpected = load_chosen_file(module, choice)
    freeze(module)
    transform: Transform = preprocess or _own_transform(module)
    registry = importlib.import_module("timm.models")
    present = {type(part) for part in module.modules()}
    leaf_modules = {
        leaf
        for leaf in registry.get_notrace_modules()
        if any(issubclass(kind, leaf) for kind in present) and leaf.__name__ not in _TRACEABLE
    }
    leaf_functions = [entry for entry in registry.get_notrace_functions() if callable(entry)]
    # Which looks at the size of what it pads.
    leaf_functions.append(importlib.import_module("timm.layers.padding").pad_same)
    own_weights = choice.kind in ("default", "named")
    return LoadedModel(
        name=name,
        architecture=PREFIX + _full_name(module) if own_weights else None,
        module=module,
        transform=transform,
        preprocess=transform.describe(),
        input_shape=transform.output_shape,
        weights_id=f"timm:{_full_name(module)}" if own_weights else choice.weights_id,
        weights_sha256=hash_state(module),
        missing_keys=all_nan_keys(module),
        unexpected_keys=unexpected,
        leaf_modules=tuple(sorted(leaf_modules, key=_qualified)),
        leaf_functions=tuple(sorted(leaf_functions, key=_qualified)),
        source="timm",
    )


def _import_timm() -> ModuleType:
    try:
        return importlib.import_module("timm")
    except ImportError as error:
        raise ModelError(
            f'timm/NAME needs timm ({error}): pip install "rrm-extract[timm]"'
        ) from error


def current_name(name: str) -> str:
    """What timm calls ``timm/NAME`` now, if it has called it otherwise.

    Raises:
        ModelError: timm is not installed.
    """
    return PREFIX + _current_name(_import_timm(), name.removeprefix(PREFIX))


def _current_name(timm: ModuleType, timm_name: str) -> str:
    """What timm calls now what it used to call ``timm_name``: it lists no weights for old names."""
    renamed: dict[str, str | None] = getattr(timm.models, "get_deprecated_models", dict)()
    return renamed.get(timm_name) or timm_name


def _is_known(timm: ModuleType, timm_name: str) -> bool:
    architecture, _, tag = timm_name.partition(".")
    if not timm.is_model(architecture):
        return False
    return not tag or timm_name in timm.list_pretrained(f"{architecture}.*")


def _with_tag(timm: ModuleType, timm_name: str, tag: str) -> str:
    architecture = timm_name.partition(".")[0]
    known = timm.list_pretrained(f"{architecture}.*")
    if f"{architecture}.{tag}" in known:
        return f"{architecture}.{tag}"
    tags = ", ".join(entry.partition(".")[2] for entry in known) or "none"
    raise WeightsError(
        f"timm's {architecture} has no weights {tag!r}; it has {tags}; "
        "or give default, random:SEED, or a file"
    )


def _pretrained(timm: ModuleType, name: str, timm_name: str) -> nn.Module:
    config = timm.get_pretrained_cfg(timm_name)
    repository = getattr(config, "hf_hub_id", None)
    if not repository and not getattr(config, "url", None):
        raise WeightsError(
            f"timm has no weights for {timm_name}: give --weights FILE, or --weights random:0 for "
            "an untrained network"
        )
    overlay: dict[str, object] = {}
    cached = None
    if repository:
        cached = _find_in_hub_cache(repository)
        if cached is None:
            _check_hub(name, repository)
        else:
            # Named outright: asked for by repository, the hub is called even for a cached file.
            # Nor is it of the kind that some networks read by themselves where a file is named.
            overlay = {"file": str(cached), "custom_load": False}
    try:
        with seeded(None), network_timeout():
            module: nn.Module = timm.create_model(
                timm_name, pretrained=True, pretrained_cfg_overlay=overlay
            )
    except Exception as error:  # of a damaged file, and of its hub, timm raises whatever comes
        if cached is None:
            raise _refusal(name, repository or config.url, error) from error
        # The cache has links to files, and links anew to a file that is still there.
        raise WeightsError(
            f"the cached file {cached} of weights {repository} of {name} is damaged, or of another "
            f"network ({one_line(error)}): delete {cached.resolve()}, then run the same command "
            "again"
        ) from error
    return module


def _find_in_hub_cache(repository: str) -> Path | None:
    hub = importlib.import_module("huggingface_hub")
    for file in _HUB_FILES:
        found = hub.try_to_load_from_cache(repository, file)
        if isinstance(found, str):
            return Path(found)
    return None


def _check_hub(name: str, repository: str) -> None:
    """Fail now where there is no network: the hub's client tries for most of a minute."""
    constants = importlib.import_module("huggingface_hub.constants")
    url = f"{constants.ENDPOINT}/{repository}/resolve/main/{_HUB_FILES[0]}"
    try:
        # The address comes from timm's table, not from the user.
        request = urllib.request.Request(url, method="HEAD")  # noqa: S310
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS):  # noqa: S310
            pass
    except urllib.error.HTTPError:
        return  # somebody answered: let the client find out
    except OSError as error:
        raise _refusal(name, repository, error) from error


def _refusal(name: str, source: str, error: Exception) -> WeightsError:
    constants = importlib.import_module("huggingface_hub.constants")
    url = (
        source if "://" in source else f"{constants.ENDPOINT}/{source}/resolve/main/{_HUB_FILES[0]}"
    )
    return WeightsError(
        f"weights {source} of {name} are neither in the hub's cache ({constants.HF_HUB_CACHE}) nor "
        f"downloadable ({one_line(error)}): fetch {url} elsewhere and give it as --weights FILE, "
        "or give --weights random:0 for an untrained network"
    )


def _own_transform(module: nn.Module) -> TimmTransform:
    config = importlib.import_module("timm.data").resolve_data_config({}, model=module)
    return TimmTransform(
        input_size=tuple(config["input_size"]),
        interpolation=config["interpolation"],
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        crop_pct=config["crop_pct"],
        crop_mode=config["crop_mode"],
    )


def _full_name(module: Any) -> str:
    """Such as "resnet18.a1_in1k"."""
    config = module.pretrained_cfg
    return ".".join(str(config[key]) for key in ("architecture", "tag") if config.get(key))


def _qualified(entry: type | Callable[..., object]) -> str:
    return f"{entry.__module__}.{entry.__qualname__}"
