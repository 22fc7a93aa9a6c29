"""Which class a video is of, and whether it is to be learnt from or to be asked about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from rrm_extract.errors import UsageError

__all__ = ["LabelError", "Labels", "stem_key"]


class LabelError(UsageError):
    """Labels are missing, unreadable, contradictory, or do not fit the videos."""


@dataclass(frozen=True, kw_only=True)
class Labels:
    """The labels of a dataset.

    Attributes:
        name: of the dataset and its split, for people.
        classes: C names.
        multi_label: a video may be of several classes, or of none.
        train, test: a video's key to its classes, as indices into ``classes``.
        keyed_by_stem: the key is the file's name without folders and extension, in one case;
            otherwise the whole id.
    """

    name: str
    classes: tuple[str, ...]
    multi_label: bool
    train: Mapping[str, tuple[int, ...]]
    test: Mapping[str, tuple[int, ...]]
    keyed_by_stem: bool = True

    def key(self, video_id: str) -> str:
        """What ``train`` and ``test`` call a video."""
        return stem_key(video_id) if self.keyed_by_stem else video_id

    def by_key(self, video_ids: Iterable[str]) -> dict[str, str]:
        """The ids that have a label, by key.

        Raises:
            LabelError: two ids are of the same labelled video.
        """
        found: dict[str, str] = {}
        for video_id in video_ids:
            key = self.key(video_id)
            if key not in self.train and key not in self.test:
                continue
            if key in found:
                msg = (
                    f"{found[key]!r} and {video_id!r} are both the video {key!r} of {self.name}; "
                    "expected each video once"
                )
                raise LabelError(msg)
            found[key] = video_id
        return found


def stem_key(video_id: str) -> str:
    """A video's name without folders and extension, in one case.

    UCF-101 has ``v_HandStandPushups_g01_c01.avi`` and ``v_HandstandPushups_g01_c01.avi``, in its
    lists the one and in some of its archives the other.
    """
    return PurePosixPath(video_id).stem.casefold()
