from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torchvision import models

import rrm_extract
from rrm_extract.errors import ConfigError, LayerError, TraceError
from rrm_extract.graph import fold_batch_norm, trace
from rrm_extract.rrm import Policy, RecurrentNetwork
from tests.closeness import EXACT_RECURRENCE, relative_l2
from tests.graph import nets
from tests.rrm.videos import moving_frames


def family(name: str) -> nn.Module:
    torch.manual_seed(0)
    return models.get_model(name, weights=None).eval()


@pytest.mark.parametrize("net", nets.ALL)
@pytest.mark.parametrize("policy", ["bounded", "paper"])
def test_small_networks_at_threshold_0(net: type[nn.Module], policy: Policy) -> None:
    torch.manual_seed(0)
    module = nets.randomised(net())
    frames = moving_frames(6, 16)
    with torch.inference_mode():
        expected = module(frames.clone())
    network = rrm_extract.accelerate(module, threshold=0, policy=policy)
    result = torch.stack([network.step(frame) for frame in frames])
    assert relative_l2(result, expected) < EXACT_RECURRENCE


def reference_convolution(
    module: nn.Conv2d, frames: Tensor, threshold: float, policy: Policy
) -> Tensor:
    """Algorithm 1 written down directly, in float64."""
    module = module.double()
    snapshot = frames[0].double()
    outputs = [module(snapshot[None])[0]]
    for frame in frames[1:].double():
        delta = frame - snapshot
        mask = delta.abs() > threshold
        change = nn.functional.conv2d(
            (delta * mask)[None], module.weight, None, module.stride, module.padding
        )[0]
        outputs.append(outputs[-1] + change)
        snapshot = torch.where(mask, frame, snapshot) if policy == "bounded" else frame
    return torch.stack(outputs)


@pytest.mark.parametrize("policy", ["bounded", "paper"])
@pytest.mark.parametrize("threshold", [0.0, 0.02, 0.3])
def test_recurrence_equals_algorithm_1(policy: Policy, threshold: float) -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, 5, 3, stride=2, padding=1)
    frames = moving_frames(7, 24)
    network = rrm_extract.accelerate(convolution, threshold=threshold, policy=policy)
    result = torch.stack([network.step(frame) for frame in frames])
    with torch.inference_mode():
        expected = reference_convolution(convolution, frames, threshold, policy)
    assert relative_l2(result.double(), expected) < 1e-6


def test_bounded_keeps_a_smaller_error_than_paper() -> None:
    module = family("resnet18")
    frames = moving_frames(12, 64)
    with torch.inference_mode():
        expected = module(frames)
    errors = {}
    for policy in ("bounded", "paper"):
        network = rrm_extract.accelerate(module, threshold=0.05, policy=policy)
        errors[policy] = relative_l2(network.run(frames)[0][0], expected)
    assert 0 < errors["bounded"] < errors["paper"]


def test_time_batches_and_steps_agree_on_the_selection() -> None:
    module = family("resnet18")
    frames = moving_frames(9, 64)
    steps = rrm_extract.accelerate(module, threshold=1e-2)
    batches = rrm_extract.accelerate(module, threshold=1e-2)
    one_by_one = torch.stack([steps.step(frame) for frame in frames])
    together = torch.cat([batches.run(part)[0][0] for part in frames.split(4)])
    assert relative_l2(together, one_by_one) < 1e-3  # rounding may flip a selection
    for a, b in zip(steps.stats(), batches.stats(), strict=True):
        assert a.density_delta == pytest.approx(b.density_delta, abs=1e-3)


def test_accounting_of_one_convolution_by_hand() -> None:
    convolution = nn.Conv2d(1, 2, 3, padding=1, bias=False)
    frames = torch.zeros(3, 1, 4, 4)
    frames[0, 0, 0, :] = 1.0  # 4 of 16 are not zero
    frames[1] = frames[0]
    frames[1, 0, 3, 3] = 2.0  # one element changes; 5 of 16 are not zero
    frames[2] = frames[1]  # nothing changes
    network = rrm_extract.accelerate(convolution, threshold=1e-4)
    _, seen = network.run(frames)
    (cost,) = network.stats()
    assert (cost.macs, cost.input_elements, cost.output_elements) == (16 * 2 * 9, 16, 32)
    assert cost.density == pytest.approx((4 + 5 + 5) / 48)
    assert cost.density_delta == pytest.approx((1 + 0) / 32)
    assert seen.key_frame.tolist() == [True, False, False]
    assert seen.density_delta[:, 0].tolist() == pytest.approx([4 / 16, 1 / 16, 0])
    assert seen.work.tolist() == pytest.approx([1.0, 1 / 16, 0])


@pytest.mark.parametrize("net", [nets.RowsOfTokens, nets.RowsInFront])
def test_a_layer_counts_all_rows_that_it_reads_of_a_frame(net: type[nn.Module]) -> None:
    network = rrm_extract.accelerate(net().eval(), threshold=0)
    network.step(torch.rand(3, 8, 8))
    convolution, linear = network.stats()
    assert (convolution.macs, convolution.output_elements) == (4 * 8 * 48, 4 * 8)
    assert (linear.macs, linear.input_elements) == (4 * 16 * 8, 4 * 8)
    assert linear.output_elements == 4 * 16


def test_no_delta_frames_have_no_density() -> None:
    network = rrm_extract.accelerate(nn.Conv2d(1, 1, 1), threshold=0)
    network.step(torch.ones(1, 2, 2))
    assert math.isnan(network.stats()[0].density_delta)


def test_lanes_are_independent() -> None:
    module = family("mobilenet_v3_small")
    videos = torch.stack([moving_frames(5, 64, seed=seed) for seed in (1, 2)], dim=1)
    both = rrm_extract.accelerate(module, threshold=1e-2)
    together = torch.stack([both.step(lanes) for lanes in videos])
    for lane in range(2):
        alone = rrm_extract.accelerate(module, threshold=1e-2)
        expected = torch.stack([alone.step(frame) for frame in videos[:, lane]])
        assert relative_l2(together[:, lane], expected) < 1e-3


def test_networks_live_side_by_side() -> None:
    module = family("resnet18")
    program = fold_batch_norm(trace(module))
    first, second = moving_frames(4, 64, seed=1), moving_frames(4, 64, seed=2)
    alone = RecurrentNetwork(program, threshold=1e-2)
    expected = [alone.step(frame) for frame in first]
    a, b = RecurrentNetwork(program, threshold=1e-2), RecurrentNetwork(program, threshold=0)
    result = []
    for mine, other in zip(first, second, strict=True):
        result.append(a.step(mine))
        b.step(other)
    assert all(torch.equal(x, y) for x, y in zip(result, expected, strict=True))


def test_reset_starts_over() -> None:
    network = rrm_extract.accelerate(family("squeezenet1_1"), threshold=0.1)
    frames = moving_frames(3, 64)
    first = [network.step(frame) for frame in frames]
    network.reset()
    again = [network.step(frame) for frame in frames]
    assert all(torch.equal(x, y) for x, y in zip(first, again, strict=True))


def test_the_model_is_left_as_it_was() -> None:
    module = family("resnet18")
    before = {name: value.clone() for name, value in module.state_dict().items()}
    network = rrm_extract.accelerate(module)
    network.step(moving_frames(1, 64)[0])
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_bad_frame_does_not_spoil_the_next(bad: float) -> None:
    module = family("resnet18")
    frames = moving_frames(5, 64)
    with torch.inference_mode():
        expected = module(frames)
    frames[2, 0, 5, 5] = bad
    network = rrm_extract.accelerate(module, threshold=0)
    result = [network.step(frame) for frame in frames]
    assert not torch.isfinite(result[2]).all()
    for t in (0, 1, 3, 4):
        assert relative_l2(result[t][None], expected[t][None]) < EXACT_RECURRENCE


@pytest.mark.parametrize("together", [False, True])
def test_a_sum_that_overflows_does_not_spoil_the_next(together: bool) -> None:
    layer = nn.Conv2d(1, 1, 1)
    nn.init.constant_(layer.weight, 10)
    frames = torch.tensor([1.0, 3e38, 1.0, 2.0]).reshape(-1, 1, 1, 1)
    network = rrm_extract.accelerate(layer, threshold=0)
    if together:
        network.run(frames[:2])
        result = network.run(frames[2:])[0][0]
    else:
        result = torch.stack([network.step(frame) for frame in frames])[2:]
    torch.testing.assert_close(result, layer(frames[2:]))


def test_per_layer_thresholds() -> None:
    module = family("resnet18")
    thresholds = {"default": 1e-3, "layer1": 0.5, "layer1.0": 0.25, "fc": 0.0}
    network = rrm_extract.accelerate(module, threshold=thresholds)
    assert network.thresholds["bn1"] == 1e-3  # conv1, whose value has its batch-norm's name
    assert network.thresholds["layer1.0.bn2"] == 0.25
    assert network.thresholds["layer1.1.bn1"] == 0.5
    assert network.thresholds["fc"] == 0


def test_layer_output_is_the_feature() -> None:
    network = rrm_extract.accelerate(family("resnet18"), threshold=0, layer="flatten")
    assert network.step(moving_frames(1, 64)[0]).shape == (512,)


class Returns(nn.Module):
    """A network that returns more than one value."""

    def __init__(self, *, parameter: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.scale = nn.Parameter(torch.ones(4, 1, 1))
        self.parameter = parameter

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.conv(x) * self.scale, self.scale if self.parameter else x


def test_the_frame_itself_can_be_an_output() -> None:
    network = rrm_extract.accelerate(Returns(parameter=False), threshold=0)
    for frame in moving_frames(2, 16):
        result, same = network.step(frame)
        assert result.shape == (4, 14, 14)
        assert torch.equal(same, frame)


def test_a_parameter_as_an_output_fails() -> None:
    with pytest.raises(LayerError, match="returns 'scale', which is the same for all frames"):
        rrm_extract.accelerate(Returns(parameter=True))


def test_what_is_no_network_fails() -> None:
    with pytest.raises(TraceError, match="a str is no network"):
        rrm_extract.accelerate("resnet18")  # type: ignore[arg-type]


def test_negative_threshold_fails() -> None:
    with pytest.raises(ConfigError, match="-1"):
        rrm_extract.accelerate(nn.Conv2d(3, 3, 1), threshold=-1)
    with pytest.raises(ConfigError, match="nan"):
        rrm_extract.accelerate(nn.Conv2d(3, 3, 1), threshold=float("nan"))


def test_threshold_for_an_unknown_layer_fails() -> None:
    with pytest.raises(LayerError, match="nowhere"):
        rrm_extract.accelerate(nn.Conv2d(3, 3, 1), threshold={"nowhere": 1.0})


def test_unknown_policy_fails() -> None:
    with pytest.raises(ConfigError, match="magic"):
        rrm_extract.accelerate(nn.Conv2d(3, 3, 1), policy="magic")  # type: ignore[arg-type]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_runs_on_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    module = family("resnet18")
    frames = moving_frames(4, 64)
    with torch.inference_mode():
        expected = module(frames)
    network = rrm_extract.accelerate(module.cuda(), threshold=0)
    result = torch.stack([network.step(frame.cuda()) for frame in frames]).cpu()
    assert relative_l2(result, expected) < EXACT_RECURRENCE


def test_outputs_may_be_changed_and_trained_on() -> None:
    module = nets.randomised(nets.Classifier())
    frames = moving_frames(4, 16)
    network, other = (rrm_extract.accelerate(module, threshold=0) for _ in range(2))
    head = nn.Linear(network.step(frames[0]).numel(), 2)
    network.reset()
    for frame in frames:
        feature = network.step(frame)
        assert torch.equal(feature, other.step(frame)), "what was done to the last one harms none"
        head(feature).sum().backward()
        feature /= feature.norm()
        feature *= 0
    (rows,), _ = network.run(frames)
    rows += 1
    (values,) = trace(module)(frames)
    values += 1


def test_torchs_default_device_is_not_asked() -> None:
    module = nets.randomised(nets.Classifier())
    frames = moving_frames(3, 16)
    network, other = (rrm_extract.accelerate(module, threshold=0.1) for _ in range(2))
    other.track()
    network.track()
    (expected,), _ = other.run(frames)
    with torch.device("meta"):  # whatever is made there has no numbers
        (result,), seen = network.run(frames)
    assert torch.equal(result, expected)
    assert seen.truncated is not None
    assert {seen.density.device.type, seen.work.device.type, seen.truncated.device.type} == {"cpu"}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_small_changes_are_not_lost_in_half_precision(dtype: torch.dtype) -> None:
    module = nn.Conv2d(2, 1, 1, bias=False).to(dtype)
    nn.init.ones_(module.weight)
    # Half a unit of change, where 256 has a neighbour 2 away (bfloat16), or 4096 one 4 away.
    large = 256.0 if dtype == torch.bfloat16 else 4096.0
    frames = torch.stack([torch.tensor([large, t / 2]) for t in range(201)]).to(dtype)
    network = rrm_extract.accelerate(module, threshold=0)
    for frame in frames.reshape(-1, 2, 1, 1):
        feature = network.step(frame)
    assert feature.dtype == dtype
    assert feature.item() == module(frames[-1:].reshape(1, 2, 1, 1)).item() == large + 100


def test_a_frame_that_is_a_feature_as_well_is_a_copy() -> None:
    module = nn.Sequential(nn.Flatten(1), nn.Linear(12, 2))
    network = rrm_extract.accelerate(module, layer="0")
    frame = torch.ones(3, 2, 2)
    network.step(frame).zero_()
    assert bool((frame == 1).all())
