"""What users may rely on."""

from __future__ import annotations

import subprocess
import sys

import pytest

import rrm_extract
from rrm_extract import errors


def test_public_names() -> None:
    assert rrm_extract.__all__ == [
        "FeatureFile",
        "RecurrentNetwork",
        "__version__",
        "accelerate",
        "errors",
    ]
    for name in rrm_extract.__all__:
        assert getattr(rrm_extract, name) is not None


def test_unknown_name_fails() -> None:
    with pytest.raises(AttributeError, match="accelerated"):
        _ = rrm_extract.accelerated


def test_every_error_is_one_of_ours() -> None:
    for name in errors.__all__:
        error = getattr(errors, name)
        assert issubclass(error, errors.RrmError)
        assert f"{name}" in (errors.__doc__ or ""), "the tree at the top of the module is complete"
        assert error.__doc__


def test_help_and_readers_do_not_wait_for_torch() -> None:
    code = (
        "import sys, rrm_extract.cli, rrm_extract.config, rrm_extract.store\n"
        "from rrm_extract import FeatureFile\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
