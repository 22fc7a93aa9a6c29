"""What reading fully-connected layers compressed saves of a network's time, network only.

    python scripts/compressed_timings.py --videos clip.avi --models alexnet vgg16 \
        --weights random:0 --thresholds 0 1e-2 --work work --json docs/benchmarks/compressed.json

Each network is compressed as ``rrm-extract compress`` does it, at the paper's densities, into a
.dcz file in ``--work``, which is used again. All runtimes compute what that file decodes to, up to
the last layer. Generated weights that were pruned and not trained again are no trained network:
their densities are the published ones, their features mean nothing.

``part`` is the whole network, or its fully-connected layers alone, which then get the maps that the
dense network computes from the clip. On one or two threads, in one run, each having its turn in
every round, medians over rounds:

- ``codes``: the native engine as it is, fully-connected layers read as codes;
- ``weights``: the same engine on the same weights, uncompressed;
- ``openvino``: dense OpenVINO in fp32, its quickest setting, and its quickest at batch 1.

``batch`` is the number of frames that pass a layer together: weights are read once for all of them.
A native lane has one thread; on two threads there are two lanes, of half a clip each.
``feature_error`` is the relative L2 distance to PyTorch's outputs, mean over frames.

Rows with ``layer_density`` are single layers of 4096 by 4096 with weights of growing density, a
fifth of whose inputs change from frame to frame: where codes stop to pay is ``CODED_DENSITY`` of
rrm_extract/engine/codes.py.

``--json`` keeps each part as it is finished; the same command, or one for another network, goes on
there.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from benchmarking import counted, machine, say, versions
from compressed_models import compressed_file
from network_bench import Measurement, measure
from peers import DenseNetwork, Peer, baseline_candidates
from peers.base import Workers, consecutive_parts
from subjects import clip_frames, load_subject, usable_batches
from table_rows import RowFile
from tables import network_stamps
from torch import Tensor, nn

from rrm_extract.engine import NativeNetwork
from rrm_extract.engine import lower as lowering
from rrm_extract.engine.build import Packed
from rrm_extract.errors import RrmError
from rrm_extract.graph import Program, fold, trace
from rrm_extract.models import load_model

TREATMENT = "pruned and shared at the paper's densities, not trained"

PARTS = ("fully-connected", "network")

BATCHES = (8, 1)

DENSITIES = (0.04, 0.09, 0.25, 0.35, 0.45, 0.55, 0.7)
"""Of the weights of single layers."""

CHANGES = 0.2
"""Share of the inputs of single layers that change from frame to frame."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """What is measured.

    Attributes:
        name: "network" or "fully-connected".
        program: what is computed.
        frames: (T, *input_shape) float32.
        reference: (T, D), what PyTorch computes.
    """

    name: str
    program: Program
    frames: Tensor
    reference: Tensor


class LanesPeer(Peer):
    """The native engine: a lane for each thread, with or without layers on codes.

    Args:
        program, input_shape, threshold: as for NativeNetwork.
        threads: and lanes.
        batch: frames that pass a layer together.
        codes: whether layers may run on codes.
        packed: weights of a peer before with the same program and ``codes``; filled by the first.
    """

    runtime = "rrm-native"
    precision = "fp32"

    def __init__(
        self,
        program: Program,
        *,
        input_shape: Sequence[int],
        threshold: float,
        threads: int,
        batch: int,
        codes: bool,
        packed: dict[str, Packed],
    ) -> None:
        self._packed = packed
        self.settings = "codes" if codes else "weights"
        self.threshold, self.threads, self.batch = threshold, threads, batch
        self._program, self._input_shape = program, input_shape
        self._work = 1.0

    def prepare(self) -> None:
        """Packs the weights, once for all lanes."""
        channels, height, width = self._input_shape
        with nullcontext() if self.settings == "codes" else without_codes():
            first = NativeNetwork(
                self._program,
                input_shape=(channels, height, width),
                threshold=self.threshold or 0.0,
                batch=self.batch,
                packed=self._packed,
            )
        self._packed.update(first.packed)
        self._networks = [first, *(first.fork() for _ in range(1, self.threads))]
        self._workers = Workers(self.threads)

    def run(self, frames: Tensor) -> Tensor:
        """See :meth:`Peer.run`."""
        parts = consecutive_parts(frames, self.threads)
        done = self._workers.map(_lane, self._networks, parts)
        self._work = float(torch.cat([work for _, work in done]).double().mean())
        return torch.cat([features for features, _ in done])

    def work(self) -> float:
        """See :meth:`Peer.work`."""
        return self._work

    def packed_bytes(self) -> int:
        """Of all weights in the order of the kernels."""
        packed = self._networks[0].packed.values()
        return sum(one.elements.numel() * one.elements.element_size() for one in packed)


def _lane(network: NativeNetwork, frames: Tensor) -> tuple[Tensor, Tensor]:
    network.reset()
    (output,), seen = network.run(frames)
    return output.flatten(1), seen.work


def without_codes() -> AbstractContextManager[object]:
    """Networks made inside keep the weights of all layers as they are."""
    return mock.patch.object(lowering, "codebook_of", return_value=None)


def main() -> None:
    """Prints JSON; with --json also writes it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--videos", nargs="+", type=Path, required=True, metavar="FILE")
    parser.add_argument("--models", nargs="+", default=["alexnet", "vgg16"])
    parser.add_argument("--weights", default="random:0", help="random:SEED or a file for all")
    parser.add_argument("--thresholds", nargs="+", type=float, default=[0.0, 1e-2], metavar="X")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2], metavar="N")
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--work", type=Path, required=True, help="folder for the .dcz files")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="keeps what is finished; goes on there"
    )
    parser.add_argument("--anew", action="store_true", help="forget what --json has")
    options = parser.parse_args()
    try:
        make_records(options)
    except RrmError as error:
        sys.exit(f"compressed_timings: {error}")


def make_records(options: argparse.Namespace) -> None:
    """All records; prints them.

    Raises:
        RrmError: the request is wrong, or a file cannot be used.
    """
    head = {
        "machine": machine(),
        "versions": versions(["rrm-extract", "torch", "openvino"]),
        "weights": f"{options.weights}, {TREATMENT}",
        "settings": {
            "thresholds": options.thresholds,
            "frames": options.frames,
            "repeats": options.repeats,
        },
    }
    table = RowFile(options.json, head, anew=options.anew)
    for density in DENSITIES:
        table.row({"layer_density": density}, {}, partial(layer_record, density, options.repeats))
    for name in options.models:
        path = compressed_file(name, options.weights, options.work)
        for clip in options.videos:
            parts = Parts(path, clip, options.frames)
            for part in PARTS:
                for threads in options.threads:
                    key = {"model": name, "clip": clip.name, "part": part, "threads": threads}
                    stamps = network_stamps(name, options.weights, "", str(clip))
                    made_from = {"files": stamps}
                    table.row(key, made_from, partial(part_record, parts, part, threads, options))
    print(json.dumps(table.result, indent=2))


class Parts:
    """A compressed network on one clip, loaded when first needed."""

    def __init__(self, path: Path, clip: Path, count: int) -> None:
        self._asked = (path, clip, count)
        self._parts: dict[str, Part] = {}

    def __getitem__(self, name: str) -> Part:
        if not self._parts:
            self._parts = {part.name: part for part in parts_of(*self._asked)}
        return self._parts[name]


def part_record(
    parts: Parts, name: str, threads: int, options: argparse.Namespace
) -> dict[str, Any]:
    """All contestants on one part, with so many threads."""
    torch.set_num_threads(1)
    part = parts[name]
    torch.set_num_threads(threads)
    say(f"{name}, {counted(threads, 'thread')}: {counted(options.repeats, 'round')}")
    records = records_of(part, options.thresholds, threads, options.repeats)
    for record in records:
        say(in_words(record))
    return {"records": records}


def parts_of(path: Path, clip: Path, count: int) -> list[Part]:
    """The whole network and its fully-connected layers, on one clip."""
    subject = load_subject(str(path))
    frames = clip_frames(clip, subject, count=count)
    whole = fold(load_model(str(path)).trace())
    maps, connected = connected_layers(whole)
    inputs = torch.cat([maps(some)[0] for some in torch.split(frames, 8)])
    reference = torch.cat([connected(some)[0] for some in torch.split(inputs, 8)])
    return [
        Part(name="fully-connected", program=connected, frames=inputs, reference=reference),
        Part(name="network", program=whole, frames=frames, reference=reference),
    ]


def connected_layers(program: Program) -> tuple[Program, Program]:
    """What comes before the first fully-connected layer's map is flattened, and the rest."""
    first = next(op.name for op in program.ops if op.kind == "linear")
    split = max(
        number
        for number, op in enumerate(program.ops[: [op.name for op in program.ops].index(first)])
        if op.kind == "reshape"
    )
    (source,) = program.ops[split].inputs
    before = replace(program, ops=program.ops[:split], outputs=(source,))
    return before, replace(program, input=source, ops=program.ops[split:])


def records_of(
    part: Part, thresholds: Sequence[float], threads: int, repeats: int
) -> list[dict[str, Any]]:
    """All contestants on one part."""
    shape = tuple(part.frames.shape[1:])
    packed: dict[bool, dict[str, Packed]] = {True: {}, False: {}}
    peers = [
        LanesPeer(
            part.program, input_shape=shape, threshold=threshold, threads=threads, batch=batch,
            codes=codes,
            packed=packed[codes],
        )
        for threshold in thresholds
        for batch in BATCHES
        for codes in (True, False)
    ]  # fmt: skip
    for peer in peers:
        peer.prepare()
    rivals = openvino_peers(part, threads)
    measured = measure([*peers, *rivals], part.frames, part.reference, repeats=repeats, pause=0.05)
    lanes = [m for m in measured if isinstance(m.peer, LanesPeer)]
    dense = sorted((m for m in measured if m not in lanes), key=lambda m: -m.rate)
    at_one = max((m for m in dense if at_batch_1(m.peer)), key=lambda m: m.rate)
    records = []
    for m in [*lanes, dense[0], *([at_one] if at_one is not dense[0] else [])]:
        record: dict[str, Any] = {
            "way": m.peer.settings if isinstance(m.peer, LanesPeer) else "openvino",
            "settings": m.peer.settings,
            "threads": threads,
            "batch": m.peer.batch if isinstance(m.peer, LanesPeer) else None,
            "threshold": m.peer.threshold,
            "frames": len(part.frames),
            "frames_per_second": m.rate,
            "repeats": m.rates,
            "feature_error": float(m.errors.mean()),
            "feature_error_max": float(m.errors.max()),
            "work": m.work,
            "ratio_to_openvino": m.rate / dense[0].rate,
            "ratio_to_openvino_batch_1": m.rate / at_one.rate,
        }
        if isinstance(m.peer, LanesPeer):
            record["ratio_to_weights"] = m.rate / plain(lanes, m.peer).rate
            record["packed_bytes"] = m.peer.packed_bytes()
        records.append(record)
    return records


def openvino_peers(part: Part, threads: int) -> list[Peer]:
    """OpenVINO's best settings of all, and its best at batch 1, prepared."""
    peers = baseline_candidates(
        "openvino",
        DenseNetwork(part.program, input_shape=tuple(part.frames.shape[1:])),
        precision="fp32",
        threads=threads,
        batches=usable_batches([part.frames]),
    )
    rates: dict[int, float] = {}
    for number, peer in enumerate(peers):  # each by itself: a compiled model has its own weights
        trial = copy.copy(peer)
        trial.prepare()
        rates[number] = measure([trial], part.frames, part.reference, repeats=1)[0].rate
        del trial
    best = max(rates, key=lambda number: rates[number])
    at_one = max(
        (number for number in rates if at_batch_1(peers[number])), key=lambda number: rates[number]
    )
    chosen = [peers[number] for number in dict.fromkeys((best, at_one))]
    for peer in chosen:
        peer.prepare()
    return chosen


def at_batch_1(peer: Peer) -> bool:
    """Whether OpenVINO gets frames one by one."""
    return peer.settings.endswith("batch 1")


def plain(lanes: Sequence[Measurement], peer: LanesPeer) -> Measurement:
    """The same with uncompressed layers."""
    return next(
        m
        for m in lanes
        if isinstance(m.peer, LanesPeer)
        and m.peer.settings == "weights"
        and (m.peer.threshold, m.peer.batch) == (peer.threshold, peer.batch)
    )


def layer_record(density: float, repeats: int) -> dict[str, Any]:
    """Codes against weights in one layer."""
    generator = torch.Generator().manual_seed(0)
    layer = nn.Linear(4096, 4096)
    kept = torch.rand(layer.weight.shape, generator=generator) < density
    values = torch.randn(31, generator=generator)
    codes = torch.randint(31, layer.weight.shape, generator=generator)
    layer.weight.data = values[codes] * kept
    program = trace(nn.Sequential(nn.Flatten(), layer).eval())
    frames = torch.rand(48, 4096, 1, 1, generator=generator)
    for number in range(1, len(frames)):
        changed = torch.rand(4096, 1, 1, generator=generator) < CHANGES
        frames[number] = torch.where(changed, frames[number], frames[number - 1])
    record: dict[str, Any] = {"density": density, "changes": CHANGES}
    # Every layer on codes here, whatever its density.
    with mock.patch("rrm_extract.engine.codes.CODED_DENSITY", 1.0):
        peers = [
            LanesPeer(
                program, input_shape=(4096, 1, 1), threshold=0.0, threads=1, batch=batch,
                codes=on_codes, packed={},
            )
            for batch in BATCHES
            for on_codes in (True, False)
        ]  # fmt: skip
        for peer in peers:
            peer.prepare()
    reference = program(frames)[0]
    measured = measure(peers, frames, reference, repeats=repeats, pause=0.05)
    for m, peer in zip(measured, peers, strict=True):
        if peer.settings == "codes":
            ratio = m.rate / plain(measured, peer).rate
            record[f"codes_over_weights_batch_{peer.batch}"] = ratio
            record[f"feature_error_batch_{peer.batch}"] = float(m.errors.mean())
    say(f"layer of density {density:g}: " + ", ".join(
        f"batch {batch} {record[f'codes_over_weights_batch_{batch}']:.2f}x" for batch in BATCHES
    ))  # fmt: skip
    return record


def in_words(record: dict[str, Any]) -> str:
    """One record as a line for people."""
    threshold = "" if record["threshold"] is None else f" at {record['threshold']:g}"
    batch = "" if record["batch"] is None else f", batch {record['batch']}"
    weights = f", {record['ratio_to_weights']:.2f}x weights" if "ratio_to_weights" in record else ""
    return (
        f"  {record['settings']}{threshold}{batch}: {record['frames_per_second']:.1f} frames/s "
        f"({record['ratio_to_openvino']:.2f}x openvino, "
        f"{record['ratio_to_openvino_batch_1']:.2f}x at batch 1{weights}), error "
        f"{record['feature_error']:.1e}, work {record['work']:.2f}"
    )


if __name__ == "__main__":
    main()
