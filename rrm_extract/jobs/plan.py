"""What the process that leads a job knows of the network; the network itself is elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rrm_extract.rrm.cost import LayerCost
from rrm_extract.store import TaskRows
from rrm_extract.store.schema import Array, Attr

__all__ = ["JobPlan", "TaskPlan"]


@dataclass(frozen=True, kw_only=True)
class TaskPlan:
    """What a job stores of each frame in place of a feature.

    Attributes:
        rows: what they are.
        options: of the task, by the names of the job's options.
        about: names of classes, or of key points and limbs, as attributes of the file.
    """

    rows: TaskRows
    options: Mapping[str, float | int]
    about: Mapping[str, Attr | Array]


@dataclass(frozen=True, kw_only=True)
class JobPlan:
    """A network that was loaded and fits the job.

    Attributes:
        weights_id, weights_sha256: of the weights.
        weights_text: ``weights_id``, and of a .dcz file what was compressed.
        preprocess: description of the transform, of types that JSON has.
        layer: node name of the feature.
        feature_shape: of one frame's stored feature before it is flattened.
        layers: the linear layers with their sizes; densities are not filled in.
        engine: "native" or "torch".
        precision: "fp32" or "bf16".
        kernel_isa: instruction set of the engine's kernels; off the CPU the device's name.
        calibration: what limits the error, as plain values; None without.
        versions: of torch and torchvision.
        notes: what a person should know: how the weights fit, and why this engine.
        task: what is stored in place of features; None where they are.
    """

    weights_id: str
    weights_text: str
    weights_sha256: str
    preprocess: Mapping[str, Any]
    layer: str
    feature_shape: tuple[int, ...]
    layers: tuple[LayerCost, ...]
    engine: str
    precision: str
    kernel_isa: str
    calibration: Mapping[str, Any] | None
    versions: Mapping[str, str]
    notes: tuple[str, ...]
    task: TaskPlan | None = None
