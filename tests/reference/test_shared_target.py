"""A target holds one batch at a time: an engine, stream or plain decoder whose batch was replaced raises an error."""

from collections.abc import Callable, Iterator

import pytest

from specdec_ref.baseline import plain_generate, plain_stream
from specdec_ref.drafters.ngram import NgramDrafter
from specdec_ref.engine import SpecEngine
from specdec_ref.models.target import Target
from specdec_ref.request import Limits

FIRST, SECOND = [3, 1, 4, 1, 5, 3, 1], [9, 2, 6, 5, 9, 2, 6]  # equal lengths: no count of cached tokens can notice
LIMITS = Limits(max_new_tokens=12)
REPLACED = pytest.raises(RuntimeError, match="another batch was started on this target")


def engine_on(target: Target) -> SpecEngine:
    return SpecEngine(target, NgramDrafter(1, 3), limits=LIMITS)


def plain(target: Target, prompt: list[int]) -> list[int]:
    return plain_generate(target, [prompt], limits=LIMITS)[0].tokens


def test_engine_whose_batch_was_replaced_raises_and_the_newer_one_goes_on(tiny: Target) -> None:
    older, newer, wanted = engine_on(tiny), engine_on(tiny), plain(tiny, SECOND)
    (untouched,) = older.start([FIRST])
    (request,) = newer.start([SECOND])
    with REPLACED:
        older.step()
    assert untouched.new_tokens == []
    older.close()
    while newer.requests:
        newer.step()
    assert request.new_tokens == wanted
    assert older.generate([FIRST])[0].tokens == plain(tiny, FIRST)


def test_engines_may_take_turns(tiny: Target) -> None:
    one, other = engine_on(tiny), engine_on(tiny)
    wanted = [plain(tiny, FIRST), plain(tiny, SECOND)]
    for _ in range(2):
        assert [one.generate([FIRST])[0].tokens, other.generate([SECOND])[0].tokens] == wanted


def same_engine(target: Target, engine: SpecEngine) -> None:
    engine.generate([SECOND])


def other_engine(target: Target, engine: SpecEngine) -> None:
    engine_on(target).generate([SECOND])


def plain_decoder(target: Target, engine: SpecEngine) -> None:
    plain(target, SECOND)


def prefill(target: Target, engine: SpecEngine) -> None:
    target.start([SECOND], capacity=32)


@pytest.mark.parametrize("interrupt", [same_engine, other_engine, plain_decoder, prefill])
def test_stream_with_another_batch_inside_raises(tiny: Target, interrupt: Callable[[Target, SpecEngine], None]) -> None:
    engine = engine_on(tiny)
    streams: list[Iterator[object]] = [engine.stream(FIRST), plain_stream(tiny, FIRST, limits=LIMITS)]
    for stream in streams:
        next(stream)
        interrupt(tiny, engine)
        with REPLACED:
            next(stream)
        assert engine.requests == []
    assert engine.generate([FIRST])[0].tokens == plain(tiny, FIRST)


def test_closing_the_engine_ends_its_stream_without_an_error(tiny: Target) -> None:
    engine = engine_on(tiny)
    stream = engine.stream(FIRST)
    next(stream)
    engine.close()
    assert list(stream) == []
