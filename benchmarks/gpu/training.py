"""Step 4: an EAGLE head from more text than a laptop can write, over as many visits as it takes.

    corpus   the target answers prompts, 1024 conversations a unit                  a file of about 1 MB each
    train    features of one such file, in a scratch folder, and one pass over them  the checkpoint, in pieces of 30 MB
    tau      tokens per round of the new head and of the one that is shipped         on the held-out prompts

Only corpus and checkpoint are kept between visits: features are 4 kB a token, and computing them again is cheap.
"""

import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from benchmarks.gpu import bundle
from benchmarks.gpu.journal import Facts
from specdec_ref.config import DraftBudget
from specdec_ref.drafters import build_drafter
from specdec_ref.engine import SpecEngine
from specdec_ref.models.hub import load
from specdec_ref.models.target import Target
from specdec_ref.request import Limits
from specdec_ref.training.recipe import PRESETS, Recipe, fit, read_log, write_corpus, write_features
from specdec_ref.weights import shipped_folder
from specdec_ref.workloads import HELD_OUT, chat_ids, load_prompts

__all__ = ["Plan", "units"]

PORTION, TOKENS_EACH, EPOCHS = 1024, 150, 2  # conversations, their response tokens on average, passes over all of them


@dataclass(frozen=True)
class Plan:
    """The target, where it runs, the folder of corpus and checkpoint, and how many response tokens are wanted."""

    target: str
    device: str
    folder: Path
    tokens: int

    @property
    def portions(self) -> int:
        """Corpus files."""
        return -(-self.tokens // (PORTION * TOKENS_EACH)) if self.device == "cuda" else 1

    @property
    def recipe(self) -> Recipe:
        """The full preset at this size; in a dry run the smallest that does everything once."""
        if self.device == "cuda":
            full = PRESETS["full"]
            corpus = replace(full.corpus, rows=256, shard_size=PORTION)
            return replace(full, corpus=corpus, train=replace(full.train, tokens=EPOCHS * self.tokens))
        tiny = PRESETS["tiny"]
        corpus = replace(tiny.corpus, rows=4, shard_size=4, max_response=24, max_long_response=24)
        train = replace(
            tiny.train, tokens=120, batch_tokens=64, curriculum=((0.0, 1), (0.5, 2)), held_out=1, measure_every=50
        )
        return replace(tiny, corpus=corpus, train=train)


def units(plan: Plan) -> dict[str, Callable[[], Facts]]:
    """Corpus files, then passes over each, then the comparison."""
    epochs = EPOCHS if plan.device == "cuda" else 1
    return {
        **{f"corpus-{k:04d}": partial(corpus, plan, k) for k in range(plan.portions)},
        **{f"train-{e}-{k:04d}": partial(train, plan, k) for e in range(epochs) for k in range(plan.portions)},
        "tau": partial(tau, plan),
    }


@cache
def _model(plan: Plan) -> tuple[Any, Any]:
    dtype = "auto" if plan.device == "cuda" else "float32"
    return load(plan.target, dtype=dtype, device=plan.device, pack=False)


def corpus(plan: Plan, portion: int) -> Facts:
    """One more corpus file."""
    each = PORTION if plan.device == "cuda" else 4
    config = replace(plan.recipe.corpus, conversations=(portion + 1) * each)
    return {"conversations": write_corpus(config, *_model(plan), plan.folder / "corpus")}


def train(plan: Plan, portion: int) -> Facts:
    """One pass over one corpus file. The first begins with the shipped head, if there is one for this target."""
    files = sorted((plan.folder / "corpus").glob("*.npz"))[portion :: plan.portions]
    with unpacked(plan.folder / "checkpoint") as folder, tempfile.TemporaryDirectory() as scratch:
        model, features = _model(plan)[0], Path(scratch)
        added = write_features(model, files, features, 3)
        fit(
            plan.recipe.train,
            model,
            [features],
            folder,
            draft_vocab=plan.recipe.draft_vocab,
            start=shipped_folder(Path(plan.target).name),
            passes=1,
        )
        last = read_log(folder)[-1]
    return {"response_tokens": added, **{name: last[name] for name in ("tokens", "loss", "chain", "tau")}}


def tau(plan: Plan) -> Facts:
    """Greedy chains of four on held-out prompts: mean tokens per round of the new head and of the shipped one."""
    model, tokenizer = _model(plan)
    target, count, new = Target(model), *((96, 128) if plan.device == "cuda" else (1, 8))
    prompts = [chat_ids(tokenizer, prompt.prompt) for prompt in load_prompts(split="test", file=HELD_OUT)[:count]]
    found: Facts = {"prompts": len(prompts), "new_tokens": new, "depth": 4}
    with unpacked(plan.folder / "checkpoint") as folder:
        for name, head in (("new", folder), ("shipped", shipped_folder(Path(plan.target).name))):
            if head is not None:
                drafter = build_drafter("eagle", target, str(head))
                engine = SpecEngine(target, drafter, budget=DraftBudget(depth=4), limits=Limits(new))
                found[name] = statistics.fmean(done.stats.tau for done in engine.generate(prompts))
    return found


@contextmanager
def unpacked(folder: Path) -> Iterator[Path]:
    """The checkpoint's folder, joined from its pieces for as long as it is used, and split again afterwards."""
    pieces = folder.with_name(f"{folder.name}.pieces")
    if pieces.is_dir():
        bundle.join(pieces, folder)
    yield folder
    for file in sorted(path for path in folder.iterdir() if path.is_file()):
        bundle.split(file, pieces)
    for file in folder.iterdir():
        file.unlink()
