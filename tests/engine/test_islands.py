"""Operations without a kernel: each frame gets what plain PyTorch makes of it alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

pytest.importorskip("rrm_extract.engine._native", reason="built without a C++ compiler")

from rrm_extract.engine.batches import island_without_batches
from rrm_extract.engine.lower import lower
from rrm_extract.engine.parts import Lowered
from rrm_extract.errors import EngineError
from rrm_extract.graph import fold_batch_norm, trace
from rrm_extract.rrm import by_frame, layer_thresholds
from rrm_extract.rrm.cost import theoretical_speedup
from tests.closeness import EXACT_RECURRENCE, relative_l2
from tests.coarse import clip
from tests.engine.running import native, program_of

SHAPE = (3, 12, 12)

Forward = Callable[[Any, Tensor], Any]


class _Net(nn.Module):
    """A convolution, and what is made of it."""

    def __init__(self, forward: Forward, **parts: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1)
        self.rest = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Any:
        return self.rest(self, x)


def _number(value: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(value), requires_grad=False)


def _unpooled(net: Any, x: Tensor) -> Tensor:
    values, indices = net.pool(net.conv(x))
    result: Tensor = net.unpool(values, indices)
    return result


def _attention_over_a_sequence(net: Any, x: Tensor) -> Tensor:
    y = net.conv(x)
    n, c, h, w = y.shape
    sequence = y.flatten(2).permute(2, 0, 1)  # pixels, frames, channels
    sequence = sequence + net.attention(sequence, sequence, sequence)[0]
    result: Tensor = sequence.permute(1, 2, 0).reshape(n, c, h, w)
    return result


def _pooled(net: Any, x: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(net.conv(x), 1)


# Each a function that makes the network, so that its weights are drawn in the test.
NETS: dict[str, Callable[[], nn.Module]] = {
    "size": lambda: _Net(lambda n, x: F.interpolate(n.conv(x)[:, :, ::2], size=x.shape[-2:])),
    "output size": lambda: _Net(
        lambda n, x: n.up(n.conv(x)[:, :, ::2, ::2], output_size=x.size()),
        up=nn.ConvTranspose2d(16, 4, 3, stride=2, padding=1),
    ),
    "number": lambda: _Net(lambda n, x: n.conv(x) * n.scale, scale=_number(0.5)),
    "maximum": lambda: _Net(lambda n, x: n.conv(x) / n.conv(x).abs().max()),
    "normed weights": lambda: _Net(
        lambda n, x: F.conv2d(n.conv(x), n.weight / n.weight.norm()),
        weight=nn.Parameter(torch.linspace(-1, 1, 32).reshape(2, 16, 1, 1)),
    ),
    "squeeze": lambda: _Net(lambda n, x: n.head(_pooled(n, x).squeeze()), head=nn.Linear(16, 4)),
    "one score": lambda: _Net(
        lambda n, x: n.head(_pooled(n, x).flatten(1)).squeeze(1) * 100, head=nn.Linear(16, 1)
    ),
    "one shifted score": lambda: _Net(
        lambda n, x: n.head(_pooled(n, x).flatten(1)).view(-1) + n.shift,
        head=nn.Linear(16, 1),
        shift=_number(0.5),
    ),
    "squeezed output": lambda: _Net(lambda n, x: torch.squeeze(_pooled(n, x))),
    "squeezed island": lambda: _Net(lambda n, x: F.gelu(_pooled(n, x)).double().squeeze().float()),
    "squeezed parameter": lambda: _Net(
        lambda n, x: _pooled(n, x).flatten(1) + n.bias.squeeze(),
        bias=nn.Parameter(torch.linspace(-1, 1, 16).reshape(1, 16, 1, 1)),
    ),
    "frames second": lambda: _Net(
        lambda n, x: n.conv(x).transpose(0, 1).softmax(0).transpose(0, 1)
    ),
    "sequence first": lambda: _Net(
        _attention_over_a_sequence, attention=nn.MultiheadAttention(16, 2)
    ),
    "pieces of a frame": lambda: _Net(
        lambda n, x: n.head(_pooled(n, x).view(-1, 4)).view(-1, 16), head=nn.Linear(4, 4)
    ),
    "pixels of a frame": lambda: _Net(
        lambda n, x: n.head(n.conv(x).view(-1, 16)).view(-1, 144, 4), head=nn.Linear(16, 4)
    ),
    "channels of a frame": lambda: _Net(
        lambda n, x: n.each(n.conv(x).flatten(0, 1)[:, None]).view(-1, 16, 12, 12),
        each=nn.Conv2d(1, 1, 3, padding=1),
    ),
    "indices": lambda: _Net(
        _unpooled, pool=nn.MaxPool2d(2, return_indices=True), unpool=nn.MaxUnpool2d(2)
    ),
    "named input": lambda: _Net(
        lambda n, x: n.act(input=n.norm(input=n.conv(input=x))),
        act=nn.ReLU6(),
        norm=nn.BatchNorm2d(16),
    ),
    "batch statistics": lambda: _Net(
        lambda n, x: n.norm(n.conv(x)), norm=nn.BatchNorm2d(16, track_running_stats=False)
    ),
    "batch statistics by a function": lambda: _Net(
        lambda n, x: F.batch_norm(n.conv(x), n.mean, n.variance, training=True),
        mean=_number(0.0).expand(16),
        variance=_number(1.0).expand(16),
    ),
    "constant for one frame": lambda: _Net(
        lambda n, x: torch.cat([n.conv(x), n.more], 1),
        more=nn.Parameter(torch.ones(1, 2, 12, 12)),
    ),
    "constant of more dimensions": lambda: _Net(
        lambda n, x: n.conv(x) + n.more, more=nn.Parameter(torch.ones(1, 1, 1, 1, 1))
    ),
    "type": lambda: _Net(
        lambda n, x: n.conv(x) + n.more.to(x.dtype),
        more=nn.Parameter(torch.linspace(-1, 1, 12)),
    ),
    "filled": lambda: _Net(lambda n, x: n.conv(x) + torch.full((x.shape[0], 16, 12, 12), 3)),
    "sum in double precision": lambda: _Net(
        lambda n, x: n.conv(x).mean((2, 3), dtype=torch.float64) * 1e-20
    ),
    "counted": lambda: _Net(lambda n, x: n.conv(x) / x.numel()),
}


def _made(name: str) -> nn.Module:
    torch.manual_seed(0)
    return NETS[name]().eval()


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("name", NETS)
def test_every_frame_is_computed_as_if_it_were_alone(name: str, batch: int) -> None:
    module = _made(name)
    generator = torch.Generator().manual_seed(1)
    frames = clip(SHAPE, ["few", "half", "all", "same", "few"], generator=generator, exact=False)
    network = native(program_of(module), SHAPE, threshold=0, batch=batch)
    (result,), _ = network.run(frames)
    assert len(result) == len(frames)
    assert result.dtype == module(frames[:1]).dtype
    network.reset()
    for frame, row in zip(frames, result, strict=True):
        with torch.inference_mode():
            expected = module(frame[None])
        assert relative_l2(row.flatten()[None], expected.flatten()[None]) < EXACT_RECURRENCE
        step = network.step(frame)
        assert relative_l2(step.flatten()[None], expected.flatten()[None]) < EXACT_RECURRENCE


def test_the_running_statistics_of_a_network_stay_as_they_are() -> None:
    module = _made("batch statistics by a function")
    before = module.mean.clone()
    native(program_of(module), SHAPE).run(torch.randn(2, *SHAPE))
    assert torch.equal(module.mean, before)


class _Doubles(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2


class _OwnReLU6(_Doubles, nn.ReLU6):
    pass


class _OwnLeakyReLU(_Doubles, nn.LeakyReLU):
    pass


class _OwnHardtanh(_Doubles, nn.Hardtanh):
    pass


@pytest.mark.parametrize("kind", [_OwnReLU6, _OwnLeakyReLU, _OwnHardtanh])
def test_an_activation_with_a_forward_of_its_own_is_not_the_stock_one(
    kind: type[nn.Module],
) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), kind()).eval()
    frames = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0))
    program = fold_batch_norm(trace(module, leaf_modules=(kind,)))
    network = native(program, SHAPE, threshold=0)
    assert [name for name, _ in network.islands] == ["1"]
    with torch.inference_mode():
        assert relative_l2(network.run(frames)[0][0], module(frames)) < EXACT_RECURRENCE


NO_ROWS: dict[str, Callable[[], nn.Module]] = {
    r"shape \(4, 4\)": lambda: _Net(
        lambda n, x: n.head(_pooled(n, x).view(-1, 4)), head=nn.Linear(4, 4)
    ),
    r"shape \(3, 4\)": lambda: _Net(
        lambda n, x: (n.conv(x), n.table), table=nn.Parameter(torch.ones(3, 4))
    ),
    r"shape \(\)": lambda: _Net(lambda n, x: n.conv(x).mean()),
    r"shape \(16, 1, 12, 12\)": lambda: _Net(lambda n, x: n.conv(x).permute(1, 0, 2, 3)),
    r"shape \(16, 12, 12\)": lambda: _Net(lambda n, x: F.gelu(n.conv(x))[0]),
    r"is int": lambda: _Net(lambda n, x: (n.conv(x), x.shape[2])),
    r"is tuple": lambda: _Net(lambda n, x: n.conv(x).chunk(2, 1)),
}


@pytest.mark.parametrize("what", NO_ROWS)
def test_an_output_without_a_row_for_each_frame_is_refused(what: str) -> None:
    with pytest.raises(EngineError, match=f"{what}.* for one frame; .*a row for each frame"):
        native(program_of(NO_ROWS[what]()), SHAPE)


def _lowered(module: nn.Module) -> Lowered:
    program = by_frame(program_of(module))
    thresholds = layer_thresholds(program, 0)
    return lower(program, input_shape=SHAPE, thresholds=thresholds, group_blocks=4)


def test_islands_that_keep_frames_apart_are_given_several() -> None:
    module = _Net(
        lambda n, x: n.norm(F.gelu(n.conv(x).permute(0, 2, 3, 1)).double().float()),
        norm=nn.LayerNorm(16),
    ).eval()
    assert island_without_batches(_lowered(module)) is None
    assert island_without_batches(_lowered(_made("batch statistics"))) is None
    assert island_without_batches(_lowered(_made("size"))) is None
    assert island_without_batches(_lowered(_made("maximum"))) is not None
    assert island_without_batches(_lowered(_made("sequence first"))) is not None


def test_trying_islands_draws_nothing_from_the_callers_numbers() -> None:
    lowered = _lowered(_Net(lambda n, x: F.dropout(n.conv(x), 0.5, training=True)).eval())
    before = torch.random.get_rng_state()
    assert island_without_batches(lowered) is not None
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_layer_without_a_kernel_counts_as_dense() -> None:
    module = nn.Sequential(
        *(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU()),
        nn.Conv2d(16, 8, 3, padding=1, padding_mode="reflect"),
    )
    generator = torch.Generator().manual_seed(1)
    frames = clip(SHAPE, ["few", "half", "same", "few"], generator=generator, exact=False)
    network = native(program_of(module), SHAPE, threshold=0)
    assert [name for name, _ in network.islands] == ["2"]
    _, seen = network.run(frames)
    assert seen.density_delta[1:, 1].tolist() == [1, 1, 0, 1], "a frame once more costs nothing"
    costs = network.stats()
    assert [cost.density for cost in costs] == pytest.approx(seen.density.mean(dim=0).tolist())
    deltas = seen.density_delta[1:].mean(dim=0).tolist()
    assert [cost.density_delta for cost in costs] == pytest.approx(deltas)
    assert 1 < theoretical_speedup(costs) < 4


class _Tuples(nn.Module):
    """Tuples of maps are joined and repeated."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.other = nn.Conv2d(3, 16, 3), nn.Conv2d(3, 8, 3)
        self.head = nn.Conv2d(40, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        halves = self.conv(x).chunk(2, 1)
        return self.head(torch.cat(halves + (self.other(x),) * 3, 1))


def test_tuples_that_are_joined() -> None:
    torch.manual_seed(0)
    module = _Tuples().eval()
    frames = torch.rand(4, *SHAPE)
    network = native(program_of(module), SHAPE, threshold=0)
    (result,), _ = network.run(frames)
    with torch.inference_mode():
        assert relative_l2(result, module(frames)) < EXACT_RECURRENCE
    assert network.islands == ()
