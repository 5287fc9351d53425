"""Prompt lookup against a plain search of the whole text: which place is copied, and how far a match is trusted."""

from random import Random

import pytest
from drafting import chain

from specdec_ref.config import DraftBudget, SamplingParams
from specdec_ref.core import VerifyResult
from specdec_ref.drafters.ngram import NgramDrafter


def search(text: list[int], min_n: int, max_n: int, policy: str, depth: int) -> list[int]:
    """Scan for the longest suffix that stood before; n tokens copy 2n + 3, `max_n` of them the whole depth."""
    for n in range(min(max_n, len(text) - 1), min_n - 1, -1):
        ends = [end for end in range(n, len(text)) if text[end - n : end] == text[-n:]]
        if ends:
            start = ends[0] if policy == "first" else ends[-1]
            length = depth if n == max_n else min(depth, 2 * n + 3)
            longer = list(text)
            while len(longer) < start + length:  # a copy that reaches the end goes on through itself
                longer.append(longer[start + len(longer) - len(text)])
            return longer[start : start + length]
    return []


def guess(drafter: NgramDrafter, depth: int) -> list[int]:
    return list(drafter.propose([7], DraftBudget(depth=depth), SamplingParams(), [])[0].token_list[1:])


@pytest.mark.parametrize("policy", ["first", "latest"])
@pytest.mark.parametrize(("min_n", "max_n"), [(1, 4), (2, 4), (1, 1), (3, 5)])
def test_a_draft_is_what_a_plain_search_finds(policy: str, min_n: int, max_n: int) -> None:
    dice = Random(f"{policy}{min_n}{max_n}")
    drafted = set()
    for words in (2, 3, 8):
        text = [dice.randrange(words) for _ in range(5)]
        drafter = NgramDrafter(min_n, max_n, policy)
        drafter.start([7], [text], None)
        for _ in range(60):
            depth = dice.choice([1, 4, 6, 20])
            found = guess(drafter, depth)
            assert found == search(text, min_n, max_n, policy, depth), text
            drafted.add(len(found))
            token = dice.randrange(words)
            drafter.commit([7], [chain([text[-1]])], [VerifyResult((), token)], None)
            text.append(token)
    assert len(drafted) > 2, "the streams must lead to short drafts and to long ones"


@pytest.mark.parametrize(("matched", "drafts"), [(1, 5), (2, 7), (3, 9), (4, 20), (5, 20)])
def test_a_longer_match_is_trusted_further(matched: int, drafts: int) -> None:
    suffix = list(range(100, 100 + matched))
    text = [1, *suffix, *range(30, 60), 2, *suffix]
    drafter = NgramDrafter()
    drafter.start([7], [text], None)
    assert guess(drafter, 20) == list(range(30, 30 + drafts))


def test_rows_have_texts_of_their_own() -> None:
    drafter = NgramDrafter()
    drafter.start([3, 7], [[1, 2, 3, 1], [4, 5, 4]], None)
    trees = drafter.propose([3, 7], DraftBudget(depth=2), SamplingParams(), [])
    assert [list(tree.token_list) for tree in trees] == [[1, 2, 3], [4, 5, 4]]
    drafter.finish([3])
    assert guess(drafter, 2) == [5, 4]
