"""The main job: all videos in, one feature file out."""

from __future__ import annotations

import json
import math
import platform
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import h5py
import numpy as np

from rrm_extract import __version__
from rrm_extract.config import DEFAULT_PERCENTILE, FEATURES, JobConfig
from rrm_extract.device import is_cpu
from rrm_extract.errors import (
    CalibrationSubjectError,
    ClipOpenError,
    ConfigError,
    FeatureRangeError,
    StoreMismatchError,
    StoreWriteError,
    WorkerError,
)
from rrm_extract.given_file import kept_mtime_ns
from rrm_extract.importable import current_folder_importable
from rrm_extract.jobs.accounting import Accounting
from rrm_extract.jobs.assemble import assemble
from rrm_extract.jobs.calibrate_apart import calibrate_apart
from rrm_extract.jobs.calibration import TargetCalibration, digest, load
from rrm_extract.jobs.compiled import beside
from rrm_extract.jobs.cores import usable_cores
from rrm_extract.jobs.discover import Video, discover
from rrm_extract.jobs.kept_calibration import calibration_path, has_calibration
from rrm_extract.jobs.loading import KeptNetwork, Loader, network_of
from rrm_extract.jobs.memory import peak_memory
from rrm_extract.jobs.messages import Alive, ChunkDone, ChunkTask, Fatal, Scanned, Task
from rrm_extract.jobs.plan import JobPlan
from rrm_extract.jobs.pool import Answered, Event, Lost, Worker, WorkerPool
from rrm_extract.jobs.progress import Progress
from rrm_extract.jobs.sampling import sampling_of
from rrm_extract.jobs.schedule import Schedule, VideoState
from rrm_extract.signals import held_back
from rrm_extract.store import FailureRecord, OutputStore, Source, load_chunk
from rrm_extract.store.files import remove, temp_path
from rrm_extract.store.place import OutputPlace
from rrm_extract.store.taskrows import FINDS
from rrm_extract.video import count_chunks, expected_frames

__all__ = ["RunSummary", "run_job"]

POLL_SECONDS = 0.5
"""How long the parent sleeps when no worker says anything."""


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """What a run did, and what the output holds after it.

    Attributes:
        output: the feature file.
        videos: number of videos of the job.
        done_before: how many of them earlier runs have done, whole or partial.
        failures: what could not be used, or not whole, earlier runs included.
        accounting: over the videos this run computed.
        frames_before: frames in it of chunks that interrupted runs have left.
        seconds: wall-clock time of the run.
        seconds_calibrate: of it, to find thresholds for a target.
        seconds_load: of it, until the network was loaded and traced, from then on.
        seconds_start: of it, until the first worker was ready; NaN if none was needed.
        workers: number of worker processes.
        workers_lost: how many died or were killed.
        peak_memory: largest resident memory of the parent, of a worker, and of the process that
            loaded the network and ended then (0 if an earlier job had), bytes.
        weights: where the weights come from.
        layer: whose value is stored, or what is found in it.
        notes: how the weights fit the network, if not whole.
        finds: what a task finds, "objects" or "people"; empty where features are stored.
    """

    output: Path
    videos: int
    done_before: int
    failures: tuple[FailureRecord, ...]
    accounting: Accounting
    frames_before: int
    seconds: float
    seconds_calibrate: float
    seconds_load: float
    seconds_start: float
    workers: int
    workers_lost: int
    peak_memory: tuple[int, int, int]
    weights: str
    layer: str
    notes: tuple[str, ...]
    finds: str

    @property
    def exit_code(self) -> int:
        """0 if every video is whole, else 1."""
        return 1 if self.failures else 0


def run_job(config: JobConfig) -> RunSummary:
    """Runs an extraction job to its end.

    A video is done when its part is on disk: interrupted at any moment, the same call goes on
    where it was.

    Args:
        config: the job; needs ``inputs`` and ``output``.

    Raises:
        UsageError: the job is wrong; nothing was written.
        StoreError: the output cannot be used; what was complete stays complete.
        WorkerError: no worker can be started, or one finds that none can go on.
        KeyboardInterrupt: the run was interrupted; finished videos stay finished.
    """
    began = time.monotonic()
    if config.output is None:
        msg = "no output was given; expected -o FILE.h5"
        raise ConfigError(msg)
    place = OutputPlace(Path(config.output))
    if config.target_error is None:
        return _load_and_run(config, place, began)
    with place:  # nobody else is to calibrate for it meanwhile
        return _run_with_target(config, place, began)


def _run_with_target(config: JobConfig, place: OutputPlace, began: float) -> RunSummary:
    """A job with thresholds for its target, which are found on a sample of its inputs.

    They are kept beside the output, so that the same command goes on with the same ones.

    Raises:
        StoreMismatchError: see :func:`has_calibration`, or they are those of another network; the
            calibration stays.
    """
    path = calibration_path(Path(str(config.output)))
    with_thresholds = config.replace(
        target_error=None, percentile=DEFAULT_PERCENTILE, thresholds=str(path)
    )
    if has_calibration(config, place, path):
        try:
            return _load_and_run(with_thresholds, place, began)
        except CalibrationSubjectError as error:
            if not config.overwrite:
                msg = (
                    f"{place.output} was made with another configuration ({error}); "
                    "use --overwrite to replace it, or another -o"
                )
                raise StoreMismatchError(msg) from error
    _calibrate(config, path)
    return _load_and_run(with_thresholds, place, began)


def _calibrate(config: JobConfig, path: Path) -> None:
    calibrate_apart(config, path, say=_say)
    made = load(path, kind="target")
    if isinstance(made, TargetCalibration) and not made.truncates:
        _say(made.nothing_won())


def _load_and_run(config: JobConfig, place: OutputPlace, began: float) -> RunSummary:
    begins_to_load = time.monotonic()
    if ":" in config.model:  # of the user's own code, which workers and errors refer to
        current_folder_importable()
    with (
        network_of(config) as loader,
        # They import what they need beside the loader.
        WorkerPool(
            size=_pool_size(config),
            threads=config.threads,
            timeout=config.timeout,
            with_torch=_needs_torch(config),
        ) as pool,
    ):
        return _run_job(config, place, loader, pool, began, begins_to_load)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _pool_size(config: JobConfig) -> int:
    if config.workers is not None:
        return config.workers
    if not is_cpu(config.device):
        return 1
    return max(1, usable_cores() // config.threads)


def _needs_torch(config: JobConfig) -> bool:
    """Whether workers will, as far as can be known before the network is."""
    return config.engine == "torch" or not is_cpu(config.device) or config.task != FEATURES


def _run_job(
    config: JobConfig,
    place: OutputPlace,
    loader: Loader | KeptNetwork,
    pool: WorkerPool,
    began: float,
    begins_to_load: float,
) -> RunSummary:
    videos = discover(config.inputs, root=config.root, include=config.include)
    plan = loader.plan()
    if plan.engine == "native":
        # The workers were started before the engine was known; a native one has a single thread.
        pool.grow(_pool_size(config.replace(threads=1)))
    loaded = time.monotonic()
    identity = identity_of(config, plan)
    with (
        OutputStore(
            place,
            identity,
            overwrite=config.overwrite,
            task=None if plan.task is None else plan.task.rows,
            kernel_isa=plan.kernel_isa,
        ) as store,
        Progress(videos=len(videos), show=config.progress, json_log=config.json_log) as progress,
    ):
        progress.event(
            "start",
            videos=len(videos),
            identity=identity,
            output=config.output,
            network_kept=isinstance(loader, KeptNetwork),
        )
        run = _Run(config, plan, loader, pool, store, progress, videos)
        run.work()
        failures = tuple(run.failures[key] for key in sorted(run.failures))
        with held_back() as let_through:  # HDF5 does not survive an interrupt while it writes
            store.finish(
                # A video that is not there now keeps the features that it once gave.
                [state.source for state in run.states if state.source.size >= 0],
                failures,
                root_attrs(config, plan),
                complete=True,
                let_through=let_through,
            )
        summary = RunSummary(
            output=Path(str(config.output)),
            videos=len(videos),
            done_before=run.done_before,
            failures=failures,
            accounting=run.accounting,
            frames_before=run.frames_before,
            seconds=time.monotonic() - began,
            seconds_calibrate=begins_to_load - began,
            seconds_load=loaded - begins_to_load,
            seconds_start=run.ready - began,
            workers=run.size,
            workers_lost=run.lost,
            peak_memory=(peak_memory(), run.peak_memory, loader.peak_memory),
            weights=plan.weights_text,
            layer=plan.layer,
            notes=plan.notes,
            finds="" if plan.task is None else FINDS[plan.task.rows.task],
        )
        progress.event(
            "end",
            **summary.accounting.counts(),
            frames_before=summary.frames_before,
            failures=len(failures),
            seconds=summary.seconds,
            seconds_calibrate=summary.seconds_calibrate,
            seconds_load=summary.seconds_load,
            seconds_start=summary.seconds_start if run.size else None,
            **summary.accounting.measures(),
        )
    return summary


def identity_of(config: JobConfig, plan: JobPlan) -> dict[str, Any]:
    """The settings that decide the numbers, with names resolved to what they stand for."""
    identity = config.identity()
    identity["model"] = config.model_name
    identity["weights"] = plan.weights_id
    identity["weights_sha256"] = plan.weights_sha256
    identity["preprocess"] = plan.preprocess
    identity["layer"] = plan.layer
    identity["engine"] = plan.engine
    # Where the calibration lies does not matter, what is in it does.
    identity["calibration"] = plan.calibration and digest(plan.calibration)
    del identity["thresholds"], identity["aecs"]
    if plan.task is not None:
        identity |= plan.task.options
    if plan.calibration and plan.calibration["kind"] == "target":
        identity |= {key: plan.calibration[key] for key in ("target_error", "percentile")}
    return identity


def root_attrs(config: JobConfig, plan: JobPlan) -> dict[str, Any]:
    """Root attributes of the feature file, except those that the store sets itself."""
    threshold: Any = config.threshold
    if plan.calibration and plan.calibration["kind"] == "target":
        threshold = plan.calibration["thresholds"]
    versions = {
        "python": platform.python_version(),
        **plan.versions,
        "av": av.__version__,
        "h5py": h5py.__version__,
        "numpy": np.__version__,
    }
    return {
        "tool_version": __version__,
        "config_json": json.dumps(config.to_mapping(), sort_keys=True),
        "model": config.model,
        "weights_id": plan.weights_id,
        "weights_sha256": plan.weights_sha256,
        "layer": plan.layer,
        "threshold": threshold if isinstance(threshold, float) else json.dumps(threshold),
        "policy": config.policy,
        "chunk": config.chunk,
        "fps": config.fps,
        "preprocess_json": json.dumps(plan.preprocess, sort_keys=True),
        "versions_json": json.dumps(versions, sort_keys=True),
        "engine": plan.engine,
        "precision": plan.precision,
        "calibration_json": json.dumps(plan.calibration, sort_keys=True),
        # Where it says no more, files are as they always were.
        **({} if plan.weights_text == plan.weights_id else {"weights_text": plan.weights_text}),
        **({} if plan.task is None else plan.task.about),
    }


class _Run:
    """One run: the videos' states, the workers, and what happens between them."""

    def __init__(
        self,
        config: JobConfig,
        plan: JobPlan,
        loader: Loader | KeptNetwork,
        pool: WorkerPool,
        store: OutputStore,
        progress: Progress,
        videos: list[Video],
    ) -> None:
        self.config = config
        self.plan = plan
        self.loader = loader
        self.pool = pool
        self.store = store
        self.progress = progress
        self.sampling = sampling_of(config)
        self.accounting = Accounting(plan.layers)
        self.failures: dict[str, FailureRecord] = {}
        self.done_before = 0
        self.frames_before = 0
        self.lost = 0
        self.peak_memory = 0
        self.size = 0
        self.ready = math.nan
        self._expected: dict[int, int] = {}
        self._expected_frames = 0  # the sum of it, which is asked for with every video
        self._told: dict[Worker, tuple[int, float]] = {}
        absent: list[tuple[VideoState, str]] = []
        self.states: list[VideoState] = []
        for key, video in enumerate(videos):
            source, problem = _source_of(video)
            self.states.append(VideoState(key, video, source))
            if problem:
                absent.append((self.states[-1], problem))
            else:
                self._look_up(self.states[-1])
        self.schedule = Schedule(
            (state for state in self.states if not state.closed and state.source.size >= 0),
            self.sampling,
        )
        for state, problem in absent:
            reason = f"{state.video.path}: {problem}; expected a video file"
            self._fail(state, "open", ClipOpenError.__name__, reason)

    def _look_up(self, state: VideoState) -> None:
        """Closes a video that an earlier run has settled."""
        status, failure = self.store.status(state.source), self.store.failure(state.source)
        if status == "ok":
            failure = None
        elif failure is not None and (self.config.retry_failed or failure.source_size < 0):
            # A file that could not be found then is another file now. A partial video is computed
            # again as a whole.
            self.store.clear_failure(state.video.video_id)
            failure = None
        if failure is not None:
            self.failures[state.video.video_id] = failure
        # A partial video without a failure: the run was killed between writing the one and the
        # other. What was wrong with it is found again.
        if status == "ok" or failure is not None:
            state.closed = True
            self.done_before += status is not None
            self.progress.video_done()

    def work(self) -> None:
        """Computes all videos that are not settled yet."""
        if self.schedule.exhausted:
            return
        pool = self.pool
        self.size = len(pool.workers)
        recipe_path = temp_path(self.store.parts_dir / "recipe")
        try:
            self.loader.save(recipe_path)
            pool.load(recipe_path)
            try:
                while not self.schedule.exhausted:
                    self._hand_out()
                    for worker, event in pool.poll(POLL_SECONDS):
                        self._hear(worker, event)
            finally:
                self.ready = pool.ready
                pool.close()
        finally:
            for path in (recipe_path, beside(recipe_path)):
                remove(path)  # a disk that takes nothing more has an error of its own

    def _hand_out(self) -> None:
        for worker in self.pool.workers:
            if not worker.idle:
                continue
            following = self.schedule.next_task(worker.last_task, self.store.chunk_path)
            if following is not None and not self.pool.submit(worker, following[1]):
                self.schedule.put_back(*following)

    def _hear(self, worker: Worker, event: Event) -> None:
        if isinstance(event, Alive):
            frames, work = self._told.get(worker, (0, 0.0))
            self._told[worker] = (frames + event.frames, work + event.work)
            self.progress.advance(event.frames, event.work)
        elif isinstance(event, Fatal):
            raise (StoreWriteError if event.is_store else WorkerError)(event.message)
        elif isinstance(event, Lost):
            self._take_back(worker)
            self._lose(event)
        else:
            self._answered(worker, event)

    def _take_back(self, worker: Worker) -> None:
        """What a worker has computed since its last answer does not count."""
        frames, work = self._told.pop(worker, (0, 0.0))
        self.progress.advance(-frames, -work)

    def _answered(self, worker: Worker, event: Answered) -> None:
        task, answer = event.task, event.answer
        state = self.states[task.video]
        if isinstance(task, ChunkTask):
            state.running.discard(task.index)
        if state.closed:  # the video ended before this chunk
            self._take_back(worker)
        elif isinstance(answer, Scanned):
            self._scanned(state, answer)
        elif isinstance(answer, ChunkDone):
            self._told.pop(worker, None)
            self.accounting.seconds["write"] += answer.seconds_write
            self.peak_memory = max(self.peak_memory, answer.peak_memory)
            if answer.damage:
                _count_attempt(state, task)
            self._chunk_done(state, answer.index, answer.frames, answer.damage)
        else:
            self._take_back(worker)
            _count_attempt(state, task)
            self._give_up(state, task, answer.stage, answer.error_type, answer.message)

    def _scanned(self, state: VideoState, message: Scanned) -> None:
        state.info = info = message.info
        # The scan decides which version of the file is read: it may be hours after the start.
        state.source = Source(state.video.video_id, info.source_size, info.source_mtime_ns)
        self._set_expected(state, expected_frames(info, self.sampling))
        self._expect()
        state.pending = set(range(count_chunks(info, self.sampling)))
        for index in sorted(state.pending):  # what an interrupted run has left
            if index not in state.pending:  # behind the damage
                break
            earlier = load_chunk(self.store.chunk_path(state.source, index))
            # What could not be read then, may be readable now.
            is_tried_again = earlier is not None and earlier.damage and self.config.retry_failed
            if earlier is not None and not is_tried_again:
                state.pending.discard(index)
                state.earlier.add(index)
                self.progress.advance(len(earlier.timestamps), float(earlier.work.sum()))
                self._chunk_done(state, index, len(earlier.timestamps), earlier.damage)
        self._settle(state)

    def _set_expected(self, state: VideoState, frames: int) -> None:
        self._expected_frames += frames - self._expected.get(state.key, 0)
        self._expected[state.key] = frames

    def _expect(self) -> None:
        known = self._expected_frames
        unknown = self.schedule.unscanned * known / max(1, len(self._expected))
        self.progress.expect(round(known + unknown))

    def _chunk_done(self, state: VideoState, index: int, frames: int, damage: str) -> None:
        state.done[index] = frames
        if damage:
            state.damage_at(index, damage)
        self._settle(state)

    def _lose(self, lost: Lost) -> None:
        """A worker died: what it was doing is tried again, or given up."""
        self.lost += 1
        task = lost.task
        if task is None:
            self.progress.event("worker_lost", reason=lost.reason)
            return
        state = self.states[task.video]
        self.progress.event(
            "worker_lost", video_id=state.video.video_id, task=task.what, reason=lost.reason
        )
        if state.closed:
            state.running.discard(getattr(task, "index", -1))
            return
        index = task.index if isinstance(task, ChunkTask) else None
        attempts = _count_attempt(state, task)
        if attempts <= self.config.retries:
            self.schedule.put_back(state, task)
            return
        times = "once" if attempts == 1 else f"{attempts} times"
        reason = (
            f"{state.video.path}: the worker {lost.reason} while {task.what}, {times}; "
            f"{lost.advice}, and --retry-failed"
        )
        if index is not None:
            state.running.discard(index)
        self._give_up(state, task, "scan" if index is None else "compute", "WorkerError", reason)

    def _give_up(
        self, state: VideoState, task: Task, stage: str, error_type: str, reason: str
    ) -> None:
        """A task will not be done: what comes before it is all there will be of the video."""
        if isinstance(task, ChunkTask):
            state.damage_at(task.index, reason, stage=stage, error_type=error_type)
            self._settle(state)
        else:
            now, problem = _source_of(state.video)
            if problem:
                state.source = now  # as where it is missing from the start
            self._fail(state, stage, error_type, reason)

    def _settle(self, state: VideoState) -> None:
        """Writes a video whose chunks are all there."""
        if state.closed or not state.finished:
            return
        source, problem = _source_of(state.video)
        if source != state.source:
            if problem:
                state.source = source  # that of no file: should it come back, it is read again
            what = problem or "the file was changed"
            reason = f"{state.video.path}: {what} while it was being read; run the command again"
            self._fail(state, "open", ClipOpenError.__name__, reason)
            return
        frames = sum(state.done[index] for index in state.chunks())
        if frames == 0:
            reason = state.damage or f"{state.video.path}: no frame could be decoded"
            self._fail(state, state.damage_stage, state.damage_type, reason)
            return
        before = self.store.done(state.source)
        if state.damage and before is not None and before.n_frames > frames:
            # Tried again, it came to less: what an earlier run has of it stays.
            self._fail(state, state.damage_stage, state.damage_type, state.damage)
            return
        began = time.perf_counter()
        try:
            with held_back():  # HDF5 does not survive an interrupt while it writes
                seen = assemble(self.store, state, self.plan, dtype=self.config.dtype)
        except FeatureRangeError as error:
            self._fail(state, "write", FeatureRangeError.__name__, str(error))
            return
        seen.seconds["write"] += time.perf_counter() - began
        self.accounting.merge(seen)
        self.frames_before += sum(
            state.done[index] for index in state.chunks() if index in state.earlier
        )
        if state.damage:
            # After the part: a failure alone would be a video of which nothing could be used.
            self._record(state, state.damage_stage, state.damage_type, state.damage)
        self._close(state)
        self.progress.event(
            "video",
            video_id=state.video.video_id,
            status="partial" if state.damage else "ok",
            **seen.counts(),
            **seen.measures(),
        )

    def _fail(self, state: VideoState, stage: str, error_type: str, message: str) -> None:
        self._record(state, stage, error_type, message)
        self._close(state)

    def _record(self, state: VideoState, stage: str, error_type: str, message: str) -> None:
        record = FailureRecord(
            video_id=state.video.video_id,
            stage=stage,
            error_type=error_type,
            message=message,
            attempts=max(1, state.attempts.get(state.damaged, 0)),
            source_size=state.source.size,
            source_mtime_ns=state.source.mtime_ns,
        )
        self.failures[record.video_id] = record
        self.store.record_failure(record)
        self.progress.say(f"{record.video_id}: {record.message}")
        self.progress.event(
            "failure",
            video_id=record.video_id,
            stage=stage,
            error_type=error_type,
            message=message,
        )

    def _close(self, state: VideoState) -> None:
        state.closed = True
        state.info = None  # the packets of all videos would be a gigabyte at last
        if state.key in self._expected:
            self._set_expected(state, sum(state.done.values()))
        self.schedule.close(state)
        self._expect()
        self.progress.video_done()


def _count_attempt(state: VideoState, task: Task) -> int:
    """Notes a try that came to nothing, or to damage; how many there are now.

    Counted for each chunk: a long video may well outlive more workers than a short one.
    """
    index = task.index if isinstance(task, ChunkTask) else None
    count = state.attempts[index] = state.attempts.get(index, 0) + 1
    return count


def _source_of(video: Video) -> tuple[Source, str]:
    """The file as it is now; its size is -1 where there is none, and why there is none."""
    try:
        stat = video.path.stat()
    except OSError as error:
        return Source(video.video_id, -1, -1), error.strerror or str(error)
    except ValueError as error:  # a null character in a listed name
        return Source(video.video_id, -1, -1), str(error)
    return Source(video.video_id, stat.st_size, kept_mtime_ns(stat)), ""
