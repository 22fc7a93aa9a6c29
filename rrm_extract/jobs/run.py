"""The main job: all videos in, one feature file out."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import h5py
import numpy as np
import torch
import torchvision

from rrm_extract import __version__
from rrm_extract.config import JobConfig
from rrm_extract.errors import ClipOpenError, ConfigError, RrmError, StoreWriteError
from rrm_extract.jobs.accounting import Accounting
from rrm_extract.jobs.assemble import assemble
from rrm_extract.jobs.discover import Video, discover
from rrm_extract.jobs.messages import Alive, ChunkDone, Fatal, Scanned, TaskFailed
from rrm_extract.jobs.pool import Lost, Worker, WorkerPool
from rrm_extract.jobs.progress import Progress
from rrm_extract.jobs.recipe import Recipe, make_recipe, sampling_of, save_recipe
from rrm_extract.jobs.schedule import Schedule, VideoState
from rrm_extract.jobs.worker import peak_memory
from rrm_extract.models import LoadedModel, load_model
from rrm_extract.store import FailureRecord, OutputStore, Source, load_chunk
from rrm_extract.store.files import temp_path
from rrm_extract.video import count_chunks, expected_frames

__all__ = ["RunSummary", "run_job", "usable_cores"]

POLL_SECONDS = 0.5
"""How long the parent sleeps when no worker says anything."""


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """What a run did, and what the output holds after it.

    Attributes:
        output: the feature file.
        videos: number of videos of the job.
        done_before: how many of them were complete when the run began.
        failures: what could not be used, or not whole, earlier runs included.
        accounting: over the videos this run computed.
        seconds: wall-clock time of the run.
        seconds_load: of it, loading and tracing the network.
        workers: number of worker processes.
        workers_lost: how many died or were killed.
        peak_memory: largest resident memory of the parent and of a worker, bytes.
        weights: the weights' id.
    """

    output: Path
    videos: int
    done_before: int
    failures: tuple[FailureRecord, ...]
    accounting: Accounting
    seconds: float
    seconds_load: float
    workers: int
    workers_lost: int
    peak_memory: tuple[int, int]
    weights: str

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
        WorkerError: no worker can be started.
        KeyboardInterrupt: the run was interrupted; finished videos stay finished.
    """
    began = time.monotonic()
    if config.output is None:
        msg = "no output was given; expected -o FILE.h5"
        raise ConfigError(msg)
    videos = discover(config.inputs, root=config.root, include=config.include)
    model = load_model(config.model, weights=config.weights, preprocess=config.preprocess)
    recipe = make_recipe(model, config)
    identity = identity_of(config, model, recipe)
    loaded = time.monotonic()
    with (
        OutputStore(Path(config.output), identity, overwrite=config.overwrite) as store,
        Progress(videos=len(videos), show=config.progress, json_log=config.json_log) as progress,
    ):
        run = _Run(config, recipe, store, progress, videos)
        progress.event("start", videos=len(videos), identity=identity, output=config.output)
        run.work()
        failures = tuple(run.failures[key] for key in sorted(run.failures))
        store.finish(
            [state.source for state in run.states],
            failures,
            root_attrs(config, model, recipe),
            complete=True,
        )
        summary = RunSummary(
            output=Path(config.output),
            videos=len(videos),
            done_before=run.done_before,
            failures=failures,
            accounting=run.accounting,
            seconds=time.monotonic() - began,
            seconds_load=loaded - began,
            workers=run.size,
            workers_lost=run.lost,
            peak_memory=(peak_memory(), run.peak_memory),
            weights=model.weights_id,
        )
        progress.event(
            "end",
            frames=summary.accounting.frames,
            failures=len(failures),
            seconds=summary.seconds,
            **summary.accounting.measures(),
        )
    return summary


def usable_cores() -> int:
    """Cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def identity_of(config: JobConfig, model: LoadedModel, recipe: Recipe) -> dict[str, Any]:
    """The settings that decide the numbers, with names resolved to what they stand for."""
    identity = config.identity()
    if Path(config.model).is_file():
        identity["model"] = Path(config.model).name
    identity["weights"] = model.weights_id
    identity["weights_sha256"] = model.weights_sha256
    identity["preprocess"] = model.preprocess
    identity["layer"] = recipe.layer
    identity["engine"] = "torch"
    return identity


def root_attrs(config: JobConfig, model: LoadedModel, recipe: Recipe) -> dict[str, Any]:
    """Root attributes of the feature file, except those that the store sets itself."""
    threshold = config.threshold
    versions = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "av": av.__version__,
        "h5py": h5py.__version__,
        "numpy": np.__version__,
    }
    return {
        "tool_version": __version__,
        "config_json": json.dumps(config.to_mapping(), sort_keys=True),
        "model": config.model,
        "weights_id": model.weights_id,
        "weights_sha256": model.weights_sha256,
        "layer": recipe.layer,
        "threshold": threshold if isinstance(threshold, float) else json.dumps(threshold),
        "policy": config.policy,
        "chunk": config.chunk,
        "fps": config.fps,
        "preprocess_json": json.dumps(model.preprocess, sort_keys=True),
        "versions_json": json.dumps(versions, sort_keys=True),
        "engine": "torch",
        "kernel_isa": torch.backends.cpu.get_cpu_capability(),
    }


class _Run:
    """One run: the videos' states, the workers, and what happens between them."""

    def __init__(
        self,
        config: JobConfig,
        recipe: Recipe,
        store: OutputStore,
        progress: Progress,
        videos: list[Video],
    ) -> None:
        self.config = config
        self.recipe = recipe
        self.store = store
        self.progress = progress
        self.sampling = sampling_of(config)
        self.accounting = Accounting(recipe.layers)
        self.failures: dict[str, FailureRecord] = {}
        self.states: list[VideoState] = []
        self.done_before = 0
        self.lost = 0
        self.peak_memory = 0
        self.size = 0
        self._expected: dict[int, int] = {}
        self._waiting = [state for state in self._known(videos) if not state.closed]
        self.schedule = Schedule(self._waiting, self.sampling)

    def _known(self, videos: Iterable[Video]) -> list[VideoState]:
        """The videos' states, with what earlier runs have settled."""
        for key, video in enumerate(videos):
            try:
                stat = video.path.stat()
                source = Source(video.video_id, stat.st_size, stat.st_mtime_ns)
            except OSError as error:
                source = Source(video.video_id, -1, -1)
                state = VideoState(key, video, source, closed=True)
                self.states.append(state)
                reason = f"{video.path}: {error.strerror}; expected a video file"
                self._fail(state, "open", ClipOpenError.__name__, reason)
                continue
            state = VideoState(key, video, source)
            self.states.append(state)
            status = self.store.status(source)
            failure = self.store.failure(source)
            if failure is not None and self.config.retry_failed:
                self.store.clear_failure(video.video_id)
                failure = None  # a partial video is then computed again as a whole
            if failure is None and status == "partial":
                # The run was killed between the part and its entry in the table of failures.
                status = None
            if failure is not None:
                self.failures[video.video_id] = failure
            if status is not None or failure is not None:
                state.closed = True
                self.done_before += 1
                self.progress.video_done()
        return self.states

    def work(self) -> None:
        """Computes all videos that are not settled yet."""
        if not self._waiting:
            return
        self.size = self._pool_size()
        recipe_path = temp_path(self.store.parts_dir / "recipe")
        save_recipe(self.recipe, recipe_path)
        pool = WorkerPool(
            size=self.size,
            recipe_path=recipe_path,
            threads=self.config.threads,
            timeout=self.config.timeout,
        )
        finished = False
        try:
            while not self.schedule.exhausted:
                self._hand_out(pool)
                for worker, message in pool.poll(POLL_SECONDS):
                    self._hear(pool, worker, message)
            finished = True
        finally:
            pool.close(kill=not finished)
            recipe_path.unlink(missing_ok=True)

    def _pool_size(self) -> int:
        if self.config.workers is not None:
            return self.config.workers
        if self.config.device != "cpu":
            return 1
        return max(1, usable_cores() // self.config.threads)

    def _hand_out(self, pool: WorkerPool) -> None:
        for worker in pool.workers:
            if not worker.idle:
                continue
            following = self.schedule.next_task(worker.last_task, self.store.chunk_path)
            if following is not None:
                pool.submit(worker, following[1])

    def _hear(self, pool: WorkerPool, worker: Worker, message: object) -> None:
        if isinstance(message, Alive):
            self.progress.advance(message.frames, message.work)
            return
        if isinstance(message, Fatal):
            error: type[RrmError] = StoreWriteError if message.is_store else RrmError
            raise error(message.message)
        task = worker.task
        if isinstance(message, Lost):
            self.lost += 1
            if message.task is not None:
                self._lose(self.states[message.task.video], message)
            else:
                self.progress.event("worker_lost", reason=message.reason)
            return
        if task is None:  # Ready
            return
        state = self.states[task.video]
        pool.finished(worker)
        if isinstance(message, Scanned):
            self._scanned(state, message)
        elif isinstance(message, ChunkDone):
            state.running.discard(message.index)
            self._chunk_done(state, message.index, message.frames, message.damage)
            self.accounting.seconds["write"] += message.seconds_write
            self.peak_memory = max(self.peak_memory, message.peak_memory)
        elif isinstance(message, TaskFailed):
            index = getattr(task, "index", None)
            if index is None:
                self._fail(state, message.stage, message.error_type, message.message)
            else:
                state.running.discard(index)
                state.damage_at(index, message.message)
                state.damage_type = message.error_type
                state.damage_stage = message.stage
                self._settle(state)

    def _scanned(self, state: VideoState, message: Scanned) -> None:
        state.scanning = False
        state.info = message.info
        self._expected[state.key] = expected_frames(message.info, self.sampling)
        self._expect()
        state.pending = set(range(count_chunks(message.info, self.sampling)))
        for index in sorted(state.pending):  # what an interrupted run has left
            earlier = load_chunk(self.store.chunk_path(state.source, index))
            if earlier is not None:
                state.pending.discard(index)
                self.progress.advance(len(earlier.timestamps), float(earlier.work.sum()))
                self._chunk_done(state, index, len(earlier.timestamps), earlier.damage)
        self._settle(state)

    def _expect(self) -> None:
        known = sum(self._expected.values())
        unknown = self.schedule.unscanned * known / max(1, len(self._expected))
        self.progress.expect(round(known + unknown))

    def _chunk_done(self, state: VideoState, index: int, frames: int, damage: str) -> None:
        state.done[index] = frames
        if damage:
            state.damage_at(index, damage)
        self._settle(state)

    def _lose(self, state: VideoState, lost: Lost) -> None:
        """A worker died over a video: try again, or give the video up."""
        task = lost.task
        what = "starting" if task is None else task.what
        self.progress.event("worker_lost", video_id=state.video.video_id, reason=lost.reason)
        if state.closed:
            return
        state.attempts += 1
        index = getattr(task, "index", None)
        if index is not None:
            state.running.discard(index)
        if state.attempts <= self.config.retries:
            if index is None:
                self.schedule.rescan(state)
            elif state.damaged is None or index < state.damaged:
                state.pending.add(index)
            return
        reason = (
            f"the worker was {lost.reason} while {what}, {state.attempts} times; "
            "try with fewer --workers or a longer --timeout, and --retry-failed"
        )
        if index is None:
            self._fail(state, "scan", "WorkerError", reason)
        else:
            state.damage_at(index, reason)
            state.damage_type, state.damage_stage = "WorkerError", "compute"
            self._settle(state)

    def _settle(self, state: VideoState) -> None:
        """Writes a video whose chunks are all there."""
        if state.closed or not state.finished:
            return
        frames = sum(state.done[index] for index in state.chunks())
        if frames == 0:
            reason = state.damage or f"{state.video.path}: no frame could be decoded"
            stage = state.damage_stage if state.damage else "decode"
            self._fail(state, stage, state.damage_type, reason)
            return
        try:
            stat = state.video.path.stat()
            unchanged = (stat.st_size, stat.st_mtime_ns) == (
                state.source.size,
                state.source.mtime_ns,
            )
        except OSError:
            unchanged = False
        if not unchanged:
            reason = f"{state.video.path} changed while it was read; run again with --retry-failed"
            self._fail(state, "open", "ClipOpenError", reason)
            return
        began = time.perf_counter()
        seen = assemble(self.store, state, self.recipe, dtype=self.config.dtype)
        seen.seconds["write"] += time.perf_counter() - began
        self.accounting.merge(seen)
        if state.damage:
            self._record(state, state.damage_stage, state.damage_type, state.damage)
        self._close(state)
        self.progress.event(
            "video",
            video_id=state.video.video_id,
            status="partial" if state.damage else "ok",
            frames=frames,
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
            attempts=max(1, state.attempts),
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
        if state.key in self._expected:
            self._expected[state.key] = sum(state.done.values())
        if hasattr(self, "schedule"):
            self.schedule.close(state)
            self._expect()
        self.progress.video_done()
