"""What the compiler makes of a kernel that was written in a notebook: its layout, its loads, its registers.

The interpreter is chosen when a kernel is decorated, so the compiler needs a process of its own: this module is started
again there, with the kernel's source text. No GPU is needed.
"""

import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["GpuCode", "inspected"]


@dataclass(frozen=True)
class GpuCode:
    """One compiled variant. `loads`: instruction -> how often it is in the code of a thread."""

    per_thread: int  # neighbouring numbers that a thread holds
    warps: int
    loads: dict[str, int]
    registers: int
    spills: int


def inspected(
    kernel: Any, signature: Mapping[str, str], variants: Sequence[Mapping[str, Any]], *, target: str = "sm_90"
) -> list[GpuCode]:
    """Compile `kernel` once per variant: constants, and options such as num_warps.

    `signature`: argument -> type, for instance {"x": "*fp32", "n": "i32"}.
    Sizes are taken as multiples of 16. Raises RuntimeError with the compiler's words.
    """
    source = "import triton\nimport triton.language as tl\n\n\n" + inspect.getsource(kernel.fn)
    wanted = {"source": source, "name": kernel.fn.__name__, "signature": dict(signature), "target": target}
    order = json.dumps({**wanted, "variants": [dict(variant) for variant in variants]})
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    command = [sys.executable, "-m", "specdec_ref.kernels.inspected"]
    run = subprocess.run(command, input=order, env=environment, capture_output=True, text=True, check=False)
    if run.returncode:
        raise RuntimeError(run.stderr.strip().splitlines()[-1] if run.stderr.strip() else "the compiler failed")
    return [GpuCode(**found) for found in json.loads(run.stdout)]


def _compile(order: Mapping[str, Any], folder: Path) -> list[GpuCode]:
    import triton
    from triton.compiler import ASTSource

    from specdec_ref.kernels.aot import TARGETS, Launch, compile_for

    path = folder / "from_a_notebook.py"
    path.write_text(order["source"], encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"Python cannot import {path.name}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    kernel, found = getattr(module, order["name"]), []
    for variant in order["variants"]:
        constants = {name: value for name, value in variant.items() if name in kernel.arg_names}
        options = {name: value for name, value in variant.items() if name not in constants}
        types = {name: "constexpr" if name in constants else order["signature"][name] for name in kernel.arg_names}
        aligned = tuple(place for place, kind in enumerate(types.values()) if kind != "constexpr")
        attrs: dict[Any, Any] = {(place,): [["tt.divisibility", 16]] for place in aligned}
        source = ASTSource(kernel, types, constants, attrs)
        built = triton.compile(source, target=TARGETS[order["target"]], options=options)
        layout = re.search(r"#ttg\.blocked<\{sizePerThread = \[(\d+).*?warpsPerCTA = \[(\d+)", built.asm["ttgir"])
        loads = Counter(re.findall(r"ld\.global[.\w]*", built.asm["ptx"]))
        figures = compile_for(Launch(kernel, types, constants, aligned, options), order["target"])
        per_thread, warps = (int(layout[1]), int(layout[2])) if layout else (0, options.get("num_warps", 4))
        found.append(GpuCode(per_thread, warps, dict(loads), figures.registers or 0, figures.spills or 0))
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        json.dump([asdict(code) for code in _compile(json.load(sys.stdin), Path(scratch))], sys.stdout)
