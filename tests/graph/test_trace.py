from __future__ import annotations

import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor

from rrm_extract.errors import LayerError, TraceError
from rrm_extract.graph import (
    default_layer,
    fold_batch_norm,
    layer_names,
    resolve_layer,
    select,
    trace,
)
from tests.closeness import EXACT_RECURRENCE, relative_l2
from tests.graph import nets


@pytest.fixture
def image() -> Tensor:
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("net", nets.ALL)
def test_program_equals_the_module(net: type[nn.Module], image: Tensor) -> None:
    torch.manual_seed(0)
    module = nets.randomised(net())
    with torch.inference_mode():
        expected = module(image.clone())
        program = trace(module)
        before = image.clone()
        (result,) = program(image)
    # The bias is added after the convolution, which rounds once more.
    assert relative_l2(result, expected) < 1e-6
    assert torch.equal(image, before), "an operation changed the input"


@pytest.mark.parametrize("net", nets.ALL)
def test_folding_keeps_the_result(net: type[nn.Module], image: Tensor) -> None:
    torch.manual_seed(0)
    program = trace(nets.randomised(net()))
    folded = fold_batch_norm(program)
    assert relative_l2(folded(image)[0], program(image)[0]) < EXACT_RECURRENCE


def test_folding_removes_every_batch_norm_behind_a_convolution() -> None:
    program = fold_batch_norm(trace(models.resnet18(weights=None)))
    assert [op for op in program.ops if op.kind == "norm"] == []
    assert len(program.linear_ops) == 21
    kept = fold_batch_norm(trace(nets.BatchNormFirst()))
    assert [op.name for op in kept.ops if op.kind == "norm"] == ["bn"]


def test_folding_leaves_a_convolution_that_is_asked_for() -> None:
    program = select(trace(models.resnet18(weights=None)), ("conv1", "layer1"))
    assert "conv1" in {op.name for op in fold_batch_norm(program).ops}


def test_program_survives_pickling(image: Tensor) -> None:
    torch.manual_seed(0)
    program = fold_batch_norm(trace(nets.randomised(nets.ChannelShuffle())))
    copy = pickle.loads(pickle.dumps(program))
    assert torch.equal(copy(image)[0], program(image)[0])


def test_moving_leaves_the_original_where_it_was() -> None:
    program = trace(nets.BatchNormFirst())
    moved = program.to(torch.device("meta"))
    assert moved.op("conv").linear_map.weight.device.type == "meta"
    assert moved.op("bn").call.weight.device.type == "meta"
    assert program.op("conv").linear_map.weight.device.type == "cpu"
    assert program.op("bn").call.weight.device.type == "cpu"


class _ByDevice(nn.Module):
    """Moves its input, and makes numbers, where its weights are."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x.to(self.conv.weight.device))
        return x + torch.ones((1, 4, 1, 1), device=self.conv.weight.device)


def test_devices_that_were_noted_move_as_well() -> None:
    moved = trace(_ByDevice().eval()).to(torch.device("meta"))
    (result,) = moved(torch.zeros(1, 3, 8, 8, device="meta"))
    assert result.device.type == "meta"


class _OwnNorm(nn.BatchNorm2d):
    """A class of somebody's own that changes nothing of what is computed."""


class _OwnInstanceNorm(nn.InstanceNorm2d):
    """Likewise."""


def test_somebodys_own_subclass_of_a_normalisation() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), _OwnNorm(4), nn.ReLU(), _OwnInstanceNorm(4)).eval()
    nn.init.uniform_(module[1].running_mean)
    program = trace(module)
    assert [op.kind for op in fold_batch_norm(program).ops] == ["conv", "activation", "norm"]
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(program(x)[0], module(x).detach())


class _Choosing(nn.Module):
    """Which forward it has is decided when it is made."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.forward = self._run

    def _run(self, x: Tensor) -> Tensor:
        return self.conv(x)


def test_a_forward_that_is_chosen_when_a_module_is_made() -> None:
    program = trace(nn.Sequential(_Choosing(), nn.ReLU()).eval())
    assert [op.name for op in program.linear_ops] == ["0.conv"]


class _OfTheShape(nn.Module):
    """A layer reads what the frames' shape alone decides, as of a time that is always one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.time = nn.Conv2d(3, 8, 3), nn.Linear(1, 8)

    def forward(self, x: Tensor) -> Tensor:
        time = torch.full((x.shape[0],), 100.0)
        return self.conv(x).relu() + self.time(time[:, None])[:, :, None, None]


def test_a_layer_that_reads_no_numbers_of_frames_is_not_recurrent() -> None:
    torch.manual_seed(0)
    module = _OfTheShape().eval()
    program = trace(module)
    assert [op.name for op in program.linear_ops] == ["conv"]
    assert default_layer(program) == "add"
    x = torch.randn(3, 3, 8, 8)
    torch.testing.assert_close(program(x)[0], module(x).detach())


class _Cosines(nn.Module):
    """A classifier whose weights are computed."""

    def __init__(self, *, function: bool) -> None:
        super().__init__()
        self.conv, self.function = nn.Conv2d(3, 8, 3), function
        self.weight = nn.Parameter(torch.ones(5, 8))

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.normalize(self.conv(x).relu().mean((2, 3)))
        weight = nn.functional.normalize(self.weight)
        return nn.functional.linear(x, weight) if self.function else 3 * x @ weight.t()


@pytest.mark.parametrize("function", [True, False])
def test_a_classifier_with_computed_weights_is_one(function: bool) -> None:
    program = trace(_Cosines(function=function).eval())
    assert default_layer(program) == ("normalize" if function else "mul")


@pytest.mark.parametrize(
    ("name", "layer", "size"),
    [
        ("resnet18", "flatten", 512),
        ("alexnet", "classifier.5", 4096),
        ("vgg11", "classifier.4", 4096),
        ("mobilenet_v2", "flatten", 1280),
        ("squeezenet1_1", "features.12.cat", 512),
        ("densenet121", "flatten", 1024),
    ],
)
def test_default_layer_is_the_penultimate_feature(name: str, layer: str, size: int) -> None:
    program = trace(models.get_model(name, weights=None))
    assert default_layer(program) == layer
    with torch.inference_mode():
        (feature,) = select(program, (layer,))(torch.zeros(1, 3, 224, 224))
    assert feature.shape[1] == size


def test_node_names_are_those_of_torchvision() -> None:
    module = models.resnet18(weights=None).eval()
    wanted = ["layer2.1.relu_1", "layer3.0.downsample.1", "layer4", "avgpool"]
    image = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        expected = create_feature_extractor(module, wanted)(image)
        program = trace(module)
        result = select(program, wanted)(image)
    for name, value in zip(wanted, result, strict=True):
        assert relative_l2(value, expected[name]) < 1e-6


def test_module_name_stands_for_its_last_value() -> None:
    program = trace(models.mobilenet_v2(weights=None))
    assert resolve_layer(program, "features.18") == "features.18.2"


def test_unknown_layer_fails_and_names_the_nearest() -> None:
    program = trace(models.resnet18(weights=None))
    with pytest.raises(LayerError, match=r"layer4\.1\.conv3.*layer4\.1\.conv2"):
        resolve_layer(program, "layer4.1.conv3")
    assert "layer4.1.conv2" in layer_names(program)


class DataDependent(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class TwoInputs(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


def test_data_dependent_control_flow_fails() -> None:
    with pytest.raises(TraceError, match="DataDependent cannot be traced"):
        trace(DataDependent())


def test_two_inputs_fail() -> None:
    with pytest.raises(TraceError, match="takes 2 inputs"):
        trace(TwoInputs())


class Autocast(nn.Module):
    """A convolution, in bfloat16 if it is on."""

    def __init__(self, enabled: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.enabled = enabled

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=self.enabled):
            return self.conv(x)


def test_autocast_of_its_own_is_refused() -> None:
    with pytest.raises(TraceError, match=r"^Autocast cannot be traced: .*torch\.autocast"):
        trace(Autocast(True))
    trace(Autocast(False))
    with torch.autocast("cpu"):  # the caller's own, as anywhere else in PyTorch
        trace(Autocast(True))


def test_training_mode_is_restored() -> None:
    module = models.squeezenet1_1(weights=None).train()
    trace(module)
    assert module.training


class Numbered(nn.Module):
    """Names with numbers behind, as in Caffe's VGG, and a layer that is used three times."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1_1 = nn.Conv2d(3, 4, 1)
        self.conv1_2 = nn.Conv2d(4, 4, 1)
        self.relu = nn.ReLU()
        self.relu_1 = nn.ReLU6()
        self.add_1 = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.conv1_1(x))
        x = self.relu_1(self.relu(self.conv1_2(x)))
        return self.add_1(self.relu(x + 1 + x))


def test_names_that_end_in_numbers_are_those_of_the_modules() -> None:
    program = trace(Numbered())
    assert [op.name for op in program.ops] == [
        "conv1_1", "relu", "conv1_2", "relu_2", "relu_1", "add", "add_1_", "relu_3", "add_1",
    ]  # fmt: skip
    linear = {op.name: op.source for op in program.ops if op.kind == "conv"}
    assert linear == {"conv1_1": "conv1_1", "conv1_2": "conv1_2"}


def test_names_within_each_other() -> None:
    act = nn.ReLU()
    blocks = [nn.Conv2d(3, 3, 1), act, nn.Conv2d(3, 3, 1), act, nn.Conv2d(3, 3, 1), act]
    program = trace(nn.Sequential(*blocks))
    assert [op.name for op in program.ops] == ["0", "1", "2", "1_1", "4", "1_2"]
    nested = nn.Sequential()
    nested.add_module("conv_bn", nn.Conv2d(3, 3, 1))
    nested.add_module("conv", nn.Sequential())
    nested.conv.add_module("bn", nn.BatchNorm2d(3))
    assert [op.name for op in trace(nested.eval()).ops] == ["conv_bn", "conv.bn"]


class _Headless(nn.Module):
    """A network up to its last block and the mean over space."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.whole = models.get_model(name, weights=None)
        self.whole.fc = nn.Linear(1, 1)  # not called

    def forward(self, x: Tensor) -> Tensor:
        net = self.whole
        x = net.maxpool(net.relu(net.bn1(net.conv1(x))))
        x = net.layer4(net.layer3(net.layer2(net.layer1(x))))
        return net.avgpool(x).flatten(1)


class _TwoHeads(nn.Module):
    """Their sum, perhaps with a number that the network has, and of one of them the half."""

    def __init__(self, *, scaled: bool = False) -> None:
        super().__init__()
        self.scaled = scaled
        self.register_buffer("prior", torch.ones(5))
        self.trunk = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.one, self.other = nn.Linear(8, 5), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.trunk(x)
        if self.scaled:
            return self.one(x) + 0.5 * self.other(x) + 2 * self.prior
        return (self.one(x) + self.other(x)) / 2


class _Projection(nn.Module):
    """As encoders of pictures beside texts end, with nothing behind."""

    def __init__(self, *, straight: bool = False) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.proj, self.fc, self.norm = nn.Linear(8, 6), nn.Linear(6, 6), nn.LayerNorm(6)
        self.again, self.straight = nn.Linear(8, 8), straight

    def forward(self, x: Tensor) -> Tensor:
        x = self.trunk(x)
        if self.straight:
            return x + self.again(x)
        p = self.proj(x)
        return self.norm(p + self.fc(nn.functional.gelu(p)))


class _Shortcut(nn.Module):
    """A last block without normalisation, with a convolution beside two."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, padding=1)
        self.two, self.beside = nn.Conv2d(8, 7, 3, padding=1), nn.Conv2d(8, 7, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        return (self.two(self.one(x).relu()) + self.beside(x)).relu().mean((2, 3))


class _ClassAndRest(nn.Module):
    """One classifier for a token, and the best of another one for the others."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 8, 8), nn.LayerNorm(8)
        self.head, self.rest = nn.Linear(8, 5), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x).flatten(2).transpose(1, 2))
        return self.head(x[:, 0]) + 0.5 * self.rest(x[:, 1:]).max(1)[0]


class _Squeezed(nn.Module):
    """The dimension of pixels goes by ``squeeze``, and no classifier follows."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.pool = nn.Conv2d(3, 9, 3), nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.pool(self.conv(x)).squeeze(-1).squeeze(-1))


def _without_classifier(name: str, attribute: str) -> nn.Module:
    module = models.get_model(name, weights=None)
    setattr(module, attribute, nn.Identity())
    return module


@pytest.mark.parametrize(
    ("make", "size"),
    [
        (lambda: _Headless("resnet18"), 512),
        (lambda: _without_classifier("resnet50", "fc"), 2048),
        (lambda: _without_classifier("mobilenet_v2", "classifier"), 1280),
        (lambda: _without_classifier("densenet121", "classifier"), 1024),
        (_TwoHeads, 8),
        (lambda: _TwoHeads(scaled=True), 8),
        (_Projection, 6),
        (lambda: _Projection(straight=True), 8),
        (_Shortcut, 7),
        (_ClassAndRest, 8),
        (_Squeezed, 9),
    ],
)
def test_default_layer_of_networks_without_a_classifier_is_their_output(
    make: Callable[[], nn.Module], size: int
) -> None:
    program = trace(make().eval())
    (feature,) = select(program, (default_layer(program),))(torch.zeros(1, 3, 64, 64))
    assert feature.flatten(1).shape == (1, size)


def test_an_identity_behind_a_classifier_changes_nothing() -> None:
    module = nn.Sequential(
        *(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        *(nn.Linear(8, 6), nn.Linear(6, 5), nn.Dropout(), nn.Identity()),
    )
    assert default_layer(trace(module.eval())) == "3"


def test_a_head_for_each_pixel_is_a_classifier() -> None:
    module = nn.Sequential(
        *(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 1, 1)),
        *(nn.UpsamplingBilinear2d(scale_factor=4), nn.Identity()),
    )
    assert default_layer(trace(module.eval())) == "0"
