"""Networks that are kept for later jobs."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from rrm_extract.config import JobConfig
from rrm_extract.errors import LayerError
from rrm_extract.jobs import loading, network_cache
from rrm_extract.jobs.digests import digest_of_code
from rrm_extract.jobs.loading import KeptNetwork, Loader, network_of
from rrm_extract.jobs.network_cache import (
    NOT_OF_THE_NETWORK,
    VARIABLE,
    NetworkCache,
    network_key,
)
from rrm_extract.jobs.plan import JobPlan
from rrm_extract.jobs.recipe import load_plan
from rrm_extract.jobs.run import RunSummary, run_job
from rrm_extract.store import same_content
from rrm_extract.video.synthetic import write_demo_clip
from tests.command import extraction, rrm_extract

pytest.importorskip("rrm_extract.engine._native", reason="keys name the native engine")

MODEL = "shufflenet_v2_x0_5"

PLAN = JobPlan(
    weights_id="random:0",
    weights_text="random:0",
    weights_sha256="0",
    preprocess={},
    layer="fc",
    feature_shape=(4,),
    layers=(),
    engine="native",
    precision="fp32",
    kernel_isa="portable",
    calibration=None,
    versions={},
    notes=("a note",),
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def digits(text: str) -> str:
    """A key, of which the first letters tell it from others."""
    return text.encode().hex().ljust(64, "0")


KEY = digits("key")


def job(**options: Any) -> JobConfig:
    return JobConfig(**{"model": MODEL, "weights": "random:0", **options})


def computation(path: Path, size: int = 100) -> Path:
    path.write_bytes(bytes(size))
    return path


def test_what_decides_the_network_decides_the_key(tmp_path: Path) -> None:
    key = network_key(job())
    assert key is not None
    others = [
        job(weights="random:1"),
        job(model="resnet18"),
        job(threshold=0.5),
        job(precision="bf16"),
        job(layer="conv5"),
        job(time_batch=4),
        job(audit="1/10"),
    ]
    assert len({key, *map(network_key, others)}) == 1 + len(others)
    same = job(inputs=("a",), output="b.h5", workers=7, fps="1", chunk=3.0, overwrite=True)
    assert network_key(same) == key


def test_the_bytes_of_a_file_decide_not_its_folder(tmp_path: Path) -> None:
    def key(where: str, content: bytes, option: str = "weights") -> str | None:
        path = tmp_path / where
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        return network_key(job(**{option: str(path)}))

    first = key("a/w.pth", b"1")
    assert first is not None
    assert key("b/w.pth", b"1") == first
    assert key("a/w.pth", b"2") != first
    assert key("a/t.json", b"1", "thresholds") != key("a/t.json", b"2", "thresholds")


@pytest.mark.parametrize("model", ["darknet:{}/net.cfg", "{}/net.dcz", "{}/NET.NET"])
def test_the_bytes_of_a_model_decide(tmp_path: Path, model: str) -> None:
    named = model.format(tmp_path)
    path = Path(named.removeprefix("darknet:"))
    keys = []
    for content in (b"1", b"2", b"1"):
        path.write_bytes(content)
        keys.append(network_key(job(model=named)))
    assert keys[0] is not None
    assert keys[0] == keys[2] != keys[1]


def test_the_code_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    key = network_key(job())
    monkeypatch.setattr(network_cache, "digest_of_code", lambda: "another")
    assert network_key(job()) not in {key, None}


def test_code_is_also_what_describes_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rrm_extract.__file__", str(tmp_path / "__init__.py"))
    seen = {digest_of_code()}
    for name, text in (("a.py", "1"), ("a.py", "2"), ("data/n.cfg", "[net]"), ("data/n.cfg", "")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
        seen.add(digest_of_code())
    assert len(seen) == 5
    (tmp_path / "notes.txt").write_text("of no consequence")
    assert digest_of_code() in seen


def test_the_tests_own_jobs_keep_the_tiny_network(tmp_path: Path) -> None:
    clip = write_demo_clip(tmp_path / "clip.mp4", seconds=0.5, size=(64, 48))
    for name, words in (("a.h5", "loading the network took"), ("b.h5", "was kept by an earlier")):
        arguments = extraction(clip, tmp_path / name, "--workers", "1")
        done = rrm_extract(*arguments, cwd=tmp_path, extra={VARIABLE: str(tmp_path / "cache")})
        assert words in done.stdout, done.stderr
    assert same_content(tmp_path / "a.h5", tmp_path / "b.h5") == []


@pytest.mark.parametrize(
    "options",
    [
        {"model": "tests.jobs.branching:network"},
        {"model": "network.onnx", "preprocess": "imagenet"},
        {"model": "darknet:nowhere.cfg"},
        {"model": "timm/resnet18", "weights": "default"},
        {"device": "cuda"},
        {"engine": "torch"},
    ],
)
def test_what_other_things_could_decide_has_no_key(options: dict[str, Any]) -> None:
    assert network_key(job(**options)) is None


def test_loading_reads_no_option_that_the_key_leaves_out(tmp_path: Path) -> None:
    read: set[str] = set()

    class Watched(JobConfig):
        def __getattribute__(self, name: str) -> Any:
            read.add(name)
            return super().__getattribute__(name)

    config = Watched(model=MODEL, weights="random:0", audit="1/10", refresh=1.0)
    read.clear()
    load_plan(config)
    assert {"model", "threshold", "audit", "refresh"} <= read
    assert read & NOT_OF_THE_NETWORK == set()


def test_a_network_is_found_again(tmp_path: Path) -> None:
    cache = NetworkCache(tmp_path / "cache")
    assert cache.find(KEY) is None
    path = computation(tmp_path / "computation")
    cache.keep(KEY, PLAN, path)
    cache.keep(KEY, PLAN, path)  # another job was first
    path.unlink()
    assert cache.find(KEY) == PLAN
    assert cache.computation(KEY).read_bytes() == bytes(100)
    assert [entry.name for entry in cache.folder.iterdir()] == [KEY]
    assert cache.folder.stat().st_mode & 0o77 == 0, "nobody else writes there"


@pytest.mark.parametrize("name", ["computation", "plan", "about.json"])
def test_a_damaged_network_is_deleted(tmp_path: Path, name: str) -> None:
    cache = NetworkCache(tmp_path / "cache")
    cache.keep(KEY, PLAN, computation(tmp_path / "computation"))
    damaged = cache.folder / KEY / name
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 0xFF
    damaged.unlink()  # the other name of a link keeps what it has
    damaged.write_bytes(data)
    assert cache.find(KEY) is None
    assert list(cache.folder.iterdir()) == []


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    cache = NetworkCache(tmp_path / "cache", limit=25_000)
    path = computation(tmp_path / "computation", 10_000)
    a, b, c, d = map(digits, "abcd")
    for number, key in enumerate([a, b]):
        cache.keep(key, PLAN, path)
        os.utime(cache.folder / key, (number, number))
    (cache.folder / ".rrm-abandoned").mkdir()
    os.utime(cache.folder / ".rrm-abandoned", (0, 0))
    (cache.folder / ".rrm-on-its-way").mkdir()
    assert cache.find(a) == PLAN
    cache.keep(c, PLAN, path)
    assert {entry.name for entry in cache.folder.iterdir()} == {a, c, ".rrm-on-its-way"}
    cache.keep(d, PLAN, computation(tmp_path / "large", 30_000))
    assert cache.find(d) is None, "larger than all that is kept"
    assert cache.find(a) == PLAN


def test_what_was_abandoned_goes_before_another_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = NetworkCache(tmp_path / "cache")
    abandoned = cache.folder / ".rrm-abandoned"
    abandoned.mkdir(parents=True)
    os.utime(abandoned, (0, 0))
    seen: list[bool] = []

    def copied(*_: Path) -> None:  # a job that is killed here comes no further
        seen.append(abandoned.exists())

    monkeypatch.setattr(network_cache, "copied", copied)
    cache.keep(KEY, PLAN, computation(tmp_path / "computation"))
    assert seen == [False]


def test_a_network_that_cannot_be_marked_as_used_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    cache = NetworkCache(tmp_path / "cache")
    cache.keep(KEY, PLAN, computation(tmp_path / "computation"))
    monkeypatch.setattr(network_cache.os, "utime", refuse)
    assert cache.find(KEY) == PLAN
    assert cache.computation(KEY).exists()


def test_what_others_keep_in_the_folder_stays(tmp_path: Path) -> None:
    cache = NetworkCache(tmp_path, limit=15_000)
    for name in (".git", "data"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "large").write_bytes(bytes(20_000))
        os.utime(tmp_path / name, (0, 0))
    (tmp_path / "notes.txt").write_text("mine")
    a, b = map(digits, "ab")
    for key in (a, b):
        cache.keep(key, PLAN, computation(tmp_path / "computation", 10_000))
    found = {path.name for path in tmp_path.iterdir()}
    assert found == {".git", "data", "notes.txt", "computation", b}
    assert (tmp_path / "data" / "large").stat().st_size == 20_000


def test_a_folder_where_others_write_is_not_used(tmp_path: Path) -> None:
    named = {VARIABLE: str(tmp_path)}
    tmp_path.chmod(0o700)
    assert NetworkCache.of_user(named) is not None
    tmp_path.chmod(0o770)
    assert NetworkCache.of_user(named) is None


def test_where_it_is(tmp_path: Path) -> None:
    assert NetworkCache.of_user({VARIABLE: "off"}) is None
    of_system = NetworkCache.of_user({"XDG_CACHE_HOME": str(tmp_path)})
    of_home = NetworkCache.of_user({})
    assert of_system is not None
    assert of_system.folder == tmp_path / "rrm-extract"
    assert of_home is None or of_home.folder == Path.home() / ".cache/rrm-extract"
    file = tmp_path / "file"
    file.touch(mode=0o600)
    assert NetworkCache.of_user({VARIABLE: str(file)}) is None


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    write_demo_clip(tmp_path / "a.mp4", seconds=0.5, size=(64, 48))
    return tmp_path / "a.mp4"


def run(clip: Path, output: str, **options: Any) -> RunSummary:
    inputs = (str(clip),)
    return run_job(job(inputs=inputs, output=str(clip.with_name(output)), workers=1, **options))


def test_the_second_job_loads_nothing(
    clip: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(clip, "one.h5")
    assert first.peak_memory[2] > 0
    (entry,) = folder.iterdir()
    assert {path.name for path in entry.iterdir()} == {
        *("about.json", "plan", "computation", "computation.torch")
    }

    def no_loader(*_: object, **__: object) -> None:
        raise AssertionError("a network was loaded")

    monkeypatch.setattr(loading, "Loader", no_loader)
    second = run(clip, "two.h5")
    assert second.exit_code == 0
    assert second.peak_memory[2] == 0
    assert second.weights == first.weights == "random:0"
    assert same_content(clip.with_name("one.h5"), clip.with_name("two.h5")) == []
    with pytest.raises(AssertionError, match="a network was loaded"):
        run(clip, "three.h5", threshold=0.5)


def test_a_network_that_is_deleted_meanwhile_is_loaded(clip: Path, folder: Path) -> None:
    config = job()
    run(clip, "one.h5")
    with network_of(config) as network:
        assert isinstance(network, KeptNetwork)
        assert network.plan().feature_shape == (1024,)
        shutil.rmtree(folder)
        network.save(clip.with_name("computation"))
    assert network.peak_memory > 0
    assert clip.with_name("computation").stat().st_size > 1000


def test_a_network_is_not_kept_under_another_ones_key(clip: Path, folder: Path) -> None:
    for config, kept in ((job(), network_key(job())), (job(weights="random:1"), None)):
        # As where a file of weights is replaced between the look at it and the loading.
        with Loader(config, key=network_key(job())) as network:
            network.plan()
            network.save(clip.with_name("computation"))
        assert [entry.name for entry in folder.iterdir()] == ([] if kept is None else [kept])
        shutil.rmtree(folder)
        folder.mkdir(mode=0o700)


def test_a_job_does_not_depend_on_it(clip: Path, folder: Path) -> None:
    folder.touch()  # in the way
    assert run(clip, "one.h5").exit_code == 0


def test_a_wrong_request_is_not_kept(folder: Path) -> None:
    with network_of(job(layer="fcc")) as network:
        assert isinstance(network, Loader)
        with pytest.raises(LayerError):
            network.plan()
    assert not folder.exists()


def test_a_folder_that_cannot_be_looked_into_holds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, **_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "stat", refuse)
    assert NetworkCache(tmp_path).find("0" * 64) is None
