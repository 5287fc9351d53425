"""A control group for one box, where root may make one: memory and processes of all that is in it, counted together.

It counts what limits on single processes do not: files in memory, whoever holds them, and memory that is shared.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import sleep

__all__ = ["grouped"]

ROOT = Path("/sys/fs/cgroup")


@contextmanager
def grouped(name: str, memory_bytes: int, tasks: int) -> Iterator[list[str]]:
    """Files that a process writes its number to in order to join; none where there are no such groups."""
    made: list[Path] = []
    limits = {"memory": memory_bytes, "pids": tasks}
    try:
        with suppress(OSError):
            made += _second(name, limits) if (ROOT / "cgroup.controllers").exists() else _first(name, limits)
        yield [str(folder / "cgroup.procs") for folder in made]
    finally:
        for folder in made:
            _remove(folder)


def _second(name: str, limits: dict[str, int]) -> list[Path]:
    """Version 2: one tree for all."""
    if not {*limits} <= {*(ROOT / "cgroup.subtree_control").read_text().split()}:
        return []
    folder = ROOT / name
    folder.mkdir()
    for kind, most in limits.items():
        (folder / f"{kind}.max").write_text(str(most))
    with suppress(OSError):
        (folder / "memory.swap.max").write_text("0")
    return [folder]


def _first(name: str, limits: dict[str, int]) -> list[Path]:
    """Version 1: a tree for each."""
    made = []
    for kind, file in (("memory", "memory.limit_in_bytes"), ("pids", "pids.max")):
        folder = ROOT / kind / name
        if os.access(folder.parent, os.W_OK):
            folder.mkdir()
            (folder / file).write_text(str(limits[kind]))
            made.append(folder)
    return made


def _remove(folder: Path) -> None:
    """It can go as soon as the last process in it has."""
    for _ in range(50):
        try:
            folder.rmdir()
        except OSError:
            sleep(0.02)
        else:
            return
