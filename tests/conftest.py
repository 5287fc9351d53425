"""What every test shares: checked tensor shapes, the models, and which tests need what.

With beartype installed, every call into the package checks its jaxtyping shapes while the tests run: a wrong axis is an
error where it enters, not a wrong number later. Without it the same tests run unchecked. Functions without a shape in
their signature are mypy's alone: to check their every call as well took the enumerations a quarter longer.
"""

import inspect
import os
import sys
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, no_type_check

import pytest
import torch
from jaxtyping import AbstractArray
from quick import EVERY, QUICK, SAMPLED

if find_spec("beartype"):  # before anything of the package is imported
    from jaxtyping import install_import_hook

    install_import_hook(["specdec_ref", "specdec_course"], "beartype.beartype")

# Where several workers share the suite (`make test`), a file is one worker's; the longest begin, so that none ends alone.
LONGEST = (
    "test_exercises", "test_hostile", "test_browser", "test_site", "test_leaderboard", "03_eagle", "06_metrics", "test_kernels",
)  # fmt: skip

collect_ignore = [] if os.environ.get("TRITON_INTERPRET") == "1" else ["interpreted"]  # test_kernels.py runs those

if TYPE_CHECKING:
    from torch import nn

    from specdec_ref.models.target import Target
    from specdec_ref.session import Session


def shaped(annotation: Any) -> bool:
    """Whether it names a shape, or may: a string is not read."""
    inner = map(shaped, get_args(annotation))
    return isinstance(annotation, str | type(AbstractArray)) or any(inner)


def functions() -> Iterator[Any]:
    """All functions and methods of the packages' modules that were imported."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in ("specdec_ref", "specdec_course"):
            for owner in (module, *filter(inspect.isclass, vars(module).values())):
                yield from (value for value in vars(owner).values() if inspect.isfunction(value))


def pytest_collection_finish() -> None:
    for function in functions():
        if not any(map(shaped, inspect.get_annotations(function).values())):
            no_type_check(function)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="run the quick part of the tests only (QUICK in quick.py)")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With --quick, files that are not in QUICK are not even imported."""
    left_out = collection_path.suffix == ".py" and collection_path.stem.startswith("test_")
    return True if config.getoption("quick") and left_out and collection_path.stem not in QUICK else None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what --quick covered: a green quick run is not a green run."""
    if config.getoption("quick"):
        names = ", ".join(name.removeprefix("test_") for name in QUICK)
        terminalreporter.section("quick: what this run covered")
        terminalreporter.write_line(f"Files: {names}. Of {' and '.join(SAMPLED)}, every {EVERY}th test.")
        terminalreporter.write_line(
            "Left out: the real model, chapters, exercises, grading, browser, Triton kernels, training. `make test` runs all."
        )
    elif not os.environ.get("WHOLE"):
        terminalreporter.section("sampled")
        terminalreporter.write_line(
            "test_judge: every 8th common mistake; test_attacks: every 4th attack, every 2nd forged message. WHOLE=1 runs all."
        )


def _quick(items: list[pytest.Item]) -> tuple[list[pytest.Item], list[pytest.Item]]:
    """(run, left out): no real model, nothing slow, and every eighth test of the long files."""
    seen, run, left = Counter[str](), [], []
    for item in items:
        seen[item.path.stem] += 1
        heavy = any(item.get_closest_marker(name) for name in ("model", "slow", "gpu"))
        sampled_out = item.path.stem in SAMPLED and seen[item.path.stem] % EVERY != 1
        (left if heavy or sampled_out else run).append(item)
    return run, left


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The longest files first. Fixtures imply markers: `-m "not model"` leaves out what needs a download without a mark on each test."""
    place = {name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        for fixture, marker in (("embedded", "model"), ("gpu", "gpu")):
            if fixture in fixtures:
                item.add_marker(marker)
    if config.getoption("quick"):
        items[:], left = _quick(items)
        config.hook.pytest_deselected(items=left)


@pytest.fixture(scope="session")
def tiny_weights() -> "nn.Module":
    """A random Llama in float64; no test changes it."""
    from specdec_ref.models.toy import tiny_llama

    return tiny_llama()


@pytest.fixture
def tiny(tiny_weights: "nn.Module") -> "Target":
    """The random Llama as a target of the test's own: the weights are shared, the cache is not."""
    from specdec_ref.models.target import Target

    return Target(tiny_weights, check=False)


@pytest.fixture(scope="session")
def embedded() -> "Session":
    """The embedded chat model on the CPU in float32, its tokenizer and chat template, loaded once a run."""
    from specdec_ref.models.hub import ModelError
    from specdec_ref.session import Session

    try:
        return Session.open(dtype="float32", device="cpu")
    except ModelError as error:
        pytest.skip(f"the embedded model cannot be had, run `specdec fetch`: {error}")


@pytest.fixture(scope="session")
def gpu() -> torch.device:
    """A CUDA device."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device: torch.cuda.is_available() is false")
    return torch.device("cuda")
