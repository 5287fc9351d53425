"""EAGLE-3 beside what came after it: heads of one target, trained on the same text for as many tokens.

    python -m benchmarks.after_eagle --corpus data/corpus --work runs > specdec_ref/bench/rows/after-eagle.jsonl

    eagle            EAGLE-3 from its warm start, unrolled up to four steps
    eagle, longer    the same head trained for as many tokens again: what to compare P-EAGLE with
    p-eagle          that head as P-EAGLE, trained for as many tokens: four drafts from one pass
    mtp, 1 step      a module of MTP's shape, trained on one step and applied again to its own output
    mtp, 3 steps     the same, trained as it is used
    medusa           four Medusa heads
    dflash           a block head: four drafts from one pass, features as keys and values
    dspark           the same with a Markov head, which completes each row with the draft before it
    shipped          the shipped EAGLE-3 head (millions of tokens), and P-EAGLE made from it

Acceptance is counted on the held-out prompts at temperature 0 with chains of `--depth`: plain decoding answers every
prompt once, then each drafter drafts along the stored answer with the stored features, as the engine would
(`tests/benchmarks/test_after_eagle.py` compares the two). `conditional[j]` is the accepted share of those drafts j + 1
that were tested: their predecessors were all accepted. Costs are processor seconds of one thread, the drafter and a
plain step in turn: `draft` is the time of one draft of `--depth` tokens over that of a plain step, `check` that of
checking it. JSON lines.
Everything in `--work` is kept: a run that was stopped goes on when the same command is given.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.along import Counts, along, costs
from benchmarks.command import print_row
from benchmarks.replayed import answers
from specdec_ref.drafters import build_drafter
from specdec_ref.drafters.eagle import default_layers
from specdec_ref.machine import cpu_name
from specdec_ref.models.hub import EMBEDDED, load
from specdec_ref.models.target import Target
from specdec_ref.training.checkpoint import load_state
from specdec_ref.training.eagle import TrainConfig, train
from specdec_ref.training.features import Example, States, Store, extract_features, open_features
from specdec_ref.training.kinds import KINDS
from specdec_ref.training.shards import Conversation, small_corpus, write_shard
from specdec_ref.weights import shipped_folder
from specdec_ref.weights.files import read_head
from specdec_ref.weights.heads import q_vocab_of
from specdec_ref.workloads import HELD_OUT, TASKS, chat_ids, load_prompts

__all__ = ["METHODS", "Method", "main"]

UNROLLED = ((0.0, 1), (0.2, 2), (0.4, 3), (0.6, 4))


@dataclass(frozen=True, slots=True)
class Method:
    """What is trained, and how. `start`: the method whose head it begins with. No curriculum: nothing is trained."""

    kind: str
    curriculum: tuple[tuple[float, int], ...] = ()
    start: str = ""
    decay: float = 0.8

    @property
    def drafter(self) -> str:
        """What drafts with the result."""
        return "block" if self.kind in ("dflash", "dspark") else self.kind

    @property
    def folder(self) -> str:
        """The name of its run's folder."""
        parts = (self.kind, self.start, "".join(str(steps) for _, steps in self.curriculum))
        return "-".join(part.replace(", ", "-") for part in parts if part)


METHODS = {
    "eagle": Method("eagle", UNROLLED),
    "eagle, longer": Method("eagle", ((0.0, 4),), "eagle"),
    "p-eagle": Method("p-eagle", ((0.0, 4),), "eagle"),
    "mtp, 1 step": Method("mtp", ((0.0, 1),), decay=0.6),
    "mtp, 3 steps": Method("mtp", ((0.0, 1), (0.3, 2), (0.6, 3)), decay=0.6),
    "medusa": Method("medusa", ((0.0, 4),)),
    "dflash": Method("dflash", ((0.0, 4),), decay=0.61),
    "dspark": Method("dspark", ((0.0, 4),), decay=0.61),
    "shipped": Method("eagle"),
    "p-eagle, shipped": Method("p-eagle", ((0.0, 4),), "shipped"),
}


def answered(lab: "Lab", split: str) -> list[Example]:
    """The split's prompts with plain decoding's answers, and the features that any of the drafters reads."""
    folder = lab.work / f"answers-{split}-{lab.prompts}"
    try:
        blocks = open_features([folder])
    except FileNotFoundError:
        chosen = [p for task in TASKS for p in load_prompts([task], split, file=HELD_OUT)[: lab.prompts]]
        asked = [chat_ids(lab.tokenizer, prompt.prompt) for prompt in chosen]
        said = answers(lab.model, asked, int(lab.tokenizer.eos_token_id), lab.answer)
        shard = lab.work / f"{split}-{lab.prompts}.npz"
        talks = enumerate(zip(chosen, asked, said, strict=True))
        write_shard(shard, [Conversation(p.task, tuple(q), tuple(a), 0.0, i) for i, (p, q, a) in talks])
        extract_features(lab.model, [shard], folder, (*lab.layers, lab.last))
        blocks = open_features([folder])
    return [example for block in blocks for example in block.examples()]


@torch.inference_mode()
def continued(model: Any, source: Path, folder: Path) -> None:
    """Write the last layer's features of a store of EAGLE-3 features: its highest layer, run through the rest."""
    base, store = model.base_model, Store(folder, model, (len(model.base_model.layers),))
    first = default_layers(3, len(base.layers))[-1]
    for block in open_features([source]):
        stem = folder / block.name
        if stem.with_name(f"{block.name}.index.npz").exists():
            continue
        states, talks = list[tuple[int, States]](), list[Conversation]()
        for i, example in enumerate(block.examples()):
            x = example.fused[None, :, -model.config.hidden_size :].to(model.dtype)
            places = torch.arange(x.shape[1])[None]
            turn = base.rotary_emb(x, places)
            for layer in base.layers[first:]:
                x = layer(x, position_ids=places, position_embeddings=turn)
            states.append((i, (base.norm(x)[0].half(), example.final)))
            text = example.tokens.tolist()
            talks.append(Conversation(example.task, tuple(text[: example.prompt]), tuple(text[example.prompt :]), 0.0,
                                      example.number))  # fmt: skip
        store.write(block.name, talks, states)


@dataclass(frozen=True, slots=True)
class Lab:
    """What all methods share: the target, the text to learn from, and sizes."""

    model: Any
    tokenizer: Any
    target: str
    corpus: Sequence[Path]
    features: Path | None
    work: Path
    tokens: int
    prompts: int
    answer: int
    depth: int

    @property
    def last(self) -> int:
        """Index of the last of the target's `hidden_states`."""
        return int(self.model.config.num_hidden_layers)

    @property
    def layers(self) -> tuple[int, ...]:
        """What an EAGLE-3 head reads."""
        return default_layers(3, self.last)

    def store(self, kind: str) -> Path:
        """The features that this kind reads, made where they are missing; a store that was given is only read."""
        three = self.features or self.work / "three"
        if self.features is None:
            extract_features(self.model, self.corpus, three, self.layers)
        if KINDS[kind].reads == 3:
            return three
        continued(self.model, three, self.work / "last")
        return self.work / "last"

    def columns(self, kind: str) -> slice:
        """Which columns of the stored answers' features this kind reads."""
        hidden = self.model.config.hidden_size
        return slice(0, 3 * hidden) if KINDS[kind].reads == 3 else slice(3 * hidden, 4 * hidden)

    def run(self, name: str) -> Path:
        """The folder of a method's head, trained where it is not yet."""
        method = METHODS[name]
        if not method.curriculum:
            return shipped_folder(Path(self.target).name, method.drafter) or Path()
        folder = self.work / method.folder
        begun = (load_state(folder) or {"progress": {"tokens": 0}})["progress"]["tokens"]
        if begun < self.tokens:
            start = self.run(method.start) if method.start else None
            train(self._settings(method), self.model, [self.store(method.kind)], folder, self._vocabulary(),
                  None if start is None else _tensors(start))  # fmt: skip
        return folder

    def _settings(self, method: Method) -> TrainConfig:
        return TrainConfig(
            version=3 if KINDS[method.kind].reads == 3 else 1, kind=method.kind, tokens=self.tokens,
            loss=KINDS[method.kind].settings.get("loss", "cross_entropy"),
            batch_tokens=512, curriculum=method.curriculum, warmup=10_000, fall=0.6, decay=method.decay,
            bfloat16=self.model.dtype is torch.bfloat16, measure_every=2 * self.tokens, held_out=4,
        )  # fmt: skip

    def _vocabulary(self) -> torch.Tensor | None:
        """The shipped head's draft vocabulary, if there is one."""
        folder = shipped_folder(Path(self.target).name)
        return None if folder is None else q_vocab_of(read_head(folder).tensors["d2t"])


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {name: t if name == "d2t" else t.float() for name, t in read_head(folder).tensors.items()}


def measured(lab: Lab, target: Target, name: str, texts: Mapping[str, list[Example]]) -> Iterator[dict[str, Any]]:
    """A row per split and task, one per split for all tasks, and one for the cost."""
    kind, folder = METHODS[name].kind, lab.run(name)
    drafter = build_drafter(METHODS[name].drafter, target, str(folder))
    for split, examples in texts.items():
        parts = {
            task: along(drafter, [e for e in examples if e.task == task], lab.columns(kind), lab.depth, target.dtype)
            for task in TASKS
        }
        for task, found in parts.items():
            yield {"method": name, "split": split, "task": task, "tokens": found.tokens, "rounds": found.rounds,
                   "tau": found.tokens / found.rounds, "tested": found.tested, "accepted": found.accepted}  # fmt: skip
        yield {"method": name, "split": split, "task": "mean", **_mean(list(parts.values()))}
    yield {"method": name, "costs": costs(target, drafter, next(iter(texts.values()))[0], lab.columns(kind), lab.depth),
           "weights": sum(t.numel() for key, t in read_head(folder).tensors.items() if key != "d2t"),
           "tokens_trained": _trained(lab, name)}  # fmt: skip


def _mean(parts: Sequence[Counts]) -> dict[str, Any]:
    """tau: every task counts alike; shares by position: of all tasks' drafts together."""
    taus = [part.tokens / part.rounds for part in parts]
    tested, accepted = ([sum(column) for column in zip(*rows, strict=True)]
                        for rows in ([p.tested for p in parts], [p.accepted for p in parts]))  # fmt: skip
    shares = [round(a / max(1, t), 4) for a, t in zip(accepted, tested, strict=True)]
    return {"tau": sum(taus) / len(taus), "tau_worst": min(taus), "conditional": shares}


def _trained(lab: Lab, name: str) -> int:
    """Response tokens that a head was trained on, those of the head it began with included."""
    method = METHODS[name]
    if not method.curriculum:
        return int(json.loads(read_head(lab.run(name)).metadata["progress"])["tokens"])
    state = load_state(lab.work / method.folder) or {}
    return int(state["progress"]["tokens"]) + (_trained(lab, method.start) if method.start else 0)


def corpus_files(paths: Sequence[Path]) -> list[Path]:
    """These files, and those of these folders."""
    return [file for path in paths for file in (sorted(path.glob("*.npz")) if path.is_dir() else [path])]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.after_eagle", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--method", nargs="+", choices=METHODS, default=list(METHODS), help="default: all")
    parser.add_argument("--corpus", nargs="+", type=Path, default=[small_corpus("train")], metavar="PATH",
                        help="files or folders of text to learn from (default: the small corpus)")  # fmt: skip
    parser.add_argument(
        "--features", type=Path, metavar="DIR", help="EAGLE-3 features to learn from, instead of a corpus"
    )
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="where runs and features are kept")
    parser.add_argument("--target", default=EMBEDDED, help="model name, folder or Hugging Face id")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16")
    parser.add_argument("--tokens", type=int, default=300_000, help="response tokens to train each on")
    parser.add_argument("--split", nargs="*", choices=["dev", "test"], default=["dev"],
                        help="prompts to measure on (default dev; none: train only)")  # fmt: skip
    parser.add_argument("--prompts", type=int, default=16, help="the first N prompts of a task (default 16)")
    parser.add_argument("--answer", type=int, default=128, help="tokens of an answer, at most (default 128)")
    parser.add_argument("--depth", type=int, default=4, help="draft length gamma (default 4)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command of the module docstring."""
    args = _parser().parse_args(argv)
    model, tokenizer = load(args.target, dtype=args.dtype, device="cpu", pack=False)
    args.work.mkdir(parents=True, exist_ok=True)
    lab = Lab(model, tokenizer, args.target, corpus_files(args.corpus), args.features, args.work, args.tokens,
              args.prompts, args.answer, args.depth)  # fmt: skip
    for name in args.method:
        lab.run(name)
    if not args.split:
        return 0
    text = {"features": args.features} if args.features else {"corpus": " ".join(map(str, args.corpus))}
    told = {**text, "dtype": args.dtype, "tokens": args.tokens, "split": " ".join(args.split), "prompts": args.prompts}
    words = ["python -m benchmarks.after_eagle", *(f"--{key} {value}" for key, value in told.items())]
    about = {"command": " ".join(words), "target": args.target, "dtype": str(model.dtype), "machine": cpu_name(),
             "torch": torch.__version__, "depth": args.depth, "tokens": args.tokens,
             "distinct": sum(e.response for b in open_features([lab.store("eagle")]) for e in b.examples()),
             "threads": torch.get_num_threads()}  # fmt: skip
    sys.stdout.write(json.dumps(about) + "\n")
    texts = {split: answered(lab, split) for split in args.split}
    target = Target(load(args.target, dtype=args.dtype, device="cpu")[0])
    for name in args.method:
        for row in measured(lab, target, name, texts):
            print_row(row)
    return 0


if __name__ == "__main__":
    sys.exit(main())
