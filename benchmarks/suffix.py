"""Suffix decoding under load: many answers go through a drafter, and it stays bounded and answers quickly.

    python -m benchmarks.suffix --tokens 1000000 --capacity 1000000

The stream is that of `benchmarks.trie` (Zipf draws with copied passages), cut into requests of `--request` tokens, a
quarter of each being its prompt. Look-ups are taken in the second half, between insertions, each in the local and the
global tree. One JSON object: the processor's time per look-up and per committed token, the most nodes that the global
tree had, and the process's peak memory.
"""

import argparse
import json
import resource
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from benchmarks.trie import stream
from specdec_ref.config import DraftBudget, SuffixOptions
from specdec_ref.drafters.suffix import SuffixDrafter

__all__ = ["main", "measure"]


def measure(
    options: SuffixOptions, budget: DraftBudget, texts: Iterable[list[int]], every: int, after: int
) -> dict[str, Any]:
    """Feed the texts one after the other; look up before each `every`-th token once `after` tokens are in."""
    drafter, spent, sizes = SuffixDrafter(options), list[float](), list[int]()
    tokens, most, inserting = 0, 0, 0.0
    for row, text in enumerate(texts):
        prompt = len(text) // 4 + 1
        started = time.process_time()
        drafter.start([row], [text[:prompt]], None)
        inserting += time.process_time() - started
        for token in text[prompt:]:
            if tokens > after and tokens % every == 0:
                started = time.process_time()
                draft = drafter.draft(row, budget)
                spent.append(time.process_time() - started)
                sizes.append(len(draft.nodes.tokens))
            started = time.process_time()
            drafter.extend(row, [token])
            inserting += time.process_time() - started
            tokens += 1
        tokens += prompt
        started = time.process_time()
        drafter.finish([row])
        inserting += time.process_time() - started
        most = max(most, drafter.everyone.size)
    spent.sort()
    lookup = {name: round(1e3 * spent[int(at * (len(spent) - 1))], 4) for name, at in (("median", 0.5), ("p99", 0.99))}
    return {
        "tokens": tokens, "capacity": options.capacity, "tokens_kept": len(drafter.everyone), "most_nodes": most,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "insert_us_per_token": round(1e6 * inserting / tokens, 1), "lookups": len(spent),
        "mean_nodes_drafted": round(sum(sizes) / len(sizes), 2), "lookup_ms": lookup,
    }  # fmt: skip


def requests(tokens: int, vocab: int, length: int) -> Iterator[list[int]]:
    """The stream in pieces."""
    source = stream(tokens, vocab)
    while text := list(islice(source, length)):
        yield text


def main(argv: Sequence[str] | None = None) -> int:
    """The command of the module docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.suffix", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", type=int, default=1_000_000)
    parser.add_argument("--capacity", type=int, default=1_000_000, help="tokens of past answers (default 1 million)")
    parser.add_argument("--vocab", type=int, default=49_152)
    parser.add_argument("--request", type=int, default=400, help="tokens of a request (default 400)")
    parser.add_argument("--every", type=int, default=97, help="tokens between two look-ups (default 97)")
    parser.add_argument("--depth", type=int, default=16, help="draft tokens at most (default 16)")
    parser.add_argument("--topk", type=int, default=1, help="children per node (default 1: a chain)")
    args = parser.parse_args(argv)
    texts = requests(args.tokens, args.vocab, args.request)
    budget, options = DraftBudget(args.depth, args.topk), SuffixOptions(capacity=args.capacity)
    row = measure(options, budget, texts, args.every, args.tokens // 2)
    sys.stdout.write(json.dumps(row) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
