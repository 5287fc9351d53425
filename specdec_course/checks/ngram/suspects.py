"""The wrong answers to exercise 04 that people give but for its trees, each with the sentence that explains it."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from specdec_course.checks.examine import Suspect

__all__ = ["BATCHES", "GRAMS", "LOOKUPS", "counted", "found"]

Words = Sequence[str]
Places = Callable[[Words, int], Iterable[int]]
Lengths = Iterable[int] | None


def latest(text: Words, n: int) -> Iterable[int]:
    """Where a match of n words may end, the last place first; the text's own end is none."""
    return range(len(text) - 1, n - 1, -1)


def found(
    text: Words,
    gamma: int,
    longest: int,
    shortest: int,
    places: Places = latest,
    lengths: Lengths = None,
    back: int = 0,
) -> list[str]:
    """The lookup that is asked for, and, with other `places` and `lengths` or `back`, those that are not."""
    for n in range(min(longest, len(text) - 1), shortest - 1, -1) if lengths is None else lengths:
        for end in places(text, n):
            if list(text[end - n : end]) == list(text[len(text) - n :]):
                return list(text[end - n * back : end + gamma])
    return []


LOOKUPS = (  # (text, gamma, longest, shortest) -> words
    Suspect(
        "It copies from the first place. That is a policy as well, but the task asks for the latest place.",
        lambda text, g, most, least: found(text, g, most, least, lambda t, n: range(n, len(t))),
    ),
    Suspect(
        "It takes the latest place where a *short* match ends: short lengths go first, or the loop over places is the "
        "outer one. A longer match is better evidence, however early in the text it is.",
        lambda text, g, most, least: found(text, g, most, least, lengths=range(least, min(most, len(text) - 1) + 1)),
    ),
    Suspect(
        "It only accepts a place with gamma words after it, and so misses the latest ones.",
        lambda text, g, most, least: found(text, g, most, least, lambda t, n: range(len(t) - g, n - 1, -1)),
    ),
    Suspect(
        "It finds the end of the text itself. A suffix always matches itself, and nothing follows it.",
        lambda text, g, most, least: found(text, g, most, least, lambda t, n: range(len(t), n - 1, -1)),
    ),
    Suspect(
        "Only matches of exactly `longest` words count. Shorter ones, down to `shortest`, must be tried after them.",
        lambda text, g, most, least: found(text, g, most, least, lengths=[most] if most < len(text) else []),
    ),
    Suspect(
        "The shortest match is never tried: a `range` does not include its end.",
        lambda text, g, most, least: found(text, g, most, least + 1),
    ),
    Suspect(
        "The first place of the text is never checked: a match may begin at word 0.",
        lambda text, g, most, least: found(text, g, most, least, lambda t, n: range(len(t) - 1, n, -1)),
    ),
    Suspect(
        "A match that overlaps the end of the text is not found. A match only has to end one word earlier.",
        lambda text, g, most, least: found(text, g, most, least, lambda t, n: range(len(t) - n, n - 1, -1)),
    ),
    Suspect(
        "Letters are compared, not words: “this” contains the letters of “is”, but is another word.",
        lambda text, g, most, least: _by_letters(text, g, most, least),
    ),
    Suspect(
        "`shortest` is ignored: shorter matches must not be used.",
        lambda text, g, most, least: found(text, g, most, 1),
    ),
    Suspect(
        "The guess is filled up to gamma words. If fewer words follow, return fewer: a pad is a guess as well.",
        lambda text, g, most, least: (found(text, g, most, least) + [text[0]] * g)[:g],
    ),
    Suspect(
        "It returns the match, too. The guess must begin after the match.",
        lambda text, g, most, least: found(text, g, most, least, back=1),
    ),
    Suspect(
        "It copies from the match's beginning. The guess must begin after the match.",
        lambda text, g, most, least: found(text, g, most, least, back=1)[:g],
    ),
)


def _by_letters(text: Words, gamma: int, longest: int, shortest: int) -> list[str]:
    letters = " ".join(text)
    for n in range(min(longest, len(text) - 1), shortest - 1, -1):
        match = " ".join(text[len(text) - n :])
        if (place := letters[:-1].rfind(match)) >= 0:
            return letters[place + len(match) :].split()[:gamma]
    return []


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
        "The texts are glued together: the last words of one and the first of the next form no n-gram.",
        lambda texts, depth: counted([[word for text in texts for word in text]], depth),
    ),
    Suspect(
        "Each n-gram is counted once per text. The count is how often it occurred.",
        lambda texts, depth: sum((Counter(set(counted([text], depth))) for text in texts), Counter[tuple[str, ...]]()),
    ),
    Suspect(
        "The depth is one too small: an n-gram may have `depth` words.",
        lambda texts, depth: counted(texts, depth - 1),
    ),
    Suspect(
        "Windows at the end of a text are left out, because they are not full. The shorter n-grams at the end count "
        "as well.",
        lambda texts, depth: Counter(
            tuple(text[begin : begin + n]) for text in texts for begin in range(len(text) - depth + 1)
            for n in range(1, depth + 1)
        ),
    ),
    Suspect(
        "Near the end of a text `words[i : i + n]` has fewer than n words, and such a piece is counted once more.",
        lambda texts, depth: Counter(
            tuple(text[i : i + n]) for text in texts for i in range(len(text)) for n in range(1, depth + 1)
        ),
    ),
    Suspect(
        "Only the beginnings of texts are counted. An n-gram may begin at any word.",
        lambda texts, depth: Counter(tuple(text[:n]) for text in texts for n in range(1, min(depth, len(text)) + 1)),
    ),
    Suspect(
        "The last n-gram of each length is missing: a `range` does not include its end.",
        lambda texts, depth: Counter(
            tuple(text[i : i + n]) for text in texts for n in range(1, depth + 1) for i in range(len(text) - n)
        ),
    ),
    Suspect(
        "Only the last text is counted: the counts are reset for each text.",
        lambda texts, depth: counted(texts[-1:], depth),
    ),
)  # fmt: skip


def _ready(texts: Sequence[Words], ready: Sequence[bool], gamma: int) -> list[list[str]]:
    return [found(text, gamma, 4, 1) for text, is_ready in zip(texts, ready, strict=True) if is_ready]


def _counting(
    text_of: Callable[[int, int], int], draft_of: Callable[[int, int], int]
) -> Callable[..., list[list[str]]]:
    """The loop that shipped; both functions say which of its two numbers is used: (place among the ready, request)."""

    def propose(texts: Sequence[Words], ready: Sequence[bool], gamma: int) -> list[list[str]]:
        drafts: list[list[str]] = [[] for _ in texts]
        for i, number in enumerate(n for n in range(len(texts)) if ready[n]):
            drafts[draft_of(i, number)] = found(texts[text_of(i, number)], gamma, 4, 1)
        return drafts

    return propose


def _one_list(texts: Sequence[Words], ready: Sequence[bool], gamma: int) -> list[list[str]]:
    return [[word for draft in _ready(texts, ready, gamma) for word in draft]] * len(texts)


BATCHES = (  # (texts, ready, gamma) -> drafts
    Suspect(
        "This is still what shipped. Follow a batch in which a request that is not ready comes before one that is.",
        _counting(lambda i, number: number, lambda i, number: i),
    ),
    Suspect(
        "Each draft goes to the right request, but is looked up in the text of another.",
        _counting(lambda i, number: i, lambda i, number: number),
    ),
    Suspect(
        "Text and draft now agree, but an index among the ready requests is not a request's number: others get the "
        "drafts.",
        _counting(lambda i, number: i, lambda i, number: i),
    ),
    Suspect("All requests share one and the same list: `[[]] * n` does not create n lists.", _one_list),
    Suspect("Only the ready requests get a draft. Every request needs one, even if it is empty.", _ready),
    Suspect(
        "Requests that are not ready get a draft as well, although their prompt is not processed yet.",
        lambda texts, ready, gamma: [found(text, gamma, 4, 1) for text in texts],
    ),
    Suspect(
        "A request without a draft gets None. The engine expects a list; an empty one means a plain step.",
        lambda texts, ready, gamma: [
            found(text, gamma, 4, 1) if is_ready else None for text, is_ready in zip(texts, ready, strict=True)
        ],
    ),
)
