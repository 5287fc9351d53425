"""What drafters that read features accept and cost, without running the target again.

`along` drafts along stored greedy answers with the stored features, as the engine would; `costs` times a draft beside
a plain step.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import torch

from specdec_ref.config import DraftBudget, SamplingParams
from specdec_ref.core import Drafter, DraftTree, VerifyResult
from specdec_ref.models.target import Target
from specdec_ref.randomness import KeyedRandomness
from specdec_ref.training.features import Example

__all__ = ["Counts", "along", "costs"]


@dataclass(frozen=True, slots=True)
class Counts:
    """Rounds, and by position how many drafts were tested and accepted. Lists of `depth` numbers."""

    tokens: int
    rounds: int
    tested: list[int]
    accepted: list[int]


def along(
    drafter: Drafter, examples: Sequence[Example], width: slice, depth: int, dtype: torch.dtype, batch: int = 8
) -> Counts:
    """Draft along stored answers as greedy decoding would, with features in the target's `dtype`.

    `width`: the columns of `fused` that the drafter reads.
    """
    tested, accepted, rounds = [0] * depth, [0] * depth, 0
    for begin in range(0, len(examples), batch):
        group = dict(enumerate(examples[begin : begin + batch], begin))
        texts = {row: e.tokens.tolist() for row, e in group.items()}
        seen = {row: e.prompt for row, e in group.items()}  # committed tokens
        known = {row: _features(e, width, dtype) for row, e in group.items()}
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


def _features(example: Example, width: slice, dtype: torch.dtype) -> torch.Tensor:
    """Features of all tokens but the last. Nothing is drafted from the last row, so it is zero."""
    known = example.fused[:, width].to(dtype)
    return torch.cat([known, torch.zeros_like(known[:1])])


@torch.inference_mode()
def costs(
    target: Target, drafter: Drafter, example: Example, width: slice, depth: int, times: int = 60
) -> dict[str, float]:
    """Processor milliseconds of a plain step, a draft and the check of it, in turn.

    `draft` and `check` are over the plain step, as medians of ratios; `check`, of `depth` + 1 tokens, is v(depth + 1).
    """
    text, clock = example.tokens.tolist(), time.process_time
    prompt, features = text[: example.prompt], example.fused[: example.prompt - 1, width].to(target.dtype)
    target.start([prompt], capacity=len(prompt) + 8)
    drafter.start([0], [prompt], [features])
    root, rngs = [DraftTree(torch.tensor(prompt[-1:]), torch.tensor([-1]))], [KeyedRandomness(0, 0, "draft")]
    chain = [DraftTree(torch.tensor(prompt[-1:] * (depth + 1)), torch.arange(-1, depth))]
    parts: tuple[Callable[[], object], ...] = (
        lambda: target.forward(root),
        lambda: drafter.propose([0], DraftBudget(depth), SamplingParams(), rngs),
        lambda: target.forward(chain),
    )
    taken: list[list[float]] = [[], [], []]
    for _ in range(times):
        for part, seconds in zip(parts, taken, strict=True):
            begin = clock()
            part()
            seconds.append(clock() - begin)
    drafter.finish([0])
    steps, drafts, checks = taken
    draft, check = (median(a / b for a, b in zip(part, steps, strict=True)) for part in (drafts, checks))
    return {"step_ms": 1e3 * median(steps), "draft_ms": 1e3 * median(drafts), "draft": round(draft, 4),
            "check": round(check, 4)}  # fmt: skip
