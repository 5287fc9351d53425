"""tau of the drafters that copy, counted on stored answers: the target decodes once, the rest takes seconds.

    python -m benchmarks.copying --split dev
    python -m benchmarks.copying --split dev --depth 6 --remember

At temperature 0 a round depends on the text alone, so rounds can be counted without the target: a draft is accepted as
far as it agrees with the answer that plain decoding gave. The answers are those of the six tasks' held-out prompts and
of the requests in workloads/replay.jsonl, kept in the user's cache. A drafter forgets past answers before each
request of a task (with `--remember`: before each task) and before each episode of the replay; so it never drafts an
answer that it has stored. JSON lines: a row per drafter and task or episode (tau = tokens / rounds), and per drafter
the mean over the tasks and over the episodes.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.command import print_row
from benchmarks.replayed import answers
from specdec_ref.cache import cache_dir
from specdec_ref.config import DraftBudget, SamplingParams, SpecConfig
from specdec_ref.core import Drafter, VerifyResult
from specdec_ref.drafters import DRAFTERS, forget
from specdec_ref.models.hub import EMBEDDED, load
from specdec_ref.training.shards import Conversation, load_corpus, write_shard
from specdec_ref.workloads import HELD_OUT, TASKS, chat_ids, load_episodes, load_prompts

__all__ = ["copied", "main", "stored"]

COPYING = ("ngram", "trie", "suffix")
Text = tuple[Sequence[int], Sequence[int]]  # prompt and answer


def copied(drafter: Drafter, texts: Iterable[Text], budget: DraftBudget, *, cold: bool = False) -> tuple[int, int, int]:
    """(tokens, rounds, drafts) of greedy decoding, one text after the other; `cold`: each without past answers."""
    tokens = rounds = drafts = 0
    for row, (prompt, answer) in enumerate(texts):
        if cold:
            forget(drafter)
        drafter.start([row], [prompt], None)
        at = 0
        while at < len(answer):
            depth = min(budget.depth, len(answer) - at - 1)  # as in the engine: no draft past the end
            (tree,) = drafter.propose([row], replace(budget, depth=depth), SamplingParams(), [])
            tree = tree.cut(depth)
            node, path = 0, list[int]()
            while child := next((c for c in tree.children(node) if tree.token_list[c] == answer[at + len(path)]), 0):
                node = child
                path.append(child)
            drafter.commit([row], [tree], [VerifyResult(tuple(path), answer[at + len(path)])], None)
            at, rounds, drafts = at + len(path) + 1, rounds + 1, drafts + len(tree) - 1
        drafter.finish([row])
        tokens += len(answer)
    return tokens, rounds, drafts


def asked(tokenizer: Any, split: str, most: int | None = None) -> list[tuple[str, list[int]]]:
    """(task, or episode as "replay:id"; token ids) of every request, of a task the first `most`."""
    tasks = (load_prompts([task], split, file=HELD_OUT)[:most] for task in TASKS)
    prompts = [(p.task, p.prompt) for some in tasks for p in some]
    prompts += [(f"replay:{episode.id}", prompt) for episode in load_episodes(split) for prompt in episode.prompts]
    return [(name, chat_ids(tokenizer, prompt)) for name, prompt in prompts]


def stored(
    model: Any, tokenizer: Any, name: str, split: str, tokens: int, most: int | None = None
) -> dict[str, list[Text]]:
    """The answers of plain decoding by task and episode, from the cache if they are there and of these prompts."""
    requests = asked(tokenizer, split, most)
    dtype = str(model.dtype).removeprefix("torch.")
    file = cache_dir() / f"answers-{Path(name).name}-{split}-{tokens}-{dtype}.npz"
    known = list(load_corpus([file])) if file.exists() else []
    if [(text.task, text.prompt) for text in known] != [(task, tuple(prompt)) for task, prompt in requests]:
        said = answers(model, [prompt for _, prompt in requests], int(tokenizer.eos_token_id), tokens)
        known = [
            Conversation(task, tuple(prompt), tuple(answer), 0.0, number)
            for number, ((task, prompt), answer) in enumerate(zip(requests, said, strict=True))
        ]
        write_shard(file, known)
    found: dict[str, list[Text]] = {}
    for text in known:
        found.setdefault(text.task, []).append((text.prompt, text.response))
    return found


def rows(texts: dict[str, list[Text]], drafter: str, depth: int | None, remember: bool) -> Iterator[dict[str, Any]]:
    """A row for each task and episode, and the two means."""
    budget = DraftBudget.suited_to(drafter) if depth is None else DraftBudget(depth)
    copier = DRAFTERS[drafter](None, None, SpecConfig(drafter=drafter))  # type: ignore[arg-type]  # it reads no target
    taus: dict[str, list[float]] = {"tasks": [], "replay": []}
    for name, asked_for in texts.items():
        forget(copier)
        cold = name in TASKS and not remember
        tokens, rounds, drafts = copied(copier, asked_for, budget, cold=cold)
        taus["tasks" if name in TASKS else "replay"].append(tokens / rounds)
        yield {"drafter": drafter, "depth": budget.depth, "of": name, "tokens": tokens, "rounds": rounds,
               "tau": tokens / rounds, "drafts_per_round": drafts / rounds}  # fmt: skip
    for name, some in taus.items():
        yield {"drafter": drafter, "depth": budget.depth, "of": f"mean of {name}", "tau": sum(some) / len(some)}


def main(argv: Sequence[str] | None = None) -> int:
    """The command of the module docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.copying", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--drafter", nargs="+", choices=COPYING, default=list(COPYING), help="default: all three")
    parser.add_argument("--target", default=EMBEDDED, help="model name, folder or Hugging Face id")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16, float64")
    parser.add_argument("--split", choices=["dev", "test"], default="dev", help="tune on dev (default), report on test")
    parser.add_argument("--depth", type=int, default=None, help="draft length gamma (default: what suits each drafter)")
    parser.add_argument("--tokens", type=int, default=128, help="of an answer, at most (default 128)")
    parser.add_argument("--prompts", type=int, default=None, help="the first N prompts a task (default all)")
    parser.add_argument("--remember", action="store_true", help="keep past answers within a task, too")
    args = parser.parse_args(argv)
    model, tokenizer = load(args.target, dtype=args.dtype, device="cpu", pack=False)
    texts = stored(model, tokenizer, args.target, args.split, args.tokens, args.prompts)
    for drafter in args.drafter:
        for row in rows(texts, drafter, args.depth, args.remember):
            print_row({"split": args.split, "remember": args.remember, **row})
    return 0


if __name__ == "__main__":
    sys.exit(main())
