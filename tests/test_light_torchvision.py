"""Importing torchvision without what takes half of the time."""

from __future__ import annotations

import subprocess
import sys

COST = """
import sys
import rrm_extract.{package}
assert "torchvision" in sys.modules
assert "torch._dynamo" not in sys.modules, "it takes two seconds"
"""

USE = """
import sys
import rrm_extract.models
roi_align = sys.modules["torchvision.ops.roi_align"]
answer = roi_align.is_compile_supported("cpu")
import torch
import torch._dynamo.utils as real
assert sys.modules["torch._dynamo.utils"] is real
assert type(real).__name__ == "module"
assert answer == real.is_compile_supported("cpu")
assert torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1)) == 2

import rrm_extract.light_torchvision as light
stand_in = light._StandIn("torch._dynamo.utils")
assert not hasattr(stand_in, "__path__")
assert stand_in.counters is real.counters
"""

AFTER = """
import torch._dynamo.utils as real
import rrm_extract.models, sys
assert sys.modules["torch._dynamo.utils"] is real
assert sys.modules["torchvision.ops.roi_align"].is_compile_supported is real.is_compile_supported
"""


def python(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_package_of_ours_imports_what_compiles() -> None:
    for package in ("models", "jobs.recipe"):
        python(COST.format(package=package))


def test_what_stands_in_answers_as_the_module_does() -> None:
    python(USE)


def test_what_has_been_imported_stays() -> None:
    python(AFTER)
