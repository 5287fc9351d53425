"""The corpus generator: prompts, decoding by rows, shards, resuming. A tiny random Llama and a byte tokenizer."""

import gzip
import json
import re
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from chat_models import byte_llama, byte_tokenizer

from specdec_ref.training.chat import ChatPieces
from specdec_ref.training.corpus import CorpusConfig, _Generator, find_loop, generate_corpus
from specdec_ref.training.edits import computed_rules, first_sentences, misspell
from specdec_ref.training.features import Store, extract_features, open_features
from specdec_ref.training.grammar import Grammar
from specdec_ref.training.material import Material, is_permissive, read
from specdec_ref.training.prompts import TASKS, Dialogue, dialogues, fingerprint, overlap, overlaps
from specdec_ref.training.rows import RowDecoder
from specdec_ref.training.script import Row
from specdec_ref.training.shards import Conversation, corpus_folder, load_corpus, write_shard

FUNCTION = """def {name}(items, limit):
    # the {name} of all items below a limit
    result = {number}
    for item in items:
        result += item if item < limit else {number}
    return result"""
MATERIAL = Material(
    sentences=("Return the number of items in the queue", "Close the file and forget its name"),
    functions=tuple(FUNCTION.format(name=f"{a}_{b}", number=i) for i, a in enumerate("abcdefgh") for b in "klmnop"),
    paragraphs=("The reader keeps a buffer of bytes. When it is empty, more are read. Errors are raised late.",),
)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return byte_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer: Any) -> Any:
    return byte_llama(tokenizer)


CONFIG = CorpusConfig(
    seed=5,
    rows=4,
    slots=1200,
    max_response=24,
    max_long_response=40,
    max_user_turn=30,
    shard_size=5,
    conversations=12,
    cache_dtype=torch.float32,
)


# ---- prompts ---------------------------------------------------------------------------------------------------------


def take(n: int, seed: int = 0) -> list[Any]:
    return list(islice(dialogues(seed, MATERIAL), n))


def test_dialogues_depend_on_the_seed_alone() -> None:
    assert take(300) == take(300)
    assert take(300) != take(300, seed=1)


def test_first_prompts_are_distinct_and_of_every_task() -> None:
    first = [d.turns[0] for d in take(4000)]
    asked = [turn.text for turn in first if turn.task != "invented"]
    assert len({fingerprint(text) for text in asked}) == len(asked)
    share = {task: sum(turn.task == task for turn in first) / len(first) for task in TASKS}
    assert min(share.values()) > 0.01
    assert share["invented"] < 0.3
    assert sum(len(d.turns) == 2 for d in take(4000)) > 400


def test_no_slot_is_left_open() -> None:
    for dialogue in take(3000):
        for turn in dialogue.turns:
            assert not re.search(r"\{(?!answer\})[a-z_]+(#\w)?\}", turn.text), turn.text
            assert ("{answer}" in turn.text) == turn.fresh


def test_every_symbol_of_the_grammar_expands() -> None:
    from importlib.resources import files

    text = files("specdec_ref.training").joinpath("_text/grammar.txt").read_text("utf8")
    grammar = Grammar(text, computed_rules(MATERIAL))
    for symbol in [*grammar.templates, *grammar.rules]:
        for seed in range(5):
            assert grammar.expand(symbol, Random(seed)).strip() or symbol == "user_opening"


def test_grammar_features() -> None:
    grammar = Grammar("# note\n[s]\n{Who#1} saw {a what}, said {who#1}.\n[who]\nann | ann\n[what]\nowl", {})
    assert grammar.expand("s", Random(0)) == "Ann saw an owl, said ann."
    rules = {"k": lambda rng, expand: expand("who") + "!"}
    assert Grammar("[s]\n{k}\n[who]\nann", rules).expand("s", Random(0)) == "ann!"
    with pytest.raises(ValueError, match=r"\[s\] uses \{gone\}"):
        Grammar("[s]\n{gone}", {})


def test_prompts_need_no_material() -> None:
    assert len(list(islice(dialogues(0, Material((), (), ())), 500))) == 500


def test_fingerprint_sees_through_small_changes() -> None:
    passage = take(1)[0].turns[0].text + " " + " ".join(f"word{i} stands here" for i in range(60))
    assert fingerprint(passage) == fingerprint(passage.upper().replace(" ", "  "))
    assert fingerprint("Tell me about tea.") != fingerprint("Tell me about salt.")


def test_misspell_changes_words_only_a_little() -> None:
    text = "several interesting sentences about nothing whatsoever " * 5
    wrong = misspell(text, Random(1))
    assert wrong != text
    assert len(wrong.split(" ")) == len(text.split(" "))
    assert abs(len(wrong) - len(text)) < 12


def test_first_sentences() -> None:
    assert first_sentences("One here. Two here. Three here.", 20) == "One here. Two here."
    assert first_sentences("A sentence that is too long. B.", 5) == "A sentence that is too long."


def test_overlap() -> None:
    prompt = list(range(20))
    assert overlap(prompt, [prompt]) == 1.0
    assert overlap(prompt, [[99, *prompt[:12]], [7] * 30]) == 5 / 13  # 8-grams 0 to 4 of 13
    assert overlap(prompt, []) == 0.0
    assert overlaps([[1, 2, 3], [4, 5, 6]], [[0, 1, 2, 3]]) == [1.0, 0.0]
    assert overlap([], [prompt]) == 0.0
    with pytest.raises(ValueError, match="n is 0"):
        overlap(prompt, [], 0)


# ---- material --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("licence", "fine"),
    [("MIT", True), ("BSD-3-Clause", True), ("Apache 2.0 License", True), ("PSF-2.0", True), ("Expat", True),
     ("", False), ("GPL-3+", False), ("GFDL-1.3", False), ("MPL-2.0 AND MIT", False), ("CC-BY-3.0", False),
     ("Proprietary", False)],
)  # fmt: skip
def test_permissive_licences(licence: str, fine: bool) -> None:
    assert is_permissive(licence) is fine


def test_material_of_python_files(tmp_path: Path) -> None:
    import textwrap as stdlib_module

    wrong = tmp_path / "wrong.py"
    wrong.write_text("def broken(:")
    found = read([Path(stdlib_module.__file__), wrong, tmp_path / "absent.py"])
    assert any(function.startswith("def shorten(text, width") for function in found.functions)
    assert "Collapse and truncate the given text to fit in the given width" in found.sentences
    assert any("wrap" in paragraph for paragraph in found.paragraphs)
    for code in found.functions:
        compile(code, "material", "exec")  # whole functions, dedented


def test_debian_documentation_is_read_by_licence(tmp_path: Path) -> None:
    from specdec_ref.training.material import debian_files

    for name, licences in {"free": ["MIT", "BSD-3-clause"], "mixed": ["MIT", "GFDL-1.2"], "old": []}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "README").write_text("text")
        (tmp_path / name / "copyright").write_text("\n".join(f"License: {licence}" for licence in licences))
    assert [path.parent.name for path in debian_files(tmp_path)] == ["free"]
    assert list(debian_files(tmp_path / "absent")) == []


# ---- chat template ---------------------------------------------------------------------------------------------------


def test_pieces_make_the_rendered_chat(tokenizer: Any) -> None:
    chat = ChatPieces(tokenizer)
    said = (("user", "Hi"), ("assistant", "Yes?"), ("user", "Bye"))
    messages = [{"role": role, "content": text} for role, text in said]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    texts = [chat.encode(text) for _, text in said]
    pieces = [chat.head, texts[0], chat.tail, texts[1], chat.between, texts[2], chat.tail]
    assert list(chain.from_iterable(pieces)) == tokenizer.encode(rendered, add_special_tokens=False)
    assert chat.prompt(" Hi ") == [*chat.head, *chat.encode("Hi"), *chat.tail]


def test_unusable_templates_are_refused(tokenizer: Any) -> None:
    from copy import deepcopy

    changed = deepcopy(tokenizer)
    changed.chat_template = None
    with pytest.raises(ValueError, match="no chat template"):
        ChatPieces(changed)
    changed.chat_template = "{% for m in messages %}{{ m['content'] | upper }}{% endfor %}"
    with pytest.raises(ValueError, match="cannot be cut"):
        ChatPieces(changed)
    changed.chat_template = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"
    with pytest.raises(ValueError, match="EOS"):
        ChatPieces(changed)


# ---- decoding by rows ------------------------------------------------------------------------------------------------


def reference(model: Any, tokens: list[int]) -> torch.Tensor:
    """Logits after the last token by one plain forward with transformers' own attention."""
    before = model.config._attn_implementation
    model.config._attn_implementation = "sdpa"
    with torch.inference_mode():
        logits: torch.Tensor = model(torch.tensor([tokens])).logits[0, -1]
    model.config._attn_implementation = before
    return logits


@pytest.mark.parametrize("together", [False, True], ids=["row by row", "together, as on a GPU"])
def test_rows_equal_plain_forwards(model: Any, together: bool) -> None:
    """Ragged rows behind a shared prefix; one is used again by a shorter text; one is extended in mid-text."""
    rng = Random(0)

    def words(n: int) -> list[int]:
        return [rng.randrange(200) for _ in range(n)]

    prefix = words(5)
    decoder = RowDecoder(model, rows=3, slots=40, cache_dtype=torch.float32, together=together)
    decoder.share_prefix(prefix)
    texts = {row: prefix + words(n) for row, n in enumerate((20, 3, 11))}
    for row, text in texts.items():
        decoder.fill(row, 5, text[5:-1])
    texts[0] = prefix + words(4)  # row 0 again: longer remains of the old text must not be seen
    decoder.fill(0, 5, texts[0][5:-1])
    more = words(6)
    decoder.fill(2, len(texts[2]) - 1, [texts[2][-1], *more[:-1]])
    texts[2] = texts[2] + more
    for _ in range(3):
        rows = [2, 0, 1]
        logits = decoder.step(rows, [texts[r][-1] for r in rows], [len(texts[r]) - 1 for r in rows])
        for row, got in zip(rows, logits, strict=True):
            # float32, 2 layers: sums in another order differ in the last of 24 bits, some hundred times over
            torch.testing.assert_close(got, reference(model, texts[row]), atol=2e-4, rtol=1e-4)
        for row in rows:
            texts[row] = texts[row] + words(1)


def test_rows_refuse_what_does_not_fit(model: Any) -> None:
    decoder = RowDecoder(model, rows=1, slots=4, cache_dtype=torch.float32)
    with pytest.raises(ValueError, match="5 tokens do not fit into 4 slots"):
        decoder.fill(0, 0, [1, 2, 3, 4, 5])
    from transformers import Qwen2Config, Qwen2ForCausalLM

    windowed = Qwen2Config(
        vocab_size=9,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        use_sliding_window=True,
        sliding_window=4,
        max_window_layers=0,
    )
    with pytest.raises(ValueError, match="other than full attention"):
        RowDecoder(Qwen2ForCausalLM(windowed), rows=1, slots=4)


# ---- generation ------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(model: Any, tokenizer: Any) -> Any:
    """Generate with the tiny model: `small(folder, **changes of CONFIG)`."""

    def run(folder: Path, **changes: Any) -> list[Conversation]:
        generate_corpus(replace(CONFIG, **changes), model, tokenizer, folder, MATERIAL)
        return list(load_corpus([folder]))

    return run


def test_conversations_are_chats_of_the_target(small: Any, tmp_path: Path, model: Any, tokenizer: Any) -> None:
    """Prompts start with the template's head and end where the answer begins; greedy answers are the argmax."""
    chat = ChatPieces(tokenizer)
    corpus = small(tmp_path, conversations=40)
    assert len(corpus) == 40
    assert {c.temperature for c in corpus} == {0.0, 0.7, 1.0}
    for c in corpus:
        assert list(c.prompt[: len(chat.head)]) == chat.head
        assert list(c.prompt[-len(chat.tail) :]) == chat.tail
        assert 1 <= len(c.response) <= 40
        assert chat.end not in c.response[:-1]
        assert c.response[-1] == chat.end or len(c.response) in (24, 40)
    greedy = [c for c in corpus if c.temperature == 0.0]
    assert len(greedy) > 5
    for c in greedy[:4]:
        text = [*c.prompt, *c.response]
        for i in range(len(c.prompt), len(text)):
            logits = reference(model, text[:i])
            assert logits[text[i]] > logits.max() - 1e-3  # float32: only near ties may fall the other way


def test_dialogues_go_on(small: Any, tmp_path: Path, tokenizer: Any) -> None:
    """Second turns hold the first and its answer; own texts hold the answer alone; invented turns are the target's."""
    chat = ChatPieces(tokenizer)
    corpus = small(tmp_path, conversations=100)
    first = {c.number: c for c in corpus if c.task not in ("follow_up", "own_text")}
    follow, own = ([c for c in corpus if c.task == task] for task in ("follow_up", "own_text"))
    assert follow
    assert own
    assert any(c.task == "invented" for c in corpus)
    for c in follow:
        before = first[c.number]
        history = before.prompt + before.response
        assert c.prompt[: len(history)] == history
        assert list(c.prompt[len(history) :][: len(chat.between) - 1]) == chat.between[1:]
    for c in own:
        answer = first_sentences(chat.decode(list(first[c.number].response[:-1])).strip(), 900)
        assert answer in chat.decode(list(c.prompt))
        assert len(c.prompt) < len(first[c.number].prompt) + 250


def test_resuming_goes_on_where_it_ended(small: Any, tmp_path: Path) -> None:
    whole = small(tmp_path / "whole", conversations=30, rows=1)
    for _ in range(3):
        parts = small(tmp_path / "parts", conversations=10, rows=1)
    # A dialogue that a stop cut between its turns keeps its first; with one row nothing else is lost or made twice.
    assert [c.number for c in parts] == sorted(c.number for c in parts)
    pairs = {(c.number, c.task): c for c in whole}
    same = [c for c in parts if (c.number, c.task) in pairs]
    assert len(same) > 20
    assert all(c == pairs[c.number, c.task] for c in same)
    assert len({(c.number, c.task) for c in parts}) == 30


def test_workers_share_the_dialogues_out(small: Any, tmp_path: Path) -> None:
    for worker in range(2):
        small(tmp_path, worker=worker, workers=2)
    numbers = [{c.number for c in load_corpus(sorted(tmp_path.glob(f"*-{w}of2-*")))} for w in range(2)]
    assert all(number % 2 == 0 for number in numbers[0])
    assert all(number % 2 == 1 for number in numbers[1])
    assert len(list(load_corpus([tmp_path]))) == 24


def test_features_come_along_with_the_text(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    """The states kept while writing are those of a second forward, so extraction finds nothing left to do."""
    layers = (0, 1, model.config.num_hidden_layers)
    store = Store(tmp_path / "along", model, layers)
    config = replace(CONFIG, conversations=20, shard_size=8)
    generate_corpus(config, model, tokenizer, tmp_path / "corpus", MATERIAL, store)
    by_rows, model.config._attn_implementation = model.config._attn_implementation, "sdpa"
    shards = sorted((tmp_path / "corpus").iterdir())
    assert extract_features(model, shards, tmp_path / "along", layers) == 0
    extract_features(model, shards, tmp_path / "second", layers)
    model.config._attn_implementation = by_rows
    kept, again = ([e for b in open_features([tmp_path / f]) for e in b.examples()] for f in ("along", "second"))
    assert len(kept) == len(again) == 20
    for one, other in zip(kept, again, strict=True):
        assert torch.equal(one.tokens, other.tokens)
        assert one.fused.abs().sum() > 0
        torch.testing.assert_close(one.fused, other.fused, rtol=2e-3, atol=2e-3)
        torch.testing.assert_close(one.final, other.final, rtol=2e-3, atol=2e-3)


def test_an_interrupt_saves_what_is_finished(
    model: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = iter(range(70))
    step = RowDecoder.step

    def interrupted(self: RowDecoder, *args: Any) -> Any:
        if next(steps, None) is None:
            raise KeyboardInterrupt
        return step(self, *args)

    monkeypatch.setattr(RowDecoder, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        generate_corpus(replace(CONFIG, conversations=None), model, tokenizer, tmp_path, MATERIAL)
    saved = list(load_corpus([tmp_path]))
    assert len(saved) >= 6
    assert len(saved) % 5  # the last shard is a partial one
    assert not list(tmp_path.glob("*.tmp"))


def test_tokens_are_drawn_at_their_temperature(model: Any, tokenizer: Any) -> None:
    generator = _Generator(CONFIG, model, tokenizer)
    logits = torch.tensor([0.0, 1.0, 2.5, -1.0])
    for temperature in (0.0, 0.7, 1.0):
        rows = [Row(Dialogue(number, ()), 0, [0], 1, 9, temperature) for number in range(3000)]
        drawn = torch.tensor(generator._choose(logits.expand(3000, 4), rows)).bincount(minlength=4) / 3000
        dist = torch.softmax(logits / temperature, 0) if temperature else torch.tensor([0.0, 0.0, 1.0, 0.0])
        # five standard errors of a share; the coins are keyed, so this passes always or never
        assert ((drawn - dist).abs() <= 5 * (dist * (1 - dist) / 3000).sqrt()).all()


def test_bad_configurations_are_refused() -> None:
    with pytest.raises(ValueError, match="worker 2 of 2"):
        CorpusConfig(worker=2, workers=2)
    with pytest.raises(ValueError, match="slots"):
        CorpusConfig(slots=100)


def test_loops_are_found() -> None:
    start = list(range(100, 130))
    assert find_loop(start) is None
    assert find_loop(start + [7] * 60) == (30, 1)
    assert find_loop(start + [1, 2, 3, 4, 5] * 11) == (30, 5)
    assert find_loop(start + list(range(20)) * 3) is None  # three times is not yet a loop
    assert find_loop(start + list(range(20)) * 4) == (30, 20)
    assert find_loop(start + [7] * 60 + [8]) is None  # it came out again


# ---- files -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def conversations() -> list[Conversation]:
    return [Conversation("chat", (1, 2), (3, 49151), 0.7, 4), Conversation("code", (5,), (6, 7, 8), 0.0, 9)]


def test_shards_round_trip(conversations: list[Conversation], tmp_path: Path) -> None:
    write_shard(tmp_path / "a.npz", conversations)
    assert list(load_corpus([tmp_path])) == conversations
    with np.load(tmp_path / "a.npz") as shard:
        assert shard["tokens"].dtype == np.uint16
    write_shard(tmp_path / "b.npz", [Conversation("chat", (1,), (70000,), 1.0, 1)])  # ids beyond 16 bits
    assert list(load_corpus([tmp_path]))[-1].response == (70000,)


def test_json_lines_are_read_too(tmp_path: Path) -> None:
    row = {"task": "chat", "prompt": [1, 2], "response": [3], "temperature": 0.001}
    with gzip.open(tmp_path / "x.jsonl.gz", "wt") as file:
        file.write(json.dumps(row) + "\n")
    assert list(load_corpus([tmp_path / "x.jsonl.gz"])) == [Conversation("chat", (1, 2), (3,), 0.0)]
    with pytest.raises(ValueError, match="not a corpus file"):
        list(load_corpus([tmp_path / "x.txt"]))
    with pytest.raises(FileNotFoundError):
        list(load_corpus([tmp_path / "absent.npz"]))


def test_default_folder_is_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECDEC_CACHE", str(tmp_path))
    assert corpus_folder("main") == tmp_path / "corpus" / "main"
