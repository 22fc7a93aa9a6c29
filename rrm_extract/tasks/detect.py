"""From a detector's raw output, or what was stored of it, to the objects in each frame."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call
from torchvision.ops import box_convert, nms

from rrm_extract.errors import ConfigError
from rrm_extract.models import Letterbox, LoadedModel, Region
from rrm_extract.tasks.raw import as_maps
from rrm_extract.tasks.region import decode_region

__all__ = ["Detections", "Detector"]

THRESHOLD = 0.25
"""Smallest score of an object."""

OVERLAP = 0.45
"""Largest overlap of two objects of a class, as Darknet's ``detector test`` has it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Detections:
    """The K objects of one frame, the highest score first.

    Attributes:
        boxes: (K, 4) float32: left, top, right, bottom as shares of the frame's width and height,
            cut off at the frame's border; something is left of each.
        scores: (K,) float32: objectness times the class's probability, 0..1.
        classes: (K,) int64, below the region's number of classes.
        height, width: of the frame, pixels.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    classes: NDArray[np.int64]
    height: int
    width: int

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def pixels(self) -> NDArray[np.float32]:
        """(K, 4) float32: the boxes in pixels of the frame; 0 is the left or top edge."""
        sides = np.array([self.width, self.height, self.width, self.height], np.float32)
        return self.boxes * sides


@dataclass(frozen=True, kw_only=True)
class Detector:
    """Reads a detector's output.

    Attributes:
        region: what the output's numbers are.
        letterbox: how frames came into the network, which is undone.
        grid: (H, W) of the output.
        names: of the classes, C of them; empty where they are not known.
        threshold: objects have a score above this.
        overlap: of two objects of one class that overlap more than this (intersection over
            union), the one with the lower score is dropped.

    Raises:
        ConfigError: a threshold is not in 0..1, or the names are fewer or more than the classes.
    """

    region: Region
    letterbox: Letterbox
    grid: tuple[int, int]
    names: tuple[str, ...] = field(default=(), repr=False)
    threshold: float = THRESHOLD
    overlap: float = OVERLAP

    def __post_init__(self) -> None:
        for name in ("threshold", "overlap"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ConfigError(f"{name} of detections is {value!r}, expected a number in 0..1")
        if self.names and len(self.names) != self.region.classes:
            raise ConfigError(
                f"{len(self.names)} names of classes, expected {self.region.classes} or none"
            )

    @classmethod
    def of(
        cls, model: LoadedModel, *, threshold: float = THRESHOLD, overlap: float = OVERLAP
    ) -> Detector:
        """The detector whose network this is.

        Its raw output is the network's last value, ``model.trace().outputs[0]``.

        Raises:
            ConfigError: the network is no detector with a region, its transform is no letterbox,
                or a threshold is not in 0..1.
        """
        if model.region is None:
            raise ConfigError(
                f"{model.name} is no detector; expected yolov2, tiny_yolov2, or darknet:FILE.cfg "
                "with a [region] section"
            )
        if not isinstance(model.transform, Letterbox):
            raise ConfigError(
                f"{model.name} was given another transform than a letterbox, so boxes cannot be "
                "placed in the frame; leave --preprocess away, or give such as letterbox=416"
            )
        # The shape alone: to run the network would take seconds.
        state = {name: tensor.to("meta") for name, tensor in model.module.state_dict().items()}
        frame = torch.empty(1, *model.input_shape, device="meta")
        output = functional_call(model.module, state, (frame,))
        return cls(
            region=model.region,
            letterbox=model.transform,
            grid=(output.shape[2], output.shape[3]),
            names=model.categories or (),
            threshold=threshold,
            overlap=overlap,
        )

    @property
    def features(self) -> int:
        """Numbers of one frame's raw output, D = A * (5 + C) * H * W."""
        return self.region.channels * self.grid[0] * self.grid[1]

    def __call__(
        self, raw: Tensor | NDArray[np.floating], *, height: int, width: int
    ) -> list[Detections]:
        """The objects of T frames.

        Args:
            raw: (T, A * (5 + C), H, W), or (T, D) as it is stored.
            height: of the frames before the letterbox, pixels.
            width: likewise.

        Returns:
            One for each frame.

        Raises:
            ConfigError: ``raw`` has another shape.
            PreprocessError: the frames have no pixels.
        """
        shape = (self.region.channels, *self.grid)
        # One by one: all numbers of a long clip in float64 would not fit.
        return [
            self._frame(frame, height, width)
            for frame in as_maps(raw, shape, layer="detector's last layer")
        ]

    def _frame(self, raw: Tensor, height: int, width: int) -> Detections:
        """One frame: (A * (5 + C), H, W)."""
        read = decode_region(raw[None], self.region)
        boxes, scores = read.boxes[0], read.scores[0]
        # A box counts once for each class that it may be, as in Darknet.
        box, kind = (scores > self.threshold).nonzero(as_tuple=True)
        corners = box_convert(self._placed(boxes[box], height, width), "cxcywh", "xyxy")
        found = scores[box, kind]
        cut = corners.clamp(0, 1).float()
        # What lies in the letterbox's grey alone is no object, and suppresses none.
        is_seen = corners.isfinite().all(1) & (cut[:, :2] < cut[:, 2:]).all(1)
        corners, cut, found, kind = corners[is_seen], cut[is_seen], found[is_seen], kind[is_seen]
        # Before they are cut off: how much two boxes overlap is what the network says of them.
        kept = self._kept(corners, found, kind)
        return Detections(
            boxes=cut[kept].numpy(),
            scores=found[kept].float().numpy(),
            classes=kind[kept].numpy(),
            height=height,
            width=width,
        )

    def _kept(self, corners: Tensor, scores: Tensor, classes: Tensor) -> Tensor:
        """(K,) int64: which of N boxes no better one of their class suppresses, the best first.

        Torchvision's batched_nms moves each class aside instead. It moves by the largest
        coordinate: too little where others are negative, so much that no digits are left where one
        is huge.

        Args:
            corners: (N, 4): left, top, right, bottom, which need not lie in the frame.
            scores: (N,).
            classes: (N,) int64.
        """
        is_kept = torch.zeros_like(classes, dtype=torch.bool)
        for one in set(classes.tolist()):
            (own,) = (classes == one).nonzero(as_tuple=True)
            is_kept[own[nms(corners[own], scores[own], self.overlap)]] = True
        (kept,) = is_kept.nonzero(as_tuple=True)
        return kept[scores[kept].argsort(descending=True, stable=True)]

    def _placed(self, boxes: Tensor, height: int, width: int) -> Tensor:
        """From shares of the network's input to shares of the frame."""
        place = self.letterbox.place(height, width)
        rows, columns = self.letterbox.size
        corner = boxes.new_tensor([place.left, place.top, 0, 0])
        inner = boxes.new_tensor([place.width, place.height] * 2)
        whole = boxes.new_tensor([columns, rows] * 2)
        return (boxes * whole - corner) / inner
