"""The other commands, and what wrong usage says."""

from __future__ import annotations

import csv
import io
import json
import weakref
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import click
import h5py
import numpy as np
import pytest
import torch
from torch import Tensor

from rrm_extract.cli import main
from rrm_extract.cli.main import cli
from rrm_extract.config import OPTIONS, JobConfig
from rrm_extract.report import verify as verify_module
from rrm_extract.report.stats import Stats
from rrm_extract.report.verify import Verifier
from rrm_extract.store import FailureRecord, FeatureFile, OutputStore
from rrm_extract.video.synthetic import write_demo_clip
from tests.command import extraction, rrm_extract
from tests.hostile.networks import NAN_MODEL
from tests.jobs import failing, single
from tests.store.helpers import IDENTITY, ROOT, chunk, failure, source, write_file
from tests.tiny import MODEL, network
from tests.video.test_damage import cut, write_index_first


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demo_clip(tmp_path_factory.mktemp("cli") / "clip.mp4", seconds=2, size=(64, 48))


@pytest.fixture(scope="module")
def features(clip: Path) -> Path:
    path = clip.with_name("feats.h5")
    assert main([str(part) for part in extraction(clip, path, "--workers", "1")]) == 0
    return path


def output_of(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_every_command_helps_with_an_example_of_each_option(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = output_of(capsys, name, "--help")
    assert code == 0
    assert out.startswith(f"Usage: rrm-extract {name} ")
    options = [one for one in cli.commands[name].params if isinstance(one, click.Option)]
    assert options
    assert [one.opts for one in options if "Example: " not in (one.help or "")] == []


@pytest.mark.parametrize("option", ["-h", "--help", "-V", "--version"])
def test_the_programs_own_options(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = output_of(capsys, option)
    assert code == 0
    assert ("Commands:" if "h" in option else "version") in out


def test_every_option_of_a_job_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = output_of(capsys, "extract", "--help")
    text = " ".join(out.split())
    for option in OPTIONS:
        if option.name != "inputs":
            assert option.flags[-1].split("/")[0] in text
            assert " ".join(option.help.split()) in text


def test_stats_as_text(features: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = output_of(capsys, "stats", features)
    assert code == 0
    for words in ("features.4", "Eq. 9", "Eq. 10", "theoretical", "1 video, 16 frames, 2 of them"):
        assert words in out


def test_stats_as_json_and_csv_agree(features: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = output_of(capsys, "stats", features, "--json")
    values = json.loads(out)
    totals = values["totals"]
    macs = [layer["macs"] for layer in values["layers"]]
    deltas = [layer["density_delta"] for layer in values["layers"]]
    expected = 1 - sum(m * d for m, d in zip(macs, deltas, strict=True)) / sum(macs)
    assert totals["sparsity_macs"] == pytest.approx(expected)
    assert 0 < totals["density_delta"] < 1 < totals["speedup_theoretical"]
    assert totals["speedup_theoretical"] == pytest.approx(1 / totals["work"])
    _, out, _ = output_of(capsys, "stats", features, "--csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [float(row["density_delta"]) for row in rows] == deltas


def test_stats_per_video(features: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = output_of(capsys, "stats", features, "--per-video", "--json")
    assert [entry["video_id"] for entry in json.loads(out)] == ["clip.mp4"]
    _, out, _ = output_of(capsys, "stats", features, "--per-video", "--csv")
    assert out.startswith("video_id,layer,")
    code, _, err = output_of(capsys, "stats", features, "--video", "other.mp4")
    assert code == 2
    assert "other.mp4" in err


def test_stats_read_no_column_of_all_frames(
    features: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their size grows with the video's length."""
    expected = output_of(capsys, "stats", features)
    read = h5py.Dataset.__getitem__
    names: set[str] = set()

    def noting(data: h5py.Dataset, place: object, **options: object) -> object:
        names.add(data.name.rpartition("/")[2])
        return read(data, place, **options)

    monkeypatch.setattr(h5py.Dataset, "__getitem__", noting)
    assert output_of(capsys, "stats", features) == expected
    assert {"density", "density_delta"} <= names
    assert not {"density_t", "density_delta_t", "features"} & names


def test_stats_per_video_read_what_videos_share_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_file(
        tmp_path / "feats.h5", ["a.mp4", "b.mp4", "c.mp4"], [failure("bad.mp4"), failure("no.mp4")]
    )
    reads: Counter[str] = Counter()

    def counted(name: str) -> property:
        read = getattr(FeatureFile, name).fget

        def reading(file: FeatureFile) -> dict[str, object]:
            reads[name] += 1
            values: dict[str, object] = read(file)
            return values

        return property(reading)

    for name in ("attrs", "identity"):
        monkeypatch.setattr(FeatureFile, name, counted(name))
    _, one, _ = output_of(capsys, "stats", path, "--video", "a.mp4", "--json")
    of_one = dict(reads)
    reads.clear()
    _, each, _ = output_of(capsys, "stats", path, "--per-video", "--json")
    assert reads == of_one
    values = json.loads(each)
    assert each == json.dumps(values, indent=2) + "\n"
    assert values[0] == json.loads(one)
    assert [(value["video_id"], value["frames"]) for value in values] == [
        *(("a.mp4", 10), ("b.mp4", 10), ("c.mp4", 10), ("bad.mp4", 0), ("no.mp4", 0))
    ]
    assert [value["failures"] for value in values] == [
        *([], [], []),
        *([[name, "moov atom not found"]] for name in ("bad.mp4", "no.mp4")),
    ]


@pytest.mark.parametrize("form", ["--json", "--csv", ""])
def test_stats_per_video_are_printed_one_by_one(
    form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_file(tmp_path / "feats.h5", [f"{name}.mp4" for name in "abcde"])
    ever: list[weakref.ref[Stats]] = []
    most = 0
    made = Stats.__init__

    def counting(stats: Stats, **values: object) -> None:
        nonlocal most
        made(stats, **values)  # type: ignore[arg-type]
        ever.append(weakref.ref(stats))
        most = max(most, sum(one() is not None for one in ever))

    monkeypatch.setattr(Stats, "__init__", counting)
    code, out, _ = output_of(capsys, "stats", path, "--per-video", *filter(None, [form]))
    assert (code, out.endswith("\n")) == (0, True)
    assert len(ever) == 5
    assert most < 4, "the first, the one before, and the one that is made"


@pytest.mark.parametrize("failures", [[], [failure("bad.mp4")]], ids=["none", "one"])
def test_stats_per_video_of_no_videos(
    failures: list[FailureRecord], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_file(tmp_path / "feats.h5", [], failures)
    _, out, _ = output_of(capsys, "stats", path, "--per-video", "--json")
    assert out == json.dumps(json.loads(out), indent=2) + "\n"
    assert len(json.loads(out)) == len(failures)
    assert len(output_of(capsys, "stats", path, "--per-video", "--csv")[1].splitlines()) == 1
    assert output_of(capsys, "stats", path, "--per-video")[1].count("\n\n\n") == 0


def test_stats_of_a_video_that_failed(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, path = tmp_path / "bad.mp4", tmp_path / "feats.h5"
    bad.write_text("no video")
    run = extraction(clip, path, bad, "--root", "/", "--workers", "1")
    assert output_of(capsys, *run)[0] == 1
    name = str(bad.relative_to("/"))
    code, _, err = output_of(capsys, "stats", path, "--video", name)
    assert code == 2
    assert f"has no features of {name!r}, which failed: " in err
    _, out, _ = output_of(capsys, "stats", path, "--per-video", "--json")
    each = {entry["video_id"]: entry for entry in json.loads(out)}
    assert list(each) == [str(clip.relative_to("/")), name]
    assert each[name]["frames"] == 0
    assert len(each[name]["failures"]) == 1
    code, out, _ = output_of(capsys, "stats", path, "--per-video")
    assert (code, out.count(name) >= 1) == (0, True)
    density = tmp_path / "density.json"
    density.write_text('{"features.0": 0.1}')
    eie = ("--eie", "--weight-density", density)
    assert output_of(capsys, "stats", path, "--per-video", *eie)[0] == 0


def test_stats_of_a_file_that_says_nothing_of_layers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, what = tmp_path / "dense.h5", source("a.mp4")
    with OutputStore(path, IDENTITY) as store:
        with store.part(what, feature_shape=(8,)) as part:
            part.append(
                replace(chunk("a.mp4"), density=np.ones((5, 0)), density_delta=np.ones((5, 0)))
            )
            part.finish(layers={}, attrs={})
        store.finish([what], [], ROOT, complete=True)
    for options in ((), ("--json",), ("--csv",), ("--per-video",)):
        assert output_of(capsys, "stats", path, *options)[0] == 0
    code, _, err = output_of(capsys, "stats", path, "--eie")
    assert code == 2
    assert "has no columns of layers" in err


def test_stats_of_no_feature_file_fails(clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = output_of(capsys, "stats", clip)
    assert code == 3
    assert str(clip) in err
    code, _, err = output_of(capsys, "stats", clip.with_name("none.h5"))
    assert code == 3


def test_verify_exact(clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = output_of(
        capsys, "verify", clip, "--model", MODEL, "--threshold", "0", "--json",
        "--max-error", "1e-5",
    )  # fmt: skip
    values = json.loads(out)
    assert code == 0
    assert values["frames"] == 48
    assert values["relative_l2_max"] < 1e-5
    assert values["cosine_min"] > 0.99999
    assert values["top1_agreement"] == 1.0
    assert values["speedup_theoretical"] > 1
    assert set(values) >= {"relative_l2_mean", "density"}


def test_verify_sees_the_error(clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("verify", clip, "--model", MODEL, "--threshold", "0.5", "--max-frames", "9")
    code, out, _ = output_of(capsys, *arguments, "--json", "--max-error", "1e-5")
    values = json.loads(out)
    assert code == 1
    assert values["frames"] == 9
    assert values["relative_l2_max"] > 1e-3
    code, _, err = output_of(capsys, *arguments, "--max-error", "1e-5")
    assert code == 1
    assert "over --max-error" in err
    assert output_of(capsys, *arguments)[0] == 0, "without --max-error it only reports"


def test_verify_of_features_that_are_no_numbers_is_json(
    clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    arguments = ("verify", clip, "--model", NAN_MODEL, "--max-frames", "9")
    code, out, _ = output_of(capsys, *arguments, "--json", "--max-error", "1")
    assert code == 1
    values = json.loads(out, parse_constant=refuse)
    for name in ("relative_l2_mean", "relative_l2_p95", "relative_l2_max", "cosine_min"):
        assert values[name] is values["clips"][0][name] is None


def test_verify_names_a_broken_clip(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_text("no video")
    code, _, err = output_of(
        capsys, "verify", clip, bad, "--model", MODEL, "--max-frames", "3", "--root", "/"
    )
    assert code == 1
    assert "bad.mp4" in err
    code, _, err = output_of(capsys, "verify", bad, "--model", MODEL, "--max-error", "1")
    assert code == 1
    assert err.splitlines()[-1] == "no frame could be compared"


def test_verify_of_a_clip_that_ends_early_is_no_success(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = write_index_first(tmp_path / "a.mp4", n_frames=96, noise=20)
    cut(clip, 0.6)
    code, out, _ = output_of(capsys, "verify", clip, "--model", MODEL, "--max-error", "10")
    assert code == 1
    assert out.splitlines()[-1].startswith("a.mp4: ")


def test_verify_counts_what_an_extraction_of_the_layer_does(
    clip: Path, features: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--model", MODEL, "--layer", "features.1", "--engine", "torch", "--threshold", "0.1")
    _, out, _ = output_of(capsys, "verify", clip, *options, "--json")
    values = json.loads(out)
    assert values["top1_agreement"] is None
    output = tmp_path / "f.h5"
    assert output_of(capsys, clip, *options, "-o", output, "--workers", "1")[0] == 0
    _, out, _ = output_of(capsys, "stats", output, "--json")
    totals = json.loads(out)["totals"]
    assert values["speedup_theoretical"] == pytest.approx(totals["speedup_theoretical"], rel=1e-5)
    assert values["density"] == pytest.approx(totals["density_delta"], rel=1e-5)


@pytest.mark.parametrize(
    ("model", "outputs"),
    [("squeezenet1_1", 1), ("shufflenet_v2_x0_5", 2), (single.HEADLESS, 1)],
)
def test_verify_runs_a_classifier_of_one_small_layer_alone(model: str, outputs: int) -> None:
    """SqueezeNet's is a convolution, of a quarter of the network's products."""
    weights = "default" if ":" in model else "random:0"
    verifier = Verifier(JobConfig(model=model, weights=weights, engine="torch"))
    assert len(verifier.recurrent.outputs) == outputs


class _Elsewhere(Tensor):
    """A tensor on a device that computes it when it is fetched."""

    events: ClassVar[list[str]] = []

    def cpu(self) -> Tensor:  # type: ignore[override]
        self.events.append("fetched")
        return self.as_subclass(Tensor)


@pytest.mark.parametrize("is_cold", [False, True])
def test_verify_times_what_has_been_computed(
    clip: Path, is_cold: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    verifier = Verifier(JobConfig(model=MODEL, engine="torch"))
    assert not verifier._is_cold, "the CPU need not be warm"
    verifier._is_cold = is_cold
    ordinary, events = verifier.ordinary, _Elsewhere.events
    events.clear()

    def started(x: Tensor) -> tuple[Tensor, ...]:
        events.append("started")
        return tuple(output.as_subclass(_Elsewhere) for output in ordinary(x))

    def now() -> float:
        events.append("clock")
        return 0.0

    monkeypatch.setattr(verifier, "ordinary", started)
    monkeypatch.setattr(verify_module, "time", SimpleNamespace(perf_counter=now))
    verifier.clip(clip, max_frames=2 * verifier.recipe.time_batch)
    ordinary_run = ["started", "fetched", "fetched"]  # the feature and the classes
    timed = ["clock", *ordinary_run, "clock", "clock", "clock"]
    assert events == [*(ordinary_run if is_cold else []), *timed, *timed]


def test_verify_says_where_few_frames_have_deltas(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A chunk of a few frames, the first of which is a key frame."""
    path = write_demo_clip(tmp_path / "c.mp4", seconds=1, size=(64, 48))
    options = (path, "--model", MODEL, "--fps", "2", "--chunk", "0.5")
    _, out, _ = output_of(capsys, "verify", *options)
    assert "figures of deltas" not in out, "there are none"
    _, out, _ = output_of(capsys, "verify", path, "--model", MODEL, "--fps", "3", "--chunk", "0.5")
    assert "figures of deltas are of 1 of 3 frames" in out


@pytest.mark.parametrize(
    ("command", "where", "words"),
    [
        (["{clip}", "-o", "{folder}/f.h5"], "rrm_extract.jobs.run_job", "; finished videos are"),
        (["verify", "{clip}"], "rrm_extract.report.verify.Verifier.__init__", ""),
    ],
)
def test_an_interrupt_says_what_is_kept_where_something_is(
    command: list[str], where: str, words: str, clip: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(where, interrupted)
    arguments = [word.format(clip=clip, folder=tmp_path) for word in command]
    code, _, err = output_of(capsys, *arguments, "--model", MODEL)
    assert code == 130
    assert err.strip().startswith(f"rrm-extract: interrupted{words}")
    assert ("kept" in err) == bool(words)


def test_an_end_of_file_is_no_interrupt(clip: Path, tmp_path: Path) -> None:
    done = rrm_extract(clip, "--model", failing.EOF, "-o", tmp_path / "f.h5", cwd=tmp_path)
    assert done.returncode == 1
    assert "EOFError: the file of weights is empty" in done.stderr
    assert "interrupted" not in done.stderr


def test_verify_says_how_many_threads_each_network_had(
    clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("rrm_extract.engine._native", reason="built without a C++ compiler")
    before = torch.get_num_threads()
    try:
        _, out, _ = output_of(
            capsys, "verify", clip, "--model", MODEL, "--max-frames", "3", "--threads", "2"
        )
    finally:
        torch.set_num_threads(before)
    (line,) = (line for line in out.splitlines() if line.startswith("time in the networks"))
    assert "ordinary (torch, 2 threads)" in line
    assert "recurrent (native, 1 thread)" in line


@pytest.mark.parametrize("layout", ["npy", "flat", "activitynet"])
def test_export(
    features: Path, tmp_path: Path, layout: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = output_of(capsys, "export", features, "--layout", layout, "-o", tmp_path / "out")
    assert code == 0
    assert "1 videos, 16 frames" in out
    if layout == "flat":
        assert np.load(tmp_path / "out/features.npy").shape == (16, 16)
    code, _, err = output_of(capsys, "export", features, "--layout", layout, "-o", tmp_path / "out")
    assert code == 3, "existing files are not written over unasked"
    assert "--overwrite" in err


def test_models_lists_and_describes(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = output_of(capsys, "models")
    for name in ("alexnet", "vgg16", "resnet18", "timm/NAME"):
        assert name in out
    _, out, _ = output_of(capsys, "models", "squeezenet1_1", "--layers")
    assert "features.12.cat" in out.splitlines()
    _, out, _ = output_of(capsys, "models", "shufflenet_v2_x0_5", "--layers")
    assert "stage2.0.view" in out.splitlines()
    assert "stage2.0.size" not in out.splitlines(), "a size is no layer"
    _, out, _ = output_of(capsys, "models", "squeezenet1_1", "--json")
    described = json.loads(out)
    assert described["default_layer"] == "features.12.cat"
    assert sum(layer["macs"] for layer in described["layers"]) == pytest.approx(349e6, rel=0.01)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere.mp4", "-o", "f.h5"], ["nowhere.mp4", "does not exist"]),
        (["{clip}", "--threshold", "-1", "-o", "f.h5"], ["--threshold", "-1"]),
        (["{clip}", "--threshold", "much", "-o", "f.h5"], ["--threshold", "much"]),
        (["{clip}", "--model", "resnet19", "-o", "f.h5"], ["resnet19", "resnet18"]),
        (["{clip}", "--model", MODEL], ["-o"]),
        (["{clip}", "--model", MODEL, "--layer", "fcc", "-o", "f.h5"], ["fcc", "fc"]),
        (["{clip}", "--modell", "x"], ["--modell"]),
        (["{clip}", "--model", MODEL, "--device", "cuda:99", "-o", "f.h5"], ["cuda:99"]),
        (["-dash.mp4"], ["No such option '-d'"]),
        (["-hash.mp4", "-o", "f.h5"], ["No such option '-a'"]),
        (["-Video.mp4"], ["No such option '-V'"]),
        (["--model", MODEL, "-o", "f.h5", "--", "-dash.mp4"], ["-dash.mp4", "does not exist"]),
        (["--", "-dash.mp4", "-o", "f.h5"], ["no output was given"]),
        (["run", "nothing.yaml"], ["nothing.yaml"]),
        (["stats", "{clip}", "--json", "--csv"], ["--json and --csv"]),
    ],
)
def test_wrong_usage_says_what_to_do(
    arguments: list[str],
    words: list[str],
    clip: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = output_of(capsys, *(part.format(clip=clip) for part in arguments))
    assert code == 2
    for word in words:
        assert word in err
    assert list(tmp_path.iterdir()) == [], "nothing was written"


def test_an_unwritable_output_is_exit_code_3(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = output_of(capsys, *extraction(clip, tmp_path / "no/such/folder/f.h5"))
    assert code == 3
    assert "no/such/folder" in err


def test_weights_that_do_not_fit_whole_are_reported(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = {f"module.{key}": value for key, value in network().features.state_dict().items()}
    torch.save({"state_dict": {**state, "other": torch.zeros(1)}}, tmp_path / "w.pth")
    arguments = (clip, "--model", MODEL, "--weights", tmp_path / "w.pth", "--max-frames", "3")
    code, out, _ = output_of(capsys, "verify", *arguments)
    assert code == 0
    assert "lack 2 parameters that the chosen layer does not need: fc.bias, fc.weight" in out
    assert "have 1 entries that the network has no use for" in out
    _, as_json, _ = output_of(capsys, "verify", *arguments, "--json")
    notes = json.loads(as_json)["notes"]
    assert len(notes) >= 2
    assert set(notes) <= set(out.splitlines())
    code, _, err = output_of(capsys, "verify", *arguments, "--layer", "fc")
    assert code == 2
    assert "fc.bias" in err


def test_verify_goes_on_after_a_clip_without_frames(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from rrm_extract.report.verify import Verifier

    empty = write_demo_clip(tmp_path / "empty.mp4", seconds=0.5, size=(64, 48))
    frames = Verifier._frames

    def without(self: Verifier, path: Path, *rest: object) -> object:
        return iter(()) if path == empty else frames(self, path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Verifier, "_frames", without)
    code, out, err = output_of(
        capsys, "verify", empty, clip, "--model", MODEL, "--max-frames", "3", "--root", "/"
    )
    assert code == 1
    assert "no frame could be decoded" in err
    assert "clip.mp4" in out, "the other clip is compared all the same"


def test_verify_tells_clips_of_one_name_apart(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["a/clip.mp4", "b/clip.mp4", "b/\x1b[2J.mp4"]
    for name in names:
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(clip.read_bytes())
    options = ("--root", ".", "--model", MODEL, "--max-frames", "2")
    code, out, _ = output_of(capsys, "verify", *names, *options)
    assert code == 0
    rows = [line.split()[0] for line in out.splitlines() if line and ".mp4" in line.split()[0]]
    assert rows == ["a/clip.mp4", "b/\\x1b[2J.mp4", "b/clip.mp4"]


def test_a_job_file_is_told_what_it_can_do(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = tmp_path / "job.yaml"
    job.write_text(f"inputs: {clip}\nmodel: {MODEL}\nfps: 8\n", encoding="utf-8")
    code, _, err = output_of(capsys, "run", job)
    assert code == 2
    assert "job.yaml: no key 'output'; add it, or give --set output=FILE.h5" in err
    options = ("--set", f"output={tmp_path / 'f.h5'}")
    assert output_of(capsys, "run", job, *options)[0] == 0
    code, _, err = output_of(capsys, "run", job, *options, "--set", "threshold=0.5")
    assert code == 3
    assert "--set overwrite=true" in err
