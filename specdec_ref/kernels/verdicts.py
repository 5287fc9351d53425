"""Whether the kernels may be used on a device: the outcome of the self-test, kept in the user's cache.

The first use of the kernels on a device, with a number format, runs `selftest.py` in a process of its own. Its outcome
is stored per device, driver, torch, triton, package version and source of the kernels, so any change runs it again.
Until the self-test has passed, torch decides. A failure is reported once per process, on one line of stderr.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

__all__ = ["Verdict", "describe", "device_key", "in_child", "judge", "stored", "verdict"]

TIME_LIMIT = 180.0  # seconds: compiling takes most of it, on a slow and busy CPU
TRANSIENT = ("out of memory", "OutOfMemory", "did not end within", "busy or unavailable")  # may pass the next time


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a self-test found. `fault`: "" if every kernel gave its twin's answers.

    `seconds`: from starting the process to its end; `compiling`: those in which kernels were compiled.
    """

    fault: str
    checks: int
    seconds: float
    compiling: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether the kernels may be used."""
        return not self.fault


@lru_cache
def verdict(device: torch.device, dtype: torch.dtype) -> Verdict:
    """The verdict for a device with an index; runs the self-test if there is none. A failure is said on stderr."""
    key = device_key(device, dtype)
    found = judge(key, lambda: in_child(str(device), dtype))
    if not found.passed:
        sys.stderr.write(
            f"specdec: the kernels failed their self-test on {key['device']} ({key['dtype']}): {found.fault}. PyTorch "
            "is used instead; `specdec doctor` shows this, deleting the self-test folder in the cache runs it again.\n"
        )
    return found


def judge(key: dict[str, str], run: Callable[[], Verdict]) -> Verdict:
    """The stored verdict for `key`, or that of `run`, which is then stored unless the fault may be transient."""
    found = stored(key)
    if found is None:
        found = run()
        if not any(word in found.fault for word in TRANSIENT):
            _store(key, found)
    return found


def stored(key: dict[str, str]) -> Verdict | None:
    """The verdict in the cache, or None: no self-test yet, another version, or a damaged file."""
    try:
        kept = json.loads(_file(key).read_text(encoding="utf-8"))
        return Verdict(**kept["verdict"]) if kept["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def describe(key: dict[str, str]) -> str:
    """One line for `specdec doctor`."""
    found = stored(key)
    if found is None:
        return f"not run yet for {key['dtype']}: it runs once, at the first decode, and PyTorch is used until it passes"
    outcome = f"passed, {found.checks} checks" if found.passed else f"failed, PyTorch is used: {found.fault}"
    return f"{outcome} ({key['dtype']}, {found.seconds:.1f} s, {found.compiling:.1f} s of them compiling)"


def device_key(device: torch.device, dtype: torch.dtype) -> dict[str, str]:
    """What a verdict belongs to. A CPU has a key too: there the kernels run in Triton's interpreter."""
    key = {"device": f"{platform.machine()} CPU", "architecture": "interpreter", "driver": "none"}
    if device.type == "cuda":
        about: Any = torch.cuda.get_device_properties(device)
        named = getattr(about, "gcnArchName", None) if torch.version.hip else None
        key = {"device": about.name, "architecture": named or f"sm_{about.major}{about.minor}", "driver": _driver()}
    runtime = f"cuda {torch.version.cuda} hip {torch.version.hip}"
    versions = {package: _version(package) for package in ("torch", "triton", "specdec-ref")}
    return {**key, "dtype": str(dtype).removeprefix("torch."), "runtime": runtime, **versions, "source": _source()}


def in_child(
    device: str,
    dtype: torch.dtype,
    *,
    seeds: int = 4,
    environment: Mapping[str, str] | None = None,
    limit: float | None = None,
) -> Verdict:
    """Run the self-test in a process of its own: what goes wrong there cannot spoil this process's device.

    `environment`: variables that are different there. `limit`: seconds until it is stopped; None: TIME_LIMIT.
    """
    name, started = str(dtype).removeprefix("torch."), time.perf_counter()
    command = [
        sys.executable, "-W", "ignore", "-m", "specdec_ref.kernels.selftest", "--device", device, "--dtype", name,
        "--seeds", str(seeds),
    ]  # fmt: skip
    limit = TIME_LIMIT if limit is None else limit
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **(environment or {})}
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as wrong:
        try:
            run = subprocess.run(command, env=environment, stdout=said, stderr=wrong, check=False, timeout=limit)
            ended = "" if run.returncode == 0 else f"exit code {run.returncode}"
        except subprocess.TimeoutExpired:
            ended = f"did not end within {limit:.0f} s"
        except OSError as error:
            ended = f"cannot start: {error}"
        said.seek(0)
        wrong.seek(0)
        lines, errors = said.read().splitlines(), wrong.read().strip().splitlines()
    seconds = time.perf_counter() - started
    if not ended and lines:
        found = json.loads(lines[-1])
        return Verdict(found["fault"], found["checks"], seconds, found["compiling"])
    last = lines[-1] if lines else "before the first check"
    return Verdict(f"{last}: {ended}{f' ({errors[-1][:300]})' if errors else ''}", max(0, len(lines) - 3), seconds)


def _store(key: dict[str, str], found: Verdict) -> None:
    """Write by a rename, so that a reader sees a whole file or none. A cache that cannot be written is no error."""
    path = _file(key)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", delete=False, encoding="utf-8") as out:
            json.dump({"key": key, "verdict": asdict(found)}, out, indent=1)
        os.replace(out.name, path)
    except OSError:
        return


def _file(key: dict[str, str]) -> Path:
    from specdec_ref.cache import cache_dir

    return cache_dir() / "selftest" / f"{sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]}.json"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


@lru_cache(maxsize=1)
def _source() -> str:
    """A digest of this folder: editing a kernel asks for a new self-test."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def _driver() -> str:
    """The kernel driver's version, and the newest runtime that it can serve."""
    for name in ("nvidia", "amdgpu"):
        path = Path(f"/sys/module/{name}/version")
        if path.is_file():
            return f"{name} {path.read_text(encoding='ascii').strip()}, {_runtime()}"
    return _runtime()


def _runtime() -> str:
    return str(getattr(torch._C, "_cuda_getDriverVersion", lambda: "unknown")())
