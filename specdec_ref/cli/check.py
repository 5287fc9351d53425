"""`specdec generate --check`: decode again without speculation and compare the texts, token by token."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from specdec_ref.cli.shared import plural, say
from specdec_ref.cli.work import failing

if TYPE_CHECKING:
    from specdec_ref.cli.identity import Parting
    from specdec_ref.cli.work import Work

__all__ = ["Comparison", "compare", "report"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One prompt's answer beside plain decoding's. `look` is None if the texts are equal, or one is cut short."""

    where: str
    plain: tuple[int, ...]
    other: tuple[int, ...]
    look: "Parting | None" = None

    @property
    def same(self) -> bool:
        """True if the texts are equal."""
        return self.plain == self.other

    @property
    def explained(self) -> bool:
        """True if the texts are equal, or differ at a near-tie."""
        return self.same or (self.look is not None and self.look.explained)


def compare(work: "Work", prompt: Sequence[int], tokens: Sequence[int], where: str) -> Comparison:
    """Decode `prompt` plainly, in the same number format, and find the first token that differs from `tokens`."""
    from specdec_ref.cli.identity import parting
    from specdec_ref.identity import first_difference

    plain = list(failing(_plain(work, prompt)))
    at = first_difference(plain, tokens)
    shared = at is not None and at < min(len(plain), len(tokens))
    look = parting(work.session.target, prompt, plain, at, tokens[at]) if at is not None and shared else None
    return Comparison(where, tuple(plain), tuple(tokens), look)


def _plain(work: "Work", prompt: Sequence[int]) -> "Iterator[int]":
    (result,) = work.session.plain([prompt], limits=work.limits)
    yield from result.tokens


def report(work: "Work", found: Sequence[Comparison]) -> int:
    """Print the result on stderr; the exit code: 0 if every text is identical or explained, else 1."""
    from specdec_ref.cli.identity import difference

    count = sum(len(each.plain) for each in found if each.same)
    same = sum(each.same for each in found)
    if same == len(found):
        texts = "" if same == 1 else f"{plural(same, 'text')}, "
        say(f"identical to plain decoding ({texts}{plural(count, 'token')})", style="")
        return 0
    if len(found) > 1:
        say(f"identical to plain decoding: {same} of {plural(len(found), 'text')}", style="")
    for each in found:
        if not each.same:
            words = difference(work.session.target, work.session.decode, each.plain, each.other, each.look)
            say(f"{each.where}: {words}" if len(found) > 1 else words, style="")
    return int(not all(each.explained for each in found))
