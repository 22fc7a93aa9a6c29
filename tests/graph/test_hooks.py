"""What is done to a module from outside: hooks, and weights that hooks make."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

import rrm_extract
from rrm_extract.errors import TraceError
from rrm_extract.graph import BinaryConv2d, fold_batch_norm, trace
from rrm_extract.graph.binary import BinaryLinear
from tests.closeness import EXACT_RECURRENCE, relative_l2
from tests.rrm.videos import moving_frames


def weight_norm(layer: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.utils.weight_norm(layer)


def pruned(layer: nn.Module) -> nn.Module:
    return prune.random_unstructured(layer, "weight", amount=0.5)


@pytest.mark.parametrize("prepare", [weight_norm, nn.utils.spectral_norm, pruned])
def test_weights_are_those_of_the_next_call(prepare: Callable[[Any], nn.Module]) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        prepare(nn.Conv2d(3, 6, 3)), nn.ReLU(), nn.Flatten(), prepare(nn.Linear(600, 4))
    ).eval()
    net.load_state_dict({key: torch.rand_like(value) for key, value in net.state_dict().items()})
    stale = net[0].weight.clone()
    frames = moving_frames(3, 12)
    network = rrm_extract.accelerate(net, threshold=0)
    assert torch.equal(net[0].weight, stale), "the network is left as it was"
    result = torch.stack([network.step(frame) for frame in frames])
    with torch.inference_mode():
        expected = net(frames)
    assert relative_l2(result, expected) < EXACT_RECURRENCE


def test_reading_a_parametrised_weight_changes_nothing() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(parametrizations.spectral_norm(nn.Conv2d(3, 6, 3))).train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    program = trace(net)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    image = torch.randn(1, 3, 8, 8)
    with torch.inference_mode():
        assert relative_l2(program(image)[0], net.eval()(image)) < 1e-6


class WithNorm(nn.Sequential):
    """A convolution, a batch-norm that could be folded, an activation."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())


def twice(*args: Any) -> Any:
    return args[-1] * 2


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_hook_of_a_layer_is_refused(layer: int) -> None:
    net = WithNorm()
    handle = net[layer].register_forward_hook(twice)
    with pytest.raises(TraceError, match=f"layer '{layer}' .* has a forward hook"):
        trace(net)
    handle.remove()
    net[layer].register_forward_pre_hook(lambda module, inputs: None)
    with pytest.raises(TraceError, match=f"layer '{layer}' .* has a forward pre-hook"):
        trace(net)


def test_a_forward_of_its_own_is_refused() -> None:
    net = WithNorm()
    net[2].forward = torch.sigmoid
    with pytest.raises(TraceError, match=r"layer '2' .* a forward that is not its class's"):
        trace(net)


@pytest.mark.parametrize("kind", [nn.Conv2d, BinaryConv2d])
def test_a_convolution_that_was_given_another_way_to_convolve_is_refused(kind: Any) -> None:
    net = nn.Sequential(kind(3, 4, 3))

    def seamless(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="circular"), weight, bias)

    net[0]._conv_forward = seamless
    with pytest.raises(TraceError, match=r"layer '0' .* a _conv_forward that is not its class's"):
        trace(net)


class Doubled(nn.Conv2d):
    """Another way to convolve, in the class."""

    def _conv_forward(self, *args: Any) -> Tensor:
        return 2 * super()._conv_forward(*args)


@pytest.mark.parametrize("leaf_modules", [(), (Doubled,)])
def test_a_class_that_convolves_in_another_way(
    image: Tensor, leaf_modules: tuple[type[nn.Module], ...]
) -> None:
    net = nn.Sequential(Doubled(3, 4, 3)).eval()
    with torch.inference_mode():
        expected = net(image)
    program = trace(net, leaf_modules=leaf_modules)
    assert relative_l2(program(image)[0], expected) < EXACT_RECURRENCE


@pytest.mark.parametrize("layer", [BinaryConv2d(3, 4, 3), BinaryLinear(3, 4)])
def test_a_hook_of_a_binary_layer_is_refused(layer: nn.Module) -> None:
    layer.register_forward_hook(twice)
    with pytest.raises(TraceError, match=r"layer '0' .* has a forward hook"):
        trace(nn.Sequential(layer))


class DoubledBinary(BinaryConv2d):
    """A binary layer that computes in a way of its own."""

    def _conv_forward(self, *arguments: Any) -> Tensor:
        return 2 * super()._conv_forward(*arguments)


def test_a_binary_layer_that_computes_in_another_way_is_called() -> None:
    module = nn.Sequential(DoubledBinary(3, 4, 3)).eval()
    frames = moving_frames(2, 8)
    with torch.inference_mode():
        assert torch.equal(trace(module)(frames)[0], module(frames))


def test_a_hook_of_the_network_is_refused() -> None:
    net = WithNorm()
    net.register_forward_hook(twice)
    with pytest.raises(TraceError, match=r"WithNorm has a forward hook.*Sequential\(network\)"):
        trace(net)
    with pytest.raises(TraceError, match="Conv2d has a forward pre-hook, 'WeightNorm'"):
        trace(weight_norm(nn.Conv2d(3, 4, 3)))


class Wrapper(nn.Module):
    """Hands on what it is given, as wrappers for training do."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)


@pytest.mark.parametrize("wrapper", [Wrapper, nn.DataParallel])
def test_a_wrapper_that_names_no_input_is_refused(wrapper: Callable[..., nn.Module]) -> None:
    message = r"names no input \(it takes \*\w+, \*\*kwargs\).* network inside, such as \.module"
    with pytest.raises(TraceError, match=message):
        trace(wrapper(WithNorm()))


def test_what_compiling_made_is_refused() -> None:
    compiled = torch.compile(WithNorm())
    with pytest.raises(TraceError, match=r"went through torch\.compile; .* give its _orig_mod"):
        trace(compiled)
    assert trace(compiled._orig_mod).linear_ops


def test_a_hook_of_what_is_traced_through_is_traced(image: Tensor) -> None:
    net = nn.Sequential(WithNorm()).eval()
    net[0].register_forward_hook(twice)
    with torch.inference_mode():
        expected = net(image)
    assert relative_l2(fold_batch_norm(trace(net))(image)[0], expected) < EXACT_RECURRENCE


@pytest.fixture
def image() -> Tensor:
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
