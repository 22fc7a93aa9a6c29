"""Labels by what a user calls them: a published dataset's folder, or the videos' own folders."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import numpy as np
from labels import LabelError, Labels
from published_labels import charades_labels, is_charades, is_ucf101, ucf101_labels

__all__ = ["FOLDERS", "folder_labels", "read_labels"]

FOLDERS = "folders"
"""As a label spec: each video's folder is its class."""

_LEAST_CLASSES = 2


def read_labels(
    spec: str, video_ids: Iterable[str], *, split: int = 1, test_share: float = 0.3, seed: int = 0
) -> Labels:
    """The labels that a spec names.

    Args:
        spec: UCF-101's folder ``ucfTrainTestlist``, a folder with Charades' CSV files, or
            "folders".
        video_ids: all there are; "folders" makes its split of them, so that it is the same for
            all files that have the same videos.
        split: of UCF-101, 1 to 3.
        test_share: of each class, of "folders".
        seed: of the split of "folders".

    Raises:
        LabelError: there are no such labels, or they are not as published.
    """
    if spec == FOLDERS:
        return folder_labels(video_ids, test_share=test_share, seed=seed)
    folder = Path(spec)
    if folder.is_dir():
        if is_ucf101(folder):
            return ucf101_labels(folder, split=split)
        if is_charades(folder):
            return charades_labels(folder)
        what = "has neither classInd.txt (UCF-101) nor Charades_v1_train.csv"
    else:
        what = "is no folder" if folder.exists() else "does not exist"
    msg = (
        f"labels {spec}: it {what}; expected the folder ucfTrainTestlist, one with Charades' CSV "
        f"files, or the word {FOLDERS!r}"
    )
    raise LabelError(msg)


def folder_labels(video_ids: Iterable[str], *, test_share: float, seed: int) -> Labels:
    """The folder that a video lies in is its class; a share of each class is for testing.

    Raises:
        LabelError: no share, fewer than two classes, or a class that cannot be divided.
    """
    if not 0 < test_share < 1:
        msg = f"test share {test_share}: expected a number between 0 and 1"
        raise LabelError(msg)
    members: dict[str, list[str]] = {}
    for video_id in sorted(set(video_ids)):
        folder = PurePosixPath(video_id).parent.name
        if folder:
            members.setdefault(folder, []).append(video_id)
    if len(members) < _LEAST_CLASSES:
        some = ", ".join(members) or "none"
        msg = (
            f"the videos lie in {len(members)} folders ({some}), expected one for each of at least "
            "two classes; ids in a feature file begin below --root"
        )
        raise LabelError(msg)
    train: dict[str, tuple[int, ...]] = {}
    test: dict[str, tuple[int, ...]] = {}
    for number, (folder, ids) in enumerate(sorted(members.items())):
        if len(ids) < 2:
            msg = (
                f"class {folder!r} has one video, {ids[0]!r}; expected at least two, one to learn "
                "from and one to test with"
            )
            raise LabelError(msg)
        # A generator for each class: another class more or less leaves the others as they are.
        name = folder.encode("utf-8", "surrogateescape")
        order = np.random.default_rng([seed, *name]).permutation(len(ids))
        count = min(len(ids) - 1, max(1, round(test_share * len(ids))))
        for place, position in enumerate(order):
            (test if place < count else train)[ids[position]] = (number,)
    return Labels(
        name=f"folders, {test_share:g} of each for testing (seed {seed})",
        classes=tuple(sorted(members)),
        multi_label=False,
        train=train,
        test=test,
        keyed_by_stem=False,
    )
