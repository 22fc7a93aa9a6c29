"""Binary layers in the recurrence: differences of signs are 0, 2 or -2, and nothing is rounded.

Layer by layer the recurrent network is bit-equal to the ordinary one. A whole network is so from
its first sign on: what comes before is rounded in another order, and a sign may fall either way
where a number is within that of 0.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from rrm_extract.graph import BinaryConv2d, BinaryLinear, Program, Sign, fold_batch_norm, trace
from rrm_extract.rrm import RecurrentNetwork
from tests.coarse import clip, make_coarse

CHANGES = ["few", "same", "half", "all", "pixel", "few", "most", "corner"] * 4
SHAPE = (3, 17, 13)


def binary_network(channels: int = 20) -> nn.Sequential:
    """A full-precision layer, three binary ones of different kinds, a binary classifier."""

    def block(inputs: int, layer: nn.Module, *, last: tuple[nn.Module, ...] = ()) -> nn.Module:
        return nn.Sequential(nn.BatchNorm2d(inputs), Sign(), layer, *last)

    parts: list[tuple[str, nn.Module]] = [
        ("first", nn.Conv2d(3, channels, 3, padding=1)),
        ("two", block(channels, BinaryConv2d(channels, 35, 3, padding=1), last=(nn.ReLU(),))),
        ("three", block(35, BinaryConv2d(35, 24, 3, stride=2, padding=1))),
        ("four", block(24, BinaryConv2d(24, 18, (1, 5), padding=(0, 2), bias=False))),
        ("pool", nn.MaxPool2d(3, 2)),
        ("flatten", nn.Flatten()),
        ("norm", nn.BatchNorm1d(18 * 4 * 3)),
        ("sign", Sign()),
        ("fc", BinaryLinear(18 * 4 * 3, 10)),
    ]
    return nn.Sequential(OrderedDict(parts))


def drawn(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    module = binary_network()
    for norm in module.modules():
        if isinstance(norm, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.normal_(norm.running_mean, std=0.2)  # type: ignore[arg-type]
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias, std=0.3)
    return module.eval()


def frames(exact: bool = True, seed: int = 0) -> Tensor:
    return clip(SHAPE, CHANGES, generator=torch.Generator().manual_seed(seed), exact=exact)


def after_the_first_layer(program: Program) -> Program:
    """The rest of the network, whose input is the first layer's value."""
    first, *rest = program.ops
    return replace(program, input=first.name, ops=tuple(rest))


def ordinary(program: Program, x: Tensor) -> Tensor:
    return torch.cat([program(frame[None])[0] for frame in x])


@pytest.mark.parametrize("policy", ["bounded", "paper"])
@pytest.mark.parametrize("threshold", [0.0, 1e-2, 1.9])
@pytest.mark.parametrize("together", [1, 5])
def test_every_binary_layer_is_bit_equal(policy: str, threshold: float, together: int) -> None:
    """Each by itself, for signs as its input, whatever the threshold below 2."""
    program = fold_batch_norm(trace(drawn()))
    generator = torch.Generator().manual_seed(1)
    checked = 0
    for op in program.linear_ops:
        if not op.name.endswith(".sums"):
            continue
        inputs, _, _ = op.linear_map.channels()
        shape = (inputs,) if op.kind == "linear" else (inputs, 9, 8)
        x = Sign()(torch.randn(24, *shape, generator=generator))
        stays = torch.rand(24, *shape, generator=generator) < 0.8
        for time in range(1, 24):
            x[time] = torch.where(stays[time], x[time - 1], x[time])
        scale = next(other for other in program.ops if op.name in other.inputs)
        alone = Program(input=op.inputs[0], ops=(op, scale), outputs=(op.name, scale.name))
        network = RecurrentNetwork(alone, threshold=threshold, policy=policy)  # type: ignore[arg-type]
        parts = [network.run(some)[0] for some in torch.split(x, together)]
        sums, scaled = (torch.cat(values) for values in zip(*parts, strict=True))
        assert torch.equal(sums, sums.round())
        for time in range(24):
            expected = alone(x[time : time + 1])
            assert torch.equal(sums[time], expected[0][0])
            assert torch.equal(scaled[time], expected[1][0])
        (cost,) = network.stats()
        changed = float((x[1:] != x[:-1]).double().mean())
        assert cost.density_delta == pytest.approx(changed, abs=1e-6)
        assert cost.density == 1.0
        checked += 1
    assert checked == 4


@pytest.mark.parametrize("seed", range(3))
def test_with_the_first_layer_dense_the_network_is_bit_equal(seed: int) -> None:
    program = fold_batch_norm(trace(drawn(seed)))
    x = frames(exact=False, seed=seed)
    first = program.ops[0]
    maps = torch.cat([first.call(frame[None]) for frame in x])
    rest = after_the_first_layer(program)
    network = RecurrentNetwork(rest, threshold=1e-4)
    result = torch.cat([network.run(some)[0][0] for some in torch.split(maps, 4)])
    expected = ordinary(rest, maps)
    assert torch.equal(result, expected)
    assert len(expected.unique(dim=0)) > 10  # the frames differ
    assert torch.equal(expected, ordinary(program, x))


@pytest.mark.parametrize("seed", range(3))
def test_with_an_exact_first_layer_the_network_is_bit_equal(seed: int) -> None:
    module = drawn(seed)
    make_coarse(module.get_submodule("first"), torch.Generator().manual_seed(seed))
    program = fold_batch_norm(trace(module))
    x = frames(seed=seed)
    network = RecurrentNetwork(program, threshold=0.0)
    result = torch.cat([network.run(some)[0][0] for some in torch.split(x, 4)])
    assert torch.equal(result, ordinary(program, x))


def test_a_rounded_first_layer_changes_few_signs() -> None:
    """Only numbers that rounding takes to the other side of 0 differ."""
    program = fold_batch_norm(trace(drawn()))
    names = tuple(op.name for op in program.ops)
    whole = replace(program, outputs=names)
    x = frames(exact=False)
    network = RecurrentNetwork(whole, threshold=0.0)
    result = dict(zip(names, network.run(x)[0], strict=True))
    expected = dict(zip(names, whole(x), strict=True))
    before, after = names[:2]  # the first layer with its normalisation, and the signs
    assert (result[before] - expected[before]).abs().max() < 1e-5
    flipped = result[after] != expected[after]
    assert flipped.float().mean() < 1e-4
    assert (expected[before][flipped].abs() < 1e-5).all()


def test_a_nan_stays_one_and_is_gone_with_its_frame() -> None:
    program = fold_batch_norm(trace(drawn()))
    x = frames(exact=False)[:4]
    x[2, 1, 3, 4] = float("nan")
    network = RecurrentNetwork(program, threshold=0.0)
    results = [network.step(frame) for frame in x]
    assert [bool(result.isnan().any()) for result in results] == [False, False, True, False]
