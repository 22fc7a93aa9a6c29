"""``package.module:factory``."""

from __future__ import annotations

import importlib
import shutil
import sys
from pathlib import Path

import pytest
import torch

from rrm_extract.errors import ModelError, PreprocessError, WeightsError
from rrm_extract.models import load_model, parse_preprocess

CODE = """
from torch import nn

class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Dropout())

def bare():
    return Net()

def described():
    net = Net()
    net.preprocess = {"resize": 32, "crop": 30, "mean": [0, 0, 0], "std": [1, 1, 1]}
    return net

def wrong():
    return 3

ready = nn.Identity()

def scripted():
    import torch
    return torch.jit.script(Net())

def lazy():
    return nn.Sequential(nn.LazyConv2d(4, 3))

def broken():
    raise KeyError("the user's own")

value = 3
"""


@pytest.fixture(autouse=True)
def package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The package `mynets` in the current directory."""
    (tmp_path / "mynets").mkdir()
    (tmp_path / "mynets" / "__init__.py").write_text("")
    (tmp_path / "mynets" / "small.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in [name for name in sys.modules if name.partition(".")[0] == "mynets"]:
        monkeypatch.delitem(sys.modules, name)


def test_factory_in_the_current_directory() -> None:
    before = torch.get_rng_state()
    loaded = load_model("mynets.small:described", weights="random:5")
    assert torch.equal(torch.get_rng_state(), before)
    assert loaded.source == "factory"
    assert loaded.input_shape == (3, 30, 30)
    assert not loaded.module.training
    assert loaded.weights_id == "random:5"
    again = load_model("mynets.small:described", weights="random:5")
    assert again.weights_sha256 == loaded.weights_sha256
    frame = torch.zeros(2, 3, 40, 50, dtype=torch.uint8)
    assert loaded.module(loaded.transform(frame)).shape == (2, 4 * 28 * 28)


def test_given_description_wins() -> None:
    loaded = load_model("mynets.small:described", preprocess="imagenet")
    assert loaded.preprocess == parse_preprocess("imagenet").describe()
    assert loaded.weights_id == "factory:mynets.small:described"


def test_weights_file(tmp_path: Path) -> None:
    first = load_model("mynets.small:bare", weights="random:1", preprocess="imagenet")
    torch.save(first.module.state_dict(), tmp_path / "w.pth")
    second = load_model("mynets.small:bare", weights="w.pth", preprocess="imagenet")
    assert second.weights_sha256 == first.weights_sha256
    assert second.weights_id == "file:w.pth"


def test_undescribed_input_fails() -> None:
    with pytest.raises(PreprocessError, match=r"does not say what its input is.*imagenet"):
        load_model("mynets.small:bare")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mynets.small:nothing", "mynets.small has no 'nothing'"),
        ("mynets.small:value", "int; expected a function"),
        ("mynets.small:ready", "is a network already; expected a function"),
        ("mynets.small:wrong", "returned int; expected a torch.nn.Module"),
        ("mynets.large:net", "cannot import 'mynets.large'"),
        ("nowhere:net", "cannot import 'nowhere'"),
        (":net", "expected package.module:factory"),
        ("mynets.small:", "expected package.module:factory"),
    ],
)
def test_factory_fails(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_model(name, preprocess="imagenet")


def test_errors_of_the_factory_are_passed_on() -> None:
    with pytest.raises(KeyError, match="the user's own"):
        load_model("mynets.small:broken", preprocess="imagenet")


def test_weights_name_fails() -> None:
    with pytest.raises(WeightsError, match="has no weights 'IMAGENET1K_V1'"):
        load_model("mynets.small:bare", weights="IMAGENET1K_V1", preprocess="imagenet")


def test_a_module_that_does_not_compile_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "halfwritten.py").write_text("def network(:\n")
    (tmp_path / "raising.py").write_text("\nraise ValueError('not today')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModelError, match=r"importing halfwritten fails: SyntaxError.*line 1"):
        load_model("halfwritten:network")
    with pytest.raises(ModelError, match=r"fails: ValueError: not today \(\S*raising.py, line 2\)"):
        load_model("raising:network")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["scripted", "lazy"])
def test_a_network_that_cannot_be_used_fails(name: str) -> None:
    with pytest.raises(ModelError, match=rf"small:{name} returned a .* that cannot be used \("):
        load_model(f"mynets.small:{name}", preprocess="imagenet")


def test_what_the_code_computes_is_part_of_the_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashes = []
    for code in (
        CODE,
        CODE,
        CODE.replace("nn.ReLU()", "nn.Tanh()"),
        CODE.replace("4, 3)", "4, 3, 2)"),
    ):
        (tmp_path / "mynets" / "small.py").write_text(code)
        for name in ("mynets.small", "mynets"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        importlib.invalidate_caches()
        shutil.rmtree(tmp_path / "mynets" / "__pycache__", ignore_errors=True)
        hashes.append(load_model("mynets.small:described", weights="random:5").weights_sha256)
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3
