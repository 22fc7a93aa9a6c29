"""The table of options, and the job files made from it."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest

from rrm_extract.config import OPTIONS, JobConfig, load_job, parse_threshold, threshold_text
from rrm_extract.errors import ConfigError

CONFIGS = Path(__file__).parent.parent / "configs"
PUBLISHED_CONFIGS = ("bbc_pose", "charades", "merl", "mpii_video_pose", "ucf101", "youtube_bb")


@pytest.fixture
def job_file(tmp_path):
    """Writes a job file and returns its path."""

    def write(text: str) -> Path:
        path = tmp_path / "job.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def _message(error: pytest.ExceptionInfo[ConfigError]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


# --- The table --------------------------------------------------------------------------------


def test_defaults():
    job = JobConfig()
    assert job.inputs == ()
    assert (job.model, job.weights, job.layer, job.pool) == ("resnet18", "default", None, "avg")
    assert (job.threshold, job.policy, job.fps, job.chunk) == (1e-4, "bounded", "24", 10.0)
    assert (job.device, job.workers, job.threads, job.time_batch) == ("cpu", None, 1, 8)
    assert (job.timeout, job.retries, job.progress) == (120.0, 2, None)
    assert (job.overwrite, job.retry_failed) == (False, False)


def test_every_default_passes_its_own_check():
    for option in OPTIONS:
        assert option.check(option.default) == option.default, option.name


def test_every_field_is_a_row_of_the_table():
    assert [option.name for option in OPTIONS] == [f.name for f in dataclasses.fields(JobConfig)]


def test_every_example_is_a_value_that_is_accepted():
    for option in OPTIONS:
        example = option.example.strip("'")
        value = {"true": True, "false": False}.get(example, example)
        others = {"aecs": {"policy": "paper", "error_limit": 0.1}}
        others["error_limit"] = {"policy": "paper", "aecs": "aecs.json"}
        others["percentile"] = {"target_error": 0.1}
        others["score_threshold"] = others["overlap"] = {"task": "detect"}
        others["field_threshold"] = others["least_parts"] = {"task": "pose"}
        others["least_score"] = {"task": "pose"}
        job = JobConfig.from_mapping({option.name: value, **others.get(option.name, {})})
        assert getattr(job, option.name) is not None
        assert option.about.endswith(".")


def test_flags_and_help():
    by_name = {option.name: option for option in OPTIONS}
    assert by_name["output"].flags == ("-o", "--output")
    assert by_name["time_batch"].flags == ("--time-batch",)
    assert by_name["retry_failed"].flags == ("--retry-failed/--no-retry-failed",)
    assert by_name["retry_failed"].help.endswith("Example: --retry-failed")
    assert by_name["fps"].help.endswith("Example: --fps 30000/1001")
    assert by_name["policy"].kind.choices == ("bounded", "paper")


def test_identity_keys():
    assert JobConfig.identity_keys() == (
        *("model", "task", "weights", "layer", "pool", "score_threshold", "overlap"),
        *("field_threshold", "least_parts", "least_score", "preprocess", "threshold", "policy"),
        *("target_error", "percentile", "thresholds", "aecs", "error_limit", "audit", "cuts"),
        *("refresh", "fps", "chunk", "dtype", "precision", "device", "threads", "time_batch"),
    )


def test_identity_ignores_what_does_not_decide_results():
    job = JobConfig(inputs=("a",), output="a.h5", workers=1, timeout=1, retries=0, overwrite=True)
    assert job.identity() == JobConfig().identity()
    assert job.replace(model="vgg16").identity() != job.identity()


def test_a_job_for_features_has_the_identity_it_had_before_tasks():
    identity = JobConfig(task="features").identity()
    assert not {"task", "score_threshold", "overlap", "least_parts"} & identity.keys()
    assert identity["pool"] == "avg"


def test_a_task_decides_the_pool_and_has_its_own_options_in_the_identity():
    job = JobConfig(task="detect", overlap=0.5)
    assert job.pool == "none"
    identity = job.identity()
    assert (identity["task"], identity["overlap"], identity["pool"]) == ("detect", 0.5, "none")
    assert "least_parts" not in identity
    assert job.task_options == {"score_threshold": None, "overlap": 0.5}
    assert JobConfig.from_mapping(json.loads(json.dumps(job.to_mapping()))) == job


@pytest.mark.parametrize("task", ["detect", "pose"])
def test_what_does_not_go_with_a_task_fails(task):
    with pytest.raises(ConfigError, match=f"--pool avg does not go with --task {task}"):
        JobConfig.from_mapping({"task": task, "pool": "avg"})
    with pytest.raises(ConfigError, match="--dtype float16 is for features"):
        JobConfig(task=task, dtype="float16")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"overlap": 0}, "--overlap needs --task detect"),
        ({"task": "pose", "overlap": 0.5}, "--overlap needs --task detect"),
        ({"task": "detect", "least_score": 0}, "--least-score needs --task pose"),
        ({"score_threshold": 0.5}, "--score-threshold needs --task detect or pose"),
    ],
)
def test_options_of_a_task_without_it_fail(options, expected):
    with pytest.raises(ConfigError) as error:
        JobConfig(**options)
    assert _message(error).startswith(expected)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"fps": 24}, {"fps": "48/2"}),
        ({"fps": "29.97"}, {"fps": "2997/100"}),
        ({"chunk": "10"}, {"chunk": 10.0}),
        ({"threshold": "1e-4"}, {"threshold": {"default": 0.0001}}),
        ({"threshold": "layer1=0"}, {"threshold": "1e-4, layer1=-0"}),
        ({"threshold": "a=1,b=2"}, {"threshold": {"b": 2, "a": 1}}),
    ],
)
def test_equal_settings_have_equal_identity(one, other):
    identity = JobConfig.from_mapping(one).identity()
    assert identity == JobConfig.from_mapping(other).identity()
    again = JobConfig.from_mapping(other).identity()
    assert json.dumps(identity, sort_keys=True) == json.dumps(again, sort_keys=True)


def test_mapping_and_back():
    job = JobConfig(
        inputs=("a b.mp4", "${X}"), threshold={"layer4": 1e-3}, preprocess={"size": [224, 224]}
    )
    mapping = json.loads(json.dumps(job.to_mapping()))
    assert JobConfig.from_mapping(mapping) == job
    assert mapping["inputs"] == ["a b.mp4", "${X}"]


def test_a_job_keeps_its_own_copy():
    mine = {"layer1": 1e-3}
    job = JobConfig(threshold=mine)
    mine["layer1"] = 5.0
    job.to_mapping()["threshold"]["layer1"] = 6.0
    assert job.threshold == {"default": 1e-4, "layer1": 1e-3}


def test_replace():
    job = JobConfig(inputs="a.mp4").replace(threshold="1e-2", progress=False)
    assert (job.inputs, job.threshold, job.progress) == (("a.mp4",), 1e-2, False)
    with pytest.raises(dataclasses.FrozenInstanceError):
        job.model = "vgg16"


def test_replace_fails():
    with pytest.raises(ConfigError, match="unknown key 'modle'; did you mean 'model'"):
        JobConfig().replace(modle="vgg16")


def test_frame_rate():
    assert JobConfig(fps="30000/1001").frame_rate == Fraction(30000, 1001)
    assert JobConfig(fps=23.976).frame_rate == Fraction("23.976")
    assert JobConfig(fps="native").frame_rate is None


def test_chunk_seconds():
    assert JobConfig(chunk=0.1).chunk_seconds == Fraction(1, 10)
    assert JobConfig(chunk="1e1").chunk_seconds == 10


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model", 18, "option --model is 18, expected a model's name"),
        ("model", " ", "option --model is ' '"),
        ("inputs", [1], r"option INPUTS is \[1\], expected a path"),
        ("inputs", {"a": "b"}, "option INPUTS is"),
        ("inputs", ["a\0b"], "option INPUTS is"),
        ("output", "", "option --output is ''"),
        ("pool", "max", "option --pool is 'max', expected 'avg' or 'none', for example none"),
        ("policy", None, "option --policy is None, expected 'bounded' or 'paper'"),
        ("fps", 0, "option --fps is 0, expected frames per second above 0"),
        ("fps", "24/0", "option --fps is '24/0'"),
        ("fps", -1.5, "option --fps is -1.5"),
        ("fps", 1001, "option --fps is 1001"),
        ("fps", "fast", "option --fps is 'fast'"),
        ("fps", float("nan"), "option --fps is nan"),
        ("fps", True, "option --fps is True"),
        ("chunk", 0, "option --chunk is 0, expected a number of seconds above 0"),
        ("chunk", "ten", "option --chunk is 'ten'"),
        ("chunk", float("inf"), "option --chunk is inf"),
        ("chunk", False, "option --chunk is False"),
        ("chunk", 10**400, "option --chunk is 1000"),
        ("dtype", "float64", "option --dtype is 'float64', expected 'float32' or 'float16'"),
        ("workers", 0, "option --workers is 0, expected a whole number, 1 or more, for"),
        ("workers", 1.5, "option --workers is 1.5"),
        ("threads", None, "option --threads is None"),
        ("retries", -1, "option --retries is -1, expected a whole number, 0 or more"),
        ("timeout", "-1", "option --timeout is '-1'"),
        ("overwrite", "yes", "option --overwrite is 'yes', expected true or false"),
        ("progress", 1, "option --progress is 1, expected true, false or null"),
        ("threshold", -1e-4, "option --threshold is -0.0001, expected a number of 0 or more"),
        ("threshold", {"layer1": "x"}, "option --threshold is {'layer1': 'x'}"),
        ("threshold", {3: 1e-3}, "option --threshold is {3: 0.001}"),
        ("threshold", None, "option --threshold is None"),
        ("preprocess", {"mean": {1, 2}}, "option --preprocess is"),
        ("preprocess", {"mean": float("nan")}, "option --preprocess is"),
        ("preprocess", 3, "option --preprocess is 3"),
    ],
)
def test_value_fails(key, value, message):
    with pytest.raises(ConfigError, match=message) as error:
        JobConfig(**{key: value})
    assert len(_message(error)) < 250
    with pytest.raises(ConfigError, match=message):
        JobConfig.from_mapping({key: value})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1e-4", 1e-4),
        ("0", 0.0),
        ("1e-4,layer4=1e-3", {"default": 1e-4, "layer4": 1e-3}),
        ("layer4=1e-3, layer1.0.conv1 = 0", {"default": 1e-4, "layer4": 1e-3, "layer1.0.conv1": 0}),
        ("default=1e-2,fc=0", {"default": 1e-2, "fc": 0.0}),
    ],
)
def test_parse_threshold(text, expected):
    assert parse_threshold(text) == expected


@pytest.mark.parametrize(
    "text", ["", "x", "-1", "nan", "inf", "1e-4,1e-3", "a=1,a=2", "=1", "a=", "1e-4,", "a=b=c"]
)
def test_parse_threshold_fails(text):
    with pytest.raises(ConfigError, match=r"option --threshold is .*, expected a number"):
        parse_threshold(text)


# --- Job files --------------------------------------------------------------------------------


def test_load_job(job_file):
    path = job_file(
        "inputs: [a.mp4, videos/]\noutput: out.h5\nthreshold:\n  default: 1e-4\n  layer4: 0.001\n"
        "fps: 30000/1001\nchunk: 5\nlayer: null\nprogress: no\npreprocess: {scale: 1e-3}\n"
    )
    assert load_job(path) == JobConfig(
        inputs=("a.mp4", "videos/"),
        output="out.h5",
        threshold={"default": 1e-4, "layer4": 1e-3},
        fps="30000/1001",
        chunk=5.0,
        progress=False,
        preprocess={"scale": 0.001},
    )


def test_load_job_numbers_without_a_dot(job_file):
    # YAML 1.1 reads 1e-4 as text.
    assert load_job(job_file("inputs: a\nthreshold: 1e-4\nchunk: '20'\n")).threshold == 1e-4
    assert load_job(job_file("inputs: a\nchunk: '20'\n")).chunk == 20.0


def test_load_job_text_like_a_date(job_file):
    assert load_job(job_file("inputs: 2024-02-31\n")).inputs == ("2024-02-31",)


def test_load_job_byte_order_mark(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_bytes("\ufeffinputs: é.mp4\n".encode())
    assert load_job(path).inputs == ("é.mp4",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("modle: x\n", "job.yaml: unknown key 'modle'; did you mean 'model'?"),
        ("time-batch: 4\n", "job.yaml: unknown key 'time-batch'; did you mean 'time_batch'?"),
        ("zzz: 1\n", "job.yaml: unknown key 'zzz'; known keys: inputs, output,"),
        ("3: 1\n", "job.yaml: unknown key 3; known keys: "),
        ("chunk: -1\n", "job.yaml: key 'chunk' is -1, expected a number of seconds above 0"),
        ("overwrite: 'no'\n", "job.yaml: key 'overwrite' is 'no', expected true or false"),
        ("model: vgg16\nmodel: alexnet\n", "job.yaml, line 2: key 'model' is there twice"),
        ("threshold: {a: 1, a: 2}\n", "job.yaml, line 1: key 'a' is there twice"),
        ("include: *.avi\n", "with quotes around text that begins with *"),
        ("a: [1\n", "job.yaml, line 2: expected ',' or ']'"),
        ("- a\n- b\n", "job.yaml: holds ['a', 'b'], expected keys and values"),
        ("model: !!python/object:os.system x\n", "job.yaml, line 1: could not determine"),
        ("model: vgg16\n", "job.yaml: no key 'inputs'; add it, or give --set inputs=PATH"),
        ("inputs: []\n", "job.yaml: no key 'inputs'"),
        ("", "job.yaml: no key 'inputs'"),
        ("a: \x07\n", "job.yaml: unacceptable character"),
        ("[" * 1500, "job.yaml"),
    ],
)
def test_load_job_fails(job_file, text, message):
    with pytest.raises(ConfigError) as error:
        load_job(job_file(text))
    assert message in _message(error)


def test_load_job_unreadable_fails(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read") as error:
        load_job(tmp_path / "none.yaml")
    assert "none.yaml: cannot be read (No such file or directory)" in _message(error)
    with pytest.raises(ConfigError, match="Is a directory"):
        load_job(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"inputs: \xe9.mp4\n")
    with pytest.raises(ConfigError, match="not UTF-8 text"):
        load_job(tmp_path / "latin.yaml")


def test_overrides(job_file):
    job = load_job(
        job_file("inputs: a.mp4\nthreshold: 1e-3\nmodel: resnet18\nlayer: layer4\n"),
        [
            "inputs=[b.mp4, c d.mp4]",
            "threshold.layer1.0.conv1=1e-2",
            "model=18",
            "layer=null",
            "include=*.avi",
            "output=a=b.h5",
            "overwrite=true",
            "preprocess.mean=[0.5, 0.5, 0.5]",
            "fps=native",
        ],
    )
    assert job == JobConfig(
        inputs=("b.mp4", "c d.mp4"),
        threshold={"default": 1e-3, "layer1.0.conv1": 1e-2},
        model="18",
        layer=None,
        include=("*.avi",),
        output="a=b.h5",
        overwrite=True,
        preprocess={"mean": [0.5, 0.5, 0.5]},
        fps="native",
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("run #2.h5", "run #2.h5"),
        (" #2.h5", "#2.h5"),
        ("a: b.h5", "a: b.h5"),
        ("'run #2.h5'", "run #2.h5"),
        ('"a\\tb"', "a\tb"),
        ("null", None),
        ("", None),
    ],
)
def test_overrides_that_are_text_need_no_quotes(job_file, text, value):
    path = job_file("inputs: a\n")
    assert load_job(path, [f"output={text}"]).output == value
    assert load_job(path, [f"preprocess={text}"]).preprocess == value


def test_a_list_that_is_none_is_no_name(job_file):
    path = job_file("inputs: a\n")
    for pattern in ("[ab].mp4", "[a-z]*.[mM][kK][vV]"):
        assert load_job(path, [f"include={pattern}"]).include == (pattern,)
    with pytest.raises(ConfigError, match=r"--set include=\[\*\.mp4, \*\.mkv\].*quotes"):
        load_job(path, ["include=[*.mp4, *.mkv]"])


def test_a_model_is_named_without_its_folder(tmp_path):
    (tmp_path / "net.cfg").touch()
    folder = tmp_path / "run_12:30"
    folder.mkdir()
    (folder / "net:2.onnx").touch()
    for spec in (
        f"darknet:{tmp_path}/net.cfg",
        f"{tmp_path}/net.cfg",
        f"{folder}/net:2.onnx",
        "tests.tiny:network",
    ):
        name = spec.replace(f"{folder}/", "").replace(f"{tmp_path}/", "")
        assert JobConfig(model=spec).model_name == name


def test_overrides_in_order(job_file):
    path = job_file("inputs: a\n")
    assert load_job(path, ["threshold.a=1", "threshold=2"]).threshold == 2.0
    assert load_job(path, ["threshold=2", "threshold.a=1"]).threshold == {"default": 2.0, "a": 1.0}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("threshold", "--set threshold: expected key=value"),
        ("=3", "--set =3: expected key=value"),
        ("threshold.=3", "expected key=value"),
        ("treshold=3", "--set treshold=3: unknown key 'treshold'; did you mean 'threshold'?"),
        ("chunk=-1", "--set chunk=-1: key 'chunk' is -1, expected a number of seconds above 0"),
        ("chunk=", "--set chunk=: key 'chunk' is None"),
        ("threshold.layer1=x", "key 'threshold' is"),
        ("threshold=[", "--set threshold=[, line 1: "),
        ("chunk.a=1", "--set chunk.a=1: key 'chunk' has no entries; expected --set chunk=1"),
        ("preprocess.a=1", "'preprocess' is 'spec.json', expected a mapping"),
        ("inputs=", "key 'inputs' is None"),
        ("inputs=[]", "no key 'inputs'"),
    ],
)
def test_overrides_fails(job_file, override, message):
    path = job_file("inputs: a.mp4\npreprocess: spec.json\n")
    with pytest.raises(ConfigError) as error:
        load_job(path, [override])
    assert message in _message(error)


def test_paths_are_expanded(job_file, monkeypatch):
    monkeypatch.setenv("DATA", "/data sets")
    monkeypatch.setenv("HOME", "/home/someone")
    job = load_job(
        job_file("inputs: ['${DATA}/a', ~/b]\noutput: ${DATA}/$out.h5\nweights: ~/w.pth\n"),
        ["json_log=~/log.jsonl"],
    )
    assert job.inputs == ("/data sets/a", "/home/someone/b")
    assert (job.output, job.weights) == ("/data sets/$out.h5", "/home/someone/w.pth")
    assert job.json_log == "/home/someone/log.jsonl"
    job = load_job(job_file("inputs: a\nmodel: darknet:~/nets/net.cfg\n"))
    assert job.model == "darknet:/home/someone/nets/net.cfg"


@pytest.mark.parametrize("value", [None, ""])
def test_paths_undefined_variable_fails(job_file, monkeypatch, value):
    monkeypatch.delenv("DATA", raising=False)
    if value is not None:
        monkeypatch.setenv("DATA", value)
    path = job_file("inputs: ${DATA}/a\n")
    with pytest.raises(ConfigError) as error:
        load_job(path)
    assert "job.yaml: environment variable DATA in '${DATA}/a' is not set" in _message(error)
    # An override replaces the value before it is expanded.
    assert load_job(path, ["inputs=b"]).inputs == ("b",)
    with pytest.raises(ConfigError, match=r"--set root=\$\{DATA\}: environment variable DATA"):
        load_job(path, ["inputs=b", "root=${DATA}"])


@pytest.mark.parametrize(
    ("name", "variable"), [("charades", "CHARADES"), ("ucf101", "UCF101"), ("merl", "MERL")]
)
def test_published_job_files(monkeypatch, name, variable):
    monkeypatch.setenv(variable, "/data/x")
    job = load_job(CONFIGS / f"{name}.yaml")
    assert (job.inputs, job.root, job.output) == (("/data/x",), "/data/x", f"{name}.h5")
    assert (job.fps, job.threshold, job.model) == ("24", 1e-4, "resnet18")


@pytest.mark.parametrize(
    ("name", "model", "task"),
    [
        ("bbc_pose", "rtpose", "pose"),
        ("mpii_video_pose", "rtpose", "pose"),
        ("youtube_bb", "yolov2", "detect"),
    ],
)
def test_published_job_files_of_detection_and_pose(monkeypatch, name, model, task):
    monkeypatch.setenv(name.upper(), "/data/x")
    job = load_job(CONFIGS / f"{name}.yaml")
    assert (job.inputs, job.root, job.output) == (("/data/x",), "/data/x", f"{name}.h5")
    assert (job.model, job.task, job.layer) == (model, task, None)
    assert job.weights.endswith((".caffemodel", ".weights"))
    assert (job.threshold, job.policy) == (1e-4, "bounded")


def test_every_published_job_file_has_a_test():
    assert {path.stem for path in CONFIGS.iterdir()} == {*PUBLISHED_CONFIGS}


@pytest.mark.parametrize("name", PUBLISHED_CONFIGS)
def test_published_job_files_fails(monkeypatch, name):
    monkeypatch.delenv(name.upper(), raising=False)
    with pytest.raises(ConfigError, match=f"environment variable {name.upper()} "):
        load_job(CONFIGS / f"{name}.yaml")
    job = load_job(CONFIGS / f"{name}.yaml", ["inputs=/d", "root=/d"])
    assert job.inputs == ("/d",)


def test_import_is_light():
    code = "import sys, rrm_extract.config; print({'torch', 'numpy', 'av'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("threshold", "text"),
    [
        (1e-4, "0.0001"),
        (0, "0"),
        (1 / 255, "0.00392156862745098"),
        ({"default": 0.0012345678, "conv1": 1e-3}, "0.0012345678,conv1=0.001"),
    ],
)
def test_a_threshold_can_be_read_back_from_its_text(
    threshold: float | dict[str, float], text: str
) -> None:
    assert threshold_text(threshold) == text
    assert parse_threshold(text) == threshold
