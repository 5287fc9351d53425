"""The wrong answers to exercise 04 that people give, each with the sentence that explains it. They serve `examine`."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import torch

from specdec_ref.core import DraftTree
from specdec_ref.grading.examine import Suspect

__all__ = ["BATCHES", "GRAMS", "LOOKUPS", "TREES", "counted", "found"]

Words = Sequence[str]
Places = Callable[[Words, int], Iterable[int]]


def latest(text: Words, n: int) -> Iterable[int]:
    """Where a match of n words may end, the last place first; the text's own end is none."""
    return range(len(text) - 1, n - 1, -1)


def found(
    text: Words, gamma: int, longest: int, shortest: int, places: Places = latest, lengths: Iterable[int] | None = None
) -> list[str]:
    """The lookup that is asked for, and, with other `places` and `lengths`, those that are not."""
    for n in range(min(longest, len(text) - 1), shortest - 1, -1) if lengths is None else lengths:
        for end in places(text, n):
            if list(text[end - n : end]) == list(text[len(text) - n :]):
                return list(text[end : end + gamma])
    return []


LOOKUPS = (  # (text, gamma, longest, shortest) -> words
    Suspect(
        "It copies from the first place. That is a policy as well, but here the latest was asked for.",
        lambda text, g, most, least: found(text, g, most, least, lambda t, n: range(n, len(t))),
    ),
    Suspect(
        "Short matches are tried first. A longer match is better evidence.",
        lambda text, g, most, least: found(text, g, most, least, lengths=range(least, min(most, len(text) - 1) + 1)),
    ),
    Suspect(
        "It only accepts a place with gamma words behind it, and so misses the latest ones.",
        lambda text, g, most, least: found(text, g, most, least, lambda t, n: range(len(t) - g, n - 1, -1)),
    ),
    Suspect(
        "It finds the end of the text itself. A suffix always matches itself, and nothing follows it.",
        lambda text, g, most, least: found(text, g, most, least, lambda t, n: range(len(t), n - 1, -1)),
    ),
    Suspect(
        "Only matches of exactly `longest` words count. Shorter ones, down to `shortest`, are to be tried after them.",
        lambda text, g, most, least: found(text, g, most, least, lengths=[most] if most < len(text) else []),
    ),
    Suspect(
        "`shortest` is ignored: a match that short was not to be trusted.",
        lambda text, g, most, least: found(text, g, most, 1),
    ),
    Suspect(
        "The guess is filled up to gamma words. Where the text gives less, less is guessed: a pad is a guess as well.",
        lambda text, g, most, least: (found(text, g, most, least) + [text[0]] * g)[:g],
    ),
    Suspect(
        "It returns the match, too. The text has said that already: the guess begins behind it.",
        lambda text, g, most, least: _with_match(text, g, most, least),
    ),
)


def _with_match(text: Words, gamma: int, longest: int, shortest: int) -> list[str]:
    for n in range(min(longest, len(text) - 1), shortest - 1, -1):
        for end in latest(text, n):
            if list(text[end - n : end]) == list(text[-n:]):
                return list(text[end - n : end + gamma])
    return []


Branches = Sequence[Sequence[int]]


def _grown(
    root: int, branches: Branches, nodes: int, *, key: Callable[[int, int, int], object], spare: int = 0
) -> DraftTree:
    """Node by node; a new one unless `key(branch, parent, token)` was seen before."""
    tokens, parents, known = [root], [-1], dict[object, int]()
    for number, branch in enumerate(branches):
        at = 0
        for token in branch:
            mark = key(number, at, token)
            if mark not in known:
                if len(tokens) >= nodes + spare:
                    break
                known[mark] = len(tokens)
                tokens.append(token)
                parents.append(at)
            at = known[mark]
    return DraftTree(torch.tensor(tokens), torch.tensor(parents))


def _padded(root: int, branches: Branches, nodes: int) -> DraftTree:
    tree = _grown(root, branches, nodes, key=lambda number, at, token: (at, token))
    missing = nodes - len(tree)
    return DraftTree(
        torch.tensor([*tree.token_list, *[0] * missing]), torch.tensor([*tree.parent_list, *[0] * missing])
    )


TREES = (  # (root, branches, nodes) -> DraftTree
    Suspect(
        "A beginning that several guesses share is repeated. Equal siblings are one outcome: they must be one node.",
        lambda root, branches, nodes: _grown(root, branches, nodes, key=lambda number, at, token: (number, at, token)),
    ),
    Suspect(
        "Nodes are told apart by their word alone. The same word after another beginning is another guess.",
        lambda root, branches, nodes: _grown(root, branches, nodes, key=lambda number, at, token: token),
    ),
    Suspect(
        "The budget counts the root: of n nodes, n - 1 are guesses.",
        lambda root, branches, nodes: _grown(root, branches, nodes, key=lambda n, at, token: (at, token), spare=1),
    ),
    Suspect(
        "The tree is filled up with pads. A pad below the root is a guess of token 0, and above temperature 0 it is "
        "counted as one.",
        _padded,
    ),
    Suspect(
        "Only the first guess is in the tree. The others were to hang beside it.",
        lambda root, branches, nodes: _grown(root, branches[:1], nodes, key=lambda n, at, token: (at, token)),
    ),
)


def counted(texts: Sequence[Words], depth: int) -> Counter[tuple[str, ...]]:
    """How often each n-gram of up to `depth` words occurs; none reaches from one text into the next."""
    return Counter(
        tuple(text[begin:end])
        for text in texts
        for begin in range(len(text))
        for end in range(begin + 1, min(begin + depth, len(text)) + 1)
    )


GRAMS = (  # (texts, depth) -> counts
    Suspect(
        "Only n-grams of the full depth are counted. Each beginning of one is a node of the trie as well.",
        lambda texts, depth: Counter({g: c for g, c in counted(texts, depth).items() if len(g) == depth}),
    ),
    Suspect(
        "The texts are glued together: no request ever said the words that meet at a seam.",
        lambda texts, depth: counted([[word for text in texts for word in text]], depth),
    ),
    Suspect(
        "Each n-gram is counted once a text. Frequency is how often it was said.",
        lambda texts, depth: sum((Counter(set(counted([text], depth))) for text in texts), Counter[tuple[str, ...]]()),
    ),
    Suspect(
        "The depth is one too small: an n-gram may have `depth` words.",
        lambda texts, depth: counted(texts, depth - 1),
    ),
    Suspect(
        "Windows at the end of a text are left out, because they are not full. What was said last is there as well.",
        lambda texts, depth: Counter(
            tuple(text[begin : begin + n]) for text in texts for begin in range(len(text) - depth + 1)
            for n in range(1, depth + 1)
        ),
    ),
)  # fmt: skip


def _ready(texts: Sequence[Words], ready: Sequence[bool], gamma: int) -> list[list[str]]:
    return [found(text, gamma, 4, 1) for text, is_ready in zip(texts, ready, strict=True) if is_ready]


def _shipped(texts: Sequence[Words], ready: Sequence[bool], gamma: int) -> list[list[str]]:
    drafts: list[list[str]] = [[] for _ in texts]
    for i, draft in enumerate(_ready(texts, ready, gamma)):
        drafts[i] = draft
    return drafts


BATCHES = (  # (texts, ready, gamma) -> drafts
    Suspect(
        "This is still what shipped. Follow a batch in which a request that is not ready stands before one that is.",
        _shipped,
    ),
    Suspect("Only the ready requests get an answer. There must be a draft for each, if an empty one.", _ready),
    Suspect(
        "Requests that are not ready get a draft as well: their prompt is not read yet.",
        lambda texts, ready, gamma: [found(text, gamma, 4, 1) for text in texts],
    ),
    Suspect(
        "A request without a draft gets None. The engine expects a list, and takes an empty one for a plain step.",
        lambda texts, ready, gamma: [
            found(text, gamma, 4, 1) if is_ready else None for text, is_ready in zip(texts, ready, strict=True)
        ],
    ),
)
