"""What the names of devices say."""

from __future__ import annotations

import pytest

from rrm_extract.config import JobConfig
from rrm_extract.device import is_cpu
from rrm_extract.jobs import run


@pytest.mark.parametrize(
    ("name", "expected"),
    [("cpu", True), ("cpu:0", True), ("cuda", False), ("cuda:0", False), ("mps", False)],
)
def test_which_devices_are_the_cpu(name: str, expected: bool) -> None:
    assert is_cpu(name) == expected


@pytest.mark.parametrize(("device", "workers"), [("cpu", 8), ("cpu:0", 8), ("cuda:0", 1)])
def test_every_core_of_the_cpu_has_a_worker(
    device: str, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "usable_cores", lambda: 8)
    assert run._pool_size(JobConfig(device=device)) == workers
