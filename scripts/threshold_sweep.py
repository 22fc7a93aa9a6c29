"""The same videos at several thresholds: what is saved, in two ways of counting, and at what cost.

Every threshold is a real extraction into a feature file of its own, beside one of the dense network
in PyTorch, all in one folder. What is complete there is not computed again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from benchmarking import counted, machine, read_json, save_json, say, versions
from classifier import Training
from dense_features import extract_dense
from feature_error import compare_features
from labelled_features import Coverage, labelled_features
from labels import Labels
from numpy.typing import NDArray
from recognition import Recogniser, check_classes

from rrm_extract import FeatureFile
from rrm_extract.config import JobConfig
from rrm_extract.errors import InputError
from rrm_extract.jobs import Video, make_recipe, run_job
from rrm_extract.jobs.recipe import load_job_model

__all__ = ["INFINITE", "ErrorControl", "Point", "Record", "Sweep", "shown_threshold"]

INFINITE = 1e30
"""Stands for an infinite threshold, which a job refuses. No difference of two activations of a
trained network is as large, and it fits the engines' float32."""

Record = dict[str, Any]
"""One row of the result, of types that JSON has."""

_MACHINE = "machine.json"
_PACKAGES = ("rrm-extract", "torch", "torchvision", "numpy")


@dataclass(frozen=True, kw_only=True)
class ErrorControl:
    """Accumulated error control (Eq. 8 of the paper).

    Attributes:
        aecs: file that ``rrm-extract calibrate`` has written.
        limit: predicted error at which a key frame is computed.
    """

    aecs: Path
    limit: float


@dataclass(frozen=True, kw_only=True)
class Point:
    """One extraction of a sweep.

    Attributes:
        threshold: 0 or more, INFINITE at most.
        control: of the accumulated error, or None.
    """

    threshold: float
    control: ErrorControl | None = None

    @property
    def options(self) -> dict[str, Any]:
        """Those of a job."""
        options: dict[str, Any] = {"threshold": self.threshold}
        if self.control is not None:
            options |= {"aecs": str(self.control.aecs), "error_limit": self.control.limit}
        return options

    @property
    def file_name(self) -> str:
        """Of its feature file."""
        limit = "" if self.control is None else f"-limit-{self.control.limit:g}"
        return f"threshold-{shown_threshold(self.threshold)}{limit}.h5"


def shown_threshold(threshold: float | None) -> str:
    """A threshold as people write it; None is the dense network."""
    if threshold is None:
        return "dense"
    return "inf" if threshold >= INFINITE else f"{threshold:g}"


class Sweep:
    """A dataset, a network, and a folder with what was computed so far.

    Args:
        job: options of all extractions, without inputs, root, output and threshold.
        videos: all of them.
        root: folder that their ids are relative to.
        folder: where feature files go; it is made.
        workers: cores, for the dense network as well.
        labels: of the videos, or None.
        training: of the classifier.
        keep_partial: videos that end early are learnt from, and asked about, as well.

    Attributes:
        unlabelled: ids of the videos that the labels do not know, which do not count.
        coverage: of the videos to learn from; None before :meth:`records`, and without labels.
    """

    def __init__(
        self,
        job: dict[str, Any],
        videos: Sequence[Video],
        folder: Path,
        *,
        root: Path,
        workers: int,
        labels: Labels | None = None,
        training: Training | None = None,
        keep_partial: bool = False,
    ) -> None:
        self._job = {**job, "root": str(root), "workers": workers}
        self._folder, self._workers = folder, workers
        self._labels, self._training = labels, training or Training()
        self._keep_partial = keep_partial
        self.coverage: Coverage | None = None
        self._all, self._asked = list(videos), list(videos)
        self.unlabelled: list[str] = []
        if labels is not None:
            # Learnt from the dense network's features alone: thresholds are for the test videos.
            named = labels.by_key(video.video_id for video in videos)
            keys = {video_id: key for key, video_id in named.items()}
            self.unlabelled = [v.video_id for v in videos if v.video_id not in keys]
            self._all = [video for video in videos if video.video_id in keys]
            self._asked = [v for v in self._all if keys[v.video_id] in labels.test]
        if not self._asked:
            name = "" if labels is None else f" of {labels.name}"
            msg = f"none of the {len(videos)} videos is a test video{name}; expected at least one"
            raise InputError(msg)
        if labels is not None:  # rather now than after hours of work
            learnt, asked = (
                _classes_of(part, named, labels) for part in (labels.train, labels.test)
            )
            check_classes(labels, learnt=learnt, asked=asked)

    def records(self, points: Sequence[Point]) -> Iterator[Record]:
        """The dense network's record, then one for each point, as they are computed.

        Raises:
            RrmError: the request is wrong, or a file cannot be used.
        """
        configs = {point: self._config(point) for point in points}  # refuse before hours of work
        _check_controls([configs[point] for point in points if point.control is not None])
        self._claim_folder()
        dense = self._folder / "dense.h5"
        extract_dense(self._config(Point(threshold=0.0)), self._all, dense, threads=self._workers)
        recogniser = None
        if self._labels is not None:
            train = labelled_features(
                dense, self._labels, self._labels.train, keep_partial=self._keep_partial
            )
            self.coverage = train.coverage
            recogniser = Recogniser(train, self._labels, self._training)
        yield self._record(dense, dense, None, recogniser)
        for point, config in configs.items():
            output = self._folder / point.file_name
            control = "" if point.control is None else f", error limit {point.control.limit:g}"
            videos = counted(len(self._asked), "video")
            say(f"threshold {shown_threshold(point.threshold)}{control}: {videos}")
            run_job(config)
            yield self._record(output, dense, point, recogniser)

    def _config(self, point: Point) -> JobConfig:
        return JobConfig.from_mapping(
            {
                "cuts": "ignore",  # the paper knows no key frames but these of its own control
                **self._job,
                **point.options,
                "inputs": [str(video.path) for video in self._asked],
                "output": str(self._folder / point.file_name),
            }
        )

    def _claim_folder(self) -> None:
        """Refuses to compare seconds of two machines, versions, or numbers of cores."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / _MACHINE
        own = {
            "machine": machine(),
            "versions": versions(_PACKAGES),
            "workers": self._workers,
        }
        if not path.exists():
            save_json(own, path)
        elif (found := read_json(path)) != own:
            msg = (
                f"{self._folder} holds seconds of another machine, version or number of workers "
                f"({found}), "
                f"expected {own}; give another --work"
            )
            raise InputError(msg)

    def _record(
        self, path: Path, dense: Path, point: Point | None, recogniser: Recogniser | None
    ) -> Record:
        ids, left_out = self._usable(path, dense)
        if not ids:
            msg = (
                f"{path} and {dense} share no whole video of {len(self._asked)}; "
                "their failures say why"
            )
            raise InputError(msg)
        own, basis = _sums(path, ids), _sums(dense, ids)
        # Seconds of one core on both sides: a worker has one, the dense network all of them.
        dense_seconds = basis.network * self._workers
        seconds = dense_seconds if point is None else own.network
        error = compare_features(path, dense, ids)
        record: Record = {
            "threshold": None if point is None else point.threshold,
            "infinite": point is not None and point.threshold >= INFINITE,
            "error_limit": point and point.control and point.control.limit,
            "engine": None if point is None else _engine_of(path),
            "speedup_theoretical": own.frames / own.work,
            "speedup_wall_network": dense_seconds / seconds,
            "core_seconds_network": seconds,
            "frames": own.frames,
            "key_frames": own.key_frames,
            "videos": len(ids),
            "left_out": left_out,
            "feature_error": _known(error.mean),
            "feature_error_max": _known(error.worst),
            "feature_error_by_age": [_known(value) for value in error.by_age.tolist()],
            "frames_of_zeros": error.frames_of_zeros,
            "frames_not_finite": error.frames_not_finite,
            "accuracy": None,
            "test": None,
        }
        if recogniser is not None and self._labels is not None:
            test = labelled_features(
                path, self._labels, self._labels.test, keep_partial=self._keep_partial
            )
            record["accuracy"] = recogniser.accuracy(test).to_json()
            record["test"] = test.coverage.to_json()
        return record

    def _usable(self, path: Path, dense: Path) -> tuple[list[str], list[str]]:
        """Ids of the videos that count in both files, and the others."""
        there: list[dict[str, tuple[str, int]]] = []
        for name in (path, dense):
            with FeatureFile(name) as file:
                rows = zip(file.videos, file.index, strict=True)
                there.append({video_id: (row.status, row.n_frames) for video_id, row in rows})

        def counts(video_id: str) -> bool:
            own, other = (rows.get(video_id, ("", 0)) for rows in there)
            if own[0] == other[0] == "ok":
                return True
            partial = self._keep_partial and {own[0], other[0]} <= {"ok", "partial"}
            return partial and own[1] == other[1]  # one may have ended where the other did not

        ids = [video.video_id for video in self._asked]
        return [one for one in ids if counts(one)], [one for one in ids if not counts(one)]


def _check_controls(configs: Sequence[JobConfig]) -> None:
    """Refuses calibrations of another network or engine; all are jobs of one network."""
    if configs:
        model = load_job_model(configs[0])
        for config in configs:
            make_recipe(model, config)


@dataclass(frozen=True)
class _Sums:
    """Over videos.

    Attributes:
        frames, key_frames: counts.
        work: of the share of the dense MACs.
        network: seconds, as the file has them.
    """

    frames: int
    key_frames: int
    work: float
    network: float


def _sums(path: Path, video_ids: Sequence[str]) -> _Sums:
    frames = key_frames = 0
    work = network = 0.0
    with FeatureFile(path) as file:
        for video_id in video_ids:
            video = file[video_id]
            frames += video.n_frames
            key_frames += int(video.key_frame.sum())
            work += float(np.sum(video.work, dtype=np.float64))
            network += float(video.attrs["seconds_network"])
    return _Sums(frames, key_frames, work, network)


def _engine_of(path: Path) -> str:
    """What computed a feature file, where the job may have said "auto"."""
    with FeatureFile(path) as file:
        return str(file.attrs["engine"])


def _classes_of(
    part: Mapping[str, tuple[int, ...]], keys: Iterable[str], labels: Labels
) -> NDArray[np.bool_]:
    """(C,), the classes of those videos of a part that are there."""
    there = [number for key in keys for number in part.get(key, ())]
    return np.isin(np.arange(len(labels.classes)), there)


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
