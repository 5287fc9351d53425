"""Heads compared by replay: the answers that they are replayed on are the target's own."""

from chat_models import byte_llama, byte_tokenizer

from benchmarks.replayed import answers
from specdec_ref.baseline import plain_generate
from specdec_ref.models.target import Target
from specdec_ref.request import Limits


def test_answers_are_those_of_plain_decoding() -> None:
    tokenizer = byte_tokenizer()
    model = byte_llama(tokenizer)
    prompts = [tokenizer.encode(text) for text in ("Hello", "a", "Name three colours.")]
    plain = plain_generate(Target(model, check=False), prompts, limits=Limits(max_new_tokens=12))
    ends = plain[1].tokens[4]  # the second answer's fifth token, or an earlier one like it, ends an answer here
    attention = model.config._attn_implementation
    found = answers(model, prompts, ends, 12)
    assert model.config._attn_implementation == attention
    for answer, one in zip(found, plain, strict=True):
        expected = one.tokens[: one.tokens.index(ends) + 1] if ends in one.tokens else one.tokens
        assert answer == expected
    assert len(found[1]) <= 5
