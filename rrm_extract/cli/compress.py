"""``rrm-extract compress``: a network's weights, pruned, shared and Huffman-coded."""

from __future__ import annotations

import json
from pathlib import Path

import click

__all__ = ["compress"]

_BITS = click.IntRange(1, 8)


@click.command(short_help="Compress a network's weights into a .dcz file.")
@click.option(
    "--model",
    required=True,
    metavar="NAME",
    help="Network: a torchvision name, timm/NAME, rtpose, yolov2, tiny_yolov2, darknet:FILE.cfg, "
    "FILE.dcz, FILE.net or package.module:factory. Example: --model alexnet",
)
@click.option(
    "--weights",
    default="default",
    metavar="WEIGHTS",
    help="Weights: default, a torchvision weights name, a file, or random[:SEED]. "
    "Example: --weights random:0",
)
@click.option(
    "--preprocess",
    metavar="SPEC",
    help="Input of a model that does not say it itself, as for an extraction; the file keeps it. "
    "Example: --preprocess imagenet",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE.dcz",
    help="File to write. Example: -o alexnet.dcz",
)
@click.option(
    "--density",
    metavar="NUMBER[,LAYER=NUMBER...]",
    help="Share of the weights to keep, of all layers or of some; by default the paper's, which "
    "has AlexNet's and VGG-16's; a .dcz or .net file keeps what it has. "
    "Example: --density 0.3,features.0=0.8",
)
@click.option(
    "--conv-bits",
    type=_BITS,
    metavar="BITS",
    help="Width of a code in convolutions; by default 8, or as in the .dcz or .net file. "
    "Example: --conv-bits 6",
)
@click.option(
    "--fc-bits",
    type=_BITS,
    metavar="BITS",
    help="Width of a code in fully-connected layers; by default 5, or as in the file. "
    "Example: --fc-bits 4",
)
@click.option(
    "--conv-index-bits",
    type=_BITS,
    metavar="BITS",
    help="Width of a gap between weights in convolutions; by default 4 for AlexNet and 5 for "
    "VGG-16, as in the paper's tables, else 8, or as in the file. Example: --conv-index-bits 4",
)
@click.option(
    "--fc-index-bits",
    type=_BITS,
    metavar="BITS",
    help="The same in fully-connected layers; else 5, or as in the file. "
    "Example: --fc-index-bits 4",
)
@click.option("--overwrite", is_flag=True, help="Replace a file that exists. Example: --overwrite")
@click.option("--json", "as_json", is_flag=True, help="Print JSON. Example: compress ... --json")
def compress(
    model: str,
    weights: str,
    preprocess: str | None,
    output: Path,
    density: str | None,
    conv_bits: int | None,
    fc_bits: int | None,
    conv_index_bits: int | None,
    fc_index_bits: int | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Compress a network's weights by Deep Compression (arXiv 1510.00149), without training.

    The file is a model by itself, and a weights file for the network that it was made from. Of
    darknet:FILE.cfg and package.module:factory it is the latter alone.

    \b
    rrm-extract compress --model alexnet --weights random:0 -o alexnet.dcz
    rrm-extract compress --model resnet18 --density 0.3 -o resnet18.dcz
    rrm-extract videos/ --model alexnet.dcz -o feats.h5
    """
    from rrm_extract.jobs.compress import compress_network
    from rrm_extract.models.compression import LayerKind, parse_density
    from rrm_extract.report.compression import compression_json, compression_text

    def given(conv: int | None, linear: int | None) -> dict[LayerKind, int]:
        widths: dict[LayerKind, int | None] = {"convolution": conv, "fully-connected": linear}
        return {kind: width for kind, width in widths.items() if width is not None}

    if output.suffix.lower() != ".dcz":
        raise click.BadParameter(f"{str(output)!r} should end in .dcz", param_hint="-o")
    summary = compress_network(
        model,
        output,
        weights=weights,
        preprocess=preprocess,
        densities=None if density is None else parse_density(density),
        bits=given(conv_bits, fc_bits),
        index_bits=given(conv_index_bits, fc_index_bits),
        overwrite=overwrite,
    )
    if as_json:
        click.echo(json.dumps(compression_json(summary), indent=2, allow_nan=False))
    else:
        click.echo(compression_text(summary))
