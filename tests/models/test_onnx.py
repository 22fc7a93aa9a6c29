"""``FILE.onnx``: compared with onnxruntime on files made here."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn
from torchvision.models.feature_extraction import NodePathTracer

from rrm_extract.errors import ModelError, PreprocessError, WeightsError
from rrm_extract.models import LoadedModel, load_model

SIDE = 16
PREPROCESS = f"resize={SIDE},crop={SIDE},mean=0.5/0.5/0.5,std=1/1/1"


@pytest.fixture(autouse=True)
def extras() -> None:
    for name in ("onnx", "onnx2torch"):
        pytest.importorskip(name, reason=f"the extra `onnx` is not installed: no {name}")


class Builder:
    """An ONNX graph, node by node; each call gives the name of the node's output."""

    def __init__(self, *, batch: int | str = "N", layout: str = "nchw") -> None:
        import onnx

        self.onnx = onnx
        self.random = np.random.default_rng(0)
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        sides = [3, SIDE, SIDE] if layout == "nchw" else [SIDE, SIDE, 3]
        self.input = onnx.helper.make_tensor_value_info("image", 1, [batch, *sides])

    def const(self, values: Any) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(self.onnx.numpy_helper.from_array(np.asarray(values), name))
        return name

    def weight(self, *shape: int, low: float = -0.5) -> str:
        return self.const(self.random.uniform(low, 0.5, shape).astype(np.float32))

    def add(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        names = [f"{kind}_{len(self.nodes)}_{index}" for index in range(outputs)]
        label = f"net/{kind}{len(self.nodes)}"
        self.nodes.append(
            self.onnx.helper.make_node(kind, list(inputs), names, name=label, **attributes)
        )
        return names if outputs > 1 else names[0]

    def save(self, path: Path, output: str, *, opset: int = 13) -> str:
        make = self.onnx.helper
        result = make.make_tensor_value_info(output, 1, None)
        graph = make.make_graph(self.nodes, "net", [self.input], [result], self.weights)
        opsets = [make.make_opsetid("", opset)]
        self.onnx.save(make.make_model(graph, opset_imports=opsets, ir_version=8), str(path))
        return str(path)


def conv(b: Builder, x: str, outs: int, ins: int, **attributes: Any) -> str:
    return str(b.add("Conv", x, b.weight(outs, ins, 3, 3), b.weight(outs), **attributes))


def run_by_onnxruntime(path: str, x: Tensor) -> Tensor:
    """One frame at a time, whatever the file's batch size."""
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    outputs = [session.run(None, {"image": frame[None].numpy()})[0] for frame in x]
    return torch.from_numpy(np.concatenate(outputs))


def check(path: str, *, preprocess: str = PREPROCESS) -> LoadedModel:
    """Equal to onnxruntime for a batch of 4; traceable; picklable."""
    loaded = load_model(path, preprocess=preprocess)
    x = torch.randn(4, *loaded.input_shape, generator=torch.Generator().manual_seed(1))
    actual = loaded.module(x)
    expected = run_by_onnxruntime(path, x)
    assert actual.shape == expected.shape
    assert (actual - expected).norm() < 1e-5 * expected.norm()
    assert expected.std() > 1e-3
    NodePathTracer(leaf_modules=list(loaded.leaf_modules)).trace(loaded.module)
    if not loaded.leaf_modules:
        traced = fx.symbolic_trace(loaded.module)
        assert torch.equal(traced(x), actual)
    again = pickle.loads(pickle.dumps(loaded))
    assert torch.equal(again.module(x), actual)
    return loaded


def kinds(loaded: LoadedModel) -> set[type]:
    return {type(part) for part in loaded.module.modules()} - {type(loaded.module)}


def residual_net(b: Builder, x: str) -> str:
    """Conv (uneven padding), norm, ReLU, pool (uneven padding), residual add, global pool."""
    x = conv(b, x, 8, 3, pads=[0, 0, 1, 1], strides=[2, 2])
    statistics = [b.weight(8), b.weight(8), b.weight(8), b.weight(8, low=0.1)]
    x = b.add("Relu", b.add("BatchNormalization", x, *statistics))
    x = b.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1])
    y = b.add(
        "Clip", conv(b, x, 8, 8, pads=[1, 1, 1, 1]), b.const(np.float32(0)), b.const(np.float32(6))
    )
    x = b.add("Add", b.add("Sum", x, y, y), y)
    return str(b.add("GlobalAveragePool", x))


@pytest.mark.parametrize("batch", ["N", 1])
def test_residual_network(tmp_path: Path, batch: int | str) -> None:
    b = Builder(batch=batch)
    x = b.add("Reshape", residual_net(b, "image"), b.const(np.array([1 if batch == 1 else -1, 8])))
    y = b.add("Gemm", x, b.weight(5, 8), b.weight(5), transB=1)
    loaded = check(b.save(tmp_path / "net.onnx", y))
    assert loaded.leaf_modules == ()
    assert {nn.Conv2d, nn.BatchNorm2d, nn.Linear, nn.AdaptiveAvgPool2d, nn.Flatten} <= kinds(loaded)
    assert loaded.weights_id == "file:net.onnx"
    assert loaded.source == "onnx"
    assert not any(key.startswith("initializers") for key in loaded.module.state_dict())


def test_nhwc_input_and_matmul_with_bias(tmp_path: Path) -> None:
    b = Builder(layout="nhwc")
    x = b.add("Transpose", "image", perm=[0, 3, 1, 2])
    x = b.add("Relu", conv(b, x, 8, 3, pads=[1, 1, 1, 1]))
    x = b.add("AveragePool", x, kernel_shape=[SIDE, SIDE])
    x = b.add("Reshape", x, b.const(np.array([-1, 1, 1, 8])))
    x = b.add("Reshape", x, b.const(np.array([-1, 8])))
    x = b.add("Add", b.weight(5), b.add("MatMul", x, b.weight(8, 5)))
    path = b.save(tmp_path / "net.onnx", b.add("Softmax", x, axis=1), opset=9)
    loaded = check(path, preprocess=PREPROCESS + ",layout=nhwc")
    assert loaded.input_shape == (SIDE, SIDE, 3)
    linear = [part for part in loaded.module.modules() if isinstance(part, nn.Linear)]
    assert len(linear) == 1
    assert linear[0].bias is not None
    assert {nn.Softmax, nn.Flatten} <= kinds(loaded)


def test_shape_computed_at_run_time(tmp_path: Path) -> None:
    b = Builder()
    x = conv(b, "image", 4, 3)
    count = b.add("Gather", b.add("Shape", x), b.const(np.array(0)), axis=0)
    count = b.add("Unsqueeze", count, b.const(np.array([0])))
    shape = b.add("Concat", count, b.const(np.array([-1])), axis=0)
    loaded = check(b.save(tmp_path / "net.onnx", b.add("Reshape", x, shape)))
    assert kinds(loaded) == {nn.Conv2d, nn.Flatten}


def test_channel_shuffle_split_and_concat(tmp_path: Path) -> None:
    b = Builder()
    x = conv(b, "image", 8, 3, pads=[1, 1, 1, 1])
    x = b.add("Reshape", x, b.const(np.array([0, 2, 4, SIDE, SIDE])))
    x = b.add("Transpose", x, perm=[0, 2, 1, 3, 4])
    x = b.add("Reshape", x, b.const(np.array([0, 8, SIDE, SIDE])))
    left, right = b.add("Split", x, b.const(np.array([3, 5])), outputs=2, axis=1)
    bounds = [b.const(np.array(v)) for v in ([1], [2**63 - 1], [1], [2])]
    part = b.add("Slice", right, *bounds)
    row = b.add("Gather", part, b.const(np.array(2)), axis=2)
    row = b.add("Unsqueeze", row, b.const(np.array([2])))
    loaded = check(
        b.save(tmp_path / "net.onnx", b.add("Concat", left, b.add("Mul", part, row), axis=1))
    )
    assert loaded.leaf_modules == ()


def test_slice_backwards(tmp_path: Path) -> None:
    b = Builder()
    bounds = [b.const(np.array(v)) for v in ([-1], [-(2**63)], [3], [-2])]
    loaded = check(b.save(tmp_path / "net.onnx", b.add("Slice", conv(b, "image", 4, 3), *bounds)))
    assert [leaf.__name__ for leaf in loaded.leaf_modules] == ["RuntimeSlice"]


def test_a_slice_with_steps_and_without_axes(tmp_path: Path) -> None:
    """Axes are then all from the first on, which is the batch."""
    b = Builder()
    starts, ends, steps = (b.const(np.array(values)) for values in ([0, 1], [99, 4], [1, 2]))
    x = b.add("Slice", conv(b, "image", 4, 3), starts, ends, "", steps)
    loaded = check(b.save(tmp_path / "net.onnx", b.add("Relu", x)))
    assert [leaf.__name__ for leaf in loaded.leaf_modules] == ["RuntimeSlice"]


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge"])
def test_padding(tmp_path: Path, mode: str) -> None:
    b = Builder()
    pads = b.const(np.array([0, 0, 1, 2, 0, 0, 3, 4]))
    values = [b.const(np.float32(0.25))] if mode == "constant" else []
    x = b.add("Pad", "image", pads, *values, mode=mode)
    loaded = check(b.save(tmp_path / "net.onnx", conv(b, x, 4, 3)))
    assert loaded.leaf_modules == ()


def test_activations_and_means(tmp_path: Path) -> None:
    b = Builder()
    x = b.add("PRelu", conv(b, "image", 4, 3), b.weight(4, 1, 1))
    x = b.add("HardSigmoid", x, alpha=1 / 6, beta=0.5)
    x = b.add("Clip", x, b.const(np.float32(0.4)), b.const(np.float32(0.6)))
    x = b.add("ReduceMean", x, axes=[2, 3], keepdims=0)
    x = b.add("Gemm", x, b.weight(4, 3), b.weight(3), alpha=0.5, beta=2.0)
    loaded = check(b.save(tmp_path / "net.onnx", x))
    assert {nn.PReLU, nn.Hardsigmoid, nn.Hardtanh, nn.AdaptiveAvgPool2d} <= kinds(loaded)
    assert loaded.leaf_modules == ()


def test_a_slope_without_dimensions(tmp_path: Path) -> None:
    b = Builder()
    x = b.add("PRelu", conv(b, "image", 4, 3), b.const(np.float32(0.25)))
    loaded = check(b.save(tmp_path / "net.onnx", x))
    assert nn.PReLU in kinds(loaded)


def test_weights_behind_identity_and_constant_nodes(tmp_path: Path) -> None:
    b = Builder()
    constant = b.onnx.numpy_helper.from_array(b.random.random((4, 3, 3, 3)).astype(np.float32))
    weight = b.add("Constant", value=constant)
    bias = b.add("Identity", b.weight(4))
    check(b.save(tmp_path / "net.onnx", b.add("Conv", "image", weight, bias)))


def test_operator_without_plain_form_becomes_a_leaf(tmp_path: Path) -> None:
    b = Builder()
    loaded = check(b.save(tmp_path / "net.onnx", b.add("Erf", conv(b, "image", 4, 3))))
    assert [leaf.__name__ for leaf in loaded.leaf_modules] == ["OnnxErf"]


def test_frames_that_meet_fail(tmp_path: Path) -> None:
    b = Builder()
    x = conv(b, "image", 4, 3)
    path = b.save(tmp_path / "net.onnx", b.add("Sub", x, b.add("ReduceMean", x, axes=[0])))
    with pytest.raises(ModelError, match="mixes the frames of a batch"):
        load_model(path, preprocess=PREPROCESS)


@pytest.mark.parametrize("kind", ["ReduceMean", "ReduceMax"])
def test_an_output_that_is_a_single_number_fails(tmp_path: Path, kind: str) -> None:
    b = Builder()
    path = b.save(tmp_path / "n.onnx", b.add(kind, conv(b, "image", 4, 3), keepdims=0))
    with pytest.raises(ModelError, match="has an output that is a single number, expected a row"):
        load_model(path, preprocess=PREPROCESS)


@pytest.mark.parametrize(
    ("kind", "attributes", "opset"),
    [
        ("Pad", {"pads": [0, 0, 1, 1, 0, 0, 1, 1], "value": 0.5}, 10),
        ("Upsample", {"scales": [1.0, 1.0, 2.0, 2.0], "mode": "linear"}, 8),
    ],
)
def test_what_is_converted_wrongly_fails(
    tmp_path: Path, kind: str, attributes: dict[str, Any], opset: int
) -> None:
    b = Builder()
    x = b.add(kind, conv(b, "image", 4, 3, pads=[1, 1, 1, 1]), **attributes)
    path = b.save(tmp_path / "n.onnx", b.add("Relu", x), opset=opset)
    with pytest.raises(
        ModelError, match=r"than in ONNX Runtime: one of .* \(Conv, .*\)|cannot conv"
    ):
        load_model(path, preprocess=PREPROCESS)


def test_a_resize_that_is_converted_wrongly_fails(tmp_path: Path) -> None:
    b = Builder()
    x = conv(b, "image", 4, 3, pads=[1, 1, 1, 1])
    none, scales = b.const(np.zeros(0, np.float32)), b.const(np.array([1, 1, 0.4, 0.4], np.float32))
    y = b.add("Resize", x, none, scales, mode="nearest", nearest_mode="round_prefer_floor")
    with pytest.raises(ModelError, match=r"computes something else once converted by onnx2torch"):
        load_model(b.save(tmp_path / "n.onnx", y), preprocess=PREPROCESS)


@pytest.mark.parametrize("kind", ["UINT8", "INT8", "INT64"])
def test_an_input_of_whole_numbers_is_compared(tmp_path: Path, kind: str) -> None:
    def saved(**settings: str) -> str:
        b = Builder(layout="nhwc")
        b.input.type.tensor_type.elem_type = getattr(b.onnx.TensorProto, kind)
        x = b.add("Transpose", b.add("Cast", "image", to=1), perm=[0, 3, 1, 2])
        x = conv(b, x, 4, 3, pads=[1, 1, 1, 1])
        none = b.const(np.zeros(0, np.float32))
        scales = b.const(np.array([1, 1, 0.4, 0.4], np.float32))
        y = b.add("Resize", x, none, scales, mode="nearest", **settings)
        return b.save(tmp_path / "n.onnx", b.add("Relu", y))

    right = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    preprocess = f"resize={SIDE},crop={SIDE},mean=0/0/0,std=1/1/1,scale=255,layout=nhwc"
    assert load_model(saved(**right), preprocess=preprocess).source == "onnx"
    with pytest.raises(ModelError, match=r"computes something else once converted by onnx2torch"):
        load_model(saved(nearest_mode="round_prefer_floor"), preprocess=preprocess)


def test_an_operand_without_elements(tmp_path: Path) -> None:
    """As torch's exporter writes it for every nn.Upsample."""
    b = Builder()
    x = conv(b, "image", 4, 3, pads=[1, 1, 1, 1])
    none, scales = b.const(np.zeros(0, np.float32)), b.const(np.array([1, 1, 2, 2], np.float32))
    settings = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    check(b.save(tmp_path / "n.onnx", b.add("Resize", x, none, scales, mode="nearest", **settings)))


def test_an_output_of_whole_numbers(tmp_path: Path) -> None:
    b = Builder()
    y = b.add("ArgMax", conv(b, "image", 4, 3), axis=1)
    path = Path(b.save(tmp_path / "n.onnx", y))
    proto = b.onnx.load(str(path))
    proto.graph.output[0].type.tensor_type.elem_type = b.onnx.TensorProto.INT64
    b.onnx.save(proto, str(path))
    assert load_model(str(path), preprocess=PREPROCESS).module(torch.ones(2, 3, 16, 16)).dtype == (
        torch.int64
    )


def test_networks_with_equal_weights_are_told_apart(tmp_path: Path) -> None:
    def saved(alpha: float) -> str:
        b = Builder()
        path = b.save(tmp_path / "n.onnx", b.add("LeakyRelu", conv(b, "image", 4, 3), alpha=alpha))
        return load_model(path, preprocess=PREPROCESS).weights_sha256

    assert saved(0.1) == saved(0.1) != saved(0.9)


def test_numbers_that_are_no_weights_tell_networks_apart(tmp_path: Path) -> None:
    def saved(most: float) -> str:
        b = Builder()
        bounds = [b.const(np.float32(bound)) for bound in (-0.1, most)]
        path = b.save(tmp_path / "n.onnx", b.add("Clip", conv(b, "image", 4, 3), *bounds))
        return load_model(path, preprocess=PREPROCESS).weights_sha256

    assert saved(0.1) == saved(0.1) != saved(0.9)


def test_several_outputs_of_one_operation_beside_another(tmp_path: Path) -> None:
    b = Builder()
    logits = b.add("Flatten", conv(b, "image", 4, 3))
    values, indices = b.add("TopK", logits, b.const(np.array([3])), outputs=2)
    path = Path(b.save(tmp_path / "n.onnx", logits))
    proto = b.onnx.load(str(path))
    for name, kind in ((values, b.onnx.TensorProto.FLOAT), (indices, b.onnx.TensorProto.INT64)):
        proto.graph.output.append(b.onnx.helper.make_tensor_value_info(name, kind, None))
    b.onnx.save(proto, str(path))
    loaded = load_model(str(path), preprocess=PREPROCESS)
    assert loaded.source == "onnx"


def test_missing_external_data_fails(tmp_path: Path) -> None:
    b = Builder()
    path = Path(b.save(tmp_path / "n.onnx", conv(b, "image", 4, 3)))
    options = {"save_as_external_data": True, "location": "n.bin", "size_threshold": 0}
    b.onnx.save_model(b.onnx.load(str(path)), str(path), **options)
    assert load_model(str(path), preprocess=PREPROCESS).source == "onnx"
    (tmp_path / "n.bin").unlink()
    with pytest.raises(ModelError, match=r"is no readable ONNX file: .*n\.bin"):
        load_model(str(path), preprocess=PREPROCESS)


def test_operator_of_another_domain_fails(tmp_path: Path) -> None:
    b = Builder()
    path = b.save(tmp_path / "n.onnx", b.add("Foo", conv(b, "image", 4, 3), domain="my.own"))
    with pytest.raises(ModelError, match=r"onnx2torch cannot convert .*InferenceError|Foo"):
        load_model(path, preprocess=PREPROCESS)


def test_unknown_operator_fails(tmp_path: Path) -> None:
    b = Builder()
    path = b.save(tmp_path / "net.onnx", b.add("Det", conv(b, "image", 4, 3)))
    with pytest.raises(ModelError, match=r"onnx2torch cannot convert .*Det"):
        load_model(path, preprocess=PREPROCESS)


def simple(tmp_path: Path) -> str:
    b = Builder()
    return b.save(tmp_path / "net.onnx", conv(b, "image", 4, 3))


def test_undescribed_input_fails(tmp_path: Path) -> None:
    with pytest.raises(PreprocessError, match=r"it takes Nx3x16x16\): pass --preprocess imagenet"):
        load_model(simple(tmp_path))


@pytest.mark.parametrize("preprocess", ["imagenet", PREPROCESS + ",layout=nhwc"])
def test_other_dimensions_fail(tmp_path: Path, preprocess: str) -> None:
    with pytest.raises(PreprocessError, match=r"takes Nx3x16x16, preprocess gives Nx\d+x"):
        load_model(simple(tmp_path), preprocess=preprocess)


@pytest.mark.parametrize("weights", ["random:0", "IMAGENET1K_V1"])
def test_other_weights_fail(tmp_path: Path, weights: str) -> None:
    with pytest.raises(WeightsError, match="carries its own weights"):
        load_model(simple(tmp_path), weights=weights, preprocess=PREPROCESS)


def test_two_inputs_fail(tmp_path: Path) -> None:
    import onnx

    path = simple(tmp_path)
    proto = onnx.load(path)
    proto.graph.input.append(onnx.helper.make_tensor_value_info("more", 1, [1]))
    onnx.save(proto, path)
    with pytest.raises(ModelError, match=r"has 2 inputs \(image, more\)"):
        load_model(path, preprocess=PREPROCESS)


@pytest.mark.parametrize("content", [b"", b"no onnx file"])
def test_damaged_file_fails(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "net.onnx").write_bytes(content)
    with pytest.raises(ModelError, match="is no readable ONNX file"):
        load_model(str(tmp_path / "net.onnx"), preprocess=PREPROCESS)


def test_missing_file_fails() -> None:
    with pytest.raises(ModelError, match=r"'nothing\.onnx' does not exist"):
        load_model("nothing.onnx", preprocess=PREPROCESS)


@pytest.mark.parametrize("package", ["onnx", "onnx2torch", "onnxruntime"])
def test_not_installed_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    path = simple(tmp_path)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModelError, match=r'pip install "rrm-extract\[onnx\]"'):
        load_model(path, preprocess=PREPROCESS)


def test_the_random_state_stays(tmp_path: Path) -> None:
    path = simple(tmp_path)
    before = torch.get_rng_state()
    load_model(path, preprocess=PREPROCESS)
    assert torch.equal(torch.get_rng_state(), before)
