"""Annotations by the file that holds them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from annotations import AnnotationError, Annotations, load_json
from bbc_pose import is_bbc_pose, read_bbc_pose
from coco_annotations import is_coco, read_coco
from matlab_file import MATLAB_EXTENSION, load_matlab
from mpii_pose import is_annotation_list, read_mpii_pose
from youtube_bb import read_youtube_bb

__all__ = ["read_annotations"]


def read_annotations(path: Path, *, wanted: Collection[str] | None = None) -> Annotations:
    """Reads any file of annotations that is known; docs/annotations.md lists them.

    Args:
        path: the file.
        wanted: names of videos, see ``annotations.video_key``: a table of millions of rows keeps
            theirs alone. None keeps all.

    Raises:
        AnnotationError: there is no such file, it is of another form, or damaged.
    """
    extension = path.suffix.lower()
    if path.name.lower().endswith((".csv", ".csv.gz")):
        return read_youtube_bb(path, wanted=wanted)
    if extension == MATLAB_EXTENSION:
        is_bbc = is_bbc_pose(load_matlab(path))
        return read_bbc_pose(path) if is_bbc else read_mpii_pose(path)
    if extension == ".json":
        content = load_json(path)
        if is_coco(content):
            return read_coco(path)
        if is_annotation_list(content):
            return read_mpii_pose(path)
        msg = f"{path} is neither of COCO's form (images, annotations, categories) nor MPII's list"
        raise AnnotationError(msg)
    msg = (
        f"annotations {path}: expected a .csv or .csv.gz of YouTube-BoundingBoxes, bbcpose.mat, "
        "MPII's list as .mat or .json, or a .json of COCO's form"
    )
    raise AnnotationError(msg)
