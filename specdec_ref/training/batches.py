"""Which conversations a training run sees, in which batches; and means of its losses."""

from collections.abc import Iterator, Sequence
from zlib import crc32

from specdec_ref.training.features import Block, Example

__all__ = ["block_name", "cut", "is_held_out", "means"]

_HELD_OUT_ONE_IN = 40  # conversations


def block_name(block: Block) -> str:
    """Its folder and its own name."""
    return f"{block.folder.name}/{block.name}"


def is_held_out(example: Example) -> bool:
    """By dialogue, so that no turn of a held-out conversation is trained on; by prompt where the number is unknown."""
    key = str(example.number) if example.number >= 0 else str(example.tokens[: example.prompt].tolist())
    return crc32(key.encode()) % _HELD_OUT_ONE_IN == 0


def cut(examples: Sequence[Example], tokens: int) -> Iterator[list[Example]]:
    """Consecutive examples until they hold `tokens` response tokens."""
    batch: list[Example] = []
    for example in examples:
        batch.append(example)
        if sum(e.response for e in batch) >= tokens:
            yield batch
            batch = []
    if batch:
        yield batch


def means(losses: Sequence[Sequence[float]]) -> list[float]:
    """Mean by step, over the updates that went that deep."""
    deepest = max(map(len, losses), default=0)
    return [sum(one[j] for one in losses if len(one) > j) / sum(len(one) > j for one in losses) for j in range(deepest)]
