"""Per-frame CNN features of whole video datasets, computing only what changed between frames.

The command line is ``rrm-extract``; from Python:

- :func:`accelerate` makes a PyTorch network recurrent.
- :class:`FeatureFile` reads what an extraction wrote.
- :mod:`rrm_extract.errors` has every exception that is raised on purpose.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rrm_extract import errors

if TYPE_CHECKING:
    from rrm_extract.rrm import RecurrentNetwork, accelerate
    from rrm_extract.store import FeatureFile

__all__ = ["FeatureFile", "RecurrentNetwork", "__version__", "accelerate", "errors"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # Importing torch takes seconds: `rrm-extract --help` and readers of a file do not wait for it.
    if name in {"accelerate", "RecurrentNetwork"}:
        from rrm_extract import rrm

        return getattr(rrm, name)
    if name == "FeatureFile":
        from rrm_extract.store import FeatureFile

        return FeatureFile
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
