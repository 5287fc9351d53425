"""Streamed text is the whole decoding, whatever the tokenizer; stop strings are found across tokens without text."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders
from tokenizers.models import BPE

from specdec_ref.request import Limits, Request
from specdec_ref.text import TextStream

WORDS = ["Hello", "world", " a", "\n", "é", "霞", "😀"]
Decode = Callable[[Sequence[int]], str]


def byte_level(split: bool) -> Tokenizer:
    """Every byte is a token; `split`: and so are pieces that end one character and begin the next, as in GPT-2."""
    alphabet = bytes_to_unicode()
    pieces = [bytes([b]) for b in range(256)] + [word.encode() for word in WORDS]
    pieces += [b"\x9a\xe9", b"\xa9\xf0\x9f", b"a\xe6", b"\x99\x9a\xe9\x9c"] * split
    vocabulary = {"".join(alphabet[b] for b in piece): i for i, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=[]))
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def bytes_to_unicode() -> dict[int, str]:
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(others)}


def sentencepiece() -> Tokenizer:
    """Llama-2's decoder: U+2581 for a space, byte tokens for other characters, no space at the start of a text."""
    words = ["▁Hello", "▁world", "▁a", "b", "▁", "é"]
    vocabulary = {piece: i for i, piece in enumerate(words + [f"<0x{b:02X}>" for b in range(256)])}
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=[], byte_fallback=True))
    replace, strip = decoders.Replace("▁", " "), decoders.Strip(" ", 1, 0)
    tokenizer.decoder = decoders.Sequence([replace, decoders.ByteFallback(), decoders.Fuse(), strip])
    return tokenizer


def with_special(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.add_special_tokens([AddedToken("<s>", special=True)])
    return tokenizer


TOKENIZERS = {
    "byte-level": with_special(byte_level(False)),
    "gpt-2": with_special(byte_level(True)),
    "sentencepiece": with_special(sentencepiece()),
}


def byte_tokens(tokenizer: Tokenizer) -> frozenset[int]:
    return frozenset(number for token, number in tokenizer.get_vocab().items() if token.startswith("<0x"))


def streamed(decode: Decode, tokens: Sequence[int], of_bytes: frozenset[int] = frozenset()) -> str:
    stream = TextStream(decode, byte_tokens=of_bytes)
    return "".join(map(stream.feed, tokens)) + stream.flush()


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_streamed_text_is_the_whole_decoding(name: str, data: st.DataObject) -> None:
    tokenizer = TOKENIZERS[name]
    tokens = data.draw(st.lists(st.integers(0, tokenizer.get_vocab_size() - 1), max_size=24))
    assert streamed(tokenizer.decode, tokens, byte_tokens(tokenizer)) == tokenizer.decode(tokens)


@pytest.mark.parametrize("name", TOKENIZERS)
@given(text=st.text(alphabet="ab é霞晚😀\n", max_size=12))
def test_valid_text_is_streamed_without_waiting_for_the_end(name: str, text: str) -> None:
    """Byte by byte: each character is out no later than the token after its last byte."""
    if name == "sentencepiece":
        ids = [TOKENIZERS[name].token_to_id(f"<0x{b:02X}>") for b in text.encode()]
    else:
        alphabet = bytes_to_unicode()
        ids = [TOKENIZERS[name].token_to_id(alphabet[b]) for b in text.encode()]
        stream = TextStream(TOKENIZERS[name].decode)
        assert "".join(map(stream.feed, ids)) == text
    assert streamed(TOKENIZERS[name].decode, ids, byte_tokens(TOKENIZERS[name])) == TOKENIZERS[name].decode(ids)


def test_a_session_knows_its_byte_tokens() -> None:
    from types import SimpleNamespace

    from specdec_ref.session import Session

    tokenizer: Any = SimpleNamespace(get_vocab=lambda: {"<0x0A>": 3, "<0xGG>": 4, "a<0x0A>": 5, "a": 6})
    assert Session.byte_tokens.fget(SimpleNamespace(tokenizer=tokenizer)) == {3}


def test_an_invalid_byte_undoes_the_ascii_bytes_before_it() -> None:
    """Byte fallback decodes a run as a whole, so nothing of it may be shown before it has ended."""
    tokenizer = TOKENIZERS["sentencepiece"]
    stream = TextStream(tokenizer.decode, byte_tokens=byte_tokens(tokenizer))
    ids = [tokenizer.token_to_id(token) for token in ("b", "<0x41>", "<0xE6>", "b")]
    assert [stream.feed(token) for token in ids] == ["b", "", "", "\ufffd\ufffdb"]
    assert tokenizer.decode(ids) == "b\ufffd\ufffdb"
    apart = [
        tokenizer.token_to_id(token) for token in ("<0x41>", "<s>", "<0xE6>", "b")
    ]  # a token without a text between
    assert streamed(tokenizer.decode, apart, byte_tokens(tokenizer)) == tokenizer.decode(apart) == "\ufffd\ufffdb"


def test_a_token_may_end_one_character_and_begin_the_next() -> None:
    piece = {1: b"\xe6", 2: b"\x99", 3: b"\x9a\xe9", 4: b"\x9c", 5: b"\x9e"}  # GPT-2's own split of two characters
    assert streamed(lambda ids: b"".join(piece[i] for i in ids).decode(errors="replace"), [1, 2, 3, 4, 5]) == "晚霞"


def test_a_space_after_a_special_token_stays() -> None:
    tokenizer = TOKENIZERS["sentencepiece"]
    ids = [tokenizer.token_to_id(token) for token in ("▁Hello", "<s>", "<s>", "▁world")]
    assert streamed(tokenizer.decode, ids) == "Hello world"


@pytest.mark.parametrize("skipped", [0, 1, 12, 300])
def test_a_stop_string_across_tokens_without_text_is_found(skipped: int) -> None:
    def decode(ids: list[int]) -> str:
        return "".join({1: "a", 2: "", 3: "b"}[i] for i in ids)

    request = Request(0, [9], 0, Limits(999, stop=("ab",), decode=decode))
    request.emit([1] + [2] * skipped + [3])
    assert request.finish_reason == "stop"
    other = Request(0, [9], 0, Limits(999, stop=("ab",), decode=decode))
    other.emit([3, 3] + [2] * skipped + [1])
    assert other.finish_reason is None


def test_a_special_token_is_no_stop_string() -> None:
    from types import SimpleNamespace

    from specdec_ref.session import Session

    tokenizer: Any = SimpleNamespace(all_special_tokens=["<|im_start|>"], decode=lambda ids, **_: "")
    session: Any = SimpleNamespace(tokenizer=tokenizer, eos=frozenset(), decode=lambda ids: "")
    assert Session.limits(session, 5, ["END"]).stop == ("END",)
    for text in ("<|im_start|>", "\n<|im_start|>user"):
        with pytest.raises(ValueError, match=r"can never match: '<\|im_start\|>' is a special token"):
            Session.limits(session, 5, [text])
