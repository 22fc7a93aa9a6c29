"""``rrm-extract compress``, and the file in every other command."""

from __future__ import annotations

import json
import re
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from rrm_extract.cli import main
from rrm_extract.config import JobConfig
from rrm_extract.models.compression import read_dcz
from rrm_extract.report.show import Overlay
from rrm_extract.video.synthetic import write_demo_clip
from tests.engines import AVAILABLE
from tests.report import mixing
from tests.tiny import MODEL, network


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compress")
    return write_demo_clip(folder / "clip.mp4", seconds=1, size=(64, 48))


@pytest.fixture(scope="module")
def squeezenet(clip: Path) -> Path:
    path = clip.with_name("squeezenet.dcz")
    arguments = ["--model", "squeezenet1_1", "--weights", "random:0", "--density", "0.4"]
    assert main(["compress", *arguments, "-o", str(path)]) == 0
    return path


def output_of(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_whole_way(
    clip: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Compress, extract from the file, verify."""
    monkeypatch.chdir(tmp_path)
    code, out, err = output_of(
        capsys, "compress", "--model", "squeezenet1_1", "--weights", "random:0", "--density",
        "0.5,features.0=0.9", "-o", "net.dcz", "--json",
    )  # fmt: skip
    assert (code, err) == (0, "")
    values = json.loads(out)
    assert values["layers"][0]["density"] == pytest.approx(0.9, abs=1e-3)
    assert values["file"]["bytes"] == Path("net.dcz").stat().st_size
    code, out, _ = output_of(
        capsys, clip, "--model", "net.dcz", "--threshold", "0", "--fps", "6", "--workers", "1",
        "-o", "feats.h5",
    )  # fmt: skip
    assert code == 0
    assert "weights file:net.dcz of random:0, layer" in out
    with h5py.File("feats.h5") as file:
        features = file["videos/clip.mp4/features"][:]
        assert file.attrs["weights_sha256"] == values["file"]["sha256"]
        assert file.attrs["model"] == "net.dcz"
        assert file.attrs["weights_id"] == "file:net.dcz"
        assert json.loads(file.attrs["identity_json"])["weights"] == "file:net.dcz"
    _, out, _ = output_of(capsys, "stats", "feats.h5")
    assert "weights file:net.dcz of random:0," in out
    with h5py.File("feats.h5", "r+") as file:
        del file.attrs["weights_text"]  # as in files of earlier versions
    _, out, _ = output_of(capsys, "stats", "feats.h5")
    assert "weights file:net.dcz," in out
    assert features.shape == (6, 512)
    assert np.isfinite(features).all()
    code, out, _ = output_of(
        capsys, "verify", clip, "--model", "net.dcz", "--threshold", "0", "--max-frames", "4",
        "--max-error", "1e-5",
    )  # fmt: skip
    assert code == 0
    assert "weights file:net.dcz of random:0," in out
    assert "top-1, top-5: compared only where one fully-connected layer" in out


def test_what_was_compressed_is_said(
    squeezenet: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = "weights file:squeezenet.dcz of random:0"
    compress = ("compress", "--model", squeezenet, "-o", tmp_path / "again.dcz")
    _, out, _ = output_of(capsys, *compress)
    assert f"{expected}, compressed into" in out
    _, out, _ = output_of(capsys, *compress, "--overwrite", "--json")
    assert json.loads(out)["weights_id"] == expected.removeprefix("weights ")
    tune = ("tune", clip, "--model", squeezenet, "--frames", "8", "--repeats", "1", "--try", "1")
    _, out, _ = output_of(capsys, *tune)
    assert f"{expected}, policy" in out
    assert expected in Overlay(JobConfig(model=str(squeezenet))).captions[0]


def test_weights_that_do_not_fit_whole(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = network().state_dict()
    torch.save(state | {"more.weight": torch.ones(2)}, tmp_path / "more.pt")
    output = tmp_path / "n.dcz"
    compress = ("compress", "--model", MODEL, "--density", "0.5", "-o", output, "--weights")
    note = "weights file:more.pt have 1 entries that the network has no use for: more.weight"
    code, out, _ = output_of(capsys, *compress, tmp_path / "more.pt")
    assert code == 0
    assert note in out.splitlines()
    _, out, _ = output_of(capsys, *compress, tmp_path / "more.pt", "--overwrite", "--json")
    assert json.loads(out)["notes"] == [note]
    output.unlink()
    del state["fc.bias"]
    torch.save(state, tmp_path / "less.pt")
    code, _, err = output_of(capsys, *compress, tmp_path / "less.pt")
    assert code == 2
    assert "weights file:less.pt lack 1 parameters" in err
    assert "(first: fc.bias)" in err
    assert not output.exists()
    _, _, err = output_of(
        capsys, "calibrate", clip, "--model", MODEL, "--weights", tmp_path / "more.pt",
        "--target-error", "0.1", "--frames", "8", "-o", tmp_path / "thresholds.json",
    )  # fmt: skip
    assert note in err.splitlines()


def test_weights_of_the_users_own_network(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "tiny.dcz"
    code, out, _ = output_of(capsys, "compress", "--model", MODEL, "--density", "0.5", "-o", path)
    assert code == 0
    assert "in the paper" not in out, "it is none of the paper's networks"
    arguments = (
        "verify", clip, "--model", MODEL, "--weights", path, "--threshold", "0", "--max-frames",
        "5", "--max-error", "1e-5", "--json",
    )  # fmt: skip
    assert "top-1, top-5: compared" not in output_of(capsys, *arguments[:-1])[1]
    for engine in AVAILABLE:
        code, out, _ = output_of(capsys, *arguments, "--engine", engine)
        assert code == 0
        assert json.loads(out)["frames"] == 5


def test_the_table_and_json_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "tiny.dcz"
    arguments = (
        "compress", "--model", MODEL, "--density", "0.5,fc=0.25", "--conv-bits", "4", "--fc-bits",
        "3", "--conv-index-bits", "3", "--fc-index-bits", "2", "-o", path,
    )  # fmt: skip
    code, text, _ = output_of(capsys, *arguments)
    assert code == 0
    code, out, _ = output_of(capsys, *arguments, "--overwrite", "--json")
    assert code == 0
    values = json.loads(out)
    network = read_dcz(path)
    for row, layer in zip(values["layers"], network.layers, strict=True):
        assert f"{row['name']}.weight" == layer.name
        assert (row["weights"], row["kept"]) == (layer.n_weights, layer.n_kept)
        assert row["kept"] + row["fillers"] == layer.n_entries
        assert (row["bits"], row["index_bits"]) == (layer.bits, layer.index_bits)
        assert row["ratio_pruned"] == pytest.approx(1 / layer.density)
        (line,) = (line for line in text.splitlines() if line.startswith(f"{row['name']} "))
        cells = re.split(" {2,}", line.strip())
        assert cells == [
            row["name"], f"{row['weights']:,}", f"{row['density']:.3f}", str(row["bits"]),
            f"{row['code_bits_coded']:.2f}", str(row["index_bits"]),
            f"{row['index_bits_coded']:.2f}", f"{row['ratio_pruned']:.2f}",
            f"{row['ratio_quantised']:.2f}", f"{row['ratio_coded']:.2f}", f"{row['error']:.3f}",
        ]  # fmt: skip
    assert [layer.bits for layer in network.layers] == [4, 4, 4, 3]
    assert [layer.index_bits for layer in network.layers] == [3, 3, 3, 2]
    totals = values["totals"]
    assert totals["weights"] == sum(row["weights"] for row in values["layers"])
    assert totals["ratio_coded"] == pytest.approx(
        32 * totals["weights"] / sum(row["coded_bits"] for row in values["layers"])
    )
    assert values["file"]["bytes"] == path.stat().st_size
    assert f"file: {path.stat().st_size:,} bytes" in text


def test_a_layer_of_zeros(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As some heads are before they are trained."""
    state = network().state_dict()
    state["fc.weight"].zero_()
    torch.save(state, tmp_path / "zeros.pt")
    arguments = (
        "compress", "--model", MODEL, "--weights", tmp_path / "zeros.pt", "--density", "0.5",
        "-o", tmp_path / "zeros.dcz",
    )  # fmt: skip
    code, text, _ = output_of(capsys, *arguments)
    assert code == 0
    (line,) = (line for line in text.splitlines() if line.startswith("fc "))
    assert " inf " in line
    code, out, _ = output_of(capsys, *arguments, "--overwrite", "--json")
    assert code == 0
    assert "Infinity" not in out
    values = json.loads(out)
    *others, last = values["layers"]
    assert (last["name"], last["kept"], last["ratio_pruned"]) == ("fc", 0, None)
    for row in (*others, values["totals"]):
        assert row["ratio_pruned"] == pytest.approx(2, rel=0.1)


def test_a_network_of_zeros(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Small layers of zeros have no entries at all."""
    state = {name: torch.zeros_like(x) for name, x in mixing.network().state_dict().items()}
    torch.save(state, tmp_path / "zeros.pt")
    arguments = (
        "compress", "--model", mixing.MIXING, "--weights", tmp_path / "zeros.pt", "--density",
        "0.5", "-o", tmp_path / "zeros.dcz",
    )  # fmt: skip
    code, text, err = output_of(capsys, *arguments)
    assert (code, err) == (0, "")
    assert "0 fillers among 0 entries" in text
    code, out, _ = output_of(capsys, *arguments, "--overwrite", "--json")
    assert code == 0
    totals = json.loads(out)["totals"]
    assert (totals["kept"], totals["bits"], totals["index_bits"]) == (0, 0, 0)
    assert totals["ratio_pruned"] is None


def test_models_describes_the_file(squeezenet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = output_of(capsys, "models", squeezenet, "--layers")
    _, ordinary, _ = output_of(capsys, "models", "squeezenet1_1", "--layers")
    assert out == ordinary
    code, out, _ = output_of(capsys, "models", squeezenet, "--explain", "--json")
    assert code == 0
    assert json.loads(out)["layer"] == "features.12.cat"
    _, out, _ = output_of(capsys, "models")
    assert "FILE.dcz" in out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--model", "resnet19", "--density", "0.5", "-o", "n.dcz"], 2, ["resnet19", "resnet18"]),
        (["--model", MODEL, "-o", "n.dcz"], 2, ["features.0", "--density NUMBER"]),
        (["--model", MODEL, "--density", "2", "-o", "n.dcz"], 2, ["--density '2'", "up to 1"]),
        (["--model", MODEL, "--density", "fcc=1", "-o", "n.dcz"], 2, ["fcc", "did you mean 'fc'"]),
        (["--model", MODEL, "--density", "1", "-o", "n.h5"], 2, ["n.h5", "end in .dcz"]),
        (["--model", MODEL, "--density", "1", "--fc-bits", "9", "-o", "n.dcz"], 2, ["--fc-bits"]),
        (["--model", "net.onnx", "--density", "1", "-o", "n.dcz"], 2, ["cannot be compressed"]),
        (["--model", MODEL, "--density", "1", "-o", "no/such/n.dcz"], 3, ["no/such"]),
        (["--model", MODEL, "--density", "1"], 2, ["--output"]),
        (["--density", "1", "-o", "n.dcz"], 2, ["--model"]),
    ],
)
def test_wrong_usage_says_what_to_do(
    arguments: list[str],
    code: int,
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    got, _, err = output_of(capsys, "compress", *arguments)
    assert got == code
    for word in words:
        assert word in err
    assert list(tmp_path.iterdir()) == [], "nothing was written"


@pytest.mark.parametrize(
    ("output", "words"),
    [("no/such/n.dcz", "no/such is no folder; make it first"), ("n.dcz", "n.dcz: it is a folder")],
)
def test_an_output_that_cannot_be_written_is_refused_before_the_work(
    output: str,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def load(*_: object, **__: object) -> None:
        raise AssertionError("the network was loaded")

    monkeypatch.setattr("rrm_extract.jobs.compress.load_model", load)
    monkeypatch.chdir(tmp_path)
    Path("n.dcz").mkdir()
    code, _, err = output_of(
        capsys, "compress", "--model", MODEL, "--density", "1", "--overwrite", "-o", output
    )
    assert code == 3
    assert words in err
    assert "what was complete is kept" not in err


def test_a_damaged_file_is_one_clear_line(
    squeezenet: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.dcz"
    data = bytearray(squeezenet.read_bytes())
    data[-1] ^= 1
    bad.write_bytes(data)
    code, _, err = output_of(capsys, "verify", clip, "--model", bad)
    assert code == 2
    assert "bad.dcz" in err
    assert "checksum" in err
    assert err.startswith("rrm-extract: error:")
    assert err.count("\n") == 1
