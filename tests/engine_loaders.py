"""Run in a process of its own: the engines' own code for the weights of a head, on exported folders named on stdin.

`python engine_loaders.py sglang|vllm WHEEL` or `speculators FOLDER`, where that package is installed; one JSON object per line: "folder", "form" (eagle3, eagle1 or speculators)
and "out", a file for the filled parameters. The modules in `REAL` run from the wheel: the head's classes, the linear
layers and embeddings with their loaders of parameters, and vLLM's readers of configurations. All other modules of the
engine are empty, their names empty classes, except for what `CONTENTS` gives: one process instead of many, no
quantisation. Every parameter is NaN before the weights are read. One JSON line per folder, after a tab: "class", "shapes",
"empty" (parameters that are still NaN; embeddings come from the target) and "hot" (SGLang's map of tokens), or "refused".
speculators runs whole.
"""

import importlib.abc
import json
import logging
import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from importlib import import_module
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from zipfile import ZipFile

import torch
from engine_parsers import Finder, Missing
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import LlamaConfig

LAYERS, VOCAB = 8, 61  # of the target
LINEAR = ("model_executor.layers.linear", "model_executor.parameter", "model_executor.layers.vocab_parallel_embedding")
REAL = {
    "vllm": (
        *LINEAR, "model_executor.models.llama_eagle3", "model_executor.models.llama_eagle", "model_executor.models.llama",
        "model_executor.models.utils", "model_executor.model_loader.weight_utils", "model_executor.utils",
        "transformers_utils.configs.eagle", "transformers_utils.configs.speculators.base",
        "transformers_utils.configs.speculators.algos", "transformers_utils.utils",
    ),
    "sglang": (
        "srt.models.llama_eagle3", "srt.models.llama_eagle", "srt.models.llama", "srt.layers.linear",
        "srt.layers.parameter", "srt.layers.vocab_parallel_embedding", "srt.model_loader.weight_utils",
        "srt.layers.quantization.unquant", "srt.environ",
    ),
}  # fmt: skip


class Norm(nn.Module):
    """In the place of an engine's RMSNorm: its one parameter."""

    def __init__(self, size: int, **_: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def fuse_input_quant(self, _: nn.Module) -> None: ...


class Plain(nn.Module):
    """In the place of a layer without parameters."""

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    @classmethod
    def register(cls, _: str) -> Callable[[type], type]:
        return lambda kept: kept


class Nothing:
    """In the place of a platform: it is none of those that are asked for."""

    def __getattr__(self, name: str) -> Callable[..., bool]:
        return lambda *_: False


def same(*found: Any, **_: Any) -> Any:
    """A decorator, with or without settings, that changes nothing."""
    return found[0] if found and callable(found[0]) else same


def logger(name: str) -> Any:
    """Engines' loggers have some names more."""
    made: Any = logging.getLogger(name)
    made.warning_once = made.info_once = made.debug_once = made.warning
    return made


ONE = {name: lambda *_, **__: 1 for name in ("get_tensor_model_parallel_world_size", "get_tp_size")}
ONE |= {"get_tensor_model_parallel_rank": lambda *_, **__: 0, "divide": lambda a, b: a // b}
PIPELINE = SimpleNamespace(is_first_rank=True, is_last_rank=True, world_size=1, rank_in_group=0)
PARALLEL = SimpleNamespace(
    pp_group=PIPELINE, tp_group=PIPELINE, attn_tp_group=PIPELINE, tp_size=1, tp_rank=0, attn_tp_size=1, attn_tp_rank=0
)
CONTENTS: dict[str, dict[str, Any]] = {
    "vllm.logger": {"init_logger": logger},
    "vllm.config": {
        "get_current_vllm_config_or_none": lambda: None,
        "VllmConfig": SimpleNamespace(get_quantization_config=lambda *_: None),
    },
    "vllm.distributed": ONE | {"get_pp_group": lambda: PIPELINE},
    "vllm.compilation.decorators": {"support_torch_compile": same},
    "vllm.model_executor.custom_op": {"PluggableLayer": Plain, "CustomOp": Plain},
    "vllm.model_executor.layers.layernorm": {"RMSNorm": Norm},
    "vllm.model_executor.layers.activation": {"SiluAndMul": Plain},
    "vllm.model_executor.layers.attention": {"Attention": Plain, "EncoderOnlyAttention": Plain},
    "vllm.model_executor.layers.logits_processor": {"LogitsProcessor": Plain},
    "vllm.model_executor.models.interfaces": {"supports_any_eagle": lambda _: True},
    "vllm.model_executor.model_loader.reload": {"support_quantized_model_reload_from_hp_weights": same},
    "vllm.platforms": {"current_platform": Nothing()},
    "vllm.tracing": {"instrument": same},
    "sglang.srt.runtime_context": {
        "get_parallel": lambda: PARALLEL,
        "get_spec": lambda: SimpleNamespace(speculative_draft_window_size=None),
    },
    "sglang.srt.distributed": ONE,
    "sglang.srt.distributed.utils": {"get_group_rank_size": lambda _: (0, 1)},
    "sglang.srt.utils": {
        "add_prefix": lambda name, prefix: f"{prefix}.{name}" if prefix else name,
        "set_weight_attrs": lambda weight, given: [setattr(weight, *pair) for pair in (given or {}).items()],
        **dict.fromkeys(("is_cpu", "is_cuda", "is_hip", "is_npu", "is_xpu", "get_bool_env_var"), lambda *_: False),
    },
    "sglang.srt.utils.custom_op": {"register_custom_op": same},
    "sglang.srt.layers.layer_boundary": {
        "layer_stack": nullcontext,
        "append_stages": lambda *_: (None, None),
    },
    "sglang.srt.layers.layernorm": {"RMSNorm": Norm},
    "sglang.srt.layers.activation": {"SiluAndMul": Plain},
    "sglang.srt.layers.dual_gemm": {"DualGemm": Plain},
    "sglang.srt.layers.quantization.fp8_activation": {"DenseSiluAndMulQuant": Plain},
    "sglang.srt.layers.radix_attention": {"RadixAttention": Plain},
    "sglang.srt.layers.rotary_embedding": {"get_rope": Plain},
    "sglang.srt.layers.logits_processor": {"LogitsProcessor": Plain},
}


class Engine(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Asked first: an engine's modules, real ones from the wheel and empty ones."""

    def __init__(self, name: str, wheel: str) -> None:
        self.name, self.wheel = name, ZipFile(wheel)

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        return ModuleSpec(name, self, is_package=True) if name.partition(".")[0] == self.name else None

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None if self.is_real(spec.name) else Missing(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        if self.is_real(name):
            member = name.replace(".", "/") + ".py"
            module.__package__ = name.rpartition(".")[0]
            exec(compile(self.wheel.read(member), member, "exec"), vars(module))
        else:
            vars(module).update(CONTENTS.get(name, {}))

    def is_real(self, name: str) -> bool:
        return name.partition(".")[2] in REAL[self.name]


def vllm(folder: Path, form: str) -> Any:
    """The module that vLLM makes of the folder's configuration."""
    models, configs = "vllm.model_executor.models.", "vllm.transformers_utils.configs."
    llama_eagle, llama_eagle3 = import_module(f"{models}llama_eagle"), import_module(f"{models}llama_eagle3")
    eagle, base = import_module(f"{configs}eagle"), import_module(f"{configs}speculators.base")
    if form == "speculators":
        read = json.loads((folder / "config.json").read_text())
        base.SpeculatorsConfig.extract_vllm_speculative_config(read)
        config = base.SpeculatorsConfig.from_pretrained(folder)
    else:
        method = "eagle3" if form == "eagle3" else "eagle"
        config = eagle.EAGLEConfig(LlamaConfig.from_pretrained(folder), method=method)
    classes = {  # of its registry: models/registry.py
        "LlamaForCausalLMEagle3": llama_eagle3.Eagle3LlamaForCausalLM,
        "Eagle3LlamaForCausalLM": llama_eagle3.Eagle3LlamaForCausalLM,
        "EagleLlamaForCausalLM": llama_eagle.EagleLlamaForCausalLM,
    }
    target = SimpleNamespace(
        get_total_num_hidden_layers=lambda: LAYERS, get_num_layers=lambda _: LAYERS, get_vocab_size=lambda: VOCAB,
        dtype=torch.float32,
    )  # fmt: skip
    draft = SimpleNamespace(hf_config=config, quantization=None)
    spec = SimpleNamespace(draft_model_config=draft, parallel_drafting=False)
    settings = SimpleNamespace(
        speculative_config=spec, model_config=target, cache_config=None, quant_config=None, parallel_config=None,
        load_config=None,
    )  # fmt: skip
    llama_eagle3.get_current_vllm_config = lambda: settings
    return classes[config.architectures[0]](vllm_config=settings)


def sglang(folder: Path, form: str) -> Any:
    """The module that SGLang makes of the folder's configuration."""
    llama_eagle, llama_eagle3 = (import_module(f"sglang.srt.models.{name}") for name in ("llama_eagle", "llama_eagle3"))
    config = LlamaConfig.from_pretrained(folder)
    classes = {
        "LlamaForCausalLMEagle3": llama_eagle3.LlamaForCausalLMEagle3,
        "LlamaForCausalLMEagle": llama_eagle.LlamaForCausalLMEagle,
    }
    return classes[config.architectures[0]](config)


def one(build: Callable[[Path, str], Any], folder: Path, form: str, out: Path) -> dict[str, Any]:
    """Build, load, and look at what came into the parameters."""
    module = build(folder, form)
    parameters = dict(module.named_parameters())
    with torch.no_grad():
        for parameter in parameters.values():
            parameter.data.fill_(float("nan") if parameter.is_floating_point() else -1)
    module.load_weights(iter(load_file(folder / "model.safetensors").items()))
    empty = [n for n, p in parameters.items() if bool((p.isnan() if p.is_floating_point() else p == -1).any())]
    hot = getattr(module, "hot_token_id", None)
    save_file({name: parameter.data.contiguous().clone() for name, parameter in parameters.items()}, out)
    return {
        "class": type(module).__name__, "shapes": {n: list(p.shape) for n, p in parameters.items()}, "empty": empty,
        "hot": None if hot is None else hot.tolist(),
    }  # fmt: skip


def speculators(folder: Path, form: str, out: Path) -> dict[str, Any]:
    """The same of the package's own `from_pretrained`."""
    from speculators import SpeculatorModel  # type: ignore[import-not-found]

    module = SpeculatorModel.from_pretrained(str(folder), dtype=torch.float32)
    tensors = {n: t.contiguous().clone() for n, t in module.state_dict().items() if not n.startswith("verifier_")}
    empty = [n for n, t in tensors.items() if t.is_floating_point() and bool(t.isnan().any())]
    save_file(tensors, out)
    shapes = {n: list(t.shape) for n, t in tensors.items()}
    return {"class": type(module).__name__, "shapes": shapes, "empty": empty, "hot": None}


def main(engine: str, place: str) -> None:
    """Reads folders, writes what became of each."""
    if engine == "speculators":
        sys.path.insert(0, place)
        read = speculators
    else:
        sys.meta_path.insert(0, Engine(engine, place))
        read = partial(one, {"vllm": vllm, "sglang": sglang}[engine])
    sys.meta_path.append(Finder(engine))
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            found = read(Path(asked["folder"]), asked["form"], Path(asked["out"]))
        except (AssertionError, AttributeError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
            found = {"refused": f"{type(error).__name__}: {error}"}
        sys.stdout.write(f"\t{json.dumps(found)}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
