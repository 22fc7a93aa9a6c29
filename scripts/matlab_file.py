"""Files of MATLAB's, as plain dictionaries and lists."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from annotations import AnnotationError
from benchmarking import require

__all__ = ["MATLAB_EXTENSION", "load_matlab", "many"]

MATLAB_EXTENSION = ".mat"


def load_matlab(path: Path) -> dict[str, Any]:
    """The variables of a file; structs are dictionaries, arrays of structs lists of them.

    Raises:
        AnnotationError: it cannot be read, or is no such file.
    """
    scipy_io = require("scipy.io")
    try:
        content = io.BytesIO(path.read_bytes())
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror}; expected a .mat file of annotations"
        raise AnnotationError(msg) from error
    try:
        loaded: dict[str, Any] = scipy_io.loadmat(content, simplify_cells=True)
    except NotImplementedError as error:  # HDF5 inside, which SciPy does not read
        msg = f"{path} is of MATLAB 7.3; expected an older one: save it again with -v7"
        raise AnnotationError(msg) from error
    except Exception as error:  # SciPy raises whatever damaged bytes make of it
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        msg = f"{path} is no .mat file or a damaged one ({reason}); expected the file as published"
        raise AnnotationError(msg) from error
    return loaded


def many(value: Any) -> list[Any]:
    """The elements of a struct array, whichever way it was read.

    An array of one struct is read as the struct, one of none as an empty array; in JSON it is null.
    """
    if value is None:
        return []
    if isinstance(value, np.ndarray):
        return list(value.ravel())
    return value if isinstance(value, list) else [value]
