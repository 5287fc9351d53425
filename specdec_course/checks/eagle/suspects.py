"""The wrong answers to exercise 03 that people give, each with the sentence that explains it. They serve `examine`."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from specdec_course.checks.examine import Suspect
from specdec_ref.core import DraftTree, Randomness

__all__ = ["COMMITS", "DRAFTS", "MASKS", "VOCABULARIES", "eagle_chain"]

Texts = list[list[int]]


def _map(
    d2t: Callable[[Tensor], Tensor] = lambda ids: ids - torch.arange(len(ids)),
    rank: Callable[[int, int], Any] = lambda token, count: (-count, token),
    by_id: bool = True,
    mark: Callable[[Tensor, int], Tensor] = lambda ids, vocab: torch.isin(torch.arange(vocab), ids),
) -> Callable[[Texts, int, int], tuple[Tensor, Tensor]]:
    """The right answer, with what is given in place of its parts."""

    def answer(texts: Texts, size: int, vocab: int) -> tuple[Tensor, Tensor]:
        counts = Counter(token for text in texts for token in text)
        best = sorted(range(vocab), key=lambda token: rank(token, counts[token]))[:size]
        ids = torch.tensor(sorted(best) if by_id else best)
        return d2t(ids), mark(ids, vocab)

    return answer


VOCABULARIES = (  # (texts, size, vocab) -> d2t, t2d
    Suspect(
        "d2t holds the ids themselves. A checkpoint holds offsets: what has to be added to the draft id.",
        _map(d2t=lambda ids: ids),
    ),
    Suspect(
        "The offsets have the wrong sign: they are added to the draft id, not taken from it.",
        _map(d2t=lambda ids: torch.arange(len(ids)) - ids),
    ),
    Suspect(
        "The draft words are numbered in the order of their frequency. They must be sorted by target id: t2d is a "
        "mask, so it implies that order.",
        _map(by_id=False),
    ),
    Suspect(
        "Of two words that are equally frequent it keeps the one with the larger id.",
        _map(rank=lambda token, count: (-count, -token)),
    ),
    Suspect(
        "It keeps the rarest words. A draft needs those that will be said most often.",
        _map(rank=lambda token, count: (count, token)),
    ),
    Suspect(
        "It counts the texts that a word is in. If one text repeats a word, each occurrence of it counts.",
        lambda texts, size, vocab: _map()([list(set(text)) for text in texts], size, vocab),
    ),
    Suspect("It keeps the words with the smallest ids, however rare they are.", _map(rank=lambda token, count: token)),
    Suspect(
        "t2d marks what is left out. It is true where a word of the target has a draft word.",
        _map(mark=lambda ids, vocab: ~torch.isin(torch.arange(vocab), ids)),
    ),
)


def _chain(
    token: Callable[[Any, int], int] = lambda head, column: int(head.q_vocab[column]),
    fed: Callable[[Any, int, int, int], int] = lambda head, word, column, root: word,
    after: Callable[[Any, Tensor, Tensor], Tensor] = lambda head, g, first: g,
    pick: Callable[[Randomness, Tensor], int] = lambda rng, q: rng.draw(q),
    read: Callable[[Any, Tensor, list[int]], Tensor] = lambda head, features, text: head.read(features, text[1:]),
    back: Callable[[Any, Tensor, int], Tensor] = lambda head, g, word: head.step(g, word),
    point: bool = False,
) -> Callable[[Any, Tensor, list[int], int, Randomness], DraftTree]:
    """The right loop, with what is given in place of its parts."""

    def answer(head: Any, features: Tensor, text: list[int], gamma: int, rng: Randomness) -> DraftTree:
        first = g = read(head, features, text)
        chain, dists = [text[-1]], []
        for _ in range(gamma):
            q = head.logits(g).softmax(-1)
            column = pick(rng, q)
            dists.append(q)
            chain.append(token(head, column))
            g = back(head, after(head, g, first), fed(head, chain[-1], column, text[-1]))
        tokens, parents = torch.tensor(chain), torch.arange(-1, gamma)
        if point:
            return DraftTree(tokens, parents)
        return DraftTree(tokens, parents, "iid", torch.stack([*dists, torch.zeros_like(dists[0])]), head.q_vocab)

    return answer


eagle_chain = _chain()

DRAFTS = (  # (head, features, text, gamma, rng) -> DraftTree
    Suspect(
        "The token that was drawn is not fed back, as in the tutorial's loop: the head sees g and always the text's "
        "last token. g cannot contain what was drawn from it.",
        _chain(fed=lambda head, word, column, root: root),
    ),
    Suspect(
        "g stays what it was after the text. Where the target's features end, the head's own last output is the next "
        "feature.",
        _chain(after=lambda head, g, first: first),
    ),
    Suspect(
        "`head.step` is never called, or its result is not used: every word is drafted from the g of the text, as if "
        "it were the first.",
        _chain(back=lambda head, g, word: g),
    ),
    Suspect(
        "The draft id is fed back. The embedding expects target ids: map first, then feed.",
        _chain(fed=lambda head, word, column, root: column),
    ),
    Suspect(
        "Draft ids are in the tree. Draft word 1 is another word for the target: map it with `head.q_vocab`.",
        _chain(token=lambda head, column: column, fed=lambda head, word, column, root: column),
    ),
    Suspect(
        "Draft ids are in the tree, although the right words are fed back: map them with `head.q_vocab`.",
        _chain(token=lambda head, column: column, fed=lambda head, word, column, root: int(head.q_vocab[column])),
    ),
    Suspect(
        "It drafts the likeliest word and calls it drawn from q. A tree marked iid has to be drawn.",
        _chain(pick=lambda rng, q: int(q.argmax())),
    ),
    Suspect(
        "It draws each word from q, but marks the chain as chosen without chance: then the verifier uses p alone.",
        _chain(point=True),
    ),
    Suspect(
        "Feature i is beside token i. It belongs beside token i + 1, the one that was chosen from it.",
        _chain(read=lambda head, features, text: head.read(features, text[:-1])),
    ),
)


def _commit(
    kept: Callable[[int, int, int], int] = lambda verified, own, accepted: verified,
    rows: Callable[[int, int], Sequence[int]] = lambda accepted, nodes: range(accepted + 1),
    tokens: Callable[[list[int], int, int], list[int]] = lambda chain, accepted, own: [*chain[1 : accepted + 1], own],
) -> Callable[..., Any]:
    """The right answer, with what is given in place of its parts."""

    def answer(verified: int, own: int, features: Tensor, chain: list[int], path: tuple[int, ...], token: int) -> Any:
        return (
            kept(verified, own, len(path)), features[list(rows(len(path), len(chain)))],
            tokens(chain, len(path), token),
        )  # fmt: skip

    return answer


COMMITS = (  # (verified, own, features, chain, path, next_token) -> kept, features, tokens
    Suspect(
        "The accepted pairs stay as they were drafted, with the head's own output, and only the last one is read. This "
        "is what an engine did that lost a tenth of its accepted length: read them again, with the target's features.",
        _commit(
            kept=lambda verified, own, accepted: verified + min(accepted, own),
            rows=lambda accepted, nodes: [accepted], tokens=lambda chain, accepted, own: [own],
        ),
    ),
    Suspect(
        "Each feature is beside its own token. It belongs beside the token that came after it.",
        _commit(tokens=lambda chain, accepted, own: chain[: accepted + 1]),
    ),
    Suspect(
        "The root's pair is left out. Its feature was not there before this forward, and the first accepted token "
        "is the one beside it.",
        _commit(rows=lambda accepted, nodes: range(1, accepted + 1),
                tokens=lambda chain, accepted, own: [*chain[2 : accepted + 1], own][: accepted]),
    ),
    Suspect(
        "The target's own token is left out. It is text like the accepted ones, and the last feature goes with it.",
        _commit(rows=lambda accepted, nodes: range(accepted),
                tokens=lambda chain, accepted, own: chain[1 : accepted + 1]),
    ),
    Suspect(
        "Rejected drafts are read as well. They are not part of the text.",
        _commit(rows=lambda accepted, nodes: range(nodes), tokens=lambda chain, accepted, own: [*chain[1:], own]),
    ),
    Suspect(
        "Only the last pair is read, and those before it are lost: the head's cache has a hole.",
        _commit(rows=lambda accepted, nodes: [accepted], tokens=lambda chain, accepted, own: [own]),
    ),
    Suspect(
        "Everything that was drafted stays in the cache, beside what is read again.",
        _commit(kept=lambda verified, own, accepted: verified + own),
    ),
    Suspect(
        "Accepted pairs stay in the cache and are read again: they are in it twice.",
        _commit(kept=lambda verified, own, accepted: verified + min(accepted, own)),
    ),
    Suspect("The cache is emptied. What was verified before is still right.", _commit(kept=lambda *_: 0)),
)  # fmt: skip


def _blocks(
    first: Callable[[Tensor], Tensor] = lambda full: full.tril(),
    own: Callable[[Tensor, int, int], Tensor] = lambda full, block, step: torch.eye(len(full), dtype=torch.bool),
) -> Callable[[int, int], Tensor]:
    """The right mask, with what is given in place of its parts."""

    def answer(columns: int, step: int) -> Tensor:
        full = torch.ones(columns, columns, dtype=torch.bool)
        return torch.cat([first(full), *(own(full, block, step) for block in range(1, step + 1))], 1)

    return answer


MASKS = (  # (columns, step) -> columns x (columns * (step + 1))
    Suspect(
        "A draft sees its neighbours' own steps. They belong to other drafts, which began elsewhere: of these steps a "
        "column sees itself alone, a diagonal.",
        _blocks(own=lambda full, block, step: full.tril()),
    ),
    Suspect(
        "The draft does not see the pair that it began with. Column i counts among its true pairs.",
        _blocks(first=lambda full: full.tril(-1)),
    ),
    Suspect("A draft sees the text that comes after it: the triangle lies on the other side.",
            _blocks(first=lambda full: full.triu())),
    Suspect("Every draft sees the whole text, what comes after it as well.", _blocks(first=lambda full: full)),
    Suspect(
        "Only the last own step is seen. A draft has all its earlier tokens in its cache.",
        _blocks(own=lambda full, block, step: torch.eye(len(full), dtype=torch.bool) & (block == step)),
    ),
    Suspect("A draft does not see its own steps: it would draft each token from the text alone.",
            _blocks(own=lambda full, block, step: torch.zeros_like(full))),
    Suspect(
        "The diagonals are shifted with the step. A draft that began at column i stays in column i; it is the token "
        "beside it that moves on.",
        _blocks(own=lambda full, block, step: torch.eye(len(full), dtype=torch.bool).roll(block, 1).triu()),
    ),
    Suspect(
        "The triangle shrinks with each step. The true pairs of a draft are the same for all of its tokens.",
        lambda columns, step: torch.cat([
            torch.ones(columns, columns, dtype=torch.bool).tril(-step),
            *(torch.eye(columns, dtype=torch.bool) for _ in range(step)),
        ], 1),
    ),
)  # fmt: skip
