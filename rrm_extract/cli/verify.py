"""``rrm-extract verify``: how far the features are from the ordinary network's."""

from __future__ import annotations

import json
from typing import Any

import click

from rrm_extract.cli.options import TRIAL_OPTIONS, job_from, job_options
from rrm_extract.errors import ClipError, ConfigError
from rrm_extract.jsonable import without_nan
from rrm_extract.printable import printable

__all__ = ["verify"]

OPTIONS = (*TRIAL_OPTIONS, "threshold", "thresholds", "aecs", "error_limit", "cuts", "refresh")


@click.command(short_help="Compare with the ordinary network on the same frames.")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUTS...")
@job_options(OPTIONS)
@click.option(
    "--max-error",
    type=float,
    metavar="NUMBER",
    help="Exit with 1 if a frame's relative L2 error is larger. Example: --max-error 1e-3",
)
@click.option(
    "--max-frames",
    type=click.IntRange(min=1),
    metavar="N",
    help="Look at the first N sampled frames of each video. Example: --max-frames 48",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print JSON, with the notes on weights and engine. Example: verify clip.mp4 --json",
)
def verify(
    inputs: tuple[str, ...],
    max_error: float | None,
    max_frames: int | None,
    as_json: bool,
    **values: Any,
) -> int:
    """Run the ordinary network beside the recurrent one and compare their features.

    The best classes (top-1, top-5) are compared as well where one fully-connected layer, and
    nothing more, makes them of the feature, and the weights have it; 1x1 convolutions, as
    SqueezeNet's, are left out.

    \b
    rrm-extract verify videos/clip.mp4 --model resnet18 --threshold 1e-4 --max-error 1e-3
    """
    from rrm_extract.jobs import discover, prepare_process
    from rrm_extract.report.verify import Verifier, overall, verification_text

    if max_error is not None and not max_error >= 0:
        raise ConfigError(f"--max-error is {max_error}, expected a number of at least 0")
    config = job_from(inputs, values)
    videos = discover(config.inputs, root=config.root, include=config.include)
    prepare_process(config.threads)
    verifier = Verifier(config)
    clips, failures = {}, {}
    for video in videos:
        try:
            clips[video.video_id] = verifier.clip(video.path, max_frames=max_frames)
        except ClipError as error:  # the other videos are compared all the same
            failures[video.video_id] = str(error)
    totals = overall(list(clips.values()))
    if as_json:
        values = {
            **totals,
            "clips": [clip.to_json() for clip in clips.values()],
            "failures": failures,
            "notes": list(verifier.notes()),
        }
        click.echo(json.dumps(without_nan(values), indent=2))
    else:
        click.echo(verification_text(verifier, clips, totals))
        for video_id, message in failures.items():
            click.echo(printable(f"{video_id}: {message}"), err=True)
    worst = totals["relative_l2_max"]
    too_far = max_error is not None and not (worst is not None and worst <= max_error)
    if too_far and not as_json:
        found = f"largest error {worst} is over --max-error {max_error}"
        click.echo("no frame could be compared" if worst is None else found, err=True)
    # As in extract: what is missing was not compared.
    damaged = any(clip.damage for clip in clips.values())
    return 1 if failures or damaged or too_far else 0
