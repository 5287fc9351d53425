"""The shared trie under load: a long stream goes in, and it stays within its capacity and answers quickly.

    python -m benchmarks.trie --tokens 1000000 --capacity 1000000

The stream is a Zipf distribution over a vocabulary (frequencies as in text, order by chance, so little repeats: the
worst case) with copied passages between, where matches are long. One JSON object for each match type: seconds and nodes
while it went in, and the processor's time of a look-up (all suffixes merged into a tree of `--nodes`), taken between
insertions.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

from specdec_ref.config import DraftBudget, TrieOptions
from specdec_ref.drafters.trie import NgramTrie, Node

__all__ = ["main", "measure", "stream"]

COPIED, PASSAGE = 0.3, 40  # share of the tokens that are copied, and from how many at a time
RECENT = 5000  # how far back a passage is copied from


def stream(tokens: int, vocab: int, seed: int = 0) -> Iterator[int]:
    """Zipf draws with copied passages."""
    chance = random.Random(seed)
    weights, said = list(accumulate(1 / (rank + 2.7) for rank in range(vocab))), list[int]()
    while len(said) < tokens:
        if said and chance.random() < COPIED / (COPIED + (1 - COPIED) * PASSAGE):
            begin = chance.randrange(max(0, len(said) - RECENT), len(said))
            new = said[begin : begin + PASSAGE]
        else:
            new = chance.choices(range(vocab), cum_weights=weights)
        said += new
        yield from new


def measure(options: TrieOptions, budget: DraftBudget, tokens: int, vocab: int, every: int) -> dict[str, Any]:
    """Insert the stream; look up before each `every`-th token of its second half."""
    trie, suffixes, most = NgramTrie(options), list[Node](), 0
    spent, sizes, inserting = list[float](), list[int](), 0.0
    for number, token in enumerate(stream(tokens, vocab)):
        if number > tokens // 2 and number % every == 0:
            started = time.process_time()
            draft = trie.draft(suffixes[-1].token, suffixes, budget)
            spent.append(time.process_time() - started)
            sizes.append(len(draft.source))
        started = time.process_time()
        suffixes = trie.follow(suffixes, token)
        inserting += time.process_time() - started
        most = max(most, len(trie))
    spent.sort()
    share = {name: round(1e3 * spent[int(at * (len(spent) - 1))], 4) for name, at in (("median", 0.5), ("p99", 0.99))}
    return {"match": options.match, "tokens": number + 1, "capacity": options.capacity, "most_nodes": most,
            "insert_us_per_token": round(1e6 * inserting / tokens, 1), "lookups": len(spent),
            "mean_nodes_drafted": round(sum(sizes) / len(sizes), 2), "lookup_ms": share}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """The command of the module docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.trie", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--match", nargs="+", choices=["bfs", "prob"], default=["bfs", "prob"])
    parser.add_argument("--tokens", type=int, default=1_000_000)
    parser.add_argument("--capacity", type=int, default=1_000_000, help="nodes (default 1 million)")
    parser.add_argument("--vocab", type=int, default=49_152)
    parser.add_argument("--every", type=int, default=97, help="tokens between two look-ups (default 97)")
    parser.add_argument("--nodes", type=int, default=16, help="of the draft tree, root included (default 16)")
    args = parser.parse_args(argv)
    for match in args.match:
        options = TrieOptions(match, capacity=args.capacity)
        row = measure(options, DraftBudget(8, 10, args.nodes), args.tokens, args.vocab, args.every)
        sys.stdout.write(json.dumps(row) + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
