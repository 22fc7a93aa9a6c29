"""OpenPose's network in the tool: its layers, its input, and the recurrence on it."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rrm_extract.errors import PreprocessError
from rrm_extract.graph import default_layer, fold_batch_norm, layer_names, resolve_layer
from rrm_extract.models import Letterbox, LoadedModel, Preprocess, list_models, load_model
from rrm_extract.models.rtpose import COCO_BODY
from rrm_extract.rrm import RecurrentNetwork
from rrm_extract.video import ClipReader, Sampling, scan_clip
from rrm_extract.video.synthetic import write_demo_clip
from tests.closeness import EXACT_RECURRENCE, relative_l2


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return load_model("rtpose", weights="random:0", preprocess="letterbox=48/64")


@pytest.fixture(scope="module")
def frames(model: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Tensor:
    """Network input: 5 frames of a clip in which things move."""
    path = tmp_path_factory.mktemp("rtpose") / "c.mp4"
    write_demo_clip(path, seconds=1, size=(90, 64))
    with ClipReader(scan_clip(path), Sampling()) as reader:
        images = np.stack([frame.image for frame in reader.read(0)][:5])
    return model.transform(torch.from_numpy(images).permute(0, 3, 1, 2))


def test_layers_have_caffes_names(model: LoadedModel) -> None:
    program = model.trace()
    names = layer_names(program)
    assert names[:5] == ("conv1_1", "relu1_1", "conv1_2", "relu1_2", "pool1_stage1")
    convolutions = [op.name for op in program.ops if op.kind == "conv"]
    assert len(convolutions) == len(set(convolutions)) == 92
    assert all(op.source == op.name for op in program.ops if op.kind == "conv")
    assert {"conv4_4_CPM", "relu4_4_CPM", "Mconv7_stage6_L1", "Mrelu6_stage6_L2"} <= {*names}
    assert program.outputs == ("net_output.cat",)
    assert resolve_layer(program, "net_output") == "net_output.cat"
    assert resolve_layer(program, "concat_stage2") == "concat_stage2.cat"
    assert default_layer(program) == "Mrelu6_stage6_L2"
    by_name = {op.name: op for op in program.ops}
    last = by_name["net_output.cat"]
    assert last.inputs == ("Mconv7_stage6_L2", "Mconv7_stage6_L1"), "heat maps first"
    assert by_name["concat_stage4.cat"].inputs == (
        "Mconv7_stage3_L1", "Mconv7_stage3_L2", "relu4_4_CPM",
    )  # fmt: skip


def test_untrained_outputs_are_of_order_one(model: LoadedModel, frames: Tensor) -> None:
    raw = model.module(F.interpolate(frames[:2], size=(96, 128)))
    assert raw.shape == (2, 57, 12, 16)
    for part in (raw[:, :19], raw[:, 19:]):
        assert 0.1 < float(part.std()) < 3
        assert 0.01 < relative_l2(part[1:], part[:-1]) < 2, "it answers to its input"


@pytest.mark.parametrize("policy", ["bounded", "paper"])
def test_threshold_0_equals_the_plain_network(
    model: LoadedModel, frames: Tensor, policy: str
) -> None:
    program = fold_batch_norm(model.trace())
    with torch.inference_mode():
        expected = model.module(frames)
    options = {"threshold": 0, "policy": policy}
    (readable,), seen = RecurrentNetwork(program, **options).run(frames)  # type: ignore[arg-type]
    assert relative_l2(readable, expected) < EXACT_RECURRENCE
    assert float(seen.density_delta[1:].mean()) < 0.99
    pytest.importorskip("rrm_extract.engine._native", reason="built without a C++ compiler")
    from tests.engine.running import native

    network = native(program, model.input_shape, batch=2, **options)
    (result,), _ = network.run(frames)
    assert network.islands == ()
    assert relative_l2(result, expected) < EXACT_RECURRENCE
    assert network.compiled() is not None, "workers do not need torch for it"


def test_the_input_is_the_published_one() -> None:
    model = load_model("rtpose", weights="random:0")
    assert model.input_shape == (3, 368, 368)
    assert (model.source, model.skeleton) == ("caffe", COCO_BODY)
    frame = torch.randint(0, 256, (1, 3, 368, 300), dtype=torch.uint8)
    x = model.transform(frame)
    assert torch.equal(x[:, :, :, 34:334], frame.flip(1) / 256 - 0.5)
    torch.testing.assert_close(x[:, :, :, :34], torch.zeros(1, 3, 368, 34), atol=1e-6, rtol=0)
    again = pickle.loads(pickle.dumps(model.transform))
    assert again == model.transform


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("letterbox=184", {"size": (184, 184)}),
        ("letterbox=96/128,channels=rgb", {"size": (96, 128), "channels": "rgb"}),
        ("letterbox=16,mean=0/0/0,fill=0", {"size": (16, 16), "mean": (0, 0, 0), "fill": 0.0}),
    ],
)
def test_another_letterbox_keeps_what_it_does_not_name(
    spec: str, expected: dict[str, object]
) -> None:
    own = {
        "fill": 128 / 255, "scale": 255, "channels": "bgr", "mean": (128, 128, 128),
        "std": (256, 256, 256),
    }  # fmt: skip
    model = load_model("rtpose", weights="random:0", preprocess=spec)
    assert model.transform == Letterbox(**{**own, **expected})  # type: ignore[arg-type]
    assert model.preprocess["letterbox"] == [*expected["size"]]  # type: ignore[misc]


def test_other_transforms() -> None:
    spec = "resize=64,crop=64,mean=0/0/0,std=1/1/1"
    model = load_model("rtpose", weights="random:0", preprocess=spec)
    assert isinstance(model.transform, Preprocess)
    assert model.input_shape == (3, 64, 64)


@pytest.mark.parametrize(
    ("preprocess", "message"),
    [
        ("letterbox=100/120", "multiples of 8, preprocess gives 100x120; give such as letterbox="),
        ("letterbox=96,layout=nhwc", r"preprocess gives \(96, 96, 3\); give layout=nchw"),
        ("imagenet,", "neither 'imagenet'"),
    ],
)
def test_other_input_fails(preprocess: str, message: str) -> None:
    with pytest.raises(PreprocessError, match=message):
        load_model("rtpose", weights="random:0", preprocess=preprocess)


def test_it_is_in_the_list(model: LoadedModel) -> None:
    (entry,) = [entry for entry in list_models() if entry.name == "rtpose"]
    assert entry.n_parameters == 52_311_446
    assert entry.n_parameters == sum(tensor.numel() for tensor in model.module.parameters())
    assert entry.input_shape == (3, 368, 368)
    assert (entry.default_weights, entry.weights_file) == ("", "pose_iter_440000.caffemodel")


def test_skeleton() -> None:
    assert (len(COCO_BODY.parts), COCO_BODY.heat_maps, COCO_BODY.channels) == (18, 19, 57)
    assert sorted(limb.field for limb in COCO_BODY.limbs) == [*range(19)]
    tree = [limb for limb in COCO_BODY.limbs if not limb.is_extra]
    reached = {tree[0].begin}
    for limb in tree:
        assert limb.begin in reached
        assert limb.end not in reached
        reached.add(limb.end)
    assert len(reached) == 18
    names = COCO_BODY.parts
    # OpenPose's pairs of channels, counted behind the 19 heat maps.
    channels = {
        (names[limb.begin], names[limb.end]): 19 + 2 * limb.field for limb in COCO_BODY.limbs
    }
    assert channels["neck", "right_hip"] == 19
    assert channels["neck", "right_shoulder"] == 31
    assert channels["neck", "nose"] == 47
    assert channels["right_shoulder", "right_ear"] == 37
    assert channels["left_eye", "left_ear"] == 55
