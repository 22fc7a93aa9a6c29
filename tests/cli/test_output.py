"""What is printed, where it cannot be."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rrm_extract import FeatureFile
from rrm_extract.video.synthetic import write_demo_clip
from tests.command import command, environment, extraction

pytestmark = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")


def redirected(
    where: str, *arguments: str | Path, **variables: str
) -> subprocess.CompletedProcess[str]:
    """The finished command, its standard output redirected as a shell does it."""
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", f'"$@" {where}', "bash", *command(*arguments)],
        env=environment(variables),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features of a job whose closing words could not be written."""
    folder = tmp_path_factory.mktemp("output")
    clip = write_demo_clip(folder / "clip.mp4", seconds=1, size=(64, 48))
    output = folder / "feats.h5"
    done = redirected(">/dev/full", *extraction(clip, output, "--workers", "1"))
    assert_told(done)
    return output


def assert_told(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 3, done.stderr
    assert "standard output cannot be written: No space left on device" in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr


def test_a_job_is_done_though_nothing_could_be_printed(features: Path) -> None:
    with FeatureFile(features) as file:
        assert file.complete
        assert file.n_frames == 8


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_is_told_in_one_line(unbuffered: str, features: Path) -> None:
    assert_told(redirected(">/dev/full", "stats", features, PYTHONUNBUFFERED=unbuffered))
    assert_told(redirected(">/dev/full", "--help", PYTHONUNBUFFERED=unbuffered))


@pytest.mark.parametrize("where", [">&-", ">&- 2>&-", "<&- >&- 2>&-", "| head -n 1 >/dev/null"])
def test_closed_streams_and_readers_that_go_are_no_error(where: str, features: Path) -> None:
    done = redirected(where, "stats", features)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_job_runs_with_closed_streams(features: Path) -> None:
    other = features.with_name("closed.h5")
    arguments = extraction(features.with_name("clip.mp4"), other, "--workers", "1")
    done = redirected("<&- >&- 2>&-", *arguments)
    assert done.returncode == 0
    with FeatureFile(other) as file:
        assert file.complete


@pytest.mark.parametrize("closed", ["<&- >&-", ">&- 2>&-", "<&- 2>&-", "<&- >&- 2>&-"])
def test_no_file_gets_the_number_of_a_closed_stream(closed: str, tmp_path: Path) -> None:
    code = (
        "import sys; from rrm_extract.cli.output import checked_output\n"
        "with checked_output(), open(sys.argv[1], 'w') as file: file.write(str(file.fileno()))"
    )
    numbers = tmp_path / "numbers"
    words = ["bash", "-c", f'"$@" {closed}', "bash", sys.executable, "-c", code, str(numbers)]
    subprocess.run(words, env=environment(), capture_output=True, timeout=240, check=True)
    assert int(numbers.read_text()) > 2


def test_the_exit_code_is_that_of_the_command(tmp_path: Path) -> None:
    done = redirected("| head -n 1", "stats", tmp_path / "nothing.h5")
    assert done.returncode == 3
    assert "does not exist" in done.stderr


def test_errors_that_cannot_be_printed_end_no_job(features: Path, tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    (clips / "bad.mp4").write_bytes(b"")
    (clips / "good.mp4").symlink_to(features.with_name("clip.mp4"))
    output = tmp_path / "f.h5"
    done = redirected("2>/dev/full", *extraction(clips, output, "--workers", "1"))
    assert done.returncode == 1
    assert "1 of them failed" in done.stdout
    with FeatureFile(output) as file:
        assert (list(file), [one.video_id for one in file.failures]) == (["good.mp4"], ["bad.mp4"])
    assert redirected("2>/dev/full", "stats", tmp_path / "nothing.h5").returncode == 3
