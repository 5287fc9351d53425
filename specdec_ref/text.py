"""Token ids to text while they stream: no half characters, and nothing of a stop string."""

from collections.abc import Callable, Collection, Sequence

__all__ = ["TextStream", "cut_at_stop"]


class TextStream:
    """Token ids in, text out as soon as it is certain: no half characters, nothing that may become a stop string."""

    def __init__(
        self, decode: Callable[[Sequence[int]], str], stop: Sequence[str] = (), byte_tokens: Collection[int] = ()
    ) -> None:
        """`byte_tokens`: of a tokenizer with byte fallback. A run of them is shown when it ends, as a whole."""
        self.decode, self.stop, self.byte_tokens = decode, tuple(stop), byte_tokens
        self._context: list[int] = []  # shown last: some tokenizers need a left neighbour to place a space
        self._pending: list[int] = []  # tokens whose last character is not complete
        self._held = ""  # text that may be the beginning of a stop string
        self._done = False

    def feed(self, token: int) -> str:
        """The text that this token makes certain; often its own, sometimes none or more."""
        self._pending.append(token)
        text, shown = self.decode(self._context + self._pending), self.decode(self._context)
        if text.endswith("\ufffd") or self._run_of_bytes() or self._may_still_change():
            return ""
        self._context = self._pending if text != shown else self._context + self._pending  # skipped tokens: no text
        self._pending = []
        return self._release(self._held + text[len(shown) :])

    def _run_of_bytes(self) -> bool:
        """Does what is pending end with a byte token, or with tokens without a text after one?"""
        written = (token for token in reversed(self._pending) if token in self.byte_tokens or self.decode([token]))
        return bool(self.byte_tokens) and next(written, None) in self.byte_tokens

    def _may_still_change(self) -> bool:
        """Byte fallback decodes a run of byte tokens as a whole: one more byte may undo a complete character."""
        text, last = self.decode(self._pending), self._pending[-1]
        if len(self._pending) == 1 or "\ufffd" not in self.decode([last]):
            return False  # an ordinary token ends the run
        return not self.decode([*self._pending, self._pending[0]]).startswith(text)

    def flush(self) -> str:
        """What was still held back: call it at the end."""
        rest = self.decode(self._context + self._pending)[len(self.decode(self._context)) :]
        text = cut_at_stop(self._held + rest, self.stop)
        self._context, self._pending, self._held = [], [], ""
        return "" if self._done else text

    def _release(self, text: str) -> str:
        if self._done:
            return ""
        before = cut_at_stop(text, self.stop)
        if before != text:
            self._done, self._held = True, ""
            return before
        keep = max((n for stop in self.stop for n in range(1, len(stop)) if text.endswith(stop[:n])), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def cut_at_stop(text: str, stop: Sequence[str]) -> str:
    """The text up to the first stop string in it."""
    return text[: min((at for at in (text.find(s) for s in stop) if at >= 0), default=len(text))]
