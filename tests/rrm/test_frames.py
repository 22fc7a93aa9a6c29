"""The frames of one call do not see each other."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rrm_extract.engine import NativeNetwork
from rrm_extract.errors import EngineError
from rrm_extract.graph import fold_batch_norm, trace
from rrm_extract.rrm import OrdinaryNetwork, RecurrentNetwork, by_frame
from tests.closeness import EXACT_RECURRENCE, relative_l2
from tests.engines import AVAILABLE


class _OfItsOwn(nn.Module):
    """Normalised by the statistics of what comes in."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3)
        self.norm = nn.BatchNorm2d(6, track_running_stats=False)
        self.second = nn.Conv2d(6, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(F.relu(self.norm(self.first(x))))


class _ByAFunction(_OfItsOwn):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(6))
        self.register_buffer("variance", torch.ones(6))

    def forward(self, x: Tensor) -> Tensor:
        y = F.batch_norm(self.first(x), self.mean, self.variance, training=True)
        return self.second(F.relu(y))


class _Squeezed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 6, 3)
        self.register_buffer("shift", torch.linspace(-1, 1, 6).reshape(1, 6, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).mean((2, 3), keepdim=True).squeeze() + self.shift.squeeze()


class _Looked(nn.Module):
    """The factors of one frame have no dimension for it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.look = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        return y * torch.sigmoid(self.look(y)).squeeze()


class _Gated(nn.Module):
    """The factor of one frame suits maps of any size, those of several the rows of such a size."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.gate = nn.Conv2d(3, 6, 3), nn.Linear(6, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        return y * torch.sigmoid(self.gate(y.mean([2, 3])))


class _Brightest(nn.Module):
    """A number of the whole batch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x / x.abs().max())


class _Sequence(nn.Module):
    """Frames are the second dimension, as in attention over a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 6, 4)
        self.mix = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        sequence = self.layer(x).flatten(2).permute(2, 0, 1)
        return (self.mix(sequence).softmax(0) * sequence).permute(1, 2, 0)


class _WithTokens(nn.Module):
    """Runs on one frame only."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 6, 3)
        self.token = nn.Parameter(torch.linspace(-1, 1, 98).reshape(1, 2, 7, 7))
        self.last = nn.Conv2d(8, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.cat([self.layer(x), self.token], 1))


@pytest.mark.parametrize("net", [_Brightest, _Sequence, _WithTokens])
def test_a_network_that_mixes_frames_takes_one_after_the_other(net: type[nn.Module]) -> None:
    torch.manual_seed(0)
    module = net().eval()
    program = fold_batch_norm(trace(module))
    frames = torch.randn(6, 3, 9, 9)
    with torch.inference_mode():
        alone = torch.cat([module(frame[None]) for frame in frames])
    network, steps = (RecurrentNetwork(program, threshold=0.1) for _ in range(2))
    network.track()
    steps.track()
    (together,), seen = network.run(frames)
    each = [steps.run(frame[None]) for frame in frames]
    assert torch.equal(together, torch.cat([values[0] for values, _ in each]))
    for name in ("density", "density_delta", "key_frame", "work", "truncated"):
        expected = torch.cat([getattr(one, name) for _, one in each])
        assert torch.equal(getattr(seen, name), expected)
    (exact,), _ = RecurrentNetwork(program, threshold=0).run(frames)
    assert relative_l2(exact, alone) < EXACT_RECURRENCE
    with pytest.raises(EngineError, match="6 lanes"):
        network.step(frames)


def test_an_output_without_a_row_for_each_frame_is_refused() -> None:
    module = nn.Sequential(nn.Conv2d(3, 6, 9), nn.Flatten(0), nn.Unflatten(0, (3, 2))).eval()
    network = RecurrentNetwork(trace(module))
    with pytest.raises(EngineError, match=r"\(3, 2\) for one frame; expected \(1, ...\)"):
        network.step(torch.randn(3, 9, 9))


@pytest.mark.parametrize("n_frames", [5, 6, 7])  # other numbers, of channels, of rows
@pytest.mark.parametrize("net", [_Looked, _Gated])
def test_frames_that_would_meet_channels_or_rows_run_alone(
    net: type[nn.Module], n_frames: int
) -> None:
    torch.manual_seed(0)
    module = net().eval()
    frames = torch.randn(n_frames, 3, 9, 9)
    (together,), _ = RecurrentNetwork(trace(module), threshold=0).run(frames)
    with torch.inference_mode():
        alone = torch.cat([module(frame[None]) for frame in frames])
    assert relative_l2(together, alone) < EXACT_RECURRENCE


@pytest.mark.parametrize("net", [_OfItsOwn, _ByAFunction, _Squeezed])
def test_a_run_gives_what_steps_give(net: type[nn.Module]) -> None:
    torch.manual_seed(0)
    module = net().eval()
    program = fold_batch_norm(trace(module))
    frames = torch.randn(5, 3, 9, 9)
    (together,), _ = RecurrentNetwork(program, threshold=0).run(frames)
    one, lanes = (RecurrentNetwork(program, threshold=0) for _ in range(2))
    steps = torch.stack([one.step(frame) for frame in frames])
    with torch.inference_mode():
        alone = torch.stack([module(frame[None]).reshape(steps.shape[1:]) for frame in frames])
    for result in (together, steps, lanes.step(frames)):
        assert relative_l2(result, alone) < EXACT_RECURRENCE


def test_the_running_statistics_stay_as_they_are() -> None:
    module = _ByAFunction().eval()
    RecurrentNetwork(trace(module)).run(torch.randn(3, 3, 9, 9))
    assert torch.equal(module.mean, torch.zeros(6))


def test_twice_is_once() -> None:
    for net in (_OfItsOwn, _ByAFunction, _Squeezed):
        once = by_frame(trace(net().eval()))
        assert by_frame(once).ops == once.ops


@pytest.mark.parametrize(
    "net", [_OfItsOwn, _Squeezed, _Looked, _Gated, _Brightest, _Sequence, _WithTokens]
)
def test_the_ordinary_network_takes_frames_apart(net: type[nn.Module]) -> None:
    torch.manual_seed(0)
    module = net().eval()
    frames = torch.randn(6, 3, 9, 9)
    network = OrdinaryNetwork(trace(module))
    (together,) = network(frames)
    for frame, row in zip(frames, together, strict=True):
        with torch.inference_mode():
            alone = module(frame[None]).reshape(1, *row.shape)
        assert relative_l2(row[None], alone) < EXACT_RECURRENCE
        assert relative_l2(network(frame[None])[0], alone) < EXACT_RECURRENCE


class _NormalisedAlone(_Squeezed):
    """Right for one frame, whose dimension is gone."""

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(super().forward(x), dim=0)


class _Patches(nn.Module):
    """Normalised over all patches of a frame, which are rows where frames are."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Conv2d(3, 6, 3, 3), nn.BatchNorm1d(6, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.layer(x).flatten(2).transpose(1, 2)
        return self.norm(rows.reshape(-1, 6)).reshape(-1, 54)


class _NormalisedAndParted(_NormalisedAlone):
    """The same, in an output that is a tuple."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        return super().forward(x).chunk(2, -1)


class _Random(_Squeezed):
    """Another number each time, and nothing that one frame has alone."""

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(super().forward(x), 0.5)


def test_networks_that_draw_at_random_are_not_refused() -> None:
    network = RecurrentNetwork(trace(_Random().eval()))
    assert network.step(torch.ones(3, 9, 9)).shape == (6,)


@pytest.mark.parametrize(
    ("net", "name"),
    [(_NormalisedAlone, "squeeze"), (_NormalisedAndParted, "squeeze"), (_Patches, "norm")],
)
def test_networks_of_which_frames_apart_make_another_are_refused(
    net: type[nn.Module], name: str
) -> None:
    torch.manual_seed(0)
    program = trace(net().eval())
    with pytest.raises(EngineError, match=f"treat a frame in another way if '{name}'"):
        RecurrentNetwork(program).step(torch.zeros(3, 9, 9))
    with pytest.raises(EngineError, match=f"treat a frame in another way if '{name}'"):
        RecurrentNetwork(program).run(torch.zeros(2, 3, 9, 9))
    for frames in (torch.zeros(1, 3, 9, 9), torch.zeros(2, 3, 9, 9)):
        with pytest.raises(EngineError, match=f"treat a frame in another way if '{name}'"):
            OrdinaryNetwork(program)(frames)
    if "native" in AVAILABLE:
        with pytest.raises(EngineError, match=f"treat a frame in another way if '{name}'"):
            NativeNetwork(program, input_shape=(3, 9, 9))


def test_an_ordinary_network_is_checked_though_it_refused_a_frame() -> None:
    torch.manual_seed(0)
    network = OrdinaryNetwork(trace(_NormalisedAlone().eval()))
    with pytest.raises(RuntimeError, match="channels"):
        network(torch.zeros(1, 1, 9, 9))
    with pytest.raises(EngineError, match="treat a frame in another way"):
        network(torch.zeros(1, 3, 9, 9))


@pytest.mark.parametrize("net", [_Squeezed, _Brightest])  # together, and one after the other
def test_an_ordinary_network_refuses_no_frames(net: type[nn.Module]) -> None:
    network = OrdinaryNetwork(trace(net().eval()))
    for _ in range(2):
        with pytest.raises(EngineError, match=r"frames of shape \(0, 3, 9, 9\); .* at least 1"):
            network(torch.zeros(0, 3, 9, 9))
        network(torch.ones(2, 3, 9, 9))


class _OfSeveral(_Squeezed):
    """Of a single frame it finds too few dimensions."""

    tries = 0

    def forward(self, x: Tensor) -> Tensor:
        return counted(super().forward(x)).flatten(1)


@torch.fx.wrap
def counted(x: Tensor) -> Tensor:
    _OfSeveral.tries += 1
    return x


def test_a_frame_that_does_not_fit_does_not_say_that_the_network_is_right() -> None:
    torch.manual_seed(0)
    network = RecurrentNetwork(trace(_NormalisedAlone().eval()))
    with pytest.raises(RuntimeError, match="expected input"):
        network.step(torch.zeros(1, 9, 9))
    with pytest.raises(EngineError, match="treat a frame in another way if 'squeeze'"):
        network.step(torch.rand(3, 9, 9))


def test_a_network_that_takes_no_single_frame_is_tried_once() -> None:
    network = RecurrentNetwork(trace(_OfSeveral().eval()))
    network.step(torch.rand(3, 9, 9))
    _OfSeveral.tries = 0
    network.step(torch.rand(3, 9, 9))
    assert _OfSeveral.tries == 1


class _TwoInOne(nn.Module):
    """An output that is a tuple by itself."""

    def __init__(self, *, mixes: bool) -> None:
        super().__init__()
        self.layer, self.mixes = nn.Conv2d(3, 6, 3), mixes

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.layer(x / x.abs().max() if self.mixes else x)
        return x.chunk(2, 1)


@pytest.mark.parametrize("mixes", [False, True])
def test_an_output_that_is_a_tuple(mixes: bool) -> None:
    torch.manual_seed(0)
    module = _TwoInOne(mixes=mixes).eval()
    frames = torch.randn(4, 3, 9, 9)
    with torch.inference_mode():
        alone = [module(frame[None]) for frame in frames]
    expected = [torch.cat(halves) for halves in zip(*alone, strict=True)]
    program = trace(module)
    ((*together,),), _ = RecurrentNetwork(program, threshold=0).run(frames)
    (ordinary,) = OrdinaryNetwork(program)(frames)
    one = RecurrentNetwork(program, threshold=0)
    steps = [one.step(frame) for frame in frames]
    for half in range(2):
        for result in (together[half], ordinary[half], torch.stack([row[half] for row in steps])):
            assert relative_l2(result, expected[half]) < EXACT_RECURRENCE
    steps[-1][0].zero_()
    if not mixes:
        halves = RecurrentNetwork(program, threshold=0).step(frames)
        assert relative_l2(halves[1], expected[1]) < EXACT_RECURRENCE
