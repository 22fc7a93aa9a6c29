"""From frames to network input, described by nine numbers.

The arithmetic is that of torchvision's ``ImageClassification`` preset, to the bit: an integer
resize of the shorter side (rounded back to uint8), a centre crop, scaling and normalisation.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from ..config.jobfile import read_yaml
from ..errors import ConfigError, PreprocessError
from .frames import check_frames
from .letterbox import Letterbox
from .placement import Placement, centred, check_frame_size

__all__ = ["EXAMPLE", "Preprocess", "parse_preprocess"]

EXAMPLE = "resize=256,crop=224,scale=255,channels=bgr,mean=104/117/123,std=1/1/1,layout=nhwc"
"""An inline description, for messages."""

_REQUIRED = ("resize", "crop", "mean", "std")
_CHOICES: dict[str, tuple[object, ...]] = {
    "interpolation": ("bilinear", "bicubic"),
    "antialias": (True, False),
    "scale": (1, 255),
    "channels": ("rgb", "bgr"),
    "layout": ("nchw", "nhwc"),
}
_KEYS = (*_REQUIRED, *_CHOICES)
_LETTERBOX_KEYS = ("letterbox", "fill", "scale", "channels", "mean", "std", "layout")
_WORDS: dict[str, object] = {"true": True, "false": False}
_SUFFIXES = (".yaml", ".yml", ".json")


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """A transform that is its own description.

    Call it with (T, 3, H, W) uint8 RGB frames to get (T, *output_shape) float32. Frames are
    taken one by one, so a result never depends on the frames around it, and the float copy that
    resizing needs exists for one frame at a time.
    """

    resize: int
    """Length of the shorter side after resizing, pixels. The longer side keeps the aspect."""
    crop: tuple[int, int]
    """(h, w) of the centre crop, pixels; black is added where the resized frame is smaller."""
    mean: tuple[float, float, float]
    """Subtracted per channel, in the network's channel order, after scaling."""
    std: tuple[float, float, float]
    """Divided by per channel, in the network's channel order."""
    interpolation: str = "bilinear"
    """"bilinear" or "bicubic"."""
    antialias: bool = True
    scale: int = 1
    """Largest pixel value before normalising: 1 (0..1) or 255 (0..255)."""
    channels: str = "rgb"
    """"rgb" or "bgr": the network's channel order."""
    layout: str = "nchw"
    """"nchw" or "nhwc": the network's layout."""

    @property
    def output_shape(self) -> tuple[int, int, int]:
        """One frame of network input: (3, h, w), or (h, w, 3) for layout "nhwc"."""
        height, width = self.crop
        return (3, height, width) if self.layout == "nchw" else (height, width, 3)

    def describe(self) -> dict[str, object]:
        """JSON-able, and accepted by :func:`parse_preprocess`."""
        return {
            "resize": self.resize,
            "crop": list(self.crop),
            "mean": list(self.mean),
            "std": list(self.std),
            "interpolation": self.interpolation,
            "antialias": self.antialias,
            "scale": self.scale,
            "channels": self.channels,
            "layout": self.layout,
        }

    def place(self, height: int, width: int) -> Placement:
        """Where a frame of this size (pixels) comes to lie.

        Raises:
            PreprocessError: the frame has no pixels.
        """
        check_frame_size(height, width)
        # As torchvision's resize rounds.
        if width <= height:
            resized = (int(self.resize * height / width), self.resize)
        else:
            resized = (self.resize, int(self.resize * width / height))
        return centred(*resized, size=self.crop)

    def undo(self, points: Tensor, height: int, width: int) -> Tensor:
        """Where points of the network's input lie in the frame; see :meth:`Placement.undo`."""
        return self.place(height, width).undo(points, height, width)

    def __call__(self, frames: Tensor, /) -> Tensor:
        """Turn frames into network input.

        Args:
            frames: (T, 3, H, W) uint8 RGB.

        Returns:
            (T, *output_shape) float32, contiguous.

        Raises:
            PreprocessError: ``frames`` has another dtype or shape.
        """
        check_frames(frames)
        out = torch.empty((len(frames), *self.output_shape), dtype=torch.float32, device="cpu")
        for target, frame in zip(out, frames, strict=True):
            target.copy_(self._one(frame))
        return out

    def _one(self, frame: Tensor) -> Tensor:
        """(3, H, W) uint8 -> output_shape float32."""
        # torchvision's presets use the functions of the first generation: those of `v2` resize
        # uint8 in fixed point and differ in the last bit of the pixel.
        x: Tensor = F.resize(
            frame,
            [self.resize],
            interpolation=InterpolationMode(self.interpolation),
            antialias=self.antialias,
        )
        x = F.center_crop(x, list(self.crop))
        x = F.convert_image_dtype(x, torch.float32) if self.scale == 1 else x.to(torch.float32)
        if self.channels == "bgr":
            x = x.flip(0)
        x = F.normalize(x, mean=list(self.mean), std=list(self.std))
        return x if self.layout == "nchw" else x.permute(1, 2, 0)


IMAGENET = Preprocess(
    resize=256, crop=(224, 224), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
)
"""What most networks trained on ImageNet take; the name "imagenet"."""


def parse_preprocess(
    spec: str | Mapping[str, object], *, own: Letterbox | None = None
) -> Preprocess | Letterbox:
    """Read a description of a network's input.

    Args:
        spec: "imagenet"; a mapping of the fields of :class:`Preprocess` (``crop`` may be one
            number; ``resize``, ``crop``, ``mean`` and ``std`` must be there); the path of a
            .yaml, .yml or .json file holding one; or the same inline, such as
            "resize=256,crop=224,mean=104/117/123,std=1/1/1,scale=255,channels=bgr". With the
            key ``letterbox`` (one number, or [h, w]) it is a :class:`Letterbox`, which has the
            keys ``fill``, ``scale``, ``channels``, ``mean``, ``std`` and ``layout`` besides:
            "letterbox=416".
        own: the network's own letterbox, which says what the keys are that a letterbox is given
            without; by default they are as :class:`Letterbox` has them.

    Raises:
        PreprocessError: a key is unknown or missing, or a value is impossible.
    """
    if not isinstance(spec, str):
        return _from_mapping(spec, where="preprocess", own=own)
    text = spec.strip()
    if text == "imagenet":
        return IMAGENET
    if text.lower().endswith(_SUFFIXES):
        return _from_mapping(_read_file(Path(text)), where=text, own=own)
    if "=" in text:
        return _from_mapping(_split_inline(text), where="preprocess", own=own)
    raise PreprocessError(
        f"preprocess {spec!r} is neither 'imagenet', nor a .yaml or .json file, "
        f"nor a list such as '{EXAMPLE}'"
    )


def _read_file(path: Path) -> Mapping[str, object]:
    try:
        text = path.read_text(encoding="utf-8")
        is_json = path.suffix.lower() == ".json"
        content = json.loads(text) if is_json else read_yaml(text, where=path.name)
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, ConfigError) as error:
        reason = " ".join(str(error).split())
        raise PreprocessError(f"cannot read preprocess file {str(path)!r}: {reason}") from error
    if not isinstance(content, Mapping):
        raise PreprocessError(
            f"preprocess file {str(path)!r} holds {type(content).__name__}; "
            f"expected a mapping with the keys {', '.join(_KEYS)}"
        )
    return content


def _split_inline(text: str) -> dict[str, object]:
    """'crop=224,mean=1/2/3' -> {'crop': 224, 'mean': [1.0, 2.0, 3.0]}."""
    result: dict[str, object] = {}
    for part in text.split(","):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not value:
            raise PreprocessError(
                f"preprocess: {part.strip()!r} is not key=value; expected such as '{EXAMPLE}'"
            )
        if key in result:
            raise PreprocessError(f"preprocess: {key!r} is given twice")
        items = [_scalar(item) for item in value.split("/")]
        result[key] = items if len(items) > 1 else items[0]
    return result


def _scalar(text: str) -> object:
    for convert in (int, float):
        try:
            return convert(text)
        except ValueError:
            continue
    return _WORDS.get(text.lower(), text)


def _from_mapping(
    spec: Mapping[str, object], *, where: str, own: Letterbox | None
) -> Preprocess | Letterbox:
    if "letterbox" in spec:
        return _letterbox(spec, where, own)
    _check_keys(spec, _KEYS, where)
    missing = [key for key in _REQUIRED if key not in spec]
    if missing:
        raise PreprocessError(
            f"{where}: {', '.join(missing)} missing; a description is complete, such as '{EXAMPLE}'"
        )
    chosen = {key: _choice(spec[key], key, where) for key in _CHOICES if key in spec}
    resize = _pixels(spec["resize"], "resize", where)
    crop = _size(spec["crop"], "crop", where)
    if min(crop) > resize:
        raise PreprocessError(
            f"{where}: crop {crop[0]}x{crop[1]} is larger than resize {resize}, so every frame "
            f"would get a black border; give resize >= {min(crop)}"
        )
    return Preprocess(
        resize=resize,
        crop=crop,
        mean=_triple(spec["mean"], "mean", where),
        std=_std(spec["std"], where),
        **chosen,  # type: ignore[arg-type]  # each value is one of _CHOICES
    )


def _letterbox(spec: Mapping[str, object], where: str, own: Letterbox | None) -> Letterbox:
    _check_keys(spec, _LETTERBOX_KEYS, where)
    size = _size(spec["letterbox"], "letterbox", where)
    given: dict[str, object] = {
        key: _choice(spec[key], key, where) for key in _CHOICES if key in spec
    }
    if "fill" in spec:
        fill = spec["fill"]
        if isinstance(fill, bool) or not isinstance(fill, (int, float)) or not 0 <= fill <= 1:
            raise PreprocessError(f"{where}: fill is {fill!r}; expected 0 (black) to 1 (white)")
        given["fill"] = float(fill)
    if "mean" in spec:
        given["mean"] = _triple(spec["mean"], "mean", where)
    if "std" in spec:
        given["std"] = _std(spec["std"], where)
    return replace(own or Letterbox(size=size), size=size, **given)  # type: ignore[arg-type]


def _check_keys(spec: Mapping[str, object], known: Sequence[str], where: str) -> None:
    for key in spec:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise PreprocessError(f"{where}: unknown key {key!r}; {hint}")


def _choice(value: object, key: str, where: str) -> object:
    for choice in _CHOICES[key]:
        # 1 == True, but "antialias: 1" and "scale: true" are mistakes.
        if type(value) is type(choice) and value == choice:
            return choice
    known = " or ".join(str(choice).lower() for choice in _CHOICES[key])
    raise PreprocessError(f"{where}: {key} is {value!r}; expected {known}")


def _pixels(value: object, key: str, where: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    raise PreprocessError(f"{where}: {key} is {value!r}; expected a whole number of pixels above 0")


def _size(value: object, key: str, where: str) -> tuple[int, int]:
    if isinstance(value, Sequence) and not isinstance(value, str):
        if len(value) != 2:
            raise PreprocessError(f"{where}: {key} is {value!r}; expected one number or [h, w]")
        return _pixels(value[0], key, where), _pixels(value[1], key, where)
    side = _pixels(value, key, where)
    return side, side


def _std(value: object, where: str) -> tuple[float, float, float]:
    std = _triple(value, "std", where)
    if min(std) <= 0:
        raise PreprocessError(f"{where}: std is {list(std)}; expected three numbers above 0")
    return std


def _triple(value: object, key: str, where: str) -> tuple[float, float, float]:
    numbers = [
        float(item)
        for item in (value if isinstance(value, Sequence) and not isinstance(value, str) else ())
        if isinstance(item, (int, float)) and not isinstance(item, bool)
    ]
    if len(numbers) != 3 or not all(abs(number) < float("inf") for number in numbers):
        raise PreprocessError(f"{where}: {key} is {value!r}; expected three numbers")
    return numbers[0], numbers[1], numbers[2]
