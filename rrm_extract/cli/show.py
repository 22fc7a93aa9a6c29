"""``rrm-extract show``: a clip with what was recomputed painted over it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click

from rrm_extract.cli.options import job_from, job_options
from rrm_extract.errors import ConfigError, InputError

__all__ = ["show"]

OPTIONS = (  # of a job, those that a look has a use for
    "model",
    "weights",
    "preprocess",
    "threshold",
    "policy",
    "thresholds",
    "aecs",
    "error_limit",
    "cuts",
    "refresh",
    "fps",
    "chunk",
    "device",
    "threads",
    "time_batch",
    "progress",
)


@click.command(short_help="Paint what was recomputed over a clip.")
@click.argument("video", metavar="VIDEO")
@job_options(OPTIONS)
@click.option(
    "--layer",
    metavar="NAME",
    help="Layer, or module, whose changes are painted; by default all, weighted by their MACs. "
    "Example: --layer conv1",
)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="File to write: .mp4, .mov or .mkv, or a .png or .jpg picture with --frame or --at. "
    "Example: -o overlay.mp4",
)
@click.option(
    "--frame",
    type=click.IntRange(min=0),
    metavar="N",
    help="Write sampled frame N alone, as a picture. Example: --frame 40 -o frame.png",
)
@click.option(
    "--at",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Write the frame shown then, as a picture. Example: --at 1.5 -o frame.png",
)
@click.option(
    "--max-frames",
    type=click.IntRange(min=1),
    metavar="N",
    help="Stop after N sampled frames. Example: --max-frames 48",
)
@click.option(
    "--min-score",
    type=click.FloatRange(min=0),
    metavar="NUMBER",
    help="Draw boxes with a score above this, or people from it on; by default 0.25 and 0.4. "
    "Example: --min-score 0.5",
)
@click.option("--overwrite", is_flag=True, help="Replace a file that exists. Example: --overwrite")
def show(
    video: str,
    layer: str | None,
    output: Path,
    frame: int | None,
    at: float | None,
    max_frames: int | None,
    min_score: float | None,
    overwrite: bool,
    **values: Any,
) -> int:
    """Write VIDEO with what was recomputed painted over it.

    Colours tell which share of a pixel's changes had to be propagated. The strip below has the
    frame's share of the work, and the theoretical speedup so far. Detectors get boxes, pose
    networks skeletons.

    \b
    rrm-extract show clip.mp4 --model resnet18 --layer layer1 -o overlay.mp4
    rrm-extract show clip.mp4 --model yolov2 --weights yolov2.weights -o overlay.mp4
    rrm-extract show clip.mp4 --model resnet18 --at 1.5 -o frame.png

    It runs on the readable engine, in plain PyTorch: it is for looking, not for speed.
    """
    if frame is not None and at is not None:
        raise ConfigError("--frame and --at were given together; expected one of them")
    for option, value in (("--at", at), ("--min-score", min_score)):
        if value is not None and math.isnan(value):
            raise ConfigError(f"{option} is nan, expected a number of at least 0")
    is_picture = frame is not None or at is not None
    if is_picture and max_frames is not None:
        raise ConfigError("--max-frames has no use with --frame or --at; leave it away")
    config = job_from([video], values)

    from rrm_extract.jobs import discover, prepare_process
    from rrm_extract.jobs.folders import closed_folders
    from rrm_extract.report.show import Moment, Overlay, check_output, overlay_text

    videos = discover(config.inputs)
    if len(videos) > 1:  # folders beside it that cannot be looked into
        closed = set(closed_folders(each.path for each in videos))
        videos = [each for each in videos if each.path not in closed] or videos
    if len(videos) != 1:
        raise InputError(f"{video} is {len(videos)} videos; show takes one")
    path = videos[0].path
    check_output(output, source=path, overwrite=overwrite, is_picture=is_picture)
    prepare_process(config.threads)
    overlay = Overlay(config, layer=layer, min_score=min_score)
    if is_picture:
        summary = overlay.write_frame(path, output, Moment(frame=frame, seconds=at))
    else:
        summary = overlay.write_clip(path, output, max_frames=max_frames)
    click.echo(overlay_text(overlay, summary))
    if summary.damage:
        click.echo(f"the clip ends early: {summary.damage}", err=True)
    return 1 if summary.damage else 0
