"""The layers of the network, under the names of OpenPose's Caffe model.

``pose_deploy_linevec.prototxt`` of the COCO model, which is section 2.1 of arXiv 1611.08050:
VGG-19's first ten convolutions, two more to get from 512 channels to 128, and six stages of two
branches. L1 is the branch of part-affinity fields, L2 that of heat maps.
"""

from __future__ import annotations

from dataclasses import dataclass

from .coco import COCO_BODY

__all__ = ["BRANCHES", "FEATURES", "STAGES", "Convolution", "Pool", "all_layers", "branch", "trunk"]

STAGES = 6

FEATURES = 128
"""Channels that the trunk hands to every stage."""

BRANCHES = {1: 2 * len(COCO_BODY.limbs), 2: COCO_BODY.heat_maps}
"""Channels that branches L1 and L2 of a stage give."""


@dataclass(frozen=True, kw_only=True)
class Convolution:
    """A convolution with a bias, of stride 1, whose output is as large as its input."""

    name: str
    inputs: int
    outputs: int
    size: int
    activated: bool = True
    """Whether a ReLU follows: not after the last one of a branch."""

    @property
    def n_parameters(self) -> int:
        """Weights and biases."""
        return self.outputs * (self.inputs * self.size**2 + 1)


@dataclass(frozen=True, kw_only=True)
class Pool:
    """The maximum of 2 x 2."""

    name: str


_TRUNK = (
    ("conv1_1", 64), ("conv1_2", 64), ("pool1_stage1", 0),
    ("conv2_1", 128), ("conv2_2", 128), ("pool2_stage1", 0),
    ("conv3_1", 256), ("conv3_2", 256), ("conv3_3", 256), ("conv3_4", 256), ("pool3_stage1", 0),
    ("conv4_1", 512), ("conv4_2", 512), ("conv4_3_CPM", 256), ("conv4_4_CPM", FEATURES),
)  # fmt: skip


def trunk() -> list[Convolution | Pool]:
    """What comes before the stages: (N, 3, h, w) -> (N, 128, h / 8, w / 8)."""
    layers: list[Convolution | Pool] = []
    channels = 3
    for name, outputs in _TRUNK:
        if outputs:
            layers.append(Convolution(name=name, inputs=channels, outputs=outputs, size=3))
            channels = outputs
        else:
            layers.append(Pool(name=name))
    return layers


def branch(stage: int, number: int) -> list[Convolution]:
    """One of the ``BRANCHES`` of stage 1..6.

    The first stage reads the trunk's 128 channels, the others those and what both branches of the
    stage before gave.
    """
    outputs = BRANCHES[number]
    if stage == 1:
        widths = [(128, 3), (128, 3), (128, 3), (512, 1), (outputs, 1)]
        name = f"conv5_{{}}_CPM_L{number}"
        channels = FEATURES
    else:
        widths = [*[(128, 7)] * 5, (128, 1), (outputs, 1)]
        name = f"Mconv{{}}_stage{stage}_L{number}"
        channels = FEATURES + sum(BRANCHES.values())
    layers = []
    for place, (width, size) in enumerate(widths, start=1):
        layers.append(
            Convolution(
                name=name.format(place),
                inputs=channels,
                outputs=width,
                size=size,
                activated=place < len(widths),
            )
        )
        channels = width
    return layers


def all_layers() -> list[Convolution | Pool]:
    """In the order of their computation, but for the two branches, of which L1 comes first."""
    stages = range(1, STAGES + 1)
    parts = [branch(stage, number) for stage in stages for number in BRANCHES]
    return [*trunk(), *(layer for part in parts for layer in part)]
