"""The pieces of a tokenizer's chat template, so that turns can be appended to a text without rendering it anew."""

from typing import Any

__all__ = ["ChatPieces"]

_MARKS = ("\u27e6first\u27e7", "\u27e6answer\u27e7", "\u27e6second\u27e7")  # stand for the messages, then are cut out


class ChatPieces:
    """head, user text, tail, answer, between, user text, tail, ...: a chat under the template's own system message.

    Attributes are lists of token ids: `head` up to the first user text, `tail` from its end to where the answer begins,
    `between` from the end of an answer to the next user text. `end` is the token that ends a turn; `tail` and `between`
    start with it.
    """

    def __init__(self, tokenizer: Any) -> None:
        """Raises ValueError if the tokenizer has no chat template, or one whose turns do not end with the EOS token."""
        if not getattr(tokenizer, "chat_template", None):
            raise ValueError("the tokenizer has no chat template: use an instruction-tuned target")
        roles = ("user", "assistant", "user")
        messages = [{"role": role, "content": mark} for role, mark in zip(roles, _MARKS, strict=True)]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        pieces = []
        for mark in _MARKS:
            piece, found, text = text.partition(mark)
            if not found:
                raise ValueError("the chat template drops or changes messages: it cannot be cut into pieces")
            pieces.append(piece)
        self._tokenizer = tokenizer
        self.head, _, self.between = (self.encode(piece) for piece in pieces)
        self.tail = self.encode(text)
        self.end = int(tokenizer.eos_token_id)
        if self.tail[:1] != [self.end] or self.between[:1] != [self.end]:
            raise ValueError("the chat template does not end turns with the EOS token: set the tokenizer's eos_token")

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, no special tokens added."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return ids

    def decode(self, tokens: list[int]) -> str:
        """The text of these tokens."""
        return str(self._tokenizer.decode(tokens))

    def prompt(self, text: str) -> list[int]:
        """A chat whose only message is `text`, up to where the answer begins."""
        return [*self.head, *self.encode(text.strip()), *self.tail]

    def messages(self, prompt: list[int]) -> list[dict[str, str]]:
        """The messages of a rendered prompt: the inverse of `prompt`, and of what `between` joins.

        Raises ValueError if the prompt was not rendered from these pieces.
        """
        rest, found = prompt[len(self.head) :], list[dict[str, str]]()
        while rest:
            begins, role = (self.between, "assistant") if len(found) % 2 else (self.tail, "user")
            end = rest.index(self.end) if self.end in rest else len(rest)
            if rest[end : end + len(begins)] != begins:
                raise ValueError(f"a prompt of {len(prompt)} tokens was not rendered from the pieces of this template")
            found.append({"role": role, "content": self.decode(rest[:end])})
            rest = rest[end + len(begins) :]
        return found
