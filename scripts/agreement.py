"""What the recurrent network finds in clips, beside the dense network and beside people's marks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from annotated_clips import match_frames
from annotations import AnnotatedFrame, Annotations, class_key
from average_precision import (
    BodyFrame,
    BoxFrame,
    Precision,
    body_precision,
    box_precision,
    marked_bodies,
    marked_boxes,
)
from network_bench import feature_errors
from peers.rrm_peer import RrmPeer
from subjects import Shown, shown_chunks
from task_networks import TaskNetwork
from timed_clips import kept_errors
from torch import Tensor

from rrm_extract.tasks import Detector

__all__ = ["Agreement", "ClipAgreement"]

Found = Sequence[Any]
"""Detections, or Poses, of each frame."""


@dataclass
class ClipAgreement:
    """One clip, or several together.

    Attributes:
        frames: how many.
        dense: what the dense network finds in each of them.
        own: what the recurrent one finds, by threshold.
        kept: what there would be if every frame had just what its chunk's first one has.
        errors: (frames,) relative L2 errors of the raw output, by threshold.
        errors_kept: those of the first frame's raw output.
        work: MACs that were done, in frames of the dense network, by threshold.
        annotated: positions of annotated frames, and people's marks in them.
        between, beyond: annotated frames that could not be looked at, see ``Matched``.
    """

    frames: int = 0
    dense: list[Any] = field(default_factory=list)
    own: dict[float, list[Any]] = field(default_factory=dict)
    kept: list[Any] = field(default_factory=list)
    errors: dict[float, list[float]] = field(default_factory=dict)
    errors_kept: list[float] = field(default_factory=list)
    work: dict[float, float] = field(default_factory=dict)
    annotated: list[tuple[int, AnnotatedFrame]] = field(default_factory=list)
    between: int = 0
    beyond: int = 0

    def join(self, other: ClipAgreement) -> None:
        """Adds another clip's frames after these."""
        self.annotated += [(self.frames + place, marks) for place, marks in other.annotated]
        self.frames += other.frames
        self.between += other.between
        self.beyond += other.beyond
        self.dense += other.dense
        self.kept += other.kept
        self.errors_kept += other.errors_kept
        for threshold, found in other.own.items():
            self.own.setdefault(threshold, []).extend(found)
            self.errors.setdefault(threshold, []).extend(other.errors[threshold])
            self.work[threshold] = self.work.get(threshold, 0.0) + other.work[threshold]


class Agreement:
    """A network at several thresholds, beside itself computed densely.

    Args:
        network: what is run and read.
        thresholds: of the recurrence.
    """

    def __init__(self, network: TaskNetwork, thresholds: Sequence[float]) -> None:
        self._network = network
        recipe = network.subject.recipe
        self._peers = {
            threshold: RrmPeer(
                recipe,
                engine=recipe.engine,
                threshold=threshold,
                precision=recipe.precision,
                threads=1,
                chunk=None,  # it is given one at a time
            )
            for threshold in thresholds
        }
        for peer in self._peers.values():
            peer.prepare()

    def clip(
        self, path: Path, *, count: int | None, annotated: Sequence[AnnotatedFrame] = ()
    ) -> ClipAgreement:
        """Looks at the first frames of a clip.

        Args:
            path: the clip.
            count: most frames; None looks at all.
            annotated: the frames of it that people have looked at.

        Raises:
            ClipError: the clip cannot be opened, or cannot be decoded from somewhere on.
        """
        result = ClipAgreement()
        shown: list[Shown] = []
        for chunk, frames in shown_chunks(path, self._network.subject, count=count):
            result.join(self._chunk(chunk, frames))
            shown += chunk
        if shown and annotated:
            matched = match_frames(annotated, shown)
            result.annotated = list(matched.pairs)
            result.between, result.beyond = matched.between, matched.beyond
        return result

    def _chunk(self, shown: list[Shown], frames: Tensor) -> ClipAgreement:
        with torch.inference_mode():
            reference = self._network.subject.reference(frames)
        result = ClipAgreement(frames=len(frames))
        result.dense = list(self._network.read(reference, shown))
        result.kept = [result.dense[0]] * len(frames)
        result.errors_kept = kept_errors(reference, chunk=len(frames)).tolist()
        for threshold, peer in self._peers.items():
            raw = peer.run(frames)
            result.own[threshold] = list(self._network.read(raw, shown))
            result.errors[threshold] = feature_errors(raw, reference).tolist()
            result.work[threshold] = peer.work() * len(frames)
        return result

    def with_dense(self, seen: ClipAgreement, found: Found) -> Precision:
        """Precision of what was found in each frame, what the dense network finds being true."""
        reader = self._network.reader
        pairs = zip(seen.dense, found, strict=True)
        if isinstance(reader, Detector):
            names = self._names()
            return box_precision(
                [
                    BoxFrame(truths=marked_boxes(dense, names), found=own, names=names)
                    for dense, own in pairs
                ]
            )
        parts = reader.skeleton.parts
        return body_precision(
            [
                BodyFrame(truths=marked_bodies(dense, parts), found=own, parts=parts)
                for dense, own in pairs
            ]
        )

    def with_annotations(
        self, seen: ClipAgreement, annotations: Annotations, found: Found
    ) -> Precision:
        """Precision of what was found in each frame beside people's marks.

        Args:
            seen: the clips.
            annotations: which parts of bodies were looked for.
            found: in each frame of the clips.
        """
        reader = self._network.reader
        if isinstance(reader, Detector):
            names = self._names()
            return box_precision(
                [
                    BoxFrame(
                        truths=marks.boxes,
                        found=found[place],
                        names=names,
                        looked_for=marks.looked_for,
                    )
                    for place, marks in seen.annotated
                ]
            )
        return body_precision(
            [
                BodyFrame(truths=marks.bodies, found=found[place], parts=reader.skeleton.parts)
                for place, marks in seen.annotated
            ],
            looked_for=annotations.parts,
        )

    def unknown_classes(self, seen: ClipAgreement) -> list[str]:
        """Classes of marked objects that the detector has no name for; none of a pose network."""
        marked = {box.name for _, marks in seen.annotated for box in marks.boxes}
        if not isinstance(self._network.reader, Detector):
            return []
        return sorted(marked - {class_key(name) for name in self._names()})

    def _names(self) -> tuple[str, ...]:
        """Of a detector's classes; their numbers where they have no names."""
        reader = self._network.reader
        if not isinstance(reader, Detector):
            return ()
        return reader.names or tuple(f"class {number}" for number in range(reader.region.classes))
