"""The process that loads the network."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from rrm_extract.config import JobConfig
from rrm_extract.errors import LayerError, ModelError, StoreWriteError, WorkerError
from rrm_extract.jobs.loading import Loader
from tests.command import REPOSITORY
from tests.jobs import failing
from tests.tiny import MODEL


@pytest.fixture(autouse=True)
def modules_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(REPOSITORY))


def test_a_plan_and_a_computation(tmp_path: Path) -> None:
    with Loader(JobConfig(model=MODEL)) as loader:
        plan = loader.plan()
        assert plan.weights_id == "factory:tests.tiny:network"
        assert plan.feature_shape == (16,)
        assert [layer.name for layer in plan.layers] == ["features.0", "features.2", "features.4"]
        assert set(plan.versions) == {"torch", "torchvision"}
        assert {type(version) for version in plan.versions.values()} == {str}
        loader.save(tmp_path / "computation")
    assert (tmp_path / "computation").stat().st_size > 1000
    assert loader.peak_memory > 50e6, "torch was there"


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"model": "resnet19"}, ModelError, "resnet18"),
        ({"model": MODEL, "layer": "fcc"}, LayerError, "nearest"),
        ({"model": "tests.no_such_module:network"}, ModelError, "no_such_module"),
        ({"model": failing.EOF}, EOFError, "weights is empty"),
        ({"model": failing.RESET}, ConnectionResetError, "the server has gone"),
    ],
)
def test_a_wrong_request_fails_as_it_would_here(
    options: dict[str, str], error: type[Exception], words: str
) -> None:
    with Loader(JobConfig.from_mapping(options)) as loader, pytest.raises(error, match=words):
        loader.plan()


def test_a_file_that_cannot_be_written_fails(tmp_path: Path) -> None:
    with Loader(JobConfig(model=MODEL)) as loader:
        loader.plan()
        with pytest.raises(StoreWriteError, match="no-such-folder"):
            loader.save(tmp_path / "no-such-folder/computation")


def test_a_process_that_is_killed_fails() -> None:
    with Loader(JobConfig(model=MODEL)) as loader:
        loader.plan()
        os.kill(loader._process.pid, signal.SIGKILL)
        with pytest.raises(WorkerError, match="killed by signal 9; if memory ran out"):
            loader.save(Path("nowhere"))


def test_nobody_is_left_behind() -> None:
    loader = Loader(JobConfig(model=MODEL))
    loader.close()  # while it imports
    assert loader._process.poll() is not None
