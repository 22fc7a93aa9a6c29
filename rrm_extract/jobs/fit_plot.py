"""The fit of the accumulated-error control, drawn."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rrm_extract.config import threshold_text
from rrm_extract.errors import ConfigError, StoreWriteError
from rrm_extract.jobs.calibrate_accumulated import Round
from rrm_extract.jobs.calibration import AccumulatedCalibration
from rrm_extract.store.files import check_folder

__all__ = ["check_figure", "draw_fit", "matplotlib_module", "save_figure"]

FORMATS = (".svg", ".png", ".pdf")
"""Endings of a figure's name."""

_WITHOUT_TIME = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
"""Metadata with which matplotlib writes no time."""


def check_figure(path: Path, *, overwrite: bool) -> None:
    """Refuses a figure before the long measurement that it is drawn of.

    Args:
        path: of the figure.
        overwrite: replace the file if it is there.

    Raises:
        ConfigError: the name's ending stands for no picture, or matplotlib is not installed.
        StoreWriteError: there is no such folder, or the file is there already.
    """
    if path.suffix.lower() not in FORMATS:
        raise ConfigError(f"--plot is {str(path)!r}, expected a name in {', '.join(FORMATS)}")
    check_folder(path)
    # Unlike Path's, this one raises nothing where the system refuses, of which save_figure tells.
    if os.path.exists(path) and not overwrite:  # noqa: PTH110
        raise StoreWriteError(f"{path} would be written over; use --overwrite or another --plot")
    matplotlib_module("matplotlib.figure")


def matplotlib_module(name: str) -> Any:
    """A module of matplotlib.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        msg = f'plots need matplotlib ({error}); pip install "rrm-extract[plot]"'
        raise ConfigError(msg) from error


def save_figure(figure: Any, path: Path) -> None:
    """Writes a figure; the same figures give the same file.

    Raises:
        ConfigError: the name's ending stands for no kind of picture.
        StoreWriteError: the system refuses.
    """
    try:
        with matplotlib_module("matplotlib").rc_context({"svg.hashsalt": "rrm-extract"}):
            figure.savefig(path, metadata=_WITHOUT_TIME.get(path.suffix.lower()))
    except OSError as error:
        msg = f"cannot write {path}: {error.strerror or error}; choose another --plot"
        raise StoreWriteError(msg) from error
    except ValueError as error:
        msg = f"cannot draw {path}: {error}; expected a name that ends in .svg or .png"
        raise ConfigError(msg) from error


def draw_fit(calibration: AccumulatedCalibration, rounds: Sequence[Round], path: Path) -> None:
    """Errors against accumulated truncation, clip by clip, and the polynomial (Eq. 8).

    Raises:
        ConfigError: matplotlib is not installed, or the name's ending stands for no picture.
        StoreWriteError: the picture cannot be written.
    """
    figure = matplotlib_module("matplotlib.figure").Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for each in rounds:
        axes.plot(each.total, each.errors, ".", markersize=4, label=Path(each.name).stem)
    total = np.linspace(0, calibration.model.reach, 200)
    axes.plot(total, calibration.model.predict(total), "k-", label="fit (Eq. 8)")
    axes.set_xlabel("accumulated truncation (Eq. 7)")
    axes.set_ylabel("relative L2 error of the feature")
    axes.set_title(
        f"{calibration.subject.model}, weights {calibration.report['weights']}, "
        f"threshold {threshold_text(calibration.threshold)}, R² {calibration.report['r2']:.3f}",
        fontsize="medium",
    )
    axes.legend(fontsize=8)
    save_figure(figure, path)
