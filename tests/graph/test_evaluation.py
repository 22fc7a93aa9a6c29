"""A Program is the network in evaluation mode, whatever becomes of the network."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import rrm_extract
from rrm_extract.errors import TraceError
from rrm_extract.graph import fold_batch_norm, layer_names, trace
from tests.closeness import EXACT_RECURRENCE, relative_l2
from tests.graph import nets


class BatchNormAct2d(nn.BatchNorm2d):
    """As timm has it: what comes after the normalisation is inside."""

    def __init__(self, channels: int, *, drop: nn.Module, act: nn.Module) -> None:
        super().__init__(channels)
        self.drop = drop
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.drop(super().forward(x)))


class ScaledBatchNorm(nn.BatchNorm2d):
    """A subclass that does more than its base class, in a way that nobody knows."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x).abs()


class DropInside(nn.Module):
    """A dropout in evaluation mode only if its parent is."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Dropout(0.9))

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


def with_norm(norm: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nets.randomised(nn.Sequential(nn.Conv2d(3, 6, 3), norm, nn.Conv2d(6, 4, 1)))


@pytest.fixture
def image() -> Tensor:
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("drop", "act", "kinds"),
    [
        (nn.Identity(), nn.ReLU(inplace=True), ["conv", "activation", "conv"]),
        (nn.Dropout(), nn.SiLU(), ["conv", "identity", "activation", "conv"]),
        (nn.Identity(), nn.Identity(), ["conv", "conv"]),
    ],
)
def test_a_batch_norm_with_an_activation_is_folded(
    drop: nn.Module, act: nn.Module, kinds: list[str], image: Tensor
) -> None:
    module = with_norm(BatchNormAct2d(6, drop=drop, act=act))
    with torch.inference_mode():
        expected = module(image)
    program = trace(module, leaf_modules=[BatchNormAct2d])
    assert "1" in layer_names(program), "the module's value has the module's name"
    folded = fold_batch_norm(program)
    assert [op.kind for op in folded.ops] == kinds
    assert relative_l2(folded(image)[0], expected) < EXACT_RECURRENCE


def test_a_batch_norm_that_does_more_is_left_alone(image: Tensor) -> None:
    module = with_norm(ScaledBatchNorm(6))
    with torch.inference_mode():
        expected = module(image)
    folded = fold_batch_norm(trace(module, leaf_modules=[ScaledBatchNorm]))
    assert [op.kind for op in folded.ops] == ["conv", "other", "conv"]
    assert relative_l2(folded(image)[0], expected) < EXACT_RECURRENCE


@pytest.mark.parametrize("net", [nets.BatchNormFirst, nets.Classifier, DropInside])
@pytest.mark.parametrize("trained", ["before", "after"])
def test_training_mode_changes_nothing(net: type[nn.Module], trained: str, image: Tensor) -> None:
    torch.manual_seed(0)
    module = nets.randomised(net())
    state = {name: value.clone() for name, value in module.state_dict().items()}
    with torch.inference_mode():
        expected = module(image)
    module.train(trained == "before")
    program = trace(module, leaf_modules=[nn.Sequential])
    assert module.training == (trained == "before")
    module.train()
    assert relative_l2(program(image)[0], expected) < EXACT_RECURRENCE
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())


def test_each_submodule_keeps_its_mode() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Sequential(nn.Dropout()))
    module.train()
    module[1].eval()
    module[2].eval()
    module[2][0].train()
    before = [part.training for part in module.modules()]
    rrm_extract.accelerate(module)
    assert [part.training for part in module.modules()] == before


class Rememberer(nn.Module):
    """Keeps what it has seen, and computes with a tensor that it makes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.last = "nothing"

    def forward(self, x: Tensor) -> Tensor:
        self.last = self.conv(x)
        self.input = x
        return self.last + torch.ones(4, 1, 1)


def test_tracing_leaves_nothing_behind() -> None:
    module = Rememberer()
    names = set(vars(module))
    trace(module)
    assert module.last == "nothing"
    assert set(vars(module)) == names


def test_parameters_are_shared() -> None:
    module = nets.BatchNormFirst().eval()
    program = trace(module)
    assert program.op("bn").call.weight is module.bn.weight
    assert program.op("conv").linear_map.weight.data_ptr() == module.conv.weight.data_ptr()


def test_a_layer_of_constants_is_not_recurrent() -> None:
    program = trace(nets.LearnedTable())
    assert [op.name for op in program.linear_ops] == ["conv"]


class Counts(nn.Module):
    """Counts its calls in a buffer, which is part of what it computes."""

    def __init__(self, *, in_place: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.register_buffer("seen", torch.zeros(()))
        self.in_place = in_place

    def forward(self, x: Tensor) -> Tensor:
        if self.in_place:
            self.seen += 1
        else:
            self.seen = self.seen + 1
        return self.conv(x) * self.seen


@pytest.mark.parametrize("in_place", [True, False])
def test_a_network_that_changes_its_buffers_is_refused_and_left_alone(in_place: bool) -> None:
    module = nn.Sequential(Counts(in_place=in_place)).eval()
    before = module[0].seen
    with pytest.raises(TraceError, match=r"changes its buffer .0\.seen. in forward"):
        trace(module)
    assert module[0].seen is before
    assert before == 0


class Remembers(nn.Module):
    """Leaves what it computes in its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.maps: list[Tensor] = []
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.maps, self.last = [self.conv(x)], {"input": x}
        return self.maps[0]


def test_nothing_stays_in_the_attributes_of_a_network() -> None:
    module = Remembers()
    trace(module)
    assert (module.maps, module.calls, hasattr(module, "last")) == ([], 0, False)
    assert module.training


class Merges(nn.Module):
    """Weights that are merged in evaluation mode, as adapters do it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1, bias=False)
        self.merged = False

    def train(self, mode: bool = True) -> nn.Module:
        if self.merged == mode:
            with torch.no_grad():
                self.conv.weight *= 0.5 if mode else 2
            self.merged = not mode
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


def test_what_evaluation_mode_changes_training_mode_changes_back() -> None:
    module = Merges()
    before = module.conv.weight.detach().clone()
    trace(module)
    assert (module.training, module.merged) == (True, False)
    assert torch.equal(module.conv.weight, before)


class MakesItOnce(nn.Module):
    """A buffer that is there from the first call on, as one that depends on nothing else."""

    def __init__(self, *, declared: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        if declared:
            self.register_buffer("grid", None)

    def forward(self, x: Tensor) -> Tensor:
        if getattr(self, "grid", None) is None:
            self.register_buffer("grid", torch.linspace(-1, 1, 8))
        return self.conv(x) * self.grid[3]


@pytest.mark.parametrize("declared", [True, False])
def test_a_buffer_that_is_made_once_is_no_change(declared: bool, image: Tensor) -> None:
    module = MakesItOnce(declared=declared).eval()
    program = trace(module)
    assert getattr(module, "grid", None) is None, "the network is as it was"
    assert torch.equal(program(image)[0], module(image))


class Collects(nn.Module):
    """Fills what its attributes hold."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.maps: list[Tensor] = []
        self.by_name: dict[str, Tensor] = {"before": torch.zeros(1)}

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        self.maps.append(y)
        self.by_name["last"] = y
        return y


def test_nothing_stays_in_what_attributes_hold() -> None:
    module = Collects()
    trace(module)
    assert module.maps == []
    assert list(module.by_name) == ["before"]


class MakesALayer(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        self.pool = nn.AdaptiveAvgPool2d(1)
        pooled: Tensor = self.pool(x)
        return pooled


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:FutureWarning")
def test_what_cannot_be_traced_is_refused_and_left_alone() -> None:
    module = MakesALayer()
    with pytest.raises(TraceError, match="cannot be traced"):
        trace(module)
    assert list(module.children()) == []
    with pytest.raises(TraceError):
        trace(torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))))


@pytest.mark.parametrize(
    "layer",
    [
        lambda: parametrizations.spectral_norm(nn.ConvTranspose2d(4, 4, 2)),
        lambda: parametrizations.weight_norm(nn.ConvTranspose2d(4, 4, 2)),
    ],
)
def test_parametrized_layers_are_handed_on(layer: Callable[[], nn.Module], image: Tensor) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 1), layer()).eval()
    program = pickle.loads(pickle.dumps(trace(module)))
    assert torch.allclose(program(image)[0], module(image), rtol=1e-5, atol=1e-6)
    assert hasattr(module[1], "parametrizations"), "the network is as it was"
