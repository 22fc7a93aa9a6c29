"""Job files: YAML with the names of the options as keys."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from rrm_extract.config.job import DARKNET, OPTIONS, JobConfig, check_mapping, unknown_key
from rrm_extract.config.option import Option, shown
from rrm_extract.errors import ConfigError

_YAML_ADVICE = "expected YAML, with quotes around text that begins with *, [ or {"


class _JobLoader(yaml.SafeLoader):
    """YAML's safe subset, minus two traps: repeated keys and words that become dates."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if isinstance(key_node, yaml.ScalarNode):
                if key_node.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"key {key_node.value!r} is there twice", key_node.start_mark
                    )
                seen.add(key_node.value)
        return super().construct_mapping(node, deep=deep)


_JobLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
# YAML 1.2's floating point: 1e-4 is a number, also inside a mapping.
_JobLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def read_yaml(text: str, *, where: str) -> object:
    """What a YAML text holds, by the rules of a job file: 1e-4 is a number, no key comes twice.

    Raises:
        ConfigError: it is no such text; names ``where`` and the line.
    """
    try:
        return yaml.load(text, Loader=_JobLoader)  # noqa: S506 -- a subclass of the safe loader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = "" if mark is None else f", line {mark.line + 1}"
        problem = error.problem or "cannot be read"
        raise ConfigError(f"{where}{line}: {problem}; {_YAML_ADVICE}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        first_line = str(error).splitlines()[0] if str(error) else "cannot be read"
        raise ConfigError(f"{where}: {first_line}; {_YAML_ADVICE}") from None


def _read_text(text: str, *, is_many: bool, where: str) -> object:
    """The value of an override that is text: `*.avi`, `2024` and `run #2` need no quotes there.

    Raises:
        ConfigError: it begins and ends as a list does, where one may be given, and is none.
    """
    plain = text.strip()
    if plain in ("", "~", "null", "Null", "NULL"):
        return None
    if plain[0] not in "'\"[":
        return plain
    try:
        value = read_yaml(plain, where=where)
    except ConfigError:
        # A pattern may begin and end with a class of letters.
        if is_many and plain.startswith("[") and plain.find("]") == len(plain) - 1:
            raise
        return plain
    return value if isinstance(value, (str, list)) else plain


def load_job(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> JobConfig:
    """Reads a job file.

    In `inputs` and the other paths, `~` is the home folder and `${NAME}` the environment
    variable; relative paths are relative to the current directory.

    Args:
        path: a YAML file whose keys are the names in `OPTIONS`.
        overrides: "key=value" strings that win over the file, the value written as in YAML;
            "threshold.LAYER=1e-3" and "preprocess.KEY=value" change one entry of a mapping.

    Raises:
        ConfigError: the file cannot be read, or a key or value in it or in an override is wrong.
    """
    where = os.fspath(path)
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{where}: not UTF-8 text; expected a YAML job file") from None
    except OSError as error:
        raise ConfigError(
            f"{where}: cannot be read ({error.strerror}); expected a YAML job file, see configs/"
        ) from None
    job = read_yaml(text, where=where)
    if job is None:
        job = {}
    if not isinstance(job, dict):
        raise ConfigError(
            f"{where}: holds {shown(job)}, expected keys and values, for example 'model: resnet18'"
        )
    # The file is checked on its own first, so that a message never blames it for an override.
    check_mapping(job, where=where)
    origin = dict.fromkeys(job, where)
    for override in overrides:
        origin[_apply_override(job, override)] = f"--set {override}"
    if not job.get("inputs"):
        raise ConfigError(f"{where}: no key 'inputs'; add it, or give --set inputs=PATH")
    expanded = {
        option.name: _expanded(job[option.name], option=option, where=origin[option.name])
        for option in OPTIONS
        if option.name in job
    }
    return JobConfig.from_mapping(expanded, where=where)


def _apply_override(job: dict[str, object], override: str) -> str:
    """Changes `job` by one "key=value" or "key.entry=value"; returns the key."""
    where = f"--set {override}"
    # Layer names have dots but no "=": the first "=" ends the key, the first dot the option.
    path, equals, text = override.partition("=")
    key, dot, entry = path.strip().partition(".")
    if not equals or not key or (dot and not entry):
        raise ConfigError(f"{where}: expected key=value, for example --set threshold=1e-3")
    option = next((option for option in OPTIONS if option.name == key), None)
    if option is None:
        raise ConfigError(unknown_key(key, where=where))
    may_be_path = option.kind.is_path and not dot and not text.lstrip().startswith("{")
    if option.kind.is_text or may_be_path:
        value = _read_text(text, is_many=option.kind.is_many, where=where)
    else:
        value = read_yaml(text, where=where)
    if not dot:
        job[key] = option.check(value, where=where)
        return key
    if key not in ("threshold", "preprocess"):
        raise ConfigError(f"{where}: key {key!r} has no entries; expected --set {key}={text}")
    mapping = option.check(job.get(key, option.default), where=where)
    if key == "threshold" and not isinstance(mapping, dict):
        mapping = {"default": mapping}
    if mapping is None:
        mapping = {}
    if not isinstance(mapping, dict):
        raise ConfigError(
            f"{where}: {key!r} is {shown(mapping)}, expected a mapping to change one entry of"
        )
    job[key] = option.check({**mapping, entry: value}, where=where)
    return key


def _expanded(value: object, *, option: Option, where: str) -> object:
    if not option.kind.is_path:
        return value
    if isinstance(value, (list, tuple)):
        return [_expanded_path(item, where=where) for item in value]
    return _expanded_path(value, where=where)


def _expanded_path(value: object, *, where: str) -> object:
    if not isinstance(value, str):
        return value

    def variable(match: re.Match[str]) -> str:
        found = os.environ.get(match[1])
        if not found:
            raise ConfigError(
                f"{where}: environment variable {match[1]} in {value!r} is not set; "
                f"use export {match[1]}=FOLDER, or give the whole path in its place (rrm-extract "
                "run: --set KEY=PATH)"
            )
        return found

    filled = re.sub(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", variable, value)
    # A model's file may stand behind a prefix.
    prefix = DARKNET if filled.startswith(DARKNET) else ""
    return prefix + os.path.expanduser(filled.removeprefix(prefix))  # noqa: PTH111
