"""Caffe's files made for tests: the wire format of .caffemodel, and a .prototxt for OpenCV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from rrm_extract.models.rtpose import RtPose
from rrm_extract.models.rtpose.layers import STAGES, Convolution, Pool, branch, trunk

FULLY_CONNECTED = 14
"""The type of a fully-connected layer in files of before 2015; a convolution's is 4."""


def varint(value: int) -> bytes:
    """Groups of 7 bits, the lowest first."""
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)


def whole(number: int, value: int) -> bytes:
    """A field that is a whole number."""
    return varint(number << 3) + varint(value)


def sized(number: int, content: bytes) -> bytes:
    """A field that is bytes, text or a message."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def blob(array: np.ndarray, *, packed_shape: bool = True) -> bytes:
    """A BlobProto with its shape."""
    sides = [varint(side) for side in array.shape]
    shape = sized(1, b"".join(sides)) if packed_shape else b"".join(b"\x08" + s for s in sides)
    field = 8 if array.dtype == np.float64 else 5
    data = array.astype("<f8" if field == 8 else "<f4").tobytes()
    return sized(field, data) + sized(7, shape)


def old_blob(array: np.ndarray) -> bytes:
    """A BlobProto of before 2015: always four sides."""
    sides = [1] * (4 - array.ndim) + list(array.shape)
    fields = [whole(number, side) for number, side in enumerate(sides, start=1)]
    return b"".join(fields) + sized(5, array.astype("<f4").tobytes())


def layer(name: str, kind: str, blobs: Sequence[bytes] = ()) -> bytes:
    """A layer of a NetParameter."""
    fields = [sized(1, name.encode()), sized(2, kind.encode()), sized(3, b"below")]
    return sized(100, b"".join([*fields, whole(10, 1), *(sized(7, b) for b in blobs)]))


def old_layer(name: str, kind: int, blobs: Sequence[bytes] = ()) -> bytes:
    """A V1LayerParameter of a NetParameter."""
    fields = [sized(2, b"below"), sized(4, name.encode()), whole(5, kind)]
    return sized(2, b"".join([*fields, *(sized(6, b) for b in blobs)]))


def caffemodel(state: Mapping[str, np.ndarray]) -> bytes:
    """A file with convolutions from "NAME.weight" and "NAME.bias", and a layer without weights."""
    names = [name.removesuffix(".weight") for name in state if name.endswith(".weight")]
    layers = [
        layer(name, "Convolution", [blob(state[f"{name}.weight"]), blob(state[f"{name}.bias"])])
        for name in names
    ]
    return sized(1, b"net") + layer("input", "Input") + b"".join(layers)


def lively(seed: int = 0) -> RtPose:
    """The network, ready for inference, with biases that matter."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = RtPose().eval().requires_grad_(False)
        for part in network.modules():
            if isinstance(part, nn.Conv2d) and part.bias is not None:
                part.bias.normal_(std=0.05)
    return network


def arrays(network: nn.Module) -> dict[str, np.ndarray]:
    """Its weights as a file has them."""
    return {name: tensor.numpy() for name, tensor in network.state_dict().items()}


def rtpose_prototxt(height: int, width: int) -> str:
    """The network as OpenPose's pose_deploy_linevec.prototxt describes it."""
    text = [
        'name: "rtpose"\ninput: "image"\n'
        f"input_dim: 1\ninput_dim: 3\ninput_dim: {height}\ninput_dim: {width}\n"
    ]
    features = below = _chain(text, trunk(), "image")
    for stage in range(1, STAGES + 1):
        fields, heat = (_chain(text, branch(stage, number), below) for number in (1, 2))
        below = f"concat_stage{stage + 1}"
        parts = (fields, heat, features) if stage < STAGES else (heat, fields)
        bottoms = "".join(f' bottom: "{part}"' for part in parts)
        text.append(
            f'layer {{ name: "{below}" type: "Concat"{bottoms} top: "{below}" '
            "concat_param { axis: 1 } }\n"
        )
    return "".join(text)


def _chain(text: list[str], layers: Sequence[Convolution | Pool], below: str) -> str:
    for part in layers:
        head = f'layer {{ name: "{part.name}" bottom: "{below}" top: "{part.name}" '
        below = part.name
        if isinstance(part, Pool):
            pooling = "pooling_param { pool: MAX kernel_size: 2 stride: 2 }"
            text.append(f'{head} type: "Pooling" {pooling} }}\n')
            continue
        text.append(
            f'{head} type: "Convolution" convolution_param {{ num_output: {part.outputs} '
            f"pad: {part.size // 2} kernel_size: {part.size} }} }}\n"
        )
        if part.activated:
            text.append(
                f'layer {{ name: "relu_{part.name}" type: "ReLU" bottom: "{part.name}" '
                f'top: "{part.name}" }}\n'
            )
    return below
