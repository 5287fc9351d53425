"""How often a head says what the target says, on text that it was not trained on: acceptance without running an engine.

At step j of the unrolled head, column i agrees if its argmax is the target's. A draft lives as long as all its steps
agree, so with greedy decoding, for drafts that start anywhere in the text:

    chain_j = share of columns whose steps 0 .. j all agree            tau(gamma) = 1 + sum of chain_j over j < gamma

Exact for text that the target decoded greedily; on sampled text later steps follow the text, not the argmax.

`replay` counts rounds instead: a draft of which n tokens agree takes the text n + 1 tokens further. On greedy text this
gives the tau of the engine with chains, without running it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from specdec_ref.training.features import Example
from specdec_ref.training.unroll import Batch, Unroll, pack, unroll

__all__ = ["Agreement", "HeldOut", "measure", "prepare", "replay"]


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A packed batch and the target's argmax for each of its rows, computed once."""

    batch: Batch
    choice: Int[Tensor, " queries"]


@dataclass(frozen=True, slots=True)
class Agreement:
    """`single[j]`: step j agrees; `chain[j]`: steps 0 .. j do. Shares of the columns that have step j."""

    single: tuple[float, ...]
    chain: tuple[float, ...]

    @property
    def tau(self) -> float:
        """Expected tokens a target forward, the bonus included, for chains as long as `chain`."""
        return 1.0 + sum(self.chain)


@torch.inference_mode()
def prepare(
    examples: Sequence[Example], lm_head: Float[Tensor, "vocab hidden"], texts_a_batch: int = 12
) -> list[HeldOut]:
    """Read the examples and score them with the target's whole LM head."""
    cuts = range(0, len(examples), texts_a_batch)
    batches = [pack(examples[i : i + texts_a_batch], lm_head.dtype).to(lm_head.device) for i in cuts]
    choices = [torch.cat([(rows @ lm_head.T).argmax(-1) for rows in batch.final.split(256)]) for batch in batches]
    return [HeldOut(batch, choice) for batch, choice in zip(batches, choices, strict=True)]


@torch.inference_mode()
def measure(head: Any, held_out: Sequence[HeldOut], steps: int, unroll: Unroll = unroll) -> Agreement:
    """Agreement at T = 0, to `steps` tokens deep. `unroll`: another than an EAGLE head's, see `kinds.py`."""
    hits, chains, columns = torch.zeros(steps), torch.zeros(steps), torch.zeros(steps)
    for part in held_out:
        alive = torch.ones(len(part.choice), dtype=torch.bool)
        for step, (agrees, exists) in enumerate(_agreements(head, part, steps, unroll)):
            alive &= agrees
            hits[step] += (agrees & exists).sum()
            chains[step] += (alive & exists).sum()
            columns[step] += exists.sum()
    shares = columns.clamp_min(1)
    return Agreement(tuple((hits / shares).tolist()), tuple((chains / shares).tolist()))


@torch.inference_mode()
def replay(head: Any, held_out: Sequence[HeldOut], gamma: int) -> list[tuple[int, int]]:
    """(tokens, rounds) of each text if chains of `gamma` greedy drafts had decoded it; their quotient is tau."""
    counts = list[tuple[int, int]]()
    for part in held_out:
        alive, lives = torch.ones(len(part.choice), dtype=torch.bool), torch.zeros(len(part.choice), dtype=torch.long)
        for agrees, exists in _agreements(head, part, gamma, unroll):
            alive &= agrees & exists
            lives += alive
        for _, queries in part.batch.spans:
            ahead, rounds = queries.start, 0
            while ahead < queries.stop:
                ahead, rounds = ahead + int(lives[ahead]) + 1, rounds + 1
            counts.append((queries.stop - queries.start, rounds))
    return counts


def _agreements(head: Any, part: HeldOut, steps: int, unroll: Unroll) -> Iterator[tuple[Tensor, Tensor]]:
    """(the head agrees with the target, the guess is within the text) for each column, step by step."""
    rows = torch.arange(len(part.choice))
    for step, (_, g) in enumerate(unroll(head, part.batch, steps)):
        guess = torch.cat([head.logits(piece).argmax(-1) for piece in g.split(256)])
        guess = guess if head.q_vocab is None else head.q_vocab[guess]
        yield guess == part.choice[(rows + step).clamp_max(len(rows) - 1)], part.batch.guessed(step)
