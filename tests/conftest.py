"""What holds for all tests."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import tempfile

import pytest
from hypothesis import settings

import tests.kept  # noqa: F401 - it does what it does when it is imported
from rrm_extract.jobs.network_cache import VARIABLE

# What a shell runs in the background is deaf to it; some tests interrupt their own process.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says nothing on a busy machine.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

KEPT: str | None = None
"""The folder of networks that tests keep: of this run, and never that of whoever runs it. None in
one of several processes that run tests side by side for another, which has made it."""

if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ[VARIABLE] = KEPT = tempfile.mkdtemp(prefix="rrm-extract-tests-")

# Tests run on the best instruction set of the processor; those that want another say so.
os.environ.pop("RRM_ISA", None)


def pytest_unconfigure() -> None:
    """Nothing of it stays."""
    if KEPT is not None:
        shutil.rmtree(KEPT, ignore_errors=True)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs load their network themselves, and keep none."""
    monkeypatch.setenv(VARIABLE, "off")


def pytest_collection_finish() -> None:
    """What was imported stays: to look through it time and again would take a tenth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
