"""BBC Pose (Charles et al., IJCV 2014): the joints of ``bbcpose.mat``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from annotations import AnnotatedFrame, AnnotationError, Annotations, MarkedBody
from matlab_file import load_matlab, many
from numpy.typing import NDArray

__all__ = ["JOINTS", "is_bbc_pose", "read_bbc_pose"]

JOINTS = (
    "head", "right_wrist", "left_wrist", "right_elbow", "left_elbow", "right_shoulder",
    "left_shoulder",
)  # fmt: skip
"""In the file's order; right is the person's. The head is its middle, which COCO does not have."""

_VARIABLE = "bbcpose"
_FIELDS = ("test_frames", "test_joints")
_FIRST_PIXEL = 0.5
"""MATLAB counts pixels from 1; here the middle of the first one is at 0.5."""


def is_bbc_pose(variables: dict[str, Any]) -> bool:
    """Whether a .mat file with these variables is that of BBC Pose."""
    return _VARIABLE in variables


def read_bbc_pose(path: Path) -> Annotations:
    """Reads ``bbcpose.mat``, of ``bbcpose_extbbcpose_code_1.0.tgz``.

    Its variable ``bbcpose`` is a struct array, one element for a video, of which ``test_frames``
    (N) and ``test_joints`` (2, 7, N), x and y of each joint, are read: what people have marked.
    (The ``train_joints`` are another program's.) The n-th element is of the video in folder n,
    whose pictures are named by the frames' numbers, from 1.

    Raises:
        AnnotationError: the file cannot be read or is not of that form.
    """
    variables = load_matlab(path)
    if not is_bbc_pose(variables):
        msg = f"{path} has no variable {_VARIABLE!r}; expected bbcpose.mat as published"
        raise AnnotationError(msg)
    videos: dict[str, tuple[AnnotatedFrame, ...]] = {}
    for number, video in enumerate(many(variables[_VARIABLE]), 1):
        if frames := _frames(video, f"{path}, video {number}"):
            videos[str(number)] = frames
    if not videos:
        msg = f"{path}: no video has test_frames; expected bbcpose.mat as published"
        raise AnnotationError(msg)
    return Annotations(name="BBC Pose", videos=videos, parts=JOINTS)


def _frames(video: Any, where: str) -> tuple[AnnotatedFrame, ...]:
    if not isinstance(video, dict) or any(name not in video for name in _FIELDS):
        msg = f"{where}: it lacks {' or '.join(_FIELDS)}; expected bbcpose.mat as published"
        raise AnnotationError(msg)
    try:
        numbers = np.atleast_1d(np.asarray(video[_FIELDS[0]], np.float64)).ravel()
        joints = np.asarray(video[_FIELDS[1]], np.float64)
        # Of one frame the file has no third dimension.
        joints = joints.reshape(2, len(JOINTS), len(numbers))
    except (TypeError, ValueError) as error:
        msg = f"{where}: {error}; expected N test_frames and test_joints of (2, {len(JOINTS)}, N)"
        raise AnnotationError(msg) from error
    if (numbers < 1).any() or (numbers != np.floor(numbers)).any():
        msg = f"{where}: a test frame is {numbers.min():g}; expected whole numbers from 1 on"
        raise AnnotationError(msg)
    return tuple(
        AnnotatedFrame(number=int(number) - 1, bodies=(_body(points),))
        for number, points in zip(numbers, joints.transpose(2, 1, 0), strict=True)
    )


def _body(points: NDArray[np.float64]) -> MarkedBody:
    """(7, 2), in MATLAB's pixels."""
    return MarkedBody(
        points={
            name: (float(x) - _FIRST_PIXEL, float(y) - _FIRST_PIXEL)
            for name, (x, y) in zip(JOINTS, points, strict=True)
            if np.isfinite((x, y)).all()
        }
    )
