"""Bugs of the kind that ship, planted one by one: each must turn a test of this folder red."""

import importlib.util
import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import test_distributions
import test_equality
import test_hardened
import torch

import specdec_ref.kernels
from specdec_ref.kernels.selftest import checks, find_fault

FOLDER = Path(specdec_ref.kernels.__file__).parent


def selftest(op: str) -> None:
    """The self-test's cases of one operation."""
    assert find_fault(checks(torch.float32, "cpu", (op,)), torch.float32)[0] == ""


# name -> (file, what stands there, what is put there instead, the test that must fail)
BUGS: dict[str, tuple[str, str, str, Callable[[], object]]] = {
    "tail unmasked": (
        "draw.py", "mask=token < vocab, other=-float(\"inf\")", "mask=token >= 0, other=-float(\"inf\")",
        test_hardened.test_tails_hold_no_tokens,
    ),
    "tail unmasked in pass 1": (
        "stats.py", "mask=token < vocab, other=-float(\"inf\")", "mask=token >= 0, other=-float(\"inf\")",
        test_hardened.test_tails_hold_no_tokens,
    ),
    "tail filled with 0": (
        "stats.py", "mask=token < vocab, other=-float(\"inf\")", "mask=token < vocab, other=0.0",
        lambda: test_equality.test_kernel_equals_its_twin("chain", "float32"),
    ),
    "32-bit offset": (
        "stats.py", "row, pick, block = tl.program_id(0).to(tl.int64)",
        "batch_stride = batch_stride.to(tl.int32)\n    row, pick, block = tl.program_id(0)",
        test_hardened.test_offsets_beyond_two_to_the_31,
    ),
    "32-bit offset in the cache": (
        "gather.py", "row * batch_stride", "(row * batch_stride).to(tl.int32)",
        test_hardened.test_offsets_beyond_two_to_the_31,
    ),
    "one step too few in the cache": (
        "gather.py", "for i in range(moved):", "for i in range(moved - 1):",
        lambda: test_equality.test_kernel_equals_its_twin("gather", "float32"),
    ),
    "later blocks weigh more": (
        "residual.py", "tl.store(rest + row * blocks + block, tl.sum(weights, 0))",
        "tl.store(rest + row * blocks + block, tl.sum(weights, 0) * (block + 1))",
        lambda: test_equality.test_kernel_equals_its_twin("chain q", "float32"),
    ),
    "coin reused": (
        "tree_sample.py", "tl.load(coins + base + node), total", "tl.load(coins + base), total",
        test_distributions.test_tree_sample_emits_p,
    ),
    "coin reused for the last draw": (
        "tree_sample.py", "links, stop, per_node(last_coins, nodes),", "links, stop, coins,",
        test_distributions.test_tree_sample_emits_p,
    ),
    "wrong sibling order": (
        "links.py", "after = tl.min(tl.where((home == hung) & (lane > node) & (hung >= 0), lane, NODES), 0)",
        "after = tl.max(tl.where((home == hung) & (lane > node) & (hung >= 0), lane, -1), 0)",
        lambda: test_equality.test_kernel_equals_its_twin("links", "float32"),
    ),
    "repeats kept": (
        "links.py", "elder = (home == here) & (token == mine)", "elder = (home == here) & (token == mine) & (lane > node)",
        lambda: test_equality.test_kernel_equals_its_twin("links", "float32"),
    ),
    "not strict": (
        "tree_sample.py", "passed = (p > 0) & (coin < sum_p)", "passed = coin <= sum_p",
        test_hardened.test_zero_probability_is_never_emitted,
    ),
    "children left in the last draw": (
        "draw.py", "weights = tl.where(token == tl.load(tokens + child), 0.0, weights)", "pass",
        test_distributions.test_tree_sample_emits_p,
    ),
    "accept test upside down": (
        "chain.py", "log_q = tl.where(drawn, tl.log(q), 0.0)", "log_q = tl.where(drawn, -tl.log(q), 0.0)",
        test_distributions.test_chain_reject_emits_p,
    ),
    "residual without the floor at 0": (
        "residual.py", "return tl.maximum(p - part * q, 0.0)", "return tl.abs(p - part * q)",
        test_distributions.test_chain_reject_emits_p,
    ),
    "bits of the wrong node": (
        "attention.py", "(batch * nodes + node[:, None]) * words", "(batch * nodes + other[None, :]) * words",
        lambda: test_equality.test_kernel_equals_its_twin("attention", "float32"),
    ),
    "the tree in every chunk": (
        "attention.py", "tree = tl.where(split == 0, nodes, 0)", "tree = nodes",
        lambda: test_equality.test_kernel_equals_its_twin("attention", "float32"),
    ),
    "chunks summed as they are": (
        "attention.py", "decay, share = tl.exp(peak - shift), tl.exp(mark - shift)", "decay, share = 1.0, 1.0",
        lambda: test_equality.test_kernel_equals_its_twin("attention", "float32"),
    ),
    "last chunk left out": (
        "attention.py", "(tl.load(lengths + batch) + CHUNK - 1) // CHUNK", "tl.load(lengths + batch) // CHUNK",
        lambda: test_equality.test_kernel_equals_its_twin("attention", "float32"),
    ),
    "one slot too many": (
        "attention.py", "present = other < nodes", "present = other <= nodes",
        test_equality.test_attention_looks_at_nothing_else,
    ),
    "noise of the neighbour": (
        "gumbel.py", "(token + 1).to(tl.uint64)", "(token + 2).to(tl.uint64)",
        lambda: test_equality.test_kernel_equals_its_twin("chain q race", "float32"),
    ),
    "one token too many": (
        "floors.py", "(measure >= goal)", "(measure > goal)",
        lambda: test_equality.test_kernel_equals_its_twin("floors", "float32"),
    ),
    "argmax of the parent": (
        "greedy.py", "best = tl.load(predict + base + node)", "best = tl.load(predict + base)",
        lambda: test_equality.test_kernel_equals_its_twin("greedy", "float32"),
    ),
    "drawn as if no child had been removed": (
        "draw.py", "block, before = invert_cdf(rest, mark, BLOCKS)", "block, before = invert_cdf(whole, mark, BLOCKS)",
        lambda: selftest("tree"),
    ),
    "mark of the first block": (
        "residual.py", "token, _ = invert_cdf(inside, mark - before, BLOCK)", "token, _ = invert_cdf(inside, mark, BLOCK)",
        lambda: selftest("chain q"),
    ),
    "the slowest wins the race": (
        "gumbel.py", "tl.log(left) - noise", "tl.log(left) + noise",
        lambda: test_equality.test_kernel_equals_its_twin("chain q race", "float32"),
    ),
    "mass of earlier blocks not rescaled": (
        "floors.py", "mass = mass * scaled_exp(top, higher, temperature) +", "mass = mass +",
        lambda: test_equality.test_kernel_equals_its_twin("floors", "float32"),
    ),
    "NaN row taken for a distribution": (
        "stats.py", "broken = tl.max(((x != x) | (x == float(\"inf\"))).to(tl.int32), 0)",
        "broken = 0\n        x = tl.where(x != x, -float(\"inf\"), x)",
        lambda: test_hardened.test_a_bad_row_is_said_to_be_bad(float("nan")),
    ),
}  # fmt: skip


def mutant(file: str, old: str, new: str, folder: Path) -> ModuleType:
    """The module with the bug, under another name."""
    source = (FOLDER / file).read_text()
    assert source.count(old) == 1, f"{file} no longer reads {old!r}"
    path = folder / f"planted_{file}"
    path.write_text(source.replace(old, new))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def plant(module: ModuleType, file: str) -> None:
    """Wherever the package uses a function of that file, the mutant's stands."""
    name = f"specdec_ref.kernels.{file.removesuffix('.py')}"
    own = {key: value for key, value in vars(sys.modules[name]).items() if getattr(value, "__module__", "") == name}
    for user in [user for key, user in sys.modules.items() if key.startswith("specdec_ref.kernels")]:
        for key, value in own.items():
            if vars(user).get(key) is value:
                setattr(user, key, vars(module)[key])


def run_with_bug(bug: str, test: Callable[[], object], folder: Path) -> int:
    """The exit code of a fork in which the bug is planted and `test` runs: some bugs end in a crash."""
    file, old, new, _ = BUGS[bug]
    module = mutant(file, old, new, folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python 3.12 warns of forks beside threads: nothing here shares any
        child = os.fork()
    if child == 0:
        try:
            plant(module, file)
            test()
            os._exit(0)
        except (ImportError, NameError, SyntaxError):
            os._exit(2)
        except BaseException:  # noqa: BLE001  a failed assertion, an interpreter's error: the bug was found
            os._exit(1)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def is_found(code: int) -> bool:
    """A failed test or a crash; planted code that does not run proves nothing."""
    return code == 1 or -code in (signal.SIGSEGV, signal.SIGBUS)


@pytest.mark.parametrize("bug", BUGS)
def test_planted_bug_is_found(bug: str, tmp_path: Path) -> None:
    """In a fork, since some bugs end in a crash; the exit says how it went."""
    code = run_with_bug(bug, BUGS[bug][3], tmp_path)
    assert code != 0, "the bug is not noticed"
    assert code != 2, "the planted code is no code"
    assert is_found(code)


def test_planting_nothing_passes(tmp_path: Path) -> None:
    """The same machinery with no bug: what the tests above see is the bug, not the planting."""
    module = mutant("tree_sample.py", "Lossless.", "Lossless!", tmp_path)
    child = os.fork()
    if child == 0:
        plant(module, "tree_sample.py")
        test_hardened.test_zero_probability_is_never_emitted()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
