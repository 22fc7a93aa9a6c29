"""``rtpose``: the network with its weights and its transform."""

from __future__ import annotations

from ...errors import PreprocessError, WeightsError
from ..checkpoint import all_nan_keys, load_chosen_file
from ..entry import ModelEntry
from ..letterbox import Letterbox
from ..loaded import LoadedModel, Transform, freeze, hash_state
from ..weights import WeightsChoice, seeded
from .coco import COCO_BODY
from .layers import Convolution, all_layers
from .names import with_caffes_names
from .network import RtPose

__all__ = ["RTPOSE", "RTPOSE_PREPROCESS", "load_rtpose", "rtpose_entries"]

RTPOSE = "rtpose"
"""Name of the network."""

WEIGHTS_FILE = "pose_iter_440000.caffemodel"
"""OpenPose's file of the COCO model."""

_GREY = 128

RTPOSE_PREPROCESS = Letterbox(
    size=(368, 368),
    fill=_GREY / 255,
    scale=255,
    channels="bgr",
    mean=(_GREY, _GREY, _GREY),
    std=(256.0, 256.0, 256.0),
)
"""value / 256 - 0.5 in BGR, as OpenPose has it, and 0 where there is no frame."""


def rtpose_entries() -> list[ModelEntry]:
    """The one network. Nothing is allocated."""
    convolutions = [layer for layer in all_layers() if isinstance(layer, Convolution)]
    return [
        ModelEntry(
            name=RTPOSE,
            family="openpose",
            source="caffe",
            is_cnn=True,
            paper=True,
            default_weights="",
            weights_file=WEIGHTS_FILE,
            n_parameters=sum(layer.n_parameters for layer in convolutions),
            input_shape=RTPOSE_PREPROCESS.output_shape,
        )
    ]


def load_rtpose(name: str, choice: WeightsChoice, preprocess: Transform | None) -> LoadedModel:
    """Build the network with the weights of ``choice``, a file or random ones.

    Its input has the size of ``preprocess``, by default 368 x 368; its output is ``net_output``,
    the raw maps of ``skeleton``.

    Raises:
        PreprocessError: the transform gives NHWC, or sides that are no multiples of 8.
        WeightsError: no weights are named, or they cannot be had or do not fit.
    """
    transform = preprocess or RTPOSE_PREPROCESS
    _check_input(name, transform)
    if choice.kind in ("default", "named"):
        raise _refusal(name, choice)
    with seeded(choice.seed):
        module = freeze(RtPose())
    unexpected = load_chosen_file(module, choice, renamed=with_caffes_names)
    return LoadedModel(
        name=name,
        module=module,
        transform=transform,
        preprocess=transform.describe(),
        input_shape=transform.output_shape,
        weights_id=choice.weights_id,
        weights_sha256=hash_state(module),
        missing_keys=all_nan_keys(module),
        unexpected_keys=unexpected,
        source="caffe",
        skeleton=COCO_BODY,
    )


def _check_input(name: str, transform: Transform) -> None:
    channels, height, width = transform.output_shape
    if channels != 3:
        raise PreprocessError(
            f"{name} takes (3, h, w), preprocess gives {transform.output_shape}; give layout=nchw"
        )
    # Caffe and PyTorch round other sizes differently where they pool.
    if height % COCO_BODY.stride or width % COCO_BODY.stride:
        raise PreprocessError(
            f"{name} takes rows and columns that are multiples of {COCO_BODY.stride}, preprocess "
            f"gives {height}x{width}; give such as letterbox={RTPOSE_PREPROCESS.size[0]}"
        )


def _refusal(name: str, choice: WeightsChoice) -> WeightsError:
    missing = (
        f"{name} comes without weights"
        if choice.kind == "default"
        else f"{name} has no weights {choice.text!r}, and no such file exists"
    )
    return WeightsError(
        f"{missing}: give --weights {WEIGHTS_FILE} (as OpenPose publishes it), a .safetensors or "
        ".pth file of the same network, or --weights random:0 for an untrained network"
    )
