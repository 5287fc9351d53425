"""What an entry of the capstone must pass before anybody times it, in the notebook and on the leaderboard alike.

`exact_trials`: at T = 0 the target's text, each token looked up in this very request; above, the target's distribution,
enumerated. `pace_trials`: what it costs on a stated curve, v(k) = 1 + (k - 1) / 10, where a clock would tell of the
machine as well.
"""

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from specdec_course.capstone.adapter import TargetView, first_unasked
from specdec_course.capstone.toys import Scripted, decoder_distribution, ended_distribution, view
from specdec_course.checks.examine import Trial, Trouble, attempt, ids, numbers
from specdec_course.checks.toys import compare
from specdec_ref.baseline import plain_generate
from specdec_ref.exact import Distribution
from specdec_ref.identity import first_difference
from specdec_ref.models.target import Target
from specdec_ref.models.toy import TableLM, tiny_llama
from specdec_ref.randomness import KeyedRandomness
from specdec_ref.request import Limits

__all__ = ["Making", "exact_trials", "pace_trials", "written"]

Tokens = list[int]
_VOCAB, _NEW = 41, 28


class Making:
    """A `Decoder` that makes a new one of its class for each prompt, as an entry's process does."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make

    def generate(self, model: Any, prompt: Tokens, max_new_tokens: int, eos: frozenset[int], rng: Any) -> Any:
        """See `Decoder`."""
        return self.make().generate(model, prompt, max_new_tokens, eos, rng)


def written(decoder: Any, model: TargetView, prompt: Tokens, most: int, eos: frozenset[int]) -> Tokens:
    """What it writes at temperature 0. Raises Trouble if that is no text that could have been asked for."""
    rng = KeyedRandomness(0, len(prompt), "verify")
    text = ids(attempt(decoder.generate, model.open(prompt, most), list(prompt), most, eos, rng))
    if len(text) > most:
        raise Trouble(f"it returned {len(text)} tokens, and max_new_tokens was {most}")
    ends = [at for at, token in enumerate(text) if token in eos]
    if ends and ends[0] + 1 < len(text):
        raise Trouble("it went on after an end-of-text token, which may be in the middle of what a round accepts")
    if not ends and len(text) < most:
        raise Trouble(f"it stopped after {len(text)} of {most} tokens, without an end-of-text token")
    at = first_unasked(model, prompt, text)
    if at is not None:
        choice = model.said.get((prompt[-1], *text[:at]))
        raise Trouble(
            f"token {at} of its text was never checked: no forward of this request scored exactly the text before it. "
            "Either the target was not asked, or the cache does not hold the text"
            if choice is None
            else f"token {at} of its text is {text[at]}, though a forward of this request gave {choice} there"
        )
    return text


def exact_trials(seed: int) -> list[Trial]:
    """On a random model and a random table that this seed makes: what is memorised of any other is of no use."""
    rng = Random(seed)
    return [_greedy(rng), _ending(rng), _distribution(rng)]


def _greedy(rng: Random) -> Trial:
    target = Target(tiny_llama(rng.randrange(2**31), vocab=_VOCAB), check=False)
    phrase = [rng.randrange(_VOCAB) for _ in range(9)]
    prompts = [[*phrase, rng.randrange(_VOCAB), *phrase[:4]] for _ in range(2)] + [phrase[:1]]
    goals = [answer.tokens for answer in plain_generate(target, prompts, limits=Limits(_NEW))]
    model = TargetView(target)

    def outcome(decoder: Any) -> list[Tokens]:
        return [written(decoder, model, prompt, _NEW, frozenset()) for prompt in prompts]

    def judge(texts: list[Tokens]) -> tuple[bool, str]:
        for prompt, text, goal in zip(prompts, texts, goals, strict=True):
            if (at := first_difference(text, goal)) is not None:
                return False, f"after the prompt {prompt}, token {at} is {text[at]}, the target's own is {goal[at]}"
        return True, f"{len(texts)} prompts, {sum(map(len, texts))} tokens, a random Llama in float64"

    return Trial("At temperature 0 it writes the target's text", outcome, judge, weight=1.5, easy=True)


def _ending(rng: Random) -> Trial:
    """A passage that is copied, an end-of-text token in its middle: so it is likely to be an accepted guess."""
    passage = rng.sample(range(60), 24)
    passage[12 + rng.randrange(4)] = 60
    script = Scripted.of([*passage, *passage], len(passage) + 3, words=60)
    goals = {most: script.answer(most) for most in (20, 5)}
    model = view(script.model)

    def outcome(decoder: Any) -> list[Tokens]:
        return [written(decoder, model, script.prompt, most, script.eos) for most in goals]

    def judge(texts: list[Tokens]) -> tuple[bool, str]:
        return texts == list(
            goals.values()
        ), f"with max_new_tokens {list(goals)} it wrote {list(map(len, texts))} tokens"

    return Trial("It ends where the text does", outcome, judge, weight=1.5, easy=True)


def _distribution(rng: Random) -> Trial:
    table, prompt, eos = TableLM(3, seed=rng.randrange(2**31)), (0, 1, 0, 1, 0), frozenset({2})
    goal = ended_distribution(table, prompt, 3, eos)

    def judge(dist: Distribution) -> tuple[bool, str]:
        if (longest := max(map(len, dist))) > 3:
            return False, f"it returned {longest} tokens, and max_new_tokens was 3"
        return compare(dist, goal)

    return Trial(
        "At temperature 1 its texts have the target's distribution",
        lambda decoder: decoder_distribution(decoder, table, prompt, 3, eos),
        judge,
        weight=2.0,
        easy=True,
    )


def pace_trials(seed: int) -> list[Trial]:
    """Two texts that are copied, one with a change in it; one in which words come back and never what followed them.

    Plain decoding, which is exact and never slow, passes none of the first two, and without them nothing else counts.
    """
    rng = Random(seed)
    passage = rng.sample(range(60), 50)
    changed = [*passage[:20], 60 - 1 - passage[20], *passage[21:]]
    copying = Scripted.of([*passage, *changed, passage[0]], len(passage) + 3, words=60)
    again = Scripted.of([*passage[:16], *passage[:16]], 16 + 3, words=60)
    return [
        _pace("Guesses save time where a text is copied", again, 1.2),
        _pace("It is fast where a text is copied", copying, 2.8, weight=3.0),
        _pace("It drafts less where guesses fail", Scripted.of(_misleading(rng), 60), 0.88, easy=True),
    ]


def _misleading(rng: Random) -> Tokens:
    """Of four words, so that the last two or three have often been said; each pair goes on as it did not before."""
    text = [0, 1]
    for _ in range(108):
        at = [i for i in range(len(text) - 2) if text[i : i + 2] == text[-2:]]
        text.append(rng.choice([word for word in range(4) if not at or word != text[at[-1] + 2]]))
    return text


def _pace(asks: str, script: Scripted, least: float, weight: float = 1.0, *, easy: bool = False) -> Trial:
    goal = script.answer(len(script.text) - len(script.prompt))

    def outcome(decoder: Any) -> list[float]:
        model = view(script.model)
        text = written(decoder, model, script.prompt, len(goal), script.eos)
        if text != goal:
            raise Trouble("its text there is not the target's, so its speed is not measured")
        steps = sum(1 + (size - 1) / 10 for size in model.sizes)
        return numbers([len(text) / steps, model.forwards, sum(model.sizes) / model.forwards], 3)

    def judge(found: Sequence[float]) -> tuple[bool, str]:
        gain, forwards, size = found
        why = (
            "most of its guesses failed"
            if len(goal) < forwards * (1 + size) / 2
            else "more guesses would have been right"
        )
        return gain >= least, (
            f"{len(goal)} tokens in {forwards:.0f} forwards of {size:.1f} nodes on average; if a forward of k nodes "
            f"takes 1 + (k - 1) / 10 steps, that is {gain:.2f} times plain decoding's speed, and {least:g} is asked for"
            + ("" if gain >= least else f": {why}")
        )

    return Trial(asks, outcome, judge, weight, easy=easy)
