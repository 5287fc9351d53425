"""How often a head says what the target says, on text that it was not trained on: acceptance without running an engine.

At step j of the unrolled head, column i agrees if its argmax is the target's. A draft lives as long as all its steps
agree, so with greedy decoding, for drafts that start anywhere in the text:

    chain_j = share of columns whose steps 0 .. j all agree            tau(gamma) = 1 + sum of chain_j over j < gamma

Exact for text that the target decoded greedily; on sampled text later steps follow the text, not the argmax.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from specdec_ref.drafters.eagle_head import EagleHead
from specdec_ref.training.features import Example
from specdec_ref.training.unroll import Batch, pack, unroll

__all__ = ["Agreement", "HeldOut", "measure", "prepare"]


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
def measure(head: EagleHead, held_out: Sequence[HeldOut], steps: int) -> Agreement:
    """Agreement at T = 0, to `steps` tokens deep."""
    hits, chains, columns = torch.zeros(steps), torch.zeros(steps), torch.zeros(steps)
    for part in held_out:
        rows = torch.arange(len(part.choice))
        alive = torch.ones(len(rows), dtype=torch.bool)
        for step, (_, g) in enumerate(unroll(head, part.batch, steps)):
            guess = torch.cat([head.logits(piece).argmax(-1) for piece in g.split(256)])
            guess = guess if head.q_vocab is None else head.q_vocab[guess]
            exists = part.batch.guessed(step)
            agrees = guess == part.choice[(rows + step).clamp_max(len(rows) - 1)]
            alive &= agrees
            hits[step] += (agrees & exists).sum()
            chains[step] += (alive & exists).sum()
            columns[step] += exists.sum()
    shares = columns.clamp_min(1)
    return Agreement(tuple((hits / shares).tolist()), tuple((chains / shares).tolist()))
