"""``models NAME --explain``."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from rrm_extract.cli import main

pytest.importorskip("rrm_extract.engine._native", reason="built without a C++ compiler")

from rrm_extract.engine import NativeNetwork
from rrm_extract.graph import default_layer, fold, select, trace

Run = Callable[..., tuple[int, str, str]]


class WithIsland(nn.Module):
    """A residual sum that is fused, a depthwise layer, and an operation without a kernel."""

    preprocess = {  # noqa: RUF012 - as users write it
        "resize": 16, "crop": 16, "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2],
    }  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.block = nn.Conv2d(16, 16, 3, padding=1)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.one = nn.Conv1d(16, 16, 1)
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(self.block(x) + x)
        x = self.one(self.depthwise(x).flatten(2))
        return self.fc(x.mean(2))


def network() -> nn.Module:
    return WithIsland()


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(["models", *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_steps_in_order(run: Run) -> None:
    code, out, _ = run("tests.cli.test_explain:network", "--explain", "--json")
    assert code == 0
    explained = json.loads(out)
    assert explained["engine"] == "native"
    steps = explained["steps"]
    assert [step["name"] for step in steps][:2] == ["stem", "block"]
    stem, block, depthwise = steps[:3]
    assert (stem["kernel"], stem["fused"], stem["output"]) == ("columns", ["relu"], [16, 16, 16])
    assert stem["macs"] == 16 * 16 * 16 * 27
    assert 0 < stem["break_even"] < 1
    assert block["kernel"] == "window"
    assert block["fused"] == [f"+ {'relu'}", "relu"]
    assert depthwise["kernel"] == "depthwise"
    assert 0 < depthwise["break_even"] < 1
    assert sum(step["macs"] for step in steps) == explained["macs"]


class Mixing(WithIsland):
    """What is made of a frame depends on the others that it is given with."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.softmax(x, 0))


def mixing() -> nn.Module:
    return Mixing()


def test_frames_together_and_the_state_of_a_lane(run: Run) -> None:
    _, out, _ = run("tests.cli.test_explain:network", "--explain", "--json")
    explained = json.loads(out)
    assert explained["batch"] > 1
    assert explained["alone"] is None
    program = trace(network().eval())
    program = fold(select(program, (default_layer(program),)))
    lane = NativeNetwork(program, input_shape=(3, 16, 16))
    before = lane.state_bytes()
    lane.run(torch.rand(4 * lane.batch, 3, 16, 16))
    assert explained["state_bytes"] >= lane.state_bytes() > before  # some is taken when needed
    _, out, _ = run("tests.cli.test_explain:network", "--explain")
    assert f"up to {explained['batch']} frames pass a layer together" in out
    assert "MB" in out
    _, out, _ = run("tests.cli.test_explain:mixing", "--explain", "--json")
    alone = json.loads(out)
    assert alone["batch"] == 1
    assert "softmax" in alone["alone"]
    _, out, _ = run("tests.cli.test_explain:mixing", "--explain")
    assert f"one by one, for {alone['alone']} might mix them" in out


def test_islands_with_reason_and_share(run: Run) -> None:
    _, out, _ = run("tests.cli.test_explain:network", "--explain", "--json")
    explained = json.loads(out)
    one = next(island for island in explained["islands"] if island["name"] == "one")
    assert "1 dimension" in one["reason"]
    assert one["share"] == pytest.approx(one["macs"] / explained["macs"])
    assert one["macs"] == 16 * 16 * 256
    in_order = [step["name"] for step in explained["steps"] if step["kernel"] == "torch"]
    assert in_order == [island["name"] for island in explained["islands"]]
    _, out, _ = run("tests.cli.test_explain:network", "--explain")
    assert f"one: {one['reason']} ({100 * one['share']:.1f} %)" in out


def test_the_first_line_names_the_engine(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RRM_ISA", "reference")
    _, out, _ = run("tests.tiny:network", "--explain")
    first, *rest = out.splitlines()
    assert first == "tests.tiny:network, layer flatten: native engine, reference kernels"
    assert "no islands: every operation is native" in rest


def test_without_the_native_engine_it_says_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "rrm_extract.engine._native", None)
    code, out, _ = run("tests.tiny:network", "--explain")
    assert code == 0
    assert "PyTorch alone" in out
    assert "not part of this installation" in out
    _, out, _ = run("tests.tiny:network", "--explain", "--json")
    plain = json.loads(out)["macs"]
    monkeypatch.undo()
    _, out, _ = run("tests.tiny:network", "--explain", "--json")
    assert plain == json.loads(out)["macs"] > 0


@pytest.mark.parametrize("arguments", [("--explain",), ("resnet18", "--explain", "--layers")])
def test_wrong_usage_fails(run: Run, arguments: tuple[str, ...]) -> None:
    code, _, err = run(*arguments)
    assert code == 2
    assert "--explain" in err
