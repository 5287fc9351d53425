"""Bad input and bad moments: a clear error or the right answer, and nothing broken afterwards."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from drafting import FunctionDrafter, chain, tree
from helpers import VOCAB, perturbed, tiny_model
from torch import Tensor, nn

from specdec_ref.baseline import plain_generate
from specdec_ref.config import DraftBudget, SamplingParams
from specdec_ref.core import Drafter, DraftTree, Randomness
from specdec_ref.drafters import NgramDrafter, build_drafter
from specdec_ref.drafters.draft_model import DraftModelDrafter
from specdec_ref.drafters.layer_skip import layer_skip_drafter
from specdec_ref.engine import SpecEngine
from specdec_ref.models.target import Target
from specdec_ref.randomness import KeyedRandomness
from specdec_ref.request import Limits
from specdec_ref.verifiers import verify_batch

PROMPTS = [[3, 5, 7, 3, 5, 7, 3, 5], [42], [11, 2, 9, 14, 8, 1, 30, 2, 9]]
LIMITS = Limits(max_new_tokens=12)
SAMPLED = SamplingParams(1.0, top_k=8)


@pytest.fixture
def model() -> nn.Module:
    return tiny_model(seed=5)


MAKERS: dict[str, Callable[[Target], Drafter]] = {
    "ngram": lambda target: NgramDrafter(1, 3),
    "draft": lambda target: DraftModelDrafter(Target(perturbed(target.model, 0.1), check=False), VOCAB),
    "layer-skip": lambda target: layer_skip_drafter(target, [0, 2]),
}
every_drafter = pytest.mark.parametrize("name", MAKERS)
every_distribution = pytest.mark.parametrize("sampling", [SamplingParams(), SAMPLED], ids=["greedy", "sampled"])


def texts(engine: SpecEngine, prompts: Sequence[Sequence[int]] = PROMPTS) -> list[list[int]]:
    return [run.tokens for run in engine.generate(prompts)]


# --- prompts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompts", "complaint"),
    [
        ([], "no prompts given"),
        ([[1, 2], []], "prompt 1 is empty: give at least one token"),
        ([[1, VOCAB]], f"prompt 0 holds token ids outside 0..{VOCAB - 1}"),
        ([[1], [2, -1]], "prompt 1 holds token ids outside"),
        ([[1] * 20, [1] * 21], "prompt 1 has 21 tokens; with max_new_tokens 12 that passes the model's 32 positions"),
    ],
)
def test_prompts_that_cannot_be_run(prompts: list[list[int]], complaint: str) -> None:
    """The same words from the engine and from plain decoding; the engine then still works."""
    target = Target(tiny_model("gpt2", positions=32))
    engine = SpecEngine(target, NgramDrafter(), limits=LIMITS)
    good = texts(engine)
    for call in (engine.generate, lambda bad: plain_generate(target, bad, limits=LIMITS)):
        with pytest.raises(ValueError, match=complaint):
            call(prompts)
    assert texts(engine) == good


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
@every_drafter
def test_a_text_may_fill_the_last_position(architecture: str, name: str) -> None:
    """Learned positions end at 32: neither target, nor padding, nor a draft that runs ahead may step beyond them."""
    target = Target(tiny_model(architecture, positions=32))
    prompts = [[3] * 20, [1], [5, 6, 7] * 6 + [5, 6]]
    wanted = [run.tokens for run in plain_generate(target, prompts, limits=LIMITS)]
    for gamma in (4, 7):
        engine = SpecEngine(target, MAKERS[name](target), budget=DraftBudget(gamma), limits=LIMITS)
        assert texts(engine, prompts) == wanted


def test_a_draft_model_may_have_fewer_positions_than_the_text() -> None:
    """It drafts badly from there on; the text stays the target's."""
    target = Target(tiny_model("gpt2", positions=64))
    drafter = DraftModelDrafter(Target(tiny_model("gpt2", positions=16)), VOCAB)
    prompts = [[3] * 20, [1, 2, 3]]
    limits = Limits(max_new_tokens=24)
    wanted = [run.tokens for run in plain_generate(target, prompts, limits=limits)]
    assert texts(SpecEngine(target, drafter, limits=limits), prompts) == wanted


@every_distribution
@every_drafter
def test_one_token_prompts(model: nn.Module, name: str, sampling: SamplingParams) -> None:
    """Nothing to prefill; alone and beside longer ones the same text."""
    target = Target(model)
    engine = SpecEngine(target, MAKERS[name](target), sampling=sampling, limits=LIMITS)
    alone = engine.generate([[42]], [1])[0].tokens
    assert len(alone) == 12
    assert engine.generate([[7]], [0])[0].tokens == engine.generate([[7], [42]], [0, 1])[0].tokens
    assert engine.generate(PROMPTS, [0, 1, 2])[1].tokens == alone
    if sampling.greedy:
        assert alone == plain_generate(target, [[42]], limits=LIMITS)[0].tokens


def test_a_seed_for_every_prompt(model: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"shorter|longer"):
        SpecEngine(Target(model), NgramDrafter()).generate(PROMPTS, [1, 2])


# --- settings ----------------------------------------------------------------------------------------------------------


@every_distribution
@every_drafter
def test_no_drafting_at_all(model: nn.Module, name: str, sampling: SamplingParams) -> None:
    """gamma = 0 is plain decoding in rounds: a token each."""
    target = Target(model)
    engine = SpecEngine(target, MAKERS[name](target), budget=DraftBudget(0), sampling=sampling, limits=LIMITS)
    runs = engine.generate(PROMPTS)
    assert all(run.stats.tau == 1.0 and run.stats.drafted == 0 for run in runs)
    if sampling.greedy:
        assert [run.tokens for run in runs] == [run.tokens for run in plain_generate(target, PROMPTS, limits=LIMITS)]


@pytest.mark.parametrize("new", [1, 2, 3])
@every_drafter
def test_a_draft_longer_than_what_may_still_be_said(model: nn.Module, name: str, new: int) -> None:
    target = Target(model)
    limits = Limits(max_new_tokens=new)
    engine = SpecEngine(target, MAKERS[name](target), budget=DraftBudget(9), limits=limits)
    runs = engine.generate(PROMPTS)
    assert [run.tokens for run in runs] == [run.tokens for run in plain_generate(target, PROMPTS, limits=limits)]
    assert all(record.drafted < new for run in runs for record in run.records)  # never more than can be used


def test_a_draft_model_of_another_vocabulary_is_refused(model: nn.Module) -> None:
    with pytest.raises(ValueError, match=f"vocabulary of 50 tokens, the target of {VOCAB}.*same family and tokenizer"):
        DraftModelDrafter(Target(tiny_model(vocab_size=50)), VOCAB)


def test_names_that_do_not_exist(model: nn.Module) -> None:
    target = Target(model)
    with pytest.raises(ValueError, match="unknown drafter 'magic'; choose from none, ngram"):
        build_drafter("magic", target)
    with pytest.raises(ValueError, match="needs a draft model"):
        build_drafter("draft", target)
    with pytest.raises(ValueError, match="unknown verifier 'magic'; choose from auto, greedy"):
        SpecEngine(target, NgramDrafter(), verifier="magic")
    with pytest.raises(ValueError, match=r"exact at temperature 0 only, not at 1\.0"):
        SpecEngine(target, NgramDrafter(), verifier="greedy", sampling=SamplingParams(1.0))


def branching(text: list[int], budget: DraftBudget, sampling: SamplingParams, rng: Randomness) -> DraftTree:
    return tree([text[-1], 1, 2], [-1, 0, 0])


def test_a_tree_is_refused_by_a_chain_verifier_and_nothing_is_lost(model: nn.Module) -> None:
    target = Target(model)
    engine = SpecEngine(target, FunctionDrafter(branching), sampling=SAMPLED, limits=LIMITS, verifier="rejection")
    (request,) = engine.start(PROMPTS[:1])
    with pytest.raises(ValueError, match="verifies chains"):
        engine.step()
    assert (request.tokens, request.records, target.lengths) == (PROMPTS[0], [], [7])


def test_a_distribution_that_the_verifier_is_not_lossless_for_is_refused() -> None:
    class PointOnly:
        lossless_for = frozenset({"point"})

        def __call__(self, tree: DraftTree, p: Tensor, rng: Randomness) -> Any:
            raise AssertionError("must not be asked")

    q = torch.tensor([[0.5, 0.5], [0.0, 0.0]])
    drawn = DraftTree(torch.tensor([0, 1]), torch.tensor([-1, 0]), "iid", q)
    with pytest.raises(ValueError, match="PointOnly is not lossless for drafts drawn 'iid'; it supports point"):
        verify_batch(PointOnly(), [drawn], torch.zeros(1, 2, 2), SAMPLED, [KeyedRandomness(0, 0, "verify")])
    with pytest.raises(ValueError, match="unknown backend 'gpu'"):
        verify_batch(PointOnly(), [], torch.zeros(0, 1, 2), SAMPLED, [], backend="gpu")


def test_a_drafter_that_lost_its_place_is_stopped(model: nn.Module) -> None:
    """A root that is not the last committed token: every position behind it would be off by some."""
    engine = SpecEngine(Target(model), FunctionDrafter(lambda text, *_: chain([text[-1] + 1])), limits=LIMITS)
    engine.start([[1, 2]])
    with pytest.raises(RuntimeError, match="the drafter's root 3 is not request 0's last token"):
        engine.step()


# --- NaN in mid-run ----------------------------------------------------------------------------------------------------


def poisoned(model: nn.Module, where: str) -> Tensor:
    """A weight whose NaN comes out: at once ("lm_head"), or after it was written into the cache ("k_proj")."""
    chosen = [weight for name, weight in model.named_parameters() if where in name]
    return chosen[0]


@pytest.mark.parametrize("where", ["lm_head", "layers.0.self_attn.k_proj", "layers.0.self_attn.v_proj"])
@pytest.mark.parametrize(("name", "victim"), [*((name, "target") for name in MAKERS), ("draft", "draft")])
@every_distribution
def test_nan_logits_change_nothing(
    model: nn.Module, name: str, sampling: SamplingParams, victim: str, where: str
) -> None:
    """The step raises; once the weights are mended, the same batch goes on to the text it would have had."""
    target = Target(model)
    drafter = MAKERS[name](target)
    engine = SpecEngine(target, drafter, sampling=sampling, limits=LIMITS)
    wanted = texts(engine)
    requests = engine.start(PROMPTS)
    for round_number in range(3):
        engine.step()
        before = [list(request.tokens) for request in requests]
        rounds = [len(request.records) for request in requests]
        lengths = list(target.lengths)
        weight = poisoned(model if victim == "target" else drafter.lm.model, where)  # type: ignore[attr-defined]
        good = weight.clone()
        weight.fill_(float("nan"))
        for _ in range(2):
            with pytest.raises(ValueError, match="NaN or infinite logits"):
                engine.step()
        assert [request.tokens for request in requests] == before, round_number
        assert [len(request.records) for request in requests] == rounds
        assert target.lengths == lengths
        weight.copy_(good)
    while engine.requests:
        engine.step()
    assert [request.new_tokens for request in requests] == wanted


def test_nan_from_the_start_is_an_error_everywhere(model: nn.Module) -> None:
    target = Target(model)
    engine = SpecEngine(target, NgramDrafter(), limits=LIMITS)
    wanted = texts(engine)
    weight = poisoned(model, "lm_head")
    good = weight.clone()
    weight.fill_(float("nan"))
    with pytest.raises(ValueError, match="NaN or infinite"):
        engine.generate(PROMPTS)
    with pytest.raises(ValueError, match="NaN or infinite"):
        plain_generate(target, PROMPTS, limits=LIMITS)
    with pytest.raises(ValueError, match="its weights hold NaN"):
        Target(model)
    weight.copy_(good)
    assert texts(engine) == wanted


# --- interruptions -----------------------------------------------------------------------------------------------------


class Interrupt:
    """Makes the n-th forward of a model raise KeyboardInterrupt, half-way: its first layers have run by then."""

    def __init__(self, model: nn.Module, at: int) -> None:
        self.calls, self.at = 0, at
        self.hook = model.model.layers[-1].register_forward_pre_hook(self)

    def __call__(self, *_: Any) -> None:
        self.calls += 1
        if self.calls == self.at:
            raise KeyboardInterrupt


@pytest.mark.parametrize("victim", ["target", "draft"])
@pytest.mark.parametrize("at", [1, 2, 3, 5])
@every_distribution
def test_an_interrupt_leaves_the_engine_usable(
    model: nn.Module, sampling: SamplingParams, at: int, victim: str
) -> None:
    """In prefill (at = 1) or in a round, in the target or the draft model: caught, continued, and started anew."""
    target = Target(model)
    drafter = DraftModelDrafter(Target(perturbed(model, 0.1), check=False), VOCAB)
    engine = SpecEngine(target, drafter, sampling=sampling, limits=LIMITS)
    wanted = texts(engine)
    broken = model if victim == "target" else drafter.lm.model
    interrupt = Interrupt(broken, at)
    with pytest.raises(KeyboardInterrupt):
        engine.generate(PROMPTS)
    interrupt.hook.remove()
    assert engine.requests == []
    assert texts(engine) == wanted
    if at > 1:  # the same batch can go on, too
        requests = engine.start(PROMPTS)
        interrupt = Interrupt(broken, at)
        for _ in range(100):
            try:
                if engine.requests:
                    engine.step()
            except KeyboardInterrupt:
                interrupt.hook.remove()
        assert [request.new_tokens for request in requests] == wanted


def test_an_interrupted_or_closed_stream_frees_the_engine(model: nn.Module) -> None:
    target = Target(model)
    engine = SpecEngine(target, NgramDrafter(1, 3), limits=LIMITS)
    wanted = texts(engine)
    stream = engine.stream(PROMPTS[0])
    next(stream)
    interrupt = Interrupt(model, 1)
    with pytest.raises(KeyboardInterrupt):
        next(stream)
    interrupt.hook.remove()
    assert engine.requests == []
    stream = engine.stream(PROMPTS[0])
    next(stream)
    stream.close()
    assert engine.requests == []
    assert texts(engine) == wanted


def test_stream_overtaken_by_another_batch_raises(model: nn.Module) -> None:
    """One batch at a time: the older stream must neither steal the newer batch's rounds nor close it."""
    engine = SpecEngine(Target(model), NgramDrafter(1, 3), limits=LIMITS)
    wanted = texts(engine)
    stream = engine.stream(PROMPTS[0])
    next(stream)
    requests = engine.start(PROMPTS)
    with pytest.raises(RuntimeError, match="another batch was started on this target"):
        next(stream)
    while engine.requests:
        engine.step()
    assert [request.new_tokens for request in requests] == wanted


def test_a_step_with_nothing_to_do(model: nn.Module) -> None:
    engine = SpecEngine(Target(model), NgramDrafter(), limits=LIMITS)
    assert engine.step() == []
    texts(engine)
    assert engine.step() == []


def test_engines_with_different_features_share_a_target(model: nn.Module) -> None:
    """What a drafter reads of the target is set when a batch starts, not when an engine is made."""

    class Reader(FunctionDrafter):
        feature_layers = (1, 3)

        def start(self, rows: Sequence[int], prompts: Any, features: Any) -> None:
            assert [part.shape for part in features] == [(len(prompt) - 1, 64) for prompt in prompts]
            super().start(rows, prompts, None)

        def commit(self, rows: Sequence[int], trees: Any, results: Any, features: Any) -> None:
            assert [len(part) for part in features] == [1 + len(result.path) for result in results]
            super().commit(rows, trees, results, None)

    target = Target(model)
    reader = SpecEngine(target, Reader(lambda text, *_: chain([text[-1], 1])), limits=LIMITS)
    other = SpecEngine(target, NgramDrafter(), limits=LIMITS)
    wanted = [run.tokens for run in plain_generate(target, PROMPTS, limits=LIMITS)]
    assert texts(reader, PROMPTS[::2]) == wanted[::2]
    assert texts(other) == wanted
    assert target.feature_layers == ()
    assert texts(reader, PROMPTS[::2]) == wanted[::2]


# --- rows that end -----------------------------------------------------------------------------------------------------


@every_distribution
@every_drafter
def test_finished_rows_leave_the_batch_and_change_nothing_for_the_others(
    model: nn.Module, name: str, sampling: SamplingParams
) -> None:
    target = Target(model)
    free = SpecEngine(target, MAKERS[name](target), sampling=sampling, limits=LIMITS)
    alone = [free.generate([prompt], [seed])[0].tokens for seed, prompt in enumerate(PROMPTS)]
    eos = frozenset({alone[1][3]})
    engine = SpecEngine(target, MAKERS[name](target), sampling=sampling, limits=Limits(max_new_tokens=12, eos=eos))
    requests = engine.start(PROMPTS)
    while engine.requests:
        running = [request.row for request in engine.requests]
        records = engine.step()
        assert [record.request for record in records] == running  # a finished row takes part in no round
        assert len(target.lengths) == len(engine.requests)
    for request, text in zip(requests, alone, strict=True):
        end = min((text.index(token) + 1 for token in eos if token in text), default=12)
        assert request.new_tokens == text[:end]
    assert len(requests[1].new_tokens) <= 4


@pytest.mark.parametrize("name", [*MAKERS, "itself"])
def test_stop_strings(model: nn.Module, name: str) -> None:
    """Found inside a token, across tokens and across rounds; not in the prompt; the token that completes one is kept."""
    target = Target(model)
    makers = {**MAKERS, "itself": lambda target: DraftModelDrafter(Target(model, check=False), VOCAB)}
    engine_of = makers[name]

    def decode(tokens: list[int]) -> str:
        return "".join(f"<{token}>" for token in tokens)

    whole = [run.tokens for run in plain_generate(target, PROMPTS, limits=LIMITS)]
    stops = [
        (f"{whole[0][5]}",), (f"{whole[1][2]}><{whole[1][3]}>",), (f"><{whole[2][6]}><", "never"),
        (decode(whole[0]),), (f"<{PROMPTS[0][0]}><{PROMPTS[0][1]}>",),
    ]  # fmt: skip
    for stop in stops:
        limits = Limits(max_new_tokens=12, stop=stop, decode=decode)
        runs = SpecEngine(target, engine_of(target), budget=DraftBudget(5), limits=limits).generate(PROMPTS)
        for run, text in zip(runs, whole, strict=True):
            ends = [n for n in range(1, 13) if any(s in decode(text[:n]) for s in stop)]
            assert run.tokens == text[: min(ends, default=12)]
            assert run.finish_reason == ("stop" if ends else "length")
        plain = plain_generate(target, PROMPTS, limits=limits)
        assert [run.tokens for run in plain] == [run.tokens for run in runs]


@every_drafter
def test_a_seeded_sample_does_not_depend_on_its_batch(model: nn.Module, name: str) -> None:
    """Alone, in any company, in any order: the same seed gives the same text."""
    target = Target(model)
    engine = SpecEngine(target, MAKERS[name](target), sampling=SAMPLED, limits=LIMITS)
    seeds = [101, 7, 2**40]
    alone = [engine.generate([prompt], [seed])[0].tokens for prompt, seed in zip(PROMPTS, seeds, strict=True)]
    assert [run.tokens for run in engine.generate(PROMPTS, seeds)] == alone
    assert [run.tokens for run in engine.generate(PROMPTS[::-1], seeds[::-1])] == alone[::-1]
    crowd = [[1, 2, 3, 4, 5, 6, 7], *PROMPTS, [9] * 15]
    assert [run.tokens for run in engine.generate(crowd, [5, *seeds, 6])][1:4] == alone
    assert engine.generate(PROMPTS[:1], [102])[0].tokens != alone[0]
