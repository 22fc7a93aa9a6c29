"""``rrm-extract models``: which networks there are, and what is in one."""

from __future__ import annotations

import json

import click

from rrm_extract.errors import ConfigError

__all__ = ["models"]

_ALSO = (
    "\nalso: timm/NAME, FILE.onnx, FILE.dcz, FILE.net, caffe_alexnet, "
    "darknet:FILE.cfg, package.module:factory"
)


_FILES = {"darknet": "FILE.weights"}
"""What files of weights are called where they are of a kind of their own."""


@click.command(short_help="List networks, or what is in one of them.")
@click.argument("name", required=False)
@click.option(
    "--layers", is_flag=True, help="Names that --layer takes. Example: models resnet18 --layers"
)
@click.option(
    "--explain",
    is_flag=True,
    help="How the engine would run it, step by step. Example: models resnet18 --explain",
)
@click.option(
    "--preprocess",
    metavar="SPEC",
    help="Input of a model that does not say it itself, as for an extraction. "
    "Example: models net.onnx --preprocess input.yaml",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON. Example: models --json")
def models(
    name: str | None, layers: bool, explain: bool, preprocess: str | None, as_json: bool
) -> None:
    """List the networks known by name; with NAME, that network's layers.

    \b
    rrm-extract models
    rrm-extract models resnet18 --layers
    rrm-extract models resnet18 --explain

    Besides these: timm/NAME, FILE.onnx, FILE.dcz, FILE.net, caffe_alexnet, darknet:FILE.cfg and
    package.module:factory.
    """
    if layers and explain:
        raise ConfigError("--layers and --explain were given together; expected one of them")
    if name is None and (layers or explain):
        option = "--layers" if layers else "--explain"
        raise ConfigError(f"{option} needs a network; expected: models NAME {option}")
    if name is None:
        _list(as_json)
    elif explain:
        _explain(name, preprocess=preprocess, as_json=as_json)
    else:
        _describe(name, preprocess=preprocess, layers=layers, as_json=as_json)


def _list(as_json: bool) -> None:
    import dataclasses

    from rrm_extract.models import list_models
    from rrm_extract.report.table import number, table

    entries = list_models()
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(entry) for entry in entries], indent=2))
        return
    rows = [
        [
            entry.name,
            entry.default_weights or f"none: --weights {_FILES.get(entry.source, 'FILE.pth')}",
            "-" if entry.n_parameters is None else number(entry.n_parameters / 1e6, 1),
            "paper" if entry.paper else ("" if entry.is_cnn else "not a CNN: little is saved"),
        ]
        for entry in entries
    ]
    click.echo(table(["name", "default weights", "M parameters", ""], rows, left=2))
    click.echo(_ALSO)


def _describe(name: str, *, preprocess: str | None, layers: bool, as_json: bool) -> None:
    from rrm_extract.report.network import describe_network

    network = describe_network(name, preprocess=preprocess)
    if as_json:
        click.echo(json.dumps(network.to_json(), indent=2))
    elif layers:
        click.echo("\n".join(network.layer_names))
    else:
        click.echo(network.to_text())


def _explain(name: str, *, preprocess: str | None, as_json: bool) -> None:
    from rrm_extract.report.explain import explain_network

    explanation = explain_network(name, preprocess=preprocess)
    click.echo(json.dumps(explanation.to_json(), indent=2) if as_json else explanation.to_text())
