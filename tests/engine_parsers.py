"""Run in a process of its own: an engine's own argument parser and speculative hook, from its wheel, on commands from stdin.

`python engine_parsers.py sglang|vllm WHEEL`, one JSON list of words per line. The wheel is imported from its zip, so every
module of the engine is the real one. Third-party modules that are not installed become empty modules whose names are
empty classes; msgspec (SGLang's records) becomes a stand-in over dataclasses. One JSON line per command, after a tab:
"parsed" (arguments), "set" (the names of all that are not their defaults), "resolved" (what the speculative hook goes on with), or "refused"
with "by", the stage, and the engine's words.
"""

import contextlib
import dataclasses
import importlib.abc
import inspect
import io
import json
import sys
import types
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from typing import Any

import torch  # noqa: F401 imported before the finder below, so that their optional imports see no stand-ins
import transformers

PROBES = {"libtpu", "amdsmi", "tpu_inference"}  # imports that ask for hardware must go on failing


class RefusedError(Exception):
    """`stage`: who refused; str: the engine's words."""

    def __init__(self, stage: str, said: str) -> None:
        super().__init__(said)
        self.stage = stage


class Named(type):
    """An empty class; so is each of its attributes."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return empty(name)


def any_schema(*_: Any) -> Any:
    """Pydantic takes whatever such a class annotates."""
    from pydantic_core import core_schema

    return core_schema.any_schema()


def empty(name: str) -> Any:
    """A class of that name that takes anything."""
    members = {
        "__init__": lambda self, *_, **__: None,
        "__class_getitem__": classmethod(lambda cls, _: cls),
        "__get_pydantic_core_schema__": classmethod(any_schema),
    }
    return Named(name, (), members)


class Struct:
    """msgspec's record as a dataclass."""

    def __init_subclass__(cls, frozen: bool = False, kw_only: bool = False, **_: Any) -> None:
        for name in inspect.get_annotations(cls):
            value = cls.__dict__.get(name)
            if isinstance(value, list | dict | set):
                setattr(cls, name, dataclasses.field(default_factory=value.copy))
        dataclasses.dataclass(cls, unsafe_hash=frozen, kw_only=kw_only)
        cls.__struct_fields__ = tuple(field.name for field in dataclasses.fields(cls))


def defstruct(name: str, fields: list[Any], namespace: dict[str, Any], **_: Any) -> type:
    defaults = {field[0]: field[2] for field in fields if len(field) > 2}
    return type(name, (Struct,), namespace | {"__annotations__": {f[0]: f[1] for f in fields}} | defaults)


CONTENTS: dict[str, dict[str, Any]] = {
    "msgspec": {
        "Struct": Struct,
        "defstruct": defstruct,
        "field": dataclasses.field,
        "NODEFAULT": dataclasses.MISSING,
    },
    "msgspec.structs": {"fields": dataclasses.fields, "asdict": dataclasses.asdict},
    "dill": {"dumps": lambda _: b""},
}


class Missing(types.ModuleType):
    """A module that is not installed."""

    __path__: list[str] = []  # noqa: RUF012

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        setattr(self, name, made := empty(name))
        return made


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Asked last: stands in for what an engine imports and nobody has. Other packages' optional imports fail as ever."""

    def __init__(self, engine: str) -> None:
        self.engine = engine

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        frame: Any = sys._getframe(1)
        while "importlib" in frame.f_code.co_filename:
            frame = frame.f_back
        top = name.partition(".")[0]
        if top in PROBES | {self.engine} or not frame.f_globals.get("__name__", "").startswith(self.engine):
            return None
        return ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> types.ModuleType:
        return Missing(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        vars(module).update(CONTENTS.get(module.__name__, {}))


def staged(stage: str, call: Callable[..., Any], *args: Any) -> Any:
    """The call's result, or a `RefusedError`."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return call(*args)
    except SystemExit:
        raise RefusedError(stage, said.getvalue().strip().splitlines()[-1]) from None
    except Exception as error:
        raise RefusedError(stage, f"{type(error).__name__}: {error}") from error


def sglang() -> Callable[[list[str]], dict[str, Any]]:
    """`prepare_server_args` and `handle_speculative_decoding`, with a GPU and models that are not there."""
    from sglang.srt import server_args
    from sglang.srt.arg_groups import overrides, speculative_hook
    from sglang.srt.arg_groups.fields.spec import Spec
    from sglang.srt.utils import hf_transformers_utils

    names = [*(f.name for f in dataclasses.fields(Spec)), "model_path", "dtype", "device", "base_gpu_id"]
    fields = dataclasses.fields(server_args.ServerArgs)
    defaults = {f.name: f.default for f in fields if f.default_factory is dataclasses.MISSING}
    model = types.SimpleNamespace(hf_config=types.SimpleNamespace(architectures=["LlamaForCausalLM"]))
    draft = types.SimpleNamespace(architectures=["LlamaForCausalLMEagle3"])
    speculative_hook.model_config_of = lambda _: model
    hf_transformers_utils.get_config = lambda *_, **__: draft

    def one(words: list[str]) -> dict[str, Any]:
        args = staged("parser", server_args.prepare_server_args, words[3:])
        parsed = {name: getattr(args, name) for name in names}
        changed = [name for name, value in defaults.items() if getattr(args, name) != value]
        # what earlier steps of its pipeline decide by looking at the machine
        earlier = {"device": args.device or "cuda", "page_size": 1, "attention_backend": "fa3"}
        overrides.declare_resolution(args, "stand-in", **earlier)
        staged("hook", speculative_hook.handle_speculative_decoding, args)
        resolved = {name: overrides.resolution_result(args, name) for name in names}
        return {"parsed": parsed, "set": changed, "resolved": resolved}

    return one


def vllm() -> Callable[[list[str]], dict[str, Any]]:
    """The parser of `vllm serve` and `create_speculative_config`, with a GPU and models that are not there."""
    sys.modules["vllm.v1.executor"] = Missing("vllm.v1.executor")
    from vllm import platforms

    platforms.current_platform.device_type = "cuda"
    from vllm.config import ParallelConfig, speculative
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.entrypoints.common import cli_args
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    class Model(types.SimpleNamespace):
        """In the place of `ModelConfig`: a small Llama."""

        architectures = ("LlamaForCausalLM",)
        model_arch_config = is_moe = head_dtype = dtype = None
        max_model_len = 64
        tokenizer_mode = trust_remote_code = allowed_local_media_path = allowed_media_domains = seed = None
        tokenizer_revision = enforce_eager = max_logprobs = config_format = None

        def __init__(self, model: str, **_: Any) -> None:
            super().__init__(model=model, tokenizer=model, hf_overrides=None, quantization=None)
            self.hf_config = transformers.LlamaConfig(architectures=["LlamaForCausalLM"], vocab_size=32)
            self.registry = types.SimpleNamespace(inspect_model_cls=lambda architectures, _: (None, architectures[0]))

        def get_model_arch_config(self) -> None: ...
        def verify_with_parallel_config(self, _: Any) -> None: ...
        def get_vocab_size(self) -> int:
            return 32

    speculative.ModelConfig = Model
    speculative.has_arctic_inference = lambda: True
    parser = FlexibleArgumentParser()
    serve = cli_args.make_arg_parser(parser.add_subparsers(required=True, dest="subparser").add_parser("serve"))
    parallel = ParallelConfig()

    def one(words: list[str]) -> dict[str, Any]:
        args = staged("parser", parser.parse_args, words[1:])
        args.model = args.model_tag or args.model  # as ServeSubcommand.cmd does
        staged("parser", cli_args.validate_parsed_serve_args, args)
        parsed = {name: getattr(args, name) for name in ("model", "dtype", "speculative_config")}
        rest = [name for name in vars(args) if name not in ("subparser", "model_tag")]
        changed = [name for name in rest if getattr(args, name) != serve.get_default(name)]
        engine = staged("arguments", AsyncEngineArgs.from_cli_args, args)
        made = staged("hook", engine.create_speculative_config, Model(args.model), parallel)
        names = [f.name for f in dataclasses.fields(speculative.SpeculativeConfig)]
        plain = (str, int, float, bool, type(None))
        values = {n: getattr(made, n) for n in names} if made else {}
        return {"parsed": parsed, "set": changed, "resolved": {n: v for n, v in values.items() if isinstance(v, plain)}}

    return one


def main(engine: str, wheel: str) -> None:
    """Reads commands, writes what became of each."""
    sys.path.insert(0, wheel)
    sys.meta_path.append(Finder(engine))
    one = {"sglang": sglang, "vllm": vllm}[engine]()
    for line in sys.stdin:
        try:
            found = one(json.loads(line))
        except RefusedError as refusal:
            found = {"refused": str(refusal), "by": refusal.stage}
        sys.stdout.write(f"\t{json.dumps(found)}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
