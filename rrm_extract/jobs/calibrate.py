"""A calibration from the videos to its file."""

from __future__ import annotations

import stat
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rrm_extract.config import JobConfig
from rrm_extract.errors import CalibrationError, StoreWriteError
from rrm_extract.jobs.calibration import (
    AccumulatedCalibration,
    Calibration,
    TargetCalibration,
    is_calibration,
    load,
    save,
)
from rrm_extract.jobs.discover import discover
from rrm_extract.store.files import check_folder, writing

if TYPE_CHECKING:
    from rrm_extract.jobs.samples import ReadingWatch

__all__ = ["check_output", "earlier", "run_calibration"]

DEFAULT_CLIPS, DEFAULT_FRAMES = 8, 48
"""Videos that a calibration looks at, and frames of each."""


def run_calibration(
    config: JobConfig,
    output: Path,
    *,
    clips: int = DEFAULT_CLIPS,
    frames: int = DEFAULT_FRAMES,
    plot: Path | None = None,
    overwrite: bool = False,
    say: Callable[[str], None],
    without: Collection[str] = (),
    watch: ReadingWatch | None = None,
) -> Calibration:
    """Calibrates and writes the file.

    Args:
        config: the job; with the policy "paper" the accumulated-error control is fitted, else the
            thresholds for ``target_error`` are found.
        output: the file.
        clips: how many videos are looked at, at most.
        frames: how many sampled frames of each.
        plot: where the fit is drawn, with the policy "paper".
        overwrite: replace what is there under the name of ``plot``.
        say: is told what is being done.
        without: ids of videos that are not looked at.
        watch: see :func:`rrm_extract.jobs.samples.take_samples`.

    Raises:
        UsageError: the request cannot be met.
        StoreWriteError: the file cannot be written.
    """
    # Here: the process that leads a job imports this module, and is to stay without torch.
    from rrm_extract.jobs.calibrate_accumulated import calibrate_accumulated
    from rrm_extract.jobs.calibrate_target import calibrate_target
    from rrm_extract.jobs.recipe import (
        all_notes,
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

        check_figure(plot, overwrite=overwrite)
        draw = partial(draw_fit, path=plot)
    videos = discover(config.inputs, root=config.root, include=config.include)
    prepare_process(config.threads)
    model = load_job_model(config)
    recipe = make_recipe(model, config)
    for note in all_notes(model, recipe):
        say(note)
    subject = subject_of(model, config, recipe.layer, recipe.engine)
    samples = take_samples(
        videos,
        config,
        recipe,
        clips=clips,
        frames=frames,
        say=say,
        without=without,
        watch=watch,
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
    calibration = replace(calibration, report={**calibration.report, "weights": model.weights_text})
    save(calibration, output)
    if draw is not None and isinstance(calibration, AccumulatedCalibration):
        draw(calibration, rounds)
    return calibration


def check_output(path: Path) -> None:
    """Refuses a file that is something else than a calibration, which would be lost.

    Raises:
        StoreWriteError: it is one, or it may not be looked at.
    """
    # Not is_file(), which from Python 3.14 on takes what may not be looked at for missing.
    with writing(path), suppress(FileNotFoundError, NotADirectoryError):
        if stat.S_ISREG(path.stat().st_mode) and not is_calibration(path):
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
