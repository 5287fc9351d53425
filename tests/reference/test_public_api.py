"""The names that `specdec_ref` offers, and what importing them costs and needs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import specdec_ref

ROOT = Path(specdec_ref.__file__).parent.parent
PUBLIC = (
    "DraftBudget DraftTree Drafter Limits SamplingParams Session SpecConfig SpecEngine Target Verifier __version__"
).split()

# Runs code after which the modules named in the first argument cannot be imported; prints what is loaded at the end.
WITHOUT = """
import json, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
blocked = set(json.loads(sys.argv[1]))
sys.meta_path.insert(0, Blocked())
exec(sys.argv[2])
print(json.dumps(sorted(sys.modules)))
"""
NO_EXTRAS = (
    "transformers", "tokenizers", "safetensors", "huggingface_hub", "gguf", "accelerate", "filelock", "platformdirs",
    "rich", "tqdm", "httpx", "matplotlib", "ipywidgets", "scipy", "triton", "specdec_course",
)  # fmt: skip


def loaded(code: str, *blocked: str) -> set[str]:
    """The modules of a new process after that code."""
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT, json.dumps(blocked), code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return set(json.loads(run.stdout.splitlines()[-1]))


def test_public_names_are_exactly_these_and_resolve() -> None:
    assert specdec_ref.__all__ == sorted(PUBLIC, key=str)
    assert set(PUBLIC) <= set(dir(specdec_ref))
    for name in PUBLIC:
        assert getattr(specdec_ref, name) is not None
    for name in set(PUBLIC) - {"__version__"}:
        value = getattr(specdec_ref, name)
        assert value.__name__ == name
        assert value.__module__.startswith("specdec_ref.")
        assert value.__doc__


def test_unknown_name_is_an_attribute_error_with_the_public_names() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'Engine'; its public names: DraftBudget, .*Session"):
        specdec_ref.Engine  # noqa: B018


def test_import_loads_no_torch_until_a_name_is_used() -> None:
    assert {"torch", "jaxtyping", "transformers"} & loaded("import specdec_ref; specdec_ref.__version__") == set()
    assert "torch" not in loaded("from specdec_ref import DraftBudget, Limits, SamplingParams, SpecConfig")


def test_core_imports_with_torch_and_jaxtyping_alone() -> None:
    """What pyproject.toml claims of its two dependencies: engine code that runs no transformers model needs no extra."""
    code = (
        "from specdec_ref import Drafter, DraftTree, Limits, SamplingParams, SpecConfig, Verifier\n"
        "import specdec_ref.sampling, specdec_ref.randomness, specdec_ref.verifiers, specdec_ref.metrics\n"
        "import specdec_ref.trees.static, specdec_ref.cost_model, specdec_ref.adaptive"
    )
    assert {"torch", "specdec_ref.verifiers"} <= loaded(code, *NO_EXTRAS)
