"""Which engine runs a job, what the feature file says of it, and that both give the same."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

pytest.importorskip("rrm_extract.engine._native", reason="built without a C++ compiler")

from rrm_extract.cli import main
from rrm_extract.engine import (
    ENGINES,
    PRECISIONS,
    NativeNetwork,
    choose_engine,
    open_network,
)
from rrm_extract.errors import ConfigError, EngineError
from rrm_extract.rrm import RecurrentNetwork
from rrm_extract.video.synthetic import write_demo_clip
from tests import tiny
from tests.command import REPOSITORY, extraction, rrm_extract
from tests.engine.running import ISAS, program_of

SHAPE = (3, 32, 32)


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation that was made without a compiler."""
    monkeypatch.setitem(sys.modules, "rrm_extract.engine._native", None)


EXPECTED = {
    # engine, device, precision -> engine, or part of the message
    ("auto", "cpu", "fp32"): "native",
    ("auto", "cpu", "bf16"): "native",
    ("auto", "cuda", "fp32"): "torch",
    ("auto", "cuda", "bf16"): "precision bf16 needs the native engine",
    ("native", "cpu", "fp32"): "native",
    ("native", "cpu", "bf16"): "native",
    ("native", "cuda", "fp32"): "not on cuda",
    ("native", "cuda", "bf16"): "not on cuda",
    ("torch", "cpu", "fp32"): "torch",
    ("torch", "cpu", "bf16"): "precision bf16 needs the native engine",
    ("torch", "cuda", "fp32"): "torch",
    ("torch", "cuda", "bf16"): "precision bf16 needs the native engine",
}


def test_every_combination_is_here() -> None:
    assert {(engine, precision) for engine, _, precision in EXPECTED} == {
        (engine, precision) for engine in ENGINES for precision in PRECISIONS
    }


@pytest.mark.parametrize("index", ["", ":0"])
@pytest.mark.parametrize(("engine", "device", "precision"), EXPECTED)
def test_choice(engine: str, device: str, precision: str, index: str) -> None:
    expected = EXPECTED[engine, device, precision]
    if expected in ENGINES:
        choice = choose_engine(engine, device=device + index, precision=precision)
        assert choice.engine == expected
        assert bool(choice.reason) is (precision == "bf16" and ISAS[-1] != "avx512bf16")
        assert choice.isa == (ISAS[-1] if expected == "native" else "")
        return
    with pytest.raises(ConfigError, match=expected) as caught:
        choose_engine(engine, device=device + index, precision=precision)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong", [{"engine": "fast"}, {"engine": "auto", "precision": "fp16"}, {"engine": ""}]
)
def test_unknown_names_fail(wrong: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="is unknown; expected one of"):
        choose_engine(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("isa", ISAS)
def test_bf16_without_instructions_for_it_is_told(
    isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RRM_ISA", isa)
    reason = choose_engine("auto", precision="bf16").reason
    assert reason == "" if isa == "avx512bf16" else f"bf16 on {isa}" in reason
    assert choose_engine("auto").reason == ""


@pytest.mark.usefixtures("missing")
def test_without_the_native_module_auto_says_what_it_does() -> None:
    choice = choose_engine("auto")
    assert (choice.engine, choice.isa) == ("torch", "")
    assert "PyTorch" in choice.reason
    assert "\n" not in choice.reason
    assert choose_engine("torch").reason == ""
    network = open_network(program_of(tiny.network()), input_shape=SHAPE)
    assert isinstance(network, RecurrentNetwork)


@pytest.mark.usefixtures("missing")
@pytest.mark.parametrize(("engine", "precision"), [("native", "fp32"), ("auto", "bf16")])
def test_without_the_native_module_fails(engine: str, precision: str) -> None:
    with pytest.raises(EngineError, match="--engine torch") as caught:
        choose_engine(engine, precision=precision)
    assert "\n" not in str(caught.value)
    with pytest.raises(EngineError):
        open_network(
            program_of(tiny.network()), input_shape=SHAPE, engine=engine, precision=precision
        )


def test_open_network_is_what_was_chosen() -> None:
    program = program_of(tiny.network())
    first = open_network(program, input_shape=SHAPE, threshold=0)
    assert isinstance(first, NativeNetwork)
    second = open_network(program, input_shape=SHAPE, threshold=0, packed=first.packed)
    assert isinstance(second, NativeNetwork)
    frames = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0))
    assert torch.equal(first.run(frames)[0][0], second.run(frames)[0][0])
    other = open_network(program, input_shape=SHAPE, engine="torch", policy="paper")
    assert isinstance(other, RecurrentNetwork)
    assert other.policy == "paper"


# --- the command


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("backend") / "videos"
    folder.mkdir()
    for number in range(2):
        write_demo_clip(folder / f"{number}.mp4", seconds=2 + number, size=(64, 48))
    return folder


def extract(videos: Path, output: Path, *options: str) -> dict[str, np.ndarray]:
    """Runs the real command; the features of each video."""
    done = rrm_extract(*extraction(videos, output, *options), cwd=output.parent)
    assert done.returncode == 0, done.stderr
    with h5py.File(output) as file:
        return {name: group["features"][:] for name, group in file["videos"].items()}


def test_engines_and_workers_give_the_same_features(videos: Path, tmp_path: Path) -> None:
    exact = ("--threshold", "0", "--workers", "1")
    plain = extract(videos, tmp_path / "torch.h5", "--engine", "torch", *exact)
    fast = extract(videos, tmp_path / "native.h5", "--engine", "native", *exact)
    assert sorted(plain) == sorted(fast) == ["0.mp4", "1.mp4"]
    for name, values in plain.items():
        distance = np.linalg.norm(fast[name] - values, axis=1) / np.linalg.norm(values, axis=1)
        assert distance.max() < 1e-5
    attrs = {}
    for engine in ("torch", "native"):
        with h5py.File(tmp_path / f"{engine}.h5") as file:
            attrs[engine] = dict(file.attrs)
    assert [attrs[name]["engine"] for name in ("torch", "native")] == ["torch", "native"]
    assert attrs["native"]["precision"] == attrs["torch"]["precision"] == "fp32"
    assert attrs["native"]["kernel_isa"] == ISAS[-1]
    assert attrs["torch"]["kernel_isa"] == torch.backends.cpu.get_cpu_capability()
    assert attrs["native"]["config_sha256"] != attrs["torch"]["config_sha256"]
    workers = extract(videos, tmp_path / "two.h5", "--threshold", "0", "--workers", "2")
    assert sorted(workers) == sorted(fast)
    for name, values in workers.items():
        np.testing.assert_array_equal(values, fast[name])


def test_bf16_and_instruction_set_are_written_down(videos: Path, tmp_path: Path) -> None:
    output = tmp_path / "feats.h5"
    done = rrm_extract(
        *extraction(videos / "0.mp4", output, "--precision", "bf16", "--workers", "1"),
        cwd=tmp_path,
        extra={"RRM_ISA": "portable"},
    )
    assert done.returncode == 0, done.stderr
    with h5py.File(output) as file:
        attrs = dict(file.attrs)
    assert attrs["engine"] == "native"
    assert attrs["precision"] == "bf16"
    assert attrs["kernel_isa"] == "portable"
    config = json.loads(attrs["config_json"])
    assert (config["engine"], config["precision"]) == ("auto", "bf16")
    # Features of another precision or engine are other features: they do not go into this file.
    done = rrm_extract(
        *extraction(videos / "0.mp4", output, "--precision", "fp32", "--workers", "1"),
        cwd=tmp_path,
    )
    assert done.returncode == 3
    assert "precision" in done.stderr


def failure_of(
    capsys: pytest.CaptureFixture[str], videos: Path, tmp_path: Path, *options: str
) -> str:
    capsys.readouterr()
    arguments = extraction(videos, tmp_path / "none.h5", "--workers", "1", *options)
    code = main([str(argument) for argument in arguments])
    assert code == 2
    assert not (tmp_path / "none.h5").exists()
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


def test_impossible_requests_fail(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = failure_of(capsys, videos, tmp_path, "--engine", "torch", "--precision", "bf16")
    assert "--engine native" in message
    message = failure_of(capsys, videos, tmp_path, "--engine", "native", "--device", "cuda")
    assert "--device cpu" in message


def without_native(folder: Path) -> dict[str, str]:
    """The environment of an installation that was made without a compiler."""
    folder.mkdir()
    text = "import sys\nsys.modules['rrm_extract.engine._native'] = None\n"
    (folder / "sitecustomize.py").write_text(text, encoding="utf-8")
    return {"PYTHONPATH": os.pathsep.join([str(folder), str(REPOSITORY)])}


def test_the_command_without_the_native_module(videos: Path, tmp_path: Path) -> None:
    extra = without_native(tmp_path / "site")
    arguments = extraction(videos / "0.mp4", tmp_path / "feats.h5", "--workers", "1")
    done = rrm_extract(*arguments, cwd=tmp_path, extra=extra)
    assert done.returncode == 0, done.stderr
    assert "running on PyTorch alone" in done.stdout + done.stderr
    with h5py.File(tmp_path / "feats.h5") as file:
        assert file.attrs["engine"] == "torch"


def test_the_command_without_the_native_module_fails(videos: Path, tmp_path: Path) -> None:
    extra = without_native(tmp_path / "site")
    arguments = extraction(
        videos / "0.mp4", tmp_path / "feats.h5", "--workers", "1", "--engine", "native"
    )
    done = rrm_extract(*arguments, cwd=tmp_path, extra=extra)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "--engine torch" in done.stderr
    assert not (tmp_path / "feats.h5").exists()


def test_the_command_with_an_unknown_instruction_set_fails(
    videos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RRM_ISA", "sse9")
    message = failure_of(capsys, videos, tmp_path)
    assert "RRM_ISA is 'sse9'" in message
