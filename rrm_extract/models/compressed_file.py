"""Networks in files of compressed weights: FILE.dcz, and the published FILE.net."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ..config.job import DARKNET
from ..errors import ModelError, PreprocessError, WeightsError
from ..given_file import lack_of_file
from .caffe_alexnet import CAFFE_ALEXNET, load_caffe_alexnet
from .compression.dcz import DczDescription
from .compression.dcz_reader import describe_dcz
from .compression.published_net import read_published_net
from .darknet import is_darknet_model, load_darknet
from .letterbox import Letterbox
from .loaded import LoadedModel, Transform
from .preprocess import parse_preprocess
from .rtpose import RTPOSE, RTPOSE_PREPROCESS, load_rtpose
from .timm_models import PREFIX, is_timms_own, load_timm
from .torchvision_models import is_torchvision_model, load_torchvision
from .weights import WeightsChoice

__all__ = [
    "DCZ",
    "letterbox_of",
    "load_dcz",
    "load_published_net",
    "own_letterbox",
    "own_transform",
]

DCZ = ".dcz"
"""How the name of a compressed network's file ends."""

_MAX_SIDE = 4096
"""Pixels of a network's input that a file may ask for; a bound to the memory of a frame."""


def load_dcz(name: str, choice: WeightsChoice, preprocess: Transform | None) -> LoadedModel:
    """Build the network that the file ``name`` is of, with the file's weights, decoded.

    A network of the user's own code, or .cfg file, is not called from here: whoever hands out a
    file of weights is not to choose what runs.

    Raises:
        ModelError: no such file, or it is of a network that cannot be built from its name alone.
        WeightsError: other weights are asked for, or the file is damaged or does not fit.
        PreprocessError: the file's description of the input is unusable.
    """
    path = _own_file(name, choice)
    description = describe_dcz(path)
    model = description.model
    file = WeightsChoice(kind="file", text=name)
    if ":" in model:
        is_cfg = model.startswith(DARKNET)
        what = "whose .cfg file is not in it" if is_cfg else "which is code that is not in the file"
        raise ModelError(
            f"{name} holds weights of {model!r}, {what}; give --model {model} --weights {name}"
        )
    transform = preprocess or own_transform(name, description)
    if model.startswith(PREFIX):
        loaded = load_timm(model, file, transform)
    elif is_torchvision_model(model):
        loaded = load_torchvision(model, file, transform)
    elif model == CAFFE_ALEXNET:
        loaded = load_caffe_alexnet(model, file, transform)
    elif model == RTPOSE:
        loaded = load_rtpose(model, file, transform)
    elif is_darknet_model(model):
        loaded = load_darknet(model, file, transform)
    else:
        raise ModelError(
            f"{name} holds weights of {model!r}, which is no network of this installation; "
            "expected a torchvision name, timm/NAME, caffe_alexnet, rtpose, yolov2 or "
            "tiny_yolov2"
        )
    return replace(
        loaded,
        name=name,
        architecture=model,
        weights_id=file.weights_id,
        weights_origin=description.weights_id,
        weights_sha256=description.sha256,
        source="dcz",
    )


def load_published_net(
    name: str, choice: WeightsChoice, preprocess: Transform | None
) -> LoadedModel:
    """Build Caffe's AlexNet with the weights of a file in the layout of AlexNet_compressed.net.

    Raises:
        ModelError: no such file.
        WeightsError: other weights are asked for, or the file has another layout.
    """
    path = _own_file(name, choice)
    sha256 = read_published_net(path).sha256
    file = WeightsChoice(kind="file", text=name)
    loaded = load_caffe_alexnet(name, file, preprocess)
    return replace(loaded, architecture=CAFFE_ALEXNET, weights_sha256=sha256)


def own_transform(name: str, description: DczDescription) -> Transform | None:
    """What the .dcz file ``name`` says of its network's input; None where the network says it.

    Raises:
        PreprocessError: the file's description of the input is unusable.
    """
    if description.model.startswith(PREFIX) and is_timms_own(description.preprocess):
        return None  # timm's own transform goes with the name, tag included
    return _described(name, description.preprocess)


def own_letterbox(name: str, choice: WeightsChoice) -> Letterbox | None:
    """The letterbox that the network ``name``, a .dcz file, asks for; see :func:`letterbox_of`.

    Raises:
        ModelError: no such file.
        WeightsError: other weights are asked for, or the file is damaged.
        PreprocessError: the file's letterbox is unusable.
    """
    return letterbox_of(name, describe_dcz(_own_file(name, choice)))


def letterbox_of(name: str, description: DczDescription) -> Letterbox | None:
    """The letterbox that the .dcz file ``name`` asks for; None if its input is none.

    It says what another letterbox is that names its size alone; so its own size does not count.

    Raises:
        PreprocessError: the file's letterbox is unusable.
    """
    if description.preprocess is not None and "letterbox" in description.preprocess:
        try:
            own = parse_preprocess(description.preprocess)
        except PreprocessError as error:
            raise PreprocessError(
                f"{name}: {error}; give --model {description.model} --weights {name}"
            ) from error
        if isinstance(own, Letterbox):
            return own
    return RTPOSE_PREPROCESS if description.model == RTPOSE else None


def _own_file(name: str, choice: WeightsChoice) -> Path:
    if choice.kind != "default":
        raise WeightsError(
            f"{name} carries its own weights; {choice.text!r} cannot replace them: leave "
            "--weights away"
        )
    path = Path(name)
    if lack := lack_of_file(path):
        raise ModelError(f"model file {name!r} {lack}")
    return path


def _described(name: str, description: Mapping[str, object] | None) -> Transform | None:
    if description is None:
        return None
    try:
        transform = parse_preprocess(description)
    except PreprocessError as error:
        raise PreprocessError(f"{name}: {error}; or pass --preprocess") from error
    if isinstance(transform, Letterbox):
        sides: tuple[int, ...] = transform.size
    else:
        sides = (transform.resize, *transform.crop)
    if max(sides) > _MAX_SIDE:
        raise PreprocessError(
            f"{name} asks for frames of {max(sides)} pixels, expected up to {_MAX_SIDE}; pass "
            "--preprocess"
        )
    return transform
