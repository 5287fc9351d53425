"""Common mistakes in exercise 10, task 5, each with the sentence that explains it. They serve `examine`."""

from collections.abc import Callable, Mapping
from math import floor
from typing import Any

from specdec_course.checks.examine import Suspect

__all__ = ["SUFFIXES"]

Follows = Mapping[tuple[int, ...], Mapping[int, int]]


def _suffixes(
    most: Callable[[float, int], int] = lambda factor, match: floor(factor * match),
    score: Callable[[list[float]], float] = sum,
    key: Callable[[float, int], Any] = lambda score, match: (score, match),
    share: Callable[[Mapping[int, int], int], float] = lambda nexts, token: nexts[token] / sum(nexts.values()),
    choose: Callable[[Mapping[int, int]], int] = lambda nexts: max(nexts, key=lambda t: nexts[t]),
    chain: Callable[[float, float], float] = lambda prob, step: prob * step,
    grown: Callable[[list[int], int], tuple[int, ...]] = lambda string, match: tuple(string),
    below: Callable[[float, float], bool] = lambda prob, least: prob < least,
    *,
    ends: str = "before",
) -> Callable[..., Any]:
    """Suffix decoding, right but for what is given."""

    def run(text: list[int], follows: Follows, factor: float, min_prob: float) -> Any:
        best: tuple[Any, list[int], float] | None = None
        for match in range(1, len(text) + 1):
            string = text[-match:]
            draft, chances, prob = list[int](), list[float](), 1.0
            while len(draft) < most(factor, match):
                nexts = follows.get(grown(string, match))
                if not nexts:
                    break
                token = choose(nexts)
                step = share(nexts, token)
                prob = chain(prob, step)
                low = below(step if ends == "step" else prob, min_prob) and ends != "never"
                if low and ends != "after":
                    break
                draft.append(token)
                chances.append(prob)
                string = [*string, token]
                if low:
                    break
            if draft and (best is None or key(score(chances), match) > best[0]):
                best = key(score(chances), match), draft, score(chances)
        return ([], 0.0) if best is None else best[1:]

    return run


SUFFIXES = (
    Suspect("The longest match always wins. A shorter one may have the better score.",
            _suffixes(key=lambda score, match: match)),
    Suspect("Of equal scores the shorter match wins. The longer one has seen more of the text.",
            _suffixes(key=lambda score, match: (score, -match))),
    Suspect("The score is the last probability. It is the sum over the drafted positions: the expected number "
            "of accepted "
            "drafts.", _suffixes(score=lambda chances: chances[-1])),
    Suspect("The score is the number of drafts. It is the sum of their probabilities.",
            _suffixes(score=lambda chances: float(len(chances)))),
    Suspect("The length is not limited by the match: at most factor times the matched tokens are drafted.",
            _suffixes(most=lambda factor, match: 10**6)),
    Suspect("One draft too many: the limit is factor times the match, rounded down.",
            _suffixes(most=lambda factor, match: floor(factor * match) + 1)),
    Suspect("The limit is rounded up.", _suffixes(most=lambda factor, match: -floor(-factor * match))),
    Suspect("The token whose P is below `min_prob` is still drafted. The draft ends before it.",
            _suffixes(ends="after")),
    Suspect("The draft ends where P is exactly `min_prob`, too. It ends only below it.",
            _suffixes(below=lambda prob, least: prob <= least)),
    Suspect("At least one token is drafted for each match. If factor times the match is below 1, there is none.",
            _suffixes(most=lambda factor, match: max(1, floor(factor * match)))),
    Suspect("At most `factor` tokens are drafted. The limit is factor times the matched tokens, rounded down.",
            _suffixes(most=lambda factor, match: floor(factor))),
    Suspect("The factor is rounded before it is multiplied. Round factor times the match.",
            _suffixes(most=lambda factor, match: floor(factor) * match)),
    Suspect("The limit is rounded to the nearest number. Round it down.",
            _suffixes(most=lambda factor, match: round(factor * match))),
    Suspect("The score is the mean of the probabilities. It is their sum: the expected number of accepted drafts.",
            _suffixes(score=lambda chances: sum(chances) / len(chances))),
    Suspect("P is the share of one step. It is the product of the shares along the draft.",
            _suffixes(chain=lambda prob, step: step)),
    Suspect("Of equally frequent tokens the last is taken. Take the first in the dict.",
            _suffixes(choose=lambda nexts: max(reversed(list(nexts)), key=lambda t: nexts[t]))),
    Suspect("The least probability is held against each step. It is meant for the product along the draft.",
            _suffixes(ends="step")),
    Suspect("The least probability is ignored.", _suffixes(ends="never")),
    Suspect("The string does not grow with its drafts: of the matched length, only the last tokens are looked up.",
            _suffixes(grown=lambda string, match: tuple(string[-match:]))),
    Suspect("The probability of a draft is taken as its count over all counts of the text.",
            _suffixes(share=lambda nexts, token: float(nexts[token]))),
)  # fmt: skip
