"""Every runtime computes the same feature, whatever its settings."""

from __future__ import annotations

import ctypes
import sys
from functools import partial
from types import ModuleType
from typing import Any

import pytest
import torch
from network_bench import feature_errors
from peers import BASELINES, baseline_candidates
from peers.base import Workers, consecutive_parts
from peers.dense import feature_module
from peers.rrm_peer import RrmPeer
from subjects import Subject, load_subject, noise_frames
from torch import Tensor, nn

from rrm_extract.graph import default_layer, fold_batch_norm, select, trace
from rrm_extract.jobs import pooled
from rrm_extract.models import load_model
from rrm_extract.rrm import RecurrentNetwork, overall_density
from tests.closeness import EXACT_RECURRENCE
from tests.graph.nets import PreActivation, SharedInPlace
from tests.tiny import MODEL

FRAMES = 6
MODULES = {"openvino": "openvino", "onnxruntime": "onnxruntime", "torch": "torch"}
TOLERANCE = {"fp32": EXACT_RECURRENCE, "bf16": 2e-2, "int8": 0.1}
"""Of the mean error: 8 bits of mantissa, and 8 bits in all."""

NETWORKS = ("resnet18", "mobilenet_v3_small", "densenet121", "squeezenet1_1", "shufflenet_v2_x0_5")


class ReadTwice(nn.Module):
    """The value that an activation, and then a sum, could overwrite is read once more."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        z = y + self.relu(y)
        return (z + y) * z


@pytest.fixture(scope="module")
def subject() -> Subject:
    return load_subject(MODEL)


@pytest.mark.parametrize(
    ("name", "precision"),
    [(name, precision) for name, precisions in BASELINES.items() for precision in precisions],
)
@pytest.mark.parametrize("threads", [1, 2])
def test_a_runtime_gives_the_reference(
    subject: Subject, name: str, precision: str, threads: int
) -> None:
    pytest.importorskip(MODULES[name])
    if precision == "int8":
        pytest.importorskip("nncf", reason='needs nncf: pip install -e ".[bench]" brings it')
    frames = noise_frames(subject, count=FRAMES)
    reference = subject.reference(frames)
    candidates = baseline_candidates(
        name,
        subject.dense(),
        precision=precision,
        threads=threads,
        batches=(1, 3),
        calibration=frames,
    )
    if not candidates:
        pytest.skip(f"this processor has no {precision} for {name}")
    for peer in candidates:
        peer.prepare()
        features = peer.run(frames)
        assert (features.dtype, features.shape) == (torch.float32, reference.shape)
        error = float(feature_errors(features, reference).mean())
        assert error < TOLERANCE[precision], peer.settings
        if precision != "fp32":  # else it is fp32 under another name
            assert error > EXACT_RECURRENCE, peer.settings
        assert torch.equal(features, peer.run(frames)), peer.settings


def test_workers_keep_to_one_core_whatever_others_set() -> None:
    torch.set_num_threads(2)
    workers = Workers(2)
    torch.set_num_threads(2)
    assert workers.map(lambda _: torch.get_num_threads(), range(4)) == [1, 1, 1, 1]
    assert torch.get_num_threads() == 2


def test_parts_are_consecutive_and_of_equal_length() -> None:
    assert [part.tolist() for part in consecutive_parts(torch.arange(5), 2)] == [[0, 1, 2], [3, 4]]
    assert [part.tolist() for part in consecutive_parts(torch.arange(2), 3)] == [[0], [1]]


def test_openvino_leaves_signals_where_they_are_handled(subject: Subject) -> None:
    pytest.importorskip("openvino")
    before = signal_stack()
    peers = baseline_candidates(
        "openvino", subject.dense(), precision="fp32", threads=1, batches=(1, 3)
    )
    for peer in peers:
        peer.prepare()
    assert signal_stack() == before
    while peers:
        del peers[0]  # the one that was made first
        assert signal_stack() == before


def signal_stack() -> bytes:
    """Where the kernel lets signals of this thread be handled, as it says it."""
    answer = ctypes.create_string_buffer(3 * ctypes.sizeof(ctypes.c_void_p))
    assert ctypes.CDLL(None).sigaltstack(None, answer) == 0
    return answer.raw


def test_int8_without_frames_for_calibration_fails(subject: Subject) -> None:
    pytest.importorskip("openvino")
    with pytest.raises(ValueError, match="calibration"):
        baseline_candidates("openvino", subject.dense(), precision="int8", threads=1, batches=(1,))


@pytest.mark.parametrize("network", [*NETWORKS, SharedInPlace, PreActivation, ReadTwice])
@pytest.mark.parametrize("in_place", [False, True])
def test_a_program_as_a_module_gives_the_same(
    network: str | type[nn.Module], in_place: bool
) -> None:
    if isinstance(network, str):
        whole = trace(load_model(network, weights="random:0").module)
        program = fold_batch_norm(select(whole, (default_layer(whole),)))
    else:
        program = fold_batch_norm(trace(network().requires_grad_(False)))
    weights = [op.linear_map.weight.clone() for op in program.linear_ops]
    module = feature_module(program, in_place=in_place)
    frames = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = pooled(program(frames)[0], "avg").flatten(1)
    kept = frames.clone()
    assert float(feature_errors(module(frames), expected).max()) < EXACT_RECURRENCE
    assert torch.equal(frames, kept)
    # What the rivals do to their weights is not done to the Program's.
    module.to(torch.bfloat16)
    for op, before in zip(program.linear_ops, weights, strict=True):
        assert torch.equal(op.linear_map.weight, before)


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_the_recurrent_network_gives_the_reference_at_0(subject: Subject, threads: int) -> None:
    frames = noise_frames(subject, count=FRAMES)
    peer = recurrent(subject, threshold=0.0, threads=threads)
    errors = feature_errors(peer.run(frames), subject.reference(frames))
    assert float(errors.max()) < EXACT_RECURRENCE


def test_each_part_and_each_chunk_begins_with_a_key_frame(subject: Subject) -> None:
    frames = noise_frames(subject, count=FRAMES)
    threshold, chunk = 0.5, 2  # so large that a key frame makes a difference
    peer = recurrent(subject, threshold=threshold, threads=2, chunk=chunk)
    features = peer.run(frames)
    expected = []
    for part in ([0, 1], [2], [3, 4], [5]):  # two threads, three frames each
        network = RecurrentNetwork(subject.recipe.program, threshold=threshold)
        expected.append(network.run(frames[part])[0][0])
    assert torch.equal(features, torch.cat(expected))
    # Frames 1 and 4 alone are no key frames.
    assert float(feature_errors(features, subject.reference(frames))[[1, 4]].min()) > 1e-3
    assert torch.equal(features, peer.run(frames))


def test_the_density_is_that_of_the_deltas_by_macs(subject: Subject) -> None:
    frames = noise_frames(subject, count=FRAMES)
    peer = recurrent(subject, threshold=0.5, threads=1)
    peer.run(frames)
    network = RecurrentNetwork(subject.recipe.program, threshold=0.5)
    _, seen = network.run(frames)
    assert peer.density() == pytest.approx(overall_density(network.stats()))
    assert peer.work() == pytest.approx(float(seen.work.mean()))
    assert 0 < overall_density(network.stats()) < float(seen.work.mean()) < 1


def test_key_frames_alone_have_no_density(subject: Subject) -> None:
    peer = recurrent(subject, threshold=0.1, threads=1, chunk=1)
    peer.run(noise_frames(subject, count=2))
    assert peer.density() is None


class Engine:
    """Stands for the native engine: what it is asked for, and two stages."""

    def __init__(self, calls: list[Any], program: Any, **options: Any) -> None:
        self.calls, self.options = calls, options
        self.network = RecurrentNetwork(program, threshold=options["threshold"])
        calls.append(options)

    def fork(self) -> Engine:
        self.calls.append("fork")
        return Engine([], self.network.program, **self.options)

    def reset(self) -> None:
        self.network.reset()

    def run(self, frames: Tensor) -> Any:
        return self.network.run(frames)

    def profile(self) -> dict[str, float]:
        return {"linear": 2.0, "elementwise": 1.0}


def test_an_engine_is_opened_once_and_forked(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    module = ModuleType("rrm_extract.engine")
    module.open_network = partial(Engine, calls)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "rrm_extract.engine", module)
    peer = recurrent(subject, threshold=0.0, threads=3, engine="native", precision="bf16")
    asked = {
        "engine": "native",
        "threshold": 0.0,
        "policy": "bounded",
        "precision": "bf16",
        "input_shape": (3, 32, 32),
        "batch": 8,
        "packed": None,  # those at hand are in fp32
    }
    assert calls == [asked, "fork", "fork"]
    assert peer.runtime == "rrm-native"
    assert peer.stages() == {"linear": 6.0, "elementwise": 3.0}
    frames = noise_frames(subject, count=FRAMES)
    errors = feature_errors(peer.run(frames), subject.reference(frames))
    assert float(errors.max()) < EXACT_RECURRENCE


def test_an_engine_that_is_not_built_fails(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rrm_extract.engine", None)
    with pytest.raises(SystemExit, match=r"native engine is not built.*--engines torch"):
        recurrent(subject, threshold=0.0, threads=1, engine="native")


def recurrent(
    subject: Subject,
    *,
    threshold: float,
    threads: int,
    chunk: int = 240,
    engine: str = "torch",
    precision: str = "fp32",
) -> RrmPeer:
    peer = RrmPeer(
        subject.recipe,
        engine=engine,
        threshold=threshold,
        precision=precision,
        threads=threads,
        chunk=chunk,
    )
    peer.prepare()
    return peer
