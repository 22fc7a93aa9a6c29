"""Makes the virtual environment that scripts/run and scripts/test use, and keeps it current.

    python3 scripts/environment.py [--extra test]

The environment is `.venv` beside this folder, or the folder named by RRM_VENV: one that is not
there is made, one that is there is installed into. Nothing is done when it is current. What was
installed, from which pyproject.toml, is noted in the environment only after the installation has
succeeded; one of our making that was never finished is emptied and made again. A lock lets one
process at a time do this.

Only the standard library is used, on any Python that the package supports.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parent.parent
STATE = ".rrm-extract.json"
LOCK = ".rrm-extract.lock"
OLDEST = (3, 10)


def main() -> None:
    """Brings the environment up to date."""
    parser = argparse.ArgumentParser(description="Make or update the virtual environment.")
    parser.add_argument("--extra", action="append", default=[], help="for example: test")
    extras = set(parser.parse_args().extra)
    venv = Path(os.environ.get("RRM_VENV") or ROOT / ".venv").absolute()

    # Without the lock first: the usual case costs a few milliseconds and waits for nobody.
    if _is_current(venv, extras):
        return
    with _locked(venv):
        if not _is_current(venv, extras):
            _bring_up_to_date(venv, extras)


def _is_current(venv: Path, extras: set[str]) -> bool:
    state = _read_state(venv)
    return (
        _python(venv).exists()
        and state.get("installed_from") == _fingerprint()
        and extras <= set(state.get("extras", []))
        and not _has_another_python(venv, state)
        # What stands in for the native engine, since which something to compile it has come.
        and (not _has_stand_in(venv) or state.get("toolchain") == _toolchain())
    )


def _has_another_python(venv: Path, state: dict[str, Any]) -> bool:
    """Whether its Python has become another version, as after an upgrade of the system.

    Known where it runs this: what was installed for the version before is out of its sight.
    """
    installed_for = state.get("python")
    return Path(sys.prefix) == venv and installed_for not in (None, list(sys.version_info[:2]))


def _has_stand_in(venv: Path) -> bool:
    return any(venv.glob("lib/python*/site-packages/rrm_extract/engine/_native.py"))


def _toolchain() -> list[str]:
    """What the native engine takes to be compiled, as far as it is here."""
    headers = Path(sysconfig.get_path("include"), "Python.h")
    compiler = shutil.which(os.environ.get("CXX") or "c++")
    return [str(part) for part in (compiler, headers) if part and Path(part).is_file()]


def _bring_up_to_date(venv: Path, extras: set[str]) -> None:
    state = _read_state(venv)
    python = _python(venv)
    lost = not python.exists() or _has_another_python(venv, state)
    if state.get("is_ours") and (not state.get("was_complete") or lost):
        _say(f"{venv} was not finished or has lost its Python: making it again")
        _empty(venv)
        state = {}
    if python.exists():
        _check_version(python)
        # Until the installation has succeeded this is nobody's current environment.
        state["installed_from"] = None
    elif any(item.name != LOCK for item in venv.iterdir()):
        _fail(f"{venv} is no virtual environment and not empty; name another one with RRM_VENV")
    else:
        state = {"is_ours": True}
        _write_state(venv, state)
        _say(f"making a virtual environment in {venv} with Python {sys.version.split()[0]}")
        _run([_base_python(), "-m", "venv", str(venv)], venv, "the environment was not made")
    _write_state(venv, state)

    extras = extras | set(state.get("extras", []))
    target = f"{ROOT}[{','.join(sorted(extras))}]" if extras else str(ROOT)
    _say("installing the package; a first time fetches PyTorch, which takes minutes and about 6 GB")
    pip = [str(python), "-m", "pip", "install", "--no-input", "--disable-pip-version-check"]
    _run(
        [*pip, "--editable", target],
        venv,
        "pip did not install the package, see its messages above",
    )
    state |= {
        "installed_from": _fingerprint(),
        "extras": sorted(extras),
        "was_complete": True,
        "python": list(_version_of(python)),
        "toolchain": _toolchain(),
    }
    _write_state(venv, state)


def _run(command: list[str], venv: Path, problem: str) -> None:
    """Runs `command`; what it prints goes to a terminal at once, elsewhere only if it fails."""
    # stdout belongs to what is run afterwards. And from our root: -m would also look for its
    # module in whatever folder the user is in.
    on_terminal = sys.stderr.isatty()
    done = subprocess.run(
        command,
        check=False,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr if on_terminal else subprocess.PIPE,
        stderr=None if on_terminal else subprocess.STDOUT,
    )
    if done.returncode != 0:
        sys.stderr.buffer.write(done.stdout or b"")
        state = _read_state(venv)
        if state.get("is_ours") and not state.get("was_complete"):
            _empty(venv)
        _fail(f"{problem} (exit code {done.returncode}); run the same command to try again")


def _version_of(python: Path) -> tuple[int, ...]:
    """Its major and minor version; none where it does not start."""
    code = "import sys; print(*sys.version_info[:2])"
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=False)
    return tuple(int(part) for part in done.stdout.split())


def _check_version(python: Path) -> None:
    version = _version_of(python)
    if version < OLDEST:
        found = ".".join(map(str, version)) or "no working Python"
        _fail(f"{python} is {found}, expected 3.10 or later; name another one with RRM_VENV")


def _base_python() -> str:
    """The Python below any virtual environment: ours may just have been emptied."""
    return str(getattr(sys, "_base_executable", None) or sys.executable)


def _fingerprint() -> str:
    """Changes when the package has to be installed again."""
    sources = sorted((ROOT / "rrm_extract" / "engine" / "csrc").rglob("*.?pp"))
    text = b"".join(
        path.read_bytes() for path in (ROOT / "pyproject.toml", ROOT / "CMakeLists.txt", *sources)
    )
    return hashlib.sha256(text + os.fsencode(ROOT)).hexdigest()


def _python(venv: Path) -> Path:
    return venv / "bin" / "python"


def _read_state(venv: Path) -> dict[str, Any]:
    try:
        state = json.loads((venv / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def _write_state(venv: Path, state: dict[str, Any]) -> None:
    unfinished = venv / f"{STATE}.new"
    unfinished.write_text(json.dumps(state), encoding="utf-8")
    unfinished.replace(venv / STATE)


def _empty(venv: Path) -> None:
    """Removes everything but the lock, which other processes may be waiting for."""
    # Whoever comes after an interrupt has to know it for ours and unfinished: the state goes last.
    if _read_state(venv).get("was_complete"):  # else it says so already; a disk may be full
        _write_state(venv, {"is_ours": True})
    for item in sorted(venv.iterdir(), key=lambda item: item.name == STATE):
        if item.name == LOCK:
            continue
        if item.is_dir() and not item.is_symlink():
            shutil.rmtree(item)
        else:
            item.unlink()


@contextmanager
def _locked(venv: Path) -> Iterator[None]:
    try:
        venv.mkdir(parents=True, exist_ok=True)
        lock = (venv / LOCK).open("a")
    except OSError as error:
        _fail(f"{venv} cannot be written ({error.strerror}); name another place with RRM_VENV")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say(f"waiting for another process that is working on {venv}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _say(text: str) -> None:
    print(f"rrm-extract: {text}", file=sys.stderr, flush=True)


def _fail(text: str) -> NoReturn:
    _say(f"error: {text}")
    sys.exit(2)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        _say("interrupted; the same command goes on from here")
        sys.exit(130)
