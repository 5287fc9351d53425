"""The held-out prompts: enough of every kind, no two alike, none from the grammar that training prompts come from."""

import json
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from benchmarks import overlap
from specdec_ref.training.material import Material
from specdec_ref.training.prompts import dialogues, fingerprint, overlaps
from specdec_ref.training.shards import Conversation, write_shard
from specdec_ref.workloads import HELD_OUT, TASKS, Prompt, load_episodes, load_prompts


class Words:
    """A tokenizer: a word a token."""

    def __init__(self) -> None:
        self.ids: dict[str, int] = {}

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        return [self.ids.setdefault(word, len(self.ids)) for word in text.lower().split()]


@pytest.fixture(scope="module")
def prompts() -> list[Prompt]:
    return load_prompts(file=HELD_OUT)


def test_enough_of_every_task_and_split(prompts: list[Prompt]) -> None:
    counts = Counter((p.task, p.split) for p in prompts)
    assert counts.keys() == {(task, split) for task in TASKS for split in ("dev", "test")}
    assert min(counts.values()) >= 16
    assert load_prompts(["code"], "dev", file=HELD_OUT) == [p for p in prompts if (p.task, p.split) == ("code", "dev")]


def test_no_two_are_alike(prompts: list[Prompt]) -> None:
    assert len({p.id for p in prompts}) == len({fingerprint(p.prompt) for p in prompts}) == len(prompts)
    tokenizer = Words()
    words = [tokenizer.encode(p.prompt) for p in prompts]
    alone = [overlaps([one], [other for other in words if other is not one])[0] for one in words]
    assert max(alone) == 0.0


def test_summaries_and_edits_carry_a_passage(prompts: list[Prompt]) -> None:
    lengths = {p.id: len(p.prompt.split()) for p in prompts if p.task == "summary"}
    assert all(80 <= length <= 220 for length in lengths.values()), lengths
    assert all(len(p.prompt) >= 350 for p in prompts if p.task == "editing")


def test_none_comes_from_the_grammar(prompts: list[Prompt]) -> None:
    tokenizer = Words()
    asked = [tokenizer.encode(t.text) for d in islice(dialogues(0, Material((), (), ())), 4000) for t in d.turns]
    shares = overlaps([tokenizer.encode(p.prompt) for p in prompts], asked)
    found = {p.id: share for p, share in zip(prompts, shares, strict=True) if share}
    assert max(found.values(), default=0.0) < 0.1, found


def test_a_copy_in_the_corpus_is_found(
    prompts: list[Prompt], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = Words()
    ids: dict[str, Any] = {p.id: tuple(tokenizer.encode(p.prompt)) for p in prompts}
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", lambda *_: tokenizer)
    clean = Conversation("chat", tuple(range(30_000, 30_009)), tuple(range(40_000, 40_030)), 0.0, 0)
    write_shard(tmp_path / "seed0-0.npz", [clean])
    write_shard(tmp_path / "seed0-1.npz", [Conversation("chat", (1, *ids["summary-owl-barn"]), (3,), 0.0, 1)])
    monkeypatch.setattr("specdec_ref.models.hub.resolve", lambda _: tmp_path)
    assert overlap.main([str(tmp_path)]) == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == {"id": "summary-owl-barn", "overlap": 1.0}
    assert rows[-1]["worst"] == 1.0
    (tmp_path / "seed0-1.npz").unlink()
    assert overlap.main([str(tmp_path)]) == 0


def test_episodes_are_similar_requests_and_differ_between_splits() -> None:
    dev, test = load_episodes("dev"), load_episodes("test")
    assert load_episodes() == sorted([*dev, *test], key=load_episodes().index)
    assert {episode.kind for episode in dev} == {episode.kind for episode in test}
    for episode in (*dev, *test):
        words = [set(prompt.split()) for prompt in episode.prompts]
        assert len(episode.prompts) == len(set(episode.prompts)) == 5
        assert all(len(words[0] & other) / len(words[0] | other) > 0.4 for other in words[1:])
    fingerprints = [{fingerprint(p) for episode in split for p in episode.prompts} for split in (dev, test)]
    assert not fingerprints[0] & fingerprints[1]
