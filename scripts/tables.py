"""What the scripts that make a table of the paper have in common: options, running, and outputs.

A table is made from datasets, keeps each row in its JSON file as it is finished, and goes on there
when the same command is given again. The page and the drawing are made from the rows.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from benchmarking import machine, read_json, require, save_json, save_text, say, versions
from datasets import DATASET_HELP, Dataset, find_datasets
from recognition_options import whole_number
from table_rows import Record, RowFile

from rrm_extract.errors import ConfigError, RrmError
from rrm_extract.models import load_model
from rrm_extract.models.registry import is_factory

__all__ = [
    "add_model_options",
    "file_stamps",
    "made_from",
    "network_stamps",
    "run_table",
    "shown_spec",
    "table_parser",
]

INTERRUPTED = 130


def table_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with datasets and outputs."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("datasets", nargs="*", metavar="DATASET", help=DATASET_HELP)
    parser.add_argument(
        "--max-videos", type=whole_number(1), metavar="N",
        help="of each dataset, evenly spread over it; all by default",
    )  # fmt: skip
    parser.add_argument(
        "--max-frames", type=whole_number(1), metavar="N",
        help="of each video, its first; all by default",
    )  # fmt: skip
    parser.add_argument(
        "--fps", metavar="RATE", help="as rrm-extract takes it; by default a job file's, else 24"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="keeps each row as it is finished; goes on there"
    )
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="the table as a page")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="the table as a drawing")
    parser.add_argument("--anew", action="store_true", help="forget the rows that --json has")
    parser.add_argument(
        "--from", dest="source", type=Path, metavar="FILE",
        help="make page and drawing from this JSON file; measure nothing",
    )  # fmt: skip
    return parser


def add_model_options(
    parser: argparse.ArgumentParser,
    *,
    models: Sequence[str],
    weights: str = "default",
    preprocess: str = "for ONNX files and package.module:factory; other models bring their own",
) -> None:
    """Networks, and the weights of those that name none.

    Args:
        parser: gets the options.
        models: by default.
        weights: by default.
        preprocess: what that option is for.
    """
    parser.add_argument(
        "--models", nargs="+", default=list(models), metavar="NAME[=WEIGHTS]",
        help="as rrm-extract --model takes them, each with weights of its own if need be "
        f"(default: {' '.join(models)})",
    )  # fmt: skip
    parser.add_argument(
        "--weights", default=weights,
        help="for models that name none: default, a weights name, a file or random:SEED",
    )  # fmt: skip
    parser.add_argument(
        "--preprocess", metavar="SPEC",
        help=preprocess,
    )  # fmt: skip


def run_table(
    options: argparse.Namespace,
    *,
    name: str,
    packages: Sequence[str],
    settings: Mapping[str, Any],
    fill: Callable[[RowFile, Sequence[Dataset]], None],
    page: Callable[[Record], str],
    draw: Callable[[Record, Path], None] | None = None,
) -> Record:
    """Makes the rows that are missing, then the page and the drawing; prints the page.

    Ends the program with one line where a request is wrong, and with 130 when interrupted.

    Args:
        options: of :func:`table_parser`.
        name: of the script, without ".py".
        packages: distributions whose versions belong to the figures.
        settings: all other options that every row depends on; ``max_frames`` is added.
        fill: makes the rows of all datasets, each by a call of ``RowFile.rows`` or ``row``.
        page: Markdown of the result.
        draw: writes an SVG file of the result; None where there is nothing to draw.

    Returns:
        ``table``, ``machine``, ``versions``, ``settings``, ``command`` and ``rows``.
    """
    if options.svg is not None:
        if draw is None:
            sys.exit(f"{name} draws nothing; leave out --svg")
        require("matplotlib")  # rather now than after minutes of measuring
    result: Record
    if options.source is not None:
        result = read_json(options.source)
        if not isinstance(result, dict) or result.get("table") != name:
            sys.exit(f"{options.source}: expected a file that scripts/{name}.py wrote with --json")
    else:
        result = _filled(options, name, packages, settings, fill)
    text = page(result)
    print(text)
    if options.markdown is not None:
        save_text(text, options.markdown)
    if options.svg is not None and draw is not None:
        draw(result, options.svg)
    return result


def _filled(
    options: argparse.Namespace,
    name: str,
    packages: Sequence[str],
    settings: Mapping[str, Any],
    fill: Callable[[RowFile, Sequence[Dataset]], None],
) -> Record:
    try:
        _refuse_twins(getattr(options, "models", ()))
        datasets = find_datasets(options.datasets, max_videos=options.max_videos, fps=options.fps)
        head = {
            "table": name,
            "machine": machine(),
            "versions": versions(packages),
            "settings": {**settings, "max_frames": options.max_frames},
            "command": _command(name, sys.argv[1:], datasets),
        }
        table = RowFile(options.json, head, anew=options.anew)
        fill(table, datasets)
        if options.json is not None:  # also where no row was new: the command is
            save_json(table.result, options.json)
    except KeyboardInterrupt:
        say("interrupted; rows that are finished are kept in --json, the same command goes on")
        sys.exit(INTERRUPTED)
    except RrmError as error:
        sys.exit(f"{name}.py: {error}")
    return table.result


def _refuse_twins(specs: Sequence[str]) -> None:
    """Refuses one network with two weights: rows are told apart by the network's name.

    Raises:
        ConfigError: names both.
    """
    known: dict[str, str] = {}
    for spec in specs:
        name = shown_spec(spec.partition("=")[0])
        if known.setdefault(name, spec) != spec:
            msg = (
                f"--models has {name} twice, as {known[name]!r} and {spec!r}; expected it once: "
                "other weights need a --json of their own"
            )
            raise ConfigError(msg)


def made_from(dataset: Dataset, *specs: str) -> dict[str, Any]:
    """What a row depends on beside its key and the settings.

    Args:
        dataset: its videos.
        specs: the network, its weights, its preprocessing and files, as they were asked for; see
            :func:`network_stamps`.

    Raises:
        UsageError: a network of the user's own code cannot be had.
    """
    asked = [shown_spec(spec) for spec in specs]
    return {**dataset.identity(), "weights": asked, "files": network_stamps(*specs)}


def shown_spec(spec: str) -> str:
    """NAME, NAME=WEIGHTS or a file without this machine's folders."""
    name, equals, file = spec.partition("=")
    return "".join([_without_folder(name), equals, _without_folder(file)])


def _without_folder(text: str) -> str:
    kind, colon, path = text.rpartition(":")
    return f"{kind}{colon}{Path(path).name}" if path.startswith("/") else text


def file_stamps(*specs: str) -> dict[str, str]:
    """SHA-256 of the files among ``specs`` (NAME, NAME=WEIGHTS, a file), by their names."""
    stamps = {}
    for spec in specs:
        for text in (spec, *spec.split("=", 1)):
            path = Path(text.removeprefix("darknet:"))
            if path.is_file():
                stamps[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return stamps


def network_stamps(
    spec: str, weights: str = "default", preprocess: str = "", *files: str
) -> dict[str, str]:
    """What tells a network from another of the same name, by the names of what is known.

    Files are known by their content. ``package.module:factory`` may make other weights each time
    its code changes, so it is known by those that it makes.

    Args:
        spec: NAME or NAME=WEIGHTS.
        weights: for a network whose spec names none.
        preprocess: for networks that bring no transform of their own.
        files: further ones.

    Raises:
        UsageError: a network of the user's own code cannot be had.
    """
    stamps = file_stamps(spec, weights, preprocess, *files)
    name, _, own_weights = spec.partition("=")
    if is_factory(name):
        stamps[name] = _weights_sha256(name, own_weights or weights, preprocess)
    return stamps


@cache
def _weights_sha256(name: str, weights: str, preprocess: str) -> str:
    return load_model(name, weights=weights, preprocess=preprocess or None).weights_sha256


def _command(name: str, arguments: Sequence[str], datasets: Sequence[Dataset]) -> str:
    """How the table was asked for, without this machine's folders."""
    places = {one.given: _place(one) for one in datasets}
    words = [places.get(word) or shown_spec(word) for word in arguments]
    return " ".join(["python", f"scripts/{name}.py", *words])


def _place(dataset: Dataset) -> str:
    path = Path(dataset.given.removeprefix(f"{dataset.name}="))
    if not path.is_absolute():
        return dataset.given
    return f"{dataset.name}={path.name}"
