"""Training an EAGLE head on cached features: training-time test, a frozen LM head, exact resume.

    loss = sum over steps j of 0.8^j * mean over response tokens of loss_j           (EAGLE-3's training code)

Positions whose answer lies outside the draft vocabulary are left out: the head cannot say it. The unrolling deepens
as training goes on (`curriculum`), since step 0 costs least and all later steps build on it. Everything that happens is
a function of (config, blocks on disk): a run that was stopped and resumed ends with the same weights, bit for bit.

Two things make it fast (response tokens a CPU second, one core with AVX512-BF16, SmolLM2-135M, 8 k draft tokens):
a column whose guess was wrong mostly stops there, as a draft would (`rejected_share`: at 4 steps 1,550 against 930 if
all go on); and products in `bfloat16` where the CPU has them (2,700 against 870 at one step; elsewhere slower).
"""

import json
import math
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn
from tqdm import tqdm

from specdec_ref.drafters.eagle_head import Version
from specdec_ref.training.agreement import HeldOut, measure, prepare
from specdec_ref.training.batches import block_name, cut, is_held_out, means
from specdec_ref.training.checkpoint import Progress, assign, load_state, save
from specdec_ref.training.features import Example, open_features
from specdec_ref.training.kinds import KINDS
from specdec_ref.training.losses import distribution_loss, feature_loss, sample_vocabulary, target_distribution
from specdec_ref.training.parallel import Workers
from specdec_ref.training.unroll import Batch, pack
from specdec_ref.weights.heads import q_vocab_of

__all__ = ["TrainConfig", "draft_vocabulary", "train"]


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How to train. `tokens` is the budget in response tokens, over as many passes as it takes.

    `curriculum`: (share of the budget, unrolled steps) in rising order, the first at 0. The learning rate rises
    linearly over `warmup` tokens, stays, and falls along a cosine over the last `fall` of the budget.
    """

    version: Version = 3
    kind: str = "eagle"  # of `kinds.KINDS`; `version` says whose features it reads
    tokens: int = 4_000_000
    batch_tokens: int = 1024
    curriculum: tuple[tuple[float, int], ...] = ((0.0, 1), (0.2, 2), (0.4, 3), (0.6, 4))
    loss: str = "cross_entropy"
    loss_vocab: int = 0  # draft tokens that the loss of an update looks at, see `sample_vocabulary`; 0: all
    feature_weight: float = 0.0  # EAGLE-1's feature regression; its paper has 1.0, with 0.1 for the distribution
    distribution_weight: float = 1.0
    decay: float = 0.8  # weight of a step relative to the one before
    rate: float = 1e-3
    warmup: int = 50_000
    fall: float = 1.0
    weight_decay: float = 0.01
    clip: float = 1.0
    rejected_share: float = 0.25  # of the columns with a wrong guess, those that go a step deeper all the same; 1: all
    bfloat16: bool = False  # matrix products in bfloat16 (weights, optimiser and losses stay float32): see below
    seed: int = 0
    held_out: int = 96  # conversations
    measure_steps: int = 4
    measure_every: int = 100_000  # tokens
    save_every: float = 240.0  # seconds

    def __post_init__(self) -> None:
        starts = [start for start, _ in self.curriculum]
        if not starts or starts[0] != 0.0 or any(a >= b for a, b in pairwise(starts)):
            raise ValueError(f"the curriculum must begin at 0.0 and rise, got {self.curriculum}")
        if self.tokens < 1 or self.batch_tokens < 1 or not 0.0 <= self.fall <= 1.0:
            raise ValueError("tokens and batch_tokens must be positive, fall a share from 0 to 1")

    def depth(self, tokens: int) -> int:
        """Unrolled steps after so many tokens."""
        return [steps for start, steps in self.curriculum if tokens >= start * self.tokens][-1]

    def learning_rate(self, tokens: int) -> float:
        """The rate after so many tokens."""
        rise = min(1.0, (tokens + self.batch_tokens) / max(1, self.warmup))
        left = (self.tokens - tokens) / max(1.0, self.fall * self.tokens)
        return self.rate * rise * (0.5 - 0.5 * math.cos(math.pi * min(1.0, max(0.0, left))))


def draft_vocabulary(texts: Iterable[Sequence[int]], size: int, vocab: int) -> Int[Tensor, " draft_vocab"]:
    """The `size` most frequent tokens of these texts, sorted by id; unseen ones from id 0 fill it up."""
    counts: Counter[int] = Counter()
    for text in texts:
        counts.update(text)
    ranked = sorted(range(vocab), key=lambda token: (-counts[token], token))
    return torch.tensor(sorted(ranked[:size]))


def train(
    config: TrainConfig, target: nn.Module, features: Sequence[Path], folder: Path,
    q_vocab: Int[Tensor, " draft_vocab"] | None = None, start: dict[str, Tensor] | None = None,
    passes: int | None = None,
) -> Any:  # fmt: skip
    """Train to the end of the budget, or until SIGTERM or SIGINT; resumes from `folder` if it holds a checkpoint.

    `features`: folders of `extract_features`; they may grow, a new pass sees what has come. `start`: trained tensors
    of a head to begin with, with its own d2t. `passes`: stop after so many more; the next call may bring new features.
    Writes checkpoints and `log.jsonl` to `folder` and returns the head, on the target's device.
    Raises FileNotFoundError if there are no features, ValueError if `start` is another kind of head.
    """
    with torch.device(next(target.parameters()).device):  # what is made in here without a device is made there
        return _train(_Run(config, target, features, folder, q_vocab, start), passes)


def _train(run: "_Run", passes: int | None) -> Any:
    config, last = run.config, None if passes is None else run.progress.passes + passes
    bar = tqdm(total=config.tokens, initial=run.progress.tokens, unit="tok", unit_scale=True, desc="train",
               mininterval=0.5 if sys.stderr.isatty() else 60.0)  # fmt: skip
    with run.workers.until_stopped() as stopped, bar:
        while run.progress.tokens < config.tokens and not stopped() and run.progress.passes != last:
            for examples in run.batches():
                before = run.progress.tokens
                losses = run.step(pack(run.workers.share(examples)).to(run.device))
                bar.update(run.progress.tokens - before)
                bar.set_postfix(loss=f"{losses[0]:.3f}", steps=len(losses), refresh=False)
                if stopped() or run.progress.tokens >= config.tokens:
                    break
            else:
                run.end_pass()
        run.save()
    return run.head


class _Run:
    """One training run in memory."""

    def __init__(
        self, config: TrainConfig, target: nn.Module, features: Sequence[Path], folder: Path, q_vocab: Tensor | None,
        start: dict[str, Tensor] | None,
    ) -> None:  # fmt: skip
        self.config, self.features, self.folder, self.workers = config, features, folder, Workers()
        self.device, state, self.kind = next(target.parameters()).device, load_state(folder), KINDS[config.kind]
        known = start if state is None else state["tensors"]
        if known is not None:
            known = {name: tensor.to(self.device) for name, tensor in known.items()}
            q_vocab = q_vocab_of(known["d2t"]) if "d2t" in known else None
        q_vocab = None if q_vocab is None else q_vocab.to(self.device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.head = self.kind.new(target, config.version, q_vocab)
        trained = [p for p in self.head.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, betas=(0.9, 0.95), weight_decay=config.weight_decay)
        lm_head = self.head.lm_head.weight.detach()
        self.frozen = lm_head.bfloat16() if config.bfloat16 else lm_head
        self.progress = Progress()
        if known is not None:
            assign(self.head, known, self.kind.own if state is None else ())
        if state is not None:
            self.optimizer.load_state_dict(state["optimizer"])
            self.progress = Progress(**state["progress"])
        self.known = torch.ones(target.config.vocab_size, dtype=torch.bool)  # type: ignore[union-attr, arg-type]
        if q_vocab is not None:
            self.known.zero_()[q_vocab] = True
        self.lm_head = target.get_output_embeddings().weight.float()  # type: ignore[operator]
        self.held_out, self.losses = list[HeldOut](), list[list[float]]()
        self.clock, self.saved, self.counted = time.monotonic(), time.monotonic(), self.progress.tokens

    def batches(self) -> Iterator[list[Example]]:
        """The rest of this pass: all blocks' examples but the held-out ones, shuffled, cut to the batch size."""
        progress, blocks = self.progress, open_features(self.features)
        if not progress.blocks:
            progress.blocks = [block_name(block) for block in blocks]
        found = {block_name(block): block for block in blocks}
        missing = [name for name in progress.blocks if name not in found]
        if missing:
            raise FileNotFoundError(f"this run was stopped within a pass over {missing[0]}, which is gone: start anew")
        examples = [e for name in progress.blocks for e in found[name].examples()]
        if not self.held_out:
            aside = [e for e in examples if is_held_out(e)] or examples[:1]
            chosen = Random(self.config.seed).sample(aside, min(len(aside), self.config.held_out))
            self.held_out = prepare(chosen, self.lm_head)
            self.report()
        order = [e for e in examples if not is_held_out(e)]
        Random(f"{self.config.seed}:{progress.passes}").shuffle(order)
        batches = [batch for batch in cut(order, self.config.batch_tokens) if len(batch) >= self.workers.size]
        yield from batches[progress.batch :]

    def step(self, batch: Batch) -> list[float]:
        """One update. Returns the losses by unrolled step, in nats a token."""
        config, progress = self.config, self.progress
        total, losses = self._loss(batch)
        self.optimizer.zero_grad()
        total.backward()
        self.workers.sum_gradients(self.head.parameters())
        nn.utils.clip_grad_norm_(self.head.parameters(), config.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate(progress.tokens)
        self.optimizer.step()
        before = progress.tokens
        progress.steps, progress.batch = progress.steps + 1, progress.batch + 1
        progress.tokens += int(self.workers.total(len(batch.query)))
        self.losses.append(losses)
        if before // config.measure_every != progress.tokens // config.measure_every:
            self.report()
        if time.monotonic() - self.saved > config.save_every:
            self.save()
        return losses

    def _loss(self, batch: Batch) -> tuple[Tensor, list[float]]:
        """The loss of an update and, by unrolled step, its mean in nats a token."""
        config, head = self.config, self.head
        coins = torch.Generator().manual_seed((config.seed << 32) + self.progress.steps)
        dist, weight, bias, spoken = target_distribution(batch.final, self.frozen), self.frozen, None, head.q_vocab
        learned = self.kind.learned(head)
        if 0 < config.loss_vocab < len(weight):
            sample = sample_vocabulary(dist, config.loss_vocab, coins)
            dist, weight, bias = sample.distribution(dist), weight[sample.tokens], sample.bias
            spoken = sample.tokens if spoken is None else spoken[sample.tokens]
            learned = None if learned is None else learned[sample.tokens]
        total, losses, right = torch.zeros(()), list[float](), torch.zeros(0, dtype=torch.bool)

        def stay(step: int, rows: Tensor) -> Tensor:
            lucky = torch.rand(len(rows), generator=coins, device="cpu").to(self.device) < config.rejected_share
            return batch.guessed(step)[rows] & (right | lucky)

        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=config.bfloat16):
            for step, (rows, g) in enumerate(self.kind.unroll(head, batch, config.depth(self.progress.tokens), stay)):
                answers = batch.answers(step)[rows]
                used = (batch.guessed(step)[rows] & self.known[answers]).nonzero()[:, 0]
                g, goal = g[used].to(batch.final.dtype), rows[used] + step
                with torch.autocast("cpu", enabled=False):
                    read = head.prepare_logits(g)
                    loss, guess = distribution_loss(read, weight, dist, goal, config.loss, bias, learned)
                    hit = answers[used] == (guess if spoken is None else spoken[guess])
                    whole = config.distribution_weight * loss
                    if config.feature_weight:
                        whole = whole + config.feature_weight * feature_loss(g, batch.final[goal])
                    if self.kind.extra is not None:
                        whole = whole + self.kind.extra(head, g, hit)
                right = torch.zeros(len(rows), dtype=torch.bool)
                right[used] = hit
                count = max(1.0, self.workers.total(len(used)))
                total = total + config.decay**step * whole / count
                losses.append(self.workers.total(float(loss.detach())) / count)
        return total, losses

    def end_pass(self) -> None:
        """All blocks of the pass are done; the next one begins with those that are there by then."""
        self.progress.passes, self.progress.batch, self.progress.blocks = self.progress.passes + 1, 0, []

    def report(self) -> None:
        """One line of the log: losses since the last one, agreement with the target on the held-out conversations."""
        if self.workers.rank:
            return
        progress = self.progress
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.config.bfloat16):
            found = measure(self.head, self.held_out, self.config.measure_steps, self.kind.unroll)
        now = time.monotonic()
        line: dict[str, Any] = {
            "tokens": progress.tokens, "steps": progress.steps, "pass": progress.passes, "blocks": len(progress.blocks),
            "depth": self.config.depth(progress.tokens), "rate": self.config.learning_rate(progress.tokens),
            "loss": means(self.losses), "single": found.single, "chain": found.chain, "tau": found.tau,
            "tokens_per_second": (progress.tokens - self.counted) / (now - self.clock),
        }  # fmt: skip
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "log.jsonl").open("a", encoding="utf8") as log:
            log.write(json.dumps(line) + "\n")
        self.losses, self.clock, self.counted = [], time.monotonic(), progress.tokens

    def save(self) -> None:
        """A checkpoint."""
        if self.workers.rank == 0:
            save(self.folder, self.head, self.optimizer, self.progress)
        self.saved = time.monotonic()
