"""`Session`: from a model's name or a whole configuration to an engine and an answer."""

from pathlib import Path

import pytest
from chat_models import save_byte_model

from specdec_ref import DraftBudget, SamplingParams, Session, SpecConfig, SpecEngine
from specdec_ref.adaptive import Constant
from specdec_ref.config import TrieOptions
from specdec_ref.drafters import DRAFTERS, NgramDrafter, TrieDrafter

PROMPT = "The keeper"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_byte_model(tmp_path_factory.mktemp("models") / "bytes")


def configured(folder: Path, **settings: object) -> Session:
    return Session.from_config(SpecConfig.from_dict({"target": str(folder), "dtype": "float64", **settings}))


def chosen(engine: SpecEngine) -> tuple[object, ...]:
    return type(engine.drafter), engine.budget, engine.sampling, engine.control


def test_an_engine_does_what_the_configuration_says(folder: Path) -> None:
    budget, sampling = DraftBudget(3, 2, 6), SamplingParams(0.7, top_k=5)
    settings = {"drafter": "trie", "budget": budget, "sampling": sampling, "adaptive": "constant"}
    session = configured(folder, **settings)
    assert chosen(session.engine()) == (TrieDrafter, budget, sampling, Constant(3))
    mine = NgramDrafter()
    engine = session.engine(mine, budget=DraftBudget(2), sampling=SamplingParams())
    assert engine.drafter is mine
    assert chosen(engine) == (NgramDrafter, DraftBudget(2), SamplingParams(), None)  # the controller was the trie's


def test_without_a_configuration_the_defaults_are_its_defaults(folder: Path) -> None:
    session, default = Session.open(str(folder), dtype="float64"), SpecConfig()
    assert chosen(session.engine()) == (NgramDrafter, default.budget, default.sampling, None)


def test_a_configured_trie_knows_its_corpus(folder: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.txt"
    cold = configured(folder, drafter="trie").generate(PROMPT, max_new_tokens=30)
    corpus.write_text(f"{PROMPT}<|im_end|>\n<|im_start|>assistant\n{cold.text}", encoding="utf-8")
    session = configured(folder, drafter="trie", trie=TrieOptions(corpus=str(corpus)))
    warm = session.generate(PROMPT, max_new_tokens=30)
    assert warm.tokens == cold.tokens
    assert warm.stats.tau > cold.stats.tau
    corpus.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ValueError, match=r"the trie's corpus .*corpus\.txt: "):
        session.engine()


def test_generate_follows_the_configuration_and_equals_plain(folder: Path) -> None:
    session = configured(folder, drafter="ngram", budget=DraftBudget(2))
    answer = session.generate(PROMPT, max_new_tokens=25)
    (plain,) = session.plain([session.encode(PROMPT)], limits=session.limits(25))
    assert answer.tokens == plain.tokens
    assert 0 < len(answer.stats.accepted_per_position) <= 2
    assert answer.text == session.decode(plain.tokens)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"drafter": "eagel"}, "unknown drafter 'eagel'"),
        ({"adaptive": "often"}, "unknown controller 'often'"),
        ({"verifier": "exactly"}, "unknown verifier 'exactly'"),
        ({"verifier": "threshold"}, "lossy=True"),
    ],
)
def test_names_that_do_not_exist_are_refused_when_the_engine_is_made(
    folder: Path, settings: dict[str, str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        configured(folder, **settings).engine()


def test_every_drafter_has_a_length_that_suits_it() -> None:
    assert {DraftBudget.suited_to(name).topk for name in DRAFTERS} == {1}
    assert DraftBudget.suited_to("eagle").depth < DraftBudget.suited_to("ngram").depth
    assert DraftBudget.suited_to("ngram", adaptive=True).depth > DraftBudget.suited_to("ngram").depth
    assert DraftBudget.suited_to("a stranger's") == DraftBudget()
