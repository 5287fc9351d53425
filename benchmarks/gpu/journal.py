"""A long measurement as many small ones: each leaves a small file, and none is repeated.

A visit ends before its minutes are over: no unit begins that would not fit, judged by the longest so far. The next
visit goes on with what has no file yet. Delete a file to measure it again.
"""

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

__all__ = ["Facts", "Journal", "machine"]

Facts = dict[str, Any]


class Journal:
    """The files of all steps in `folder`; they belong to one machine."""

    def __init__(self, folder: Path, device: str, minutes: float) -> None:
        """Raises ValueError if the folder holds figures of another machine or of other versions."""
        self.folder, self.device = folder, device
        self.ends = time.monotonic() + 60.0 * minutes
        here, path = machine(device), folder / "machine.json"
        if path.is_file() and (there := json.loads(path.read_text(encoding="utf-8"))) != here:
            raise ValueError(f"{folder} holds figures of {there}, and this is {here}: choose another --out")
        _write(path, here)

    def run(self, step: str, units: Mapping[str, Callable[[], Facts]]) -> int:
        """Run what has no file yet, while there is time. A failure is a result too. Returns how many are left."""
        waiting = [name for name in units if not self._file(step, name).is_file()]
        longest = 0.0
        for name in waiting:
            if time.monotonic() + longest > self.ends:
                break
            started = time.monotonic()
            _say(f"{step}: {name}")
            try:
                found = units[name]()
            except Exception as error:  # noqa: BLE001  whatever a GPU or its compiler raises belongs in the report
                found = {"error": f"{type(error).__name__}: {error}"[:2000]}
            longest = max(longest, time.monotonic() - started)
            _write(self._file(step, name), {"seconds": round(time.monotonic() - started, 2), **found})
            if "error" in found and not self._usable():
                _say("the device no longer answers in this process: give the command again, it goes on after this one")
                sys.exit(1)
        left = sum(not self._file(step, name).is_file() for name in units)
        _say(f"{step}: {len(units) - left} of {len(units)} done" + (": give the command again" if left else ""))
        return left

    def found(self, step: str) -> dict[str, Facts]:
        """What the units of a step found, in the order in which they ran."""
        files = sorted((self.folder / step).glob("*.json"), key=lambda path: (path.stat().st_mtime_ns, path.name))
        return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in files}

    def _file(self, step: str, name: str) -> Path:
        return self.folder / step / f"{name}.json"

    def _usable(self) -> bool:
        """A kernel that reads where it must not ends every later use of the device in this process."""
        try:
            torch.zeros(1, device=self.device).item()
        except RuntimeError:
            return False
        return True


def machine(device: str) -> dict[str, str]:
    """What the figures belong to."""
    name = torch.cuda.get_device_name() if device == "cuda" else f"{platform.machine()} CPU, no GPU"
    versions = {package: _version(package) for package in ("torch", "triton", "transformers", "specdec-ref")}
    return {"device": name, "cuda": str(torch.version.cuda), "hip": str(torch.version.hip), **versions}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "run from its source tree" if package == "specdec-ref" else "not installed"


def _write(path: Path, facts: Facts) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".tmp")
    scratch.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    os.replace(scratch, path)


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
