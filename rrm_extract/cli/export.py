"""``rrm-extract export``: features, objects and people in other layouts."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["export"]


@click.command(short_help="Write features, objects or people in another layout.")
@click.argument("file", type=click.Path(path_type=Path, readable=False), metavar="FILE.h5")
@click.option(
    "--layout",
    type=click.Choice(["npy", "flat", "activitynet", "npz", "csv", "coco"]),
    required=True,
    help="npy: a file for each video; flat: one array and an index; activitynet: the HDF5 layout "
    "of that data set's published features. Of objects and people: npz: an archive for each video; "
    "csv: one table; coco: JSON as COCO's evaluation takes it. Example: --layout npy",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    metavar="PATH",
    help="Folder to write to. Example: -o out/",
)
@click.option("--overwrite", is_flag=True, help="Replace files that exist. Example: --overwrite")
def export(file: Path, layout: str, output: Path, overwrite: bool) -> None:
    """Write the features of FILE.h5, or the objects or people, in another layout.

    \b
    rrm-extract export feats.h5 --layout npy -o out/
    rrm-extract export objects.h5 --layout coco -o out/
    """
    from rrm_extract.store import export as export_file

    summary = export_file(file, output, layout=layout, overwrite=overwrite)  # type: ignore[arg-type]
    click.echo(f"{output}: {summary.n_videos} videos, {summary.n_frames} frames as {layout}")
