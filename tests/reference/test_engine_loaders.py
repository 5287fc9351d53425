"""The engines' own code reads exported heads: SGLang's and vLLM's `load_weights`, and the speculators package.

`tests/engine_loaders.py` runs the head's classes, the linear layers and embeddings with their loaders of parameters, and
vLLM's readers of configurations from the wheels of test_engine_sources.py; attention, norms and everything else are
stand-ins. Neither engine checks that every parameter was filled, so here each is NaN before the weights are read.
speculators is not in the folder of wheels but installed there: `pip install --no-deps --target FOLDER/speculators
speculators==0.9.0 hs-connectors==0.9.0 loguru pydantic-settings typing-inspection python-dotenv`.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from eagle_heads import random_head
from helpers import VOCAB, tiny_model
from safetensors.torch import load_file, save_file
from test_engine_sources import SGLANG, VLLM, WHEELS
from torch import Tensor, nn

from specdec_ref.drafters.eagle import default_layers
from specdec_ref.drafters.eagle_head import EagleHead, Variant, Version
from specdec_ref.training.export import export
from specdec_ref.weights.heads import LoadedHead

PROGRAM = Path(__file__).parents[1] / "engine_loaders.py"
SPECULATORS = "speculators"
DRAFTS = 40
FROM_TARGET = {"model.embed_tokens.weight"}
CASES: dict[str, tuple[Version, int | None, str, str]] = {  # EAGLE's number, draft vocabulary, format, folder
    "EAGLE-3": (3, DRAFTS, "engine", ""),
    "EAGLE-3, whole vocabulary": (3, None, "engine", ""),
    "EAGLE-1": (1, None, "eagle1", "{engine}"),
    "EAGLE-1 with an fc.bias of zeros": (1, None, "eagle1", "{engine}"),
    "speculators": (3, DRAFTS, "speculators", ""),
    **{f"speculators, {name}": (3, DRAFTS, "speculators", "") for name in ("norm_before_residual", "norm_before_fc")},
    **{f"speculators, {name}": (3, DRAFTS, "speculators", "") for name in ("fc_norm", "norm_output")},
}
FORMS = {"engine": "eagle3", "eagle1": "eagle1", "speculators": "speculators"}
READ = [
    (engine, case)
    for case in CASES
    for engine in ("vllm", "sglang")
    if engine == "vllm" or CASES[case][2] != SPECULATORS
]


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return tiny_model(num_hidden_layers=8)


def head_of(model: nn.Module, case: str) -> EagleHead:
    version, vocab, _, _ = CASES[case]
    made = random_head(model, version, draft_vocab=vocab).float()
    name = case.partition(", ")[2] if case.startswith("speculators,") else "bias" if "fc.bias" in case else ""
    if not name:
        return made
    other = EagleHead(made.config, version, q_vocab=made.q_vocab, variant=Variant(**{name: True}))
    state = {n: torch.rand_like(t) for n, t in other.state_dict().items() if n != "fc.bias"} | made.state_dict()
    if name == "bias":
        state["fc.bias"] = torch.zeros_like(other.state_dict()["fc.bias"])
    other.load_state_dict(state)
    return other


def exported(model: nn.Module, case: str, engine: str, out: Path, target: Path | None = None) -> tuple[EagleHead, Path]:
    head = head_of(model, case)
    version, _, kind, folder = CASES[case]
    export(LoadedHead(head, default_layers(version, 8)), model, out, kind, target_path=target and str(target))
    return head, out / folder.format(engine=engine)


def loaded(engine: str, asked: list[tuple[Path, str]]) -> list[dict[str, Any]]:
    """What the engine makes of these folders, with the parameters under "tensors"."""
    wheel = {"sglang": f"{SGLANG}-*.whl", "vllm": f"{VLLM}-*.whl", SPECULATORS: SPECULATORS}[engine]
    found = sorted(Path(WHEELS).glob(wheel)) if WHEELS else []
    if not found:
        pytest.skip(f"{wheel} is not in the folder that SPECDEC_ENGINE_WHEELS names")
    outs = [folder / f"{engine}.out" for folder, _ in asked]
    lines = [{"folder": str(f), "form": form, "out": str(out)} for (f, form), out in zip(asked, outs, strict=True)]
    argv = [sys.executable, PROGRAM, engine, found[0]]
    run = subprocess.run(argv, input="\n".join(map(json.dumps, lines)), text=True, capture_output=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    rows = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("\t")]
    return [row | ({"tensors": load_file(out)} if out.exists() else {}) for row, out in zip(rows, outs, strict=True)]


def as_engines_name_it(head: EagleHead) -> dict[str, Tensor]:
    """The head's weights under an engine's names, q, k and v in one and gate and up in one."""
    state = {name.replace("midlayer.", "layers.0."): tensor for name, tensor in head.state_dict().items()}
    made = {("" if name.startswith("lm_head") else "model.") + name: tensor for name, tensor in state.items()}
    for whole, parts in (("self_attn.qkv_proj", "qkv"), ("mlp.gate_up_proj", ("gate", "up"))):
        block = whole.partition(".")[0]
        names = [f"model.layers.0.{block}.{part}_proj.weight" for part in parts]
        made[f"model.layers.0.{whole}.weight"] = torch.cat([made.pop(name) for name in names])
    return made


def differences(head: EagleHead, row: Mapping[str, Any], shared: set[str]) -> list[str]:
    """Where an engine's module is not the head; `shared`: what it takes from the target."""
    if "refused" in row:
        return [row["refused"]]
    wrong = [f"{name} is not filled" for name in row["empty"] if name not in shared]
    tensors, wanted = row["tensors"], as_engines_name_it(head)
    wrong += [f"{name} has no parameter" for name in wanted.keys() - tensors.keys() - shared]
    for name in wanted.keys() & tensors.keys() - set(row["empty"]):
        rows = len(wanted[name])  # embeddings and LM heads are padded
        if not torch.equal(tensors[name][:rows], wanted[name]):
            wrong.append(f"{name} is another tensor")
    hot = tensors.get("draft_id_to_target_id")
    ids = row["hot"] if hot is None else (hot + torch.arange(len(hot))).tolist()
    if ids != (None if head.q_vocab is None else head.q_vocab.tolist()):
        wrong.append("another draft vocabulary")
    return wrong


def shared_by(case: str) -> set[str]:
    """What an engine takes from the target in that case. EAGLE-1 has no LM head of its own."""
    return (
        set() if CASES[case][2] == SPECULATORS else FROM_TARGET | ({"lm_head.weight"} if CASES[case][0] == 1 else set())
    )


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_every_parameter_of_an_engine_is_the_head_s(model: nn.Module, engine: str, tmp_path: Path) -> None:
    cases = [case for name, case in READ if name == engine]
    heads, asked = [], []
    for number, case in enumerate(cases):
        head, folder = exported(model, case, engine, tmp_path / str(number))
        heads.append(head)
        asked.append((folder, FORMS[CASES[case][2]]))
    for case, head, row in zip(cases, heads, loaded(engine, asked), strict=True):
        ignored = (
            {"model.fc.bias"} if engine == "vllm" and "fc.bias" in case else set()
        )  # zeros, which vLLM has no place for
        assert differences(head, row, shared_by(case) | ignored) == [], case


Mistake = Callable[[dict[str, Tensor], dict[str, Any]], object]


def drop(name: str) -> Mistake:
    return lambda tensors, _: tensors.pop(name)


def rename(old: str, new: str) -> Mistake:
    return lambda tensors, _: tensors.update({new: tensors.pop(old)})


def cut(name: str) -> Mistake:
    return lambda tensors, _: tensors.update({name: tensors[name][:-1].clone()})


def set_key(key: str, value: Any) -> Mistake:
    return lambda _, config: config.update({key: value})


def rename_key(old: str, new: str) -> Mistake:
    return lambda _, config: config.update({new: config.pop(old)})


MISTAKES: dict[str, tuple[str, Mistake]] = {  # what is done wrong -> the export it is done to, and how
    **{f"no {name}": ("EAGLE-3", drop(name)) for name in ("d2t", "norm.weight", "midlayer.self_attn.k_proj.weight")},
    **{f"no {name}": ("EAGLE-3", drop(name)) for name in ("lm_head.weight", "fc.weight", "midlayer.mlp.up_proj.weight")},
    "another name of hidden_norm": (
        "EAGLE-3", rename("midlayer.hidden_norm.weight", "midlayer.hidden_layernorm.weight")),
    "another name of the layer": ("EAGLE-3", rename("midlayer.self_attn.q_proj.weight", "layer.self_attn.q_proj.weight")),
    **{f"a short {name}": ("EAGLE-3", cut(name)) for name in ("norm.weight", "fc.weight", "d2t")},
    "a short o_proj": ("EAGLE-3", cut("midlayer.self_attn.o_proj.weight")),
    "draft_vocab_size misspelt": ("EAGLE-3", rename_key("draft_vocab_size", "draft_vocabulary_size")),
    "another intermediate_size": ("EAGLE-3", set_key("intermediate_size", 48)),
    "another number of heads": ("EAGLE-3", set_key("num_attention_heads", 2)),
    "two layers": ("EAGLE-3", set_key("num_hidden_layers", 2)),
    "fc_norm without its norms": ("EAGLE-3", set_key("fc_norm", True)),
    "norm_before_fc without its norm": ("EAGLE-3", set_key("norm_before_fc", True)),
    "architecture misspelt": ("EAGLE-3", set_key("architectures", ["LlamaForCausalLMEagel3"])),
    "a bias in the configuration": ("EAGLE-1", set_key("bias", True)),
    "d2t beside a whole vocabulary": (
        "EAGLE-3, whole vocabulary", lambda tensors, _: tensors.update(d2t=torch.zeros(VOCAB, dtype=torch.long))),
    "offsets that are an index map": ("EAGLE-3", lambda tensors, _: tensors["d2t"].add_(torch.arange(DRAFTS))),
}  # fmt: skip


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_planted_mistakes_are_noticed(model: nn.Module, engine: str, tmp_path: Path) -> None:
    heads, asked = [], []
    for number, (case, mistake) in enumerate(MISTAKES.values()):
        head, folder = exported(model, case, engine, tmp_path / str(number))
        tensors, config = load_file(folder / "model.safetensors"), json.loads((folder / "config.json").read_text())
        mistake(tensors, config)
        save_file(tensors, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps(config))
        heads.append(head)
        asked.append((folder, FORMS[CASES[case][2]]))
    rows = loaded(engine, asked)
    found = {
        name: differences(h, r, shared_by(MISTAKES[name][0])) for name, h, r in zip(MISTAKES, heads, rows, strict=True)
    }
    assert [name for name, wrong in found.items() if not wrong] == []


def drifted(head: EagleHead, row: Mapping[str, Any]) -> list[str]:
    """Where the speculators package's module is not the head."""
    if "refused" in row:
        return [row["refused"]]
    wanted = {name.replace("midlayer.", "layers.0."): tensor for name, tensor in head.state_dict().items()}
    assert head.q_vocab is not None
    wanted["d2t"] = head.q_vocab - torch.arange(DRAFTS)
    wanted["t2d"] = torch.zeros(VOCAB, dtype=torch.bool).index_fill_(0, head.q_vocab, True)
    tensors = row["tensors"]
    wrong = [f"{name} is on one side only" for name in wanted.keys() ^ tensors.keys()]
    return wrong + [
        f"{n} is another tensor" for n in wanted.keys() & tensors.keys() if not torch.equal(wanted[n], tensors[n])
    ]


SPECULATORS_MISTAKES: dict[str, Mistake] = {
    **{f"no {name}": drop(name) for name in ("fc.weight", "d2t", "t2d", "norm.weight")},
    "another name of hidden_norm": rename("layers.0.hidden_norm.weight", "layers.0.hidden_layernorm.weight"),
    "a short fc": cut("fc.weight"),
    "a short d2t": cut("d2t"),
    "speculators_model_type misspelt": set_key("speculators_model_type", "eagel3"),
    "draft_vocab_size misspelt": rename_key("draft_vocab_size", "draft_vocabulary_size"),
    "fc_norm without its norms": set_key("fc_norm", True),
}


def test_the_speculators_package_reads_the_head(model: nn.Module, tmp_path: Path) -> None:
    cases = [case for case in CASES if CASES[case][2] == SPECULATORS]
    target = tmp_path / "target"
    model.save_pretrained(target)  # type: ignore[operator]
    made = [exported(model, case, "", tmp_path / str(number), target) for number, case in enumerate(cases)]
    for number, mistake in enumerate(SPECULATORS_MISTAKES.values()):
        head, folder = exported(model, SPECULATORS, "", tmp_path / f"wrong {number}", target)
        tensors, config = load_file(folder / "model.safetensors"), json.loads((folder / "config.json").read_text())
        mistake(tensors, config)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        (folder / "config.json").write_text(json.dumps(config))
        made.append((head, folder))
    rows = loaded(SPECULATORS, [(folder, SPECULATORS) for _, folder in made])
    found = [drifted(head, row) for (head, _), row in zip(made, rows, strict=True)]
    assert dict(zip(cases, found, strict=False)) == {case: [] for case in cases}
    wrong = dict(zip(SPECULATORS_MISTAKES, found[len(cases) :], strict=True))
    assert [name for name, said in wrong.items() if not said] == []
