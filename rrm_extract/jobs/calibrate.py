"""A calibration from the videos to its file."""

from __future__ import annotations

import multiprocessing
import signal
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path

from rrm_extract.config import JobConfig
from rrm_extract.errors import CalibrationError, RrmError, StoreWriteError, WorkerError
from rrm_extract.jobs.calibration import (
    AccumulatedCalibration,
    Calibration,
    TargetCalibration,
    is_calibration,
    load,
    save,
)
from rrm_extract.jobs.discover import discover
from rrm_extract.jobs.pool import STOP_SECONDS, obituary
from rrm_extract.jobs.signals import held_back
from rrm_extract.jobs.worker import HEARTBEAT_SECONDS, end_with_parent

__all__ = ["calibrate_apart", "check_output", "earlier", "run_calibration"]

DEFAULT_CLIPS, DEFAULT_FRAMES = 8, 48
"""Videos that a calibration looks at, and frames of each."""

MOST_BROKEN = 8
"""Videos that may end the process that calibrates; more, and it is not the videos."""


def run_calibration(
    config: JobConfig,
    output: Path,
    *,
    clips: int = DEFAULT_CLIPS,
    frames: int = DEFAULT_FRAMES,
    plot: Path | None = None,
    say: Callable[[str], None],
    without: Collection[str] = (),
    reads: Callable[[str | None], None] | None = None,
) -> Calibration:
    """Calibrates and writes the file.

    Args:
        config: the job; with the policy "paper" the accumulated-error control is fitted, else the
            thresholds for ``target_error`` are found.
        output: the file.
        clips: how many videos are looked at, at most.
        frames: how many sampled frames of each.
        plot: where the fit is drawn, with the policy "paper".
        say: is told what is being done.
        without: ids of videos that are not looked at.
        reads: see :func:`rrm_extract.jobs.samples.take_samples`.

    Raises:
        UsageError: the request cannot be met.
        StoreWriteError: the file cannot be written.
    """
    # Here: the process that leads a job imports this module, and is to stay without torch.
    from rrm_extract.jobs.calibrate_accumulated import calibrate_accumulated
    from rrm_extract.jobs.calibrate_target import calibrate_target
    from rrm_extract.jobs.recipe import (
        load_job_model,
        make_recipe,
        prepare_process,
        subject_of,
    )
    from rrm_extract.jobs.samples import take_samples

    check_folder(output)
    draw = None
    if plot is not None:
        from rrm_extract.jobs.fit_plot import check_figure, draw_fit

        check_figure(plot)
        draw = partial(draw_fit, path=plot)
    videos = discover(config.inputs, root=config.root, include=config.include)
    prepare_process(config.threads)
    model = load_job_model(config)
    recipe = make_recipe(model, config)
    subject = subject_of(model, config, recipe.layer, recipe.engine)
    samples = take_samples(
        videos,
        config,
        recipe,
        clips=clips,
        frames=frames,
        say=say,
        without=without,
        reads=reads,
    )
    count = sum(map(len, samples))
    say(f"calibrating on {count} frames of {len(samples)} of {len(videos)} videos")
    calibration: Calibration
    if config.policy == "paper":
        calibration, rounds = calibrate_accumulated(
            recipe, samples, subject=subject, threshold=config.threshold
        )
    else:
        if config.target_error is None:
            raise CalibrationError("no error was asked for; expected --target-error NUMBER")
        calibration = calibrate_target(
            recipe,
            samples,
            subject=subject,
            target=config.target_error,
            percentile=config.percentile,
            say=say,
        )
    save(calibration, output)
    if draw is not None and isinstance(calibration, AccumulatedCalibration):
        draw(calibration, rounds)
    return calibration


def calibrate_apart(config: JobConfig, output: Path, *, say: Callable[[str], None]) -> None:
    """The same in a process of its own, which then ends, and its memory with it.

    Where it ends, or nothing moves for ``config.timeout`` seconds, while it reads a video, it is
    started again without that one.

    Raises:
        UsageError: the request cannot be met.
        StoreWriteError: the file cannot be written.
        WorkerError: the system allows no more processes, or it ended without a word.
    """
    broken: list[str] = []
    while (found := _calibrate_without(broken, config, output, say=say)) is not None:
        broken.append(found.video_id)
        if len(broken) >= MOST_BROKEN:
            msg = (
                f"{len(broken)} videos ended the process that calibrates (the last: "
                f"{found.video_id}, {found.reason}); look at them, or at the decoder"
            )
            raise WorkerError(msg)
        say(f"{found.video_id}: while it was read the process that calibrates {found.reason}")


@dataclass(frozen=True)
class _Broken:
    """A video that ended the process, and how."""

    video_id: str
    reason: str


@dataclass(frozen=True)
class _Reading:
    """What the process says of the video that it reads; None when it has been read."""

    video_id: str | None


def _calibrate_without(
    broken: Sequence[str], config: JobConfig, output: Path, *, say: Callable[[str], None]
) -> _Broken | None:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    arguments = (theirs, config, output, tuple(broken))
    process = context.Process(target=_serve, args=arguments, daemon=True)
    # It comes with the first child, and would unblock Ctrl-C for that one.
    resource_tracker.ensure_running()
    try:
        with held_back():  # Ctrl-C is for the parent
            process.start()
    except OSError as error:
        ours.close()
        msg = f"no process can be started to calibrate ({error.strerror})"
        raise WorkerError(msg) from error
    finally:
        theirs.close()
    reading: str | None = None
    try:
        while True:
            try:
                if reading is not None and not ours.poll(config.timeout):
                    return _Broken(reading, f"was silent for {config.timeout:g} s and was killed")
                message = ours.recv()
            except (EOFError, OSError) as error:
                reason, advice = obituary(process)
                if reading is not None:
                    return _Broken(reading, reason)
                msg = f"the process that calibrates {reason}; {advice}"
                raise WorkerError(msg) from error
            if message is None:
                return None
            if isinstance(message, Exception):
                raise message
            if isinstance(message, _Reading):
                reading = message.video_id
            else:
                say(message)
    finally:
        process.kill()
        # Not for ever: a process that waits for a dead network drive cannot be killed.
        process.join(STOP_SECONDS)
        ours.close()


def _serve(parent: Connection, config: JobConfig, output: Path, without: tuple[str, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    threading.Thread(target=end_with_parent, daemon=True).start()
    told: tuple[str | None, float] = (None, 0.0)

    def reads(video_id: str | None) -> None:
        nonlocal told
        now = time.monotonic()
        if video_id != told[0] or now > told[1] + HEARTBEAT_SECONDS:
            told = (video_id, now)
            parent.send(_Reading(video_id))

    try:
        run_calibration(config, output, say=parent.send, without=without, reads=reads)
        parent.send(None)
    except RrmError as error:
        parent.send(error)


def check_folder(path: Path) -> None:
    """Refuses a file that cannot be written for want of its folder.

    Raises:
        StoreWriteError: there is no such folder.
    """
    if not path.parent.is_dir():
        raise StoreWriteError(f"cannot write {path}: {path.parent} is no folder; make it first")


def check_output(path: Path) -> None:
    """Refuses a file that is something else than a calibration, which would be lost.

    Raises:
        StoreWriteError: it is one.
    """
    if path.is_file() and not is_calibration(path):
        raise StoreWriteError(
            f"{path} is there already and is no calibration, so it is not written over; "
            "choose another -o"
        )


def earlier(path: Path) -> TargetCalibration | None:
    """What an earlier run has left there; None if that is of no use."""
    try:
        found = load(path, kind="target")
    except CalibrationError:
        return None
    return found if isinstance(found, TargetCalibration) else None
