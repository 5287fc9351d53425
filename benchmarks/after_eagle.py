"""EAGLE-3 beside what came after it: heads of one target, trained on the same text for as many tokens.

    python -m benchmarks.after_eagle --corpus data/corpus --work runs > specdec_ref/bench/rows/after-eagle.jsonl

    eagle            EAGLE-3 from its warm start, unrolled up to four steps
    eagle, longer    the same head trained for as many tokens again: what to compare P-EAGLE with
    p-eagle          that head as P-EAGLE, trained for as many tokens: four drafts from one pass
    mtp, 1 step      a module of MTP's shape, trained on one step and applied again to its own output
    mtp, 3 steps     the same, trained as it is used
    medusa           four Medusa heads
    shipped          the shipped EAGLE-3 head (millions of tokens), and P-EAGLE made from it

Acceptance is counted on the held-out prompts at temperature 0 with chains of `--depth`: plain decoding answers every
prompt once, then each drafter drafts along the stored answer with the stored features, as the engine would
(`tests/benchmarks/test_after_eagle.py` compares the two). `conditional[j]` is the accepted share of those drafts j + 1
that were tested: their predecessors were all accepted. Costs are processor seconds of one thread, the drafter and a
plain step in turn: `draft` is the time of one draft of `--depth` tokens over that of a plain step. JSON lines.
Everything in `--work` is kept: a run that was stopped goes on when the same command is given.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.command import print_row
from benchmarks.copying import stored
from specdec_ref.config import DraftBudget, SamplingParams
from specdec_ref.core import Drafter, DraftTree, VerifyResult
from specdec_ref.drafters import build_drafter
from specdec_ref.drafters.eagle import default_layers
from specdec_ref.machine import cpu_name
from specdec_ref.models.hub import EMBEDDED, load
from specdec_ref.models.target import Target
from specdec_ref.randomness import KeyedRandomness
from specdec_ref.training.checkpoint import load_state
from specdec_ref.training.eagle import TrainConfig, train
from specdec_ref.training.features import Example, extract_features, open_features
from specdec_ref.training.shards import Conversation, small_corpus, write_shard
from specdec_ref.weights import shipped_folder
from specdec_ref.weights.files import read_head
from specdec_ref.weights.heads import q_vocab_of
from specdec_ref.workloads import TASKS

__all__ = ["METHODS", "Counts", "Method", "along", "main"]

UNROLLED = ((0.0, 1), (0.2, 2), (0.4, 3), (0.6, 4))


@dataclass(frozen=True, slots=True)
class Method:
    """What is trained, and how. `start`: the method whose head it begins with. No curriculum: nothing is trained."""

    kind: str
    curriculum: tuple[tuple[float, int], ...] = ()
    start: str = ""
    decay: float = 0.8

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
    "shipped": Method("eagle"),
    "p-eagle, shipped": Method("p-eagle", ((0.0, 4),), "shipped"),
}


@dataclass(frozen=True, slots=True)
class Counts:
    """Rounds, and by position how many drafts were tested and accepted. Lists of `depth` numbers."""

    tokens: int
    rounds: int
    tested: list[int]
    accepted: list[int]


def along(drafter: Drafter, examples: Sequence[Example], width: slice, depth: int, batch: int = 8) -> Counts:
    """Draft along stored answers as greedy decoding would. `width`: the columns of `fused` that the drafter reads."""
    tested, accepted, rounds = [0] * depth, [0] * depth, 0
    for begin in range(0, len(examples), batch):
        group = dict(enumerate(examples[begin : begin + batch], begin))
        texts = {row: e.tokens.tolist() for row, e in group.items()}
        seen = {row: e.prompt for row, e in group.items()}  # committed tokens
        known = {row: e.fused[:, width].to(torch.bfloat16) for row, e in group.items()}
        prompts = [texts[row][: seen[row]] for row in group]
        drafter.start(list(group), prompts, [known[row][: seen[row] - 1] for row in group])
        live = list(group)
        while live:
            rngs = [KeyedRandomness(0, 0, "draft") for _ in live]
            trees, results, features = list[DraftTree](), list[VerifyResult](), list[torch.Tensor]()
            for row, tree in zip(live, drafter.propose(live, DraftBudget(depth), SamplingParams(), rngs), strict=True):
                left = texts[row][seen[row] :]
                tree = tree.cut(min(depth, len(left) - 1))  # as the engine does: no draft past the end
                alike = [a == b for a, b in zip(tree.token_list[1:], left, strict=False)]
                lives = (*alike, False).index(False)
                for position in range(len(tree) - 1):
                    tested[position] += position <= lives
                    accepted[position] += position < lives
                trees.append(tree)
                results.append(VerifyResult(tuple(range(1, lives + 1)), left[lives]))
                features.append(known[row][seen[row] - 1 : seen[row] + lives])
                seen[row] += lives + 1
            rounds += len(live)
            drafter.commit(live, trees, results, features)
            ended = [row for row in live if seen[row] == len(texts[row])]
            drafter.finish(ended)
            live = [row for row in live if row not in ended]
    return Counts(sum(e.response for e in examples), rounds, tested, accepted)


def answered(lab: "Lab", split: str) -> list[Example]:
    """The split's prompts with plain decoding's answers, and the features that any of the drafters reads."""
    folder = lab.work / f"answers-{split}"
    try:
        blocks = open_features([folder])
    except FileNotFoundError:
        texts = stored(lab.model, lab.tokenizer, lab.target, split, lab.answer)
        known = [(task, *text) for task in TASKS for text in texts[task]]
        talks = [Conversation(task, tuple(p), tuple(a), 0.0, i) for i, (task, p, a) in enumerate(known)]
        write_shard(lab.work / f"{split}.npz", talks)
        extract_features(lab.model, [lab.work / f"{split}.npz"], folder, (*lab.layers, lab.last))
        blocks = open_features([folder])
    return [example for block in blocks for example in block.examples()]


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
        """The features that this kind reads, extracted where they are missing; a store that was given is only read."""
        three = kind in ("eagle", "p-eagle")
        if three and self.features is not None:
            return self.features
        folder = self.work / ("three" if three else "last")
        extract_features(self.model, self.corpus, folder, self.layers if three else (self.last,))
        return folder

    def columns(self, kind: str) -> slice:
        """Which columns of the stored answers' features this kind reads."""
        hidden = self.model.config.hidden_size
        return slice(0, 3 * hidden) if kind in ("eagle", "p-eagle") else slice(3 * hidden, 4 * hidden)

    def run(self, name: str) -> Path:
        """The folder of a method's head, trained where it is not yet."""
        method = METHODS[name]
        if not method.curriculum:
            return shipped_folder(Path(self.target).name) or Path()
        folder = self.work / method.folder
        begun = (load_state(folder) or {"progress": {"tokens": 0}})["progress"]["tokens"]
        if begun < self.tokens:
            start = self.run(method.start) if method.start else None
            train(self._settings(method), self.model, [self.store(method.kind)], folder, self._vocabulary(),
                  None if start is None else _tensors(start))  # fmt: skip
        return folder

    def _settings(self, method: Method) -> TrainConfig:
        return TrainConfig(
            version=3 if method.kind in ("eagle", "p-eagle") else 1, kind=method.kind, tokens=self.tokens,
            batch_tokens=512, curriculum=method.curriculum, warmup=10_000, fall=0.6, decay=method.decay,
            bfloat16=self.model.dtype is torch.bfloat16, measure_every=2 * self.tokens,
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
    drafter = build_drafter(kind, target, str(folder))
    for split, examples in texts.items():
        parts = {
            task: along(drafter, [e for e in examples if e.task == task], lab.columns(kind), lab.depth)
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


@torch.inference_mode()
def costs(
    target: Target, drafter: Drafter, example: Example, width: slice, depth: int, times: int = 60
) -> dict[str, float]:
    """Processor milliseconds of a plain step and of a draft, in turn; the draft over the step as a median of ratios."""
    text, clock = example.tokens.tolist(), time.process_time
    prompt, features = text[: example.prompt], example.fused[: example.prompt - 1, width].to(target.dtype)
    target.start([prompt], capacity=len(prompt) + 8)
    drafter.start([0], [prompt], [features])
    root, rngs = [DraftTree(torch.tensor(prompt[-1:]), torch.tensor([-1]))], [KeyedRandomness(0, 0, "draft")]
    steps, drafts = list[float](), list[float]()
    for _ in range(times):
        begin = clock()
        target.forward(root)
        middle = clock()
        drafter.propose([0], DraftBudget(depth), SamplingParams(), rngs)
        steps.append(middle - begin)
        drafts.append(clock() - middle)
    drafter.finish([0])
    ratios = [draft / step for draft, step in zip(drafts, steps, strict=True)]
    return {"step_ms": 1e3 * median(steps), "draft_ms": 1e3 * median(drafts), "draft": round(median(ratios), 4)}


def corpus_files(paths: Sequence[Path], features: Path | None) -> list[Path]:
    """The files of these folders, or those of them that the feature store was made from."""
    files = [file for path in paths for file in (sorted(path.glob("*.npz")) if path.is_dir() else [path])]
    if features is None:
        return files
    stems = {block.name.rpartition("-")[0] for block in open_features([features])}
    return [file for file in files if file.name.split(".")[0] in stems]


def main(argv: Sequence[str] | None = None) -> int:
    """The command of the module docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.after_eagle", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--method", nargs="+", choices=METHODS, default=list(METHODS), help="default: all")
    parser.add_argument("--corpus", nargs="+", type=Path, default=[small_corpus("train")], metavar="PATH",
                        help="files or folders of text to learn from (default: the small corpus)")  # fmt: skip
    parser.add_argument("--features", type=Path, metavar="DIR", help="a store of EAGLE-3 features of that text")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="where runs and features are kept")
    parser.add_argument("--target", default=EMBEDDED, help="model name, folder or Hugging Face id")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16")
    parser.add_argument("--tokens", type=int, default=300_000, help="response tokens to train each on")
    parser.add_argument("--split", nargs="*", choices=["dev", "test"], default=["dev"],
                        help="prompts to measure on (default dev; none: train only)")  # fmt: skip
    parser.add_argument("--answer", type=int, default=128, help="tokens of an answer, at most (default 128)")
    parser.add_argument("--depth", type=int, default=4, help="draft length gamma (default 4)")
    args = parser.parse_args(argv)
    model, tokenizer = load(args.target, dtype=args.dtype, device="cpu", pack=False)
    args.work.mkdir(parents=True, exist_ok=True)
    lab = Lab(model, tokenizer, args.target, corpus_files(args.corpus, args.features), args.features, args.work,
              args.tokens, args.answer, args.depth)  # fmt: skip
    for name in args.method:
        lab.run(name)
    if not args.split:
        return 0
    words = ["python -m benchmarks.after_eagle", *(f"--{key} {value}" for key, value in
             {"tokens": args.tokens, "split": " ".join(args.split), "answer": args.answer}.items())]  # fmt: skip
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
