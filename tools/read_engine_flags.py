"""What flags the engines have, read from their wheels: `specdec_ref/exporters/engines.json`. Nothing in them is run.

    pip download --no-deps --only-binary :all: --dest WHEELS sglang==0.5.23 vllm==0.33.0
    python tools/read_engine_flags.py WHEELS/sglang-*.whl WHEELS/vllm-*.whl > specdec_ref/exporters/engines.json

Names, types, defaults, choices and metric names, by `ast`. The exporters use nothing that is not in the table, and a
test holds them to it; a newer engine is a newer table.
"""

import ast
import hashlib
import json
import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SGLANG_FIELDS = "sglang/srt/arg_groups/fields"
SGLANG_FILES = {  # file -> the fields to keep; none named: all
    f"{SGLANG_FIELDS}/spec.py": (),
    f"{SGLANG_FIELDS}/model.py": ("model_path", "dtype"),
    f"{SGLANG_FIELDS}/device.py": ("device", "base_gpu_id"),
}
SGLANG_ENUM = "sglang/srt/speculative/spec_info.py"
SGLANG_METRICS = "sglang/srt/observability/metrics_collector.py"
SGLANG_KEEP = ("sglang:generation_tokens_total", "sglang:num_requests_total")
VLLM_CONFIG = "vllm/config/speculative.py"
VLLM_FLAGS = "vllm/engine/arg_utils.py"
VLLM_METRICS = ("vllm/v1/spec_decode/metrics.py", "vllm/v1/metrics/loggers.py")
VLLM_KEEP = ("--model", "--dtype", "--speculative-config", "--spec-method", "--spec-model", "--spec-tokens")


def assigned(tree: ast.Module, name: str) -> Iterator[ast.AnnAssign]:
    """The annotated fields of the class of that name, or of every class ("")."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and name in ("", node.name):
            yield from (item for item in node.body if isinstance(item, ast.AnnAssign))


def value(node: ast.expr | None) -> Any:
    """A literal, or a product of literals; None if it is neither."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        return value(node.left) * value(node.right)
    try:
        return None if node is None else ast.literal_eval(node)
    except ValueError:
        return None


def keywords(call: ast.Call) -> dict[str, ast.expr]:
    """The keyword arguments of a call."""
    return {word.arg: word.value for word in call.keywords if word.arg}


def literals(node: ast.expr, aliases: dict[str, ast.expr]) -> list[Any]:
    """Everything that a Literal allows, through the names of other ones; [] for any other type."""
    found: list[Any] = []
    for part in ast.walk(node):
        if isinstance(part, ast.Subscript) and ast.unparse(part.value) == "Literal":
            inner = part.slice.elts if isinstance(part.slice, ast.Tuple) else [part.slice]
            for item in inner:
                found += literals(aliases[item.id], aliases) if isinstance(item, ast.Name) else [value(item)]
        elif isinstance(part, ast.Name) and part.id in aliases and part is not node:
            found += literals(aliases[part.id], aliases)
    return list(dict.fromkeys(item for item in found if item is not None))


def sglang_flag(field: ast.AnnAssign) -> tuple[str, dict[str, Any]] | None:
    """(flag, what is known of it) of a field `name: A[type, help or Arg(...)] = default`; None if it has no flag."""
    if not (isinstance(field.target, ast.Name) and isinstance(field.annotation, ast.Subscript)):
        return None
    if not isinstance(field.annotation.slice, ast.Tuple):
        return None
    kind, about = field.annotation.slice.elts
    words = keywords(about) if isinstance(about, ast.Call) else {}
    if value(words.get("no_cli")):
        return None
    flag = value(words.get("cli_name")) or f"--{field.target.id.replace('_', '-')}"
    row = {"type": ast.unparse(kind), "default": value(field.value)}
    choices = value(words.get("choices")) or literals(kind, {})
    return flag, row | ({"choices": choices} if choices else {}) | (
        {"aliases": value(words["aliases"])} if "aliases" in words else {}
    )  # fmt: skip


def sglang(wheel: zipfile.ZipFile) -> dict[str, Any]:
    """Flags, algorithms and metrics of SGLang."""
    flags = {}
    for file, kept in SGLANG_FILES.items():
        for field in assigned(ast.parse(wheel.read(file)), ""):
            if not kept or (isinstance(field.target, ast.Name) and field.target.id in kept):
                flags |= dict(filter(None, [sglang_flag(field)]))
    members = next(
        node for node in ast.walk(ast.parse(wheel.read(SGLANG_ENUM)))
        if isinstance(node, ast.ClassDef) and node.name == "SpeculativeAlgorithm"
    )  # fmt: skip
    algorithms = [node.targets[0].id for node in members.body if isinstance(node, ast.Assign)]  # type: ignore[attr-defined]
    metrics = {}
    for call in ast.walk(ast.parse(wheel.read(SGLANG_METRICS))):
        if isinstance(call, ast.Call) and ast.unparse(call.func) in ("Gauge", "Counter"):
            name = value(keywords(call).get("name"))
            if name and (":spec_" in name or name in SGLANG_KEEP):
                metrics[name] = ast.unparse(call.func).lower()
    read = [*SGLANG_FILES, SGLANG_ENUM, SGLANG_METRICS]
    return {"read": read, "algorithms": algorithms, "flags": flags, "metrics": metrics}


def vllm(wheel: zipfile.ZipFile) -> dict[str, Any]:
    """Keys of --speculative-config, flags beside it, and metrics of vLLM."""
    config = ast.parse(wheel.read(VLLM_CONFIG))
    aliases = {
        node.targets[0].id: node.value
        for node in config.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and "Literal" in ast.unparse(node.value)
    }
    keys = {}
    for field in assigned(config, "SpeculativeConfig"):
        if isinstance(field.target, ast.Name) and "SkipValidation" not in ast.unparse(field.annotation):
            default = field.value
            if isinstance(default, ast.Call):
                default = keywords(default).get("default")
            row = {"type": ast.unparse(field.annotation), "default": value(default)}
            union = ast.Tuple([field.annotation])  # so that a bare alias is looked up as well
            choices = literals(union, aliases)
            keys[field.target.id] = row | ({"choices": choices} if choices else {})
    flags = {
        value(word): {}
        for call in ast.walk(ast.parse(wheel.read(VLLM_FLAGS)))
        if isinstance(call, ast.Call) and ast.unparse(call.func).endswith("add_argument")
        for word in call.args
        if value(word) in VLLM_KEEP
    }
    trees = [ast.parse(wheel.read(file)) for file in VLLM_METRICS]
    names = [value(node) for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    metrics = {
        name: "counter"
        for name in names
        if isinstance(name, str) and re.fullmatch("vllm:(spec_decode_[a-z_]+|generation_tokens)", name)
    }
    return {"read": [VLLM_CONFIG, VLLM_FLAGS, *VLLM_METRICS], "keys": keys, "flags": flags, "metrics": metrics}


READERS = {"sglang": sglang, "vllm": vllm}


def main(paths: list[str]) -> int:
    """The table of these wheels on stdout."""
    table = {}
    for path in map(Path, paths):
        name, version, *_ = path.name.split("-")
        with zipfile.ZipFile(path) as wheel:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            table[name] = {"version": version, "wheel": path.name, "sha256": digest, **READERS[name](wheel)}
    print(json.dumps(table, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
