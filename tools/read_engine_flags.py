"""What flags the engines have, read from their wheels: `specdec_ref/exporters/engines.json`.

    pip download --no-deps --only-binary :all: --dest WHEELS sglang==0.5.23 vllm==0.33.0 xllamacpp==2026.10.11549
    python tools/read_engine_flags.py WHEELS/*.whl > specdec_ref/exporters/engines.json

Names, types, defaults, choices and metric names. SGLang's and vLLM's sources are parsed by `ast` and never run.
llama.cpp's argument table is compiled into its wheel, so the wheel's own parser prints `llama-server --help` in a child
process, and that text is read. The exporters use nothing that is not in the table, and a test holds them to it; a newer
engine is a newer table.
"""

import ast
import hashlib
import json
import re
import subprocess
import sys
import tempfile
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
        node
        for node in ast.walk(ast.parse(wheel.read(SGLANG_ENUM)))
        if isinstance(node, ast.ClassDef) and node.name == "SpeculativeAlgorithm"
    )
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


LLAMACPP_HELP = """
import ctypes, xllamacpp.xllamacpp as wheel
parse = ctypes.CDLL(wheel.__file__)._Z19common_params_parseiPPcR13common_params13llama_examplePFviS0_E
parse.argtypes = [ctypes.c_int, ctypes.POINTER(ctypes.c_char_p), ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]
params = wheel.CommonParams()  # its C++ struct lies after the 16 bytes of a Python object; 12 is the server's table
parse(2, (ctypes.c_char_p * 3)(b"llama-server", b"--help", None), id(params) + 16, 12, None)
"""
LLAMACPP_KEEP = ("--model", "--alias", "--host", "--port", "--ctx-size", "--parallel", "--threads", "--metrics",
                 "--temperature", "--temp", "--top-k", "--top-p", "--min-p", "--lookup-cache-static",
                 "--lookup-cache-dynamic")  # fmt: skip


def llamacpp(wheel: zipfile.ZipFile) -> dict[str, Any]:
    """The server's speculative flags, what else a command of ours needs, and the flags that are gone."""
    with tempfile.TemporaryDirectory() as folder:
        wheel.extractall(folder)
        child = [sys.executable, "-c", LLAMACPP_HELP]
        text = subprocess.run(child, cwd=folder, capture_output=True, text=True, check=True).stdout
    flags, removed = {}, {}
    for section, entry in llamacpp_entries(text):
        names, about = llamacpp_flag(entry)
        kept = [name for name in LLAMACPP_KEEP if name in names]
        if "has been removed" in about["help"]:
            removed |= dict.fromkeys(names, about["help"])
        elif "speculative" in section or kept:
            long = kept[0] if kept else next(name for name in names if name.startswith("--"))
            aliases = [name for name in names if name != long]
            told = {key: about[key] for key in ("type", "default", "choices") if key in about}
            flags[long] = told | ({"aliases": aliases} if aliases else {})
    return {"read": ["llama-server --help"], "flags": flags, "removed": removed}


def llamacpp_entries(text: str) -> Iterator[tuple[str, str]]:
    """(section, lines of one flag) of the help text: a flag begins at the left margin."""
    section, entry = "", list[str]()
    for line in [*text.splitlines(), "-----"]:
        if line.startswith("-") and entry:
            yield section, "\n".join(entry)
            entry = []
        if line.startswith("-----"):
            section = line
        elif line.startswith("-") or entry:
            entry.append(line)


def llamacpp_flag(entry: str) -> tuple[list[str], dict[str, Any]]:
    """(names, what is known): `--flag, --alias VALUE   description (default: x)`, descriptions from column 40."""
    first, *rest = entry.splitlines()
    head, tail = (first[:40], first[40:]) if first[38:40].isspace() and first[40:] else (first, "")
    about = " ".join(" ".join([tail, *rest]).split())
    *_, last = matches = list(re.finditer(r"(?:^|, *)(--?[A-Za-z][\w-]*)", head))
    kind = head[last.end() :].strip()
    row: dict[str, Any] = {"type": kind or None, "help": about}
    if default := re.search(r"\(default: ([^)]*)\)", about):
        row["default"] = default[1]
    choices = kind.strip("{}").split(",") if "," in kind and "..." not in kind and "<" not in kind else []
    return [match[1] for match in matches], row | ({"choices": choices} if choices else {})


READERS = {"sglang": sglang, "vllm": vllm, "xllamacpp": llamacpp}


def main(paths: list[str]) -> int:
    """The table of these wheels on stdout."""
    table = {}
    for path in map(Path, paths):
        name, version, *_ = path.name.split("-")
        with zipfile.ZipFile(path) as wheel:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            table[name.removeprefix("x")] = {
                "version": version,
                "wheel": path.name,
                "sha256": digest,
                **READERS[name](wheel),
            }
    print(json.dumps(table, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
