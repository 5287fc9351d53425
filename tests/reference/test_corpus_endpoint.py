"""`specdec train corpus --endpoint`: a real local server writes the corpus; stops, rubbish and repeats lose nothing."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from string import ascii_letters
from threading import Thread
from time import sleep
from typing import Any

import pytest
from chat_models import byte_llama, byte_tokenizer, save_byte_model
from cli_helpers import Specdec, specdec
from corpus_server import CorpusServer
from fake_server import _no_proxy
from test_corpus import CONFIG, MATERIAL

from specdec_ref.training import prompts
from specdec_ref.training.chat import ChatPieces
from specdec_ref.training.remote import Asking, EndpointError
from specdec_ref.training.served import ServedCorpus, serve_corpus
from specdec_ref.training.shards import Conversation, load_corpus

__all__ = ["_no_proxy", "specdec"]  # fixtures

SMALL = replace(CONFIG, conversations=None, max_response=24, max_long_response=26, max_user_turn=20, shard_size=1000)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return byte_tokenizer()


class Run:
    """`serve_corpus` on the byte model's server, with short waits."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self.reports = tokenizer, list[ServedCorpus]()

    def __call__(self, url: str, folder: Path, conversations: int = 12, **options: Any) -> list[Conversation]:
        asking = {"concurrency": 3, "first_wait": 0.01, "longest_wait": 0.05, "patience": 20.0}
        for name in ("concurrency", "api", "patience", "most_malformed"):
            if name in options:
                asking[name] = options.pop(name)
        config = replace(SMALL, conversations=conversations)
        self.reports.append(
            serve_corpus(config, Asking(url, **asking), self.tokenizer, folder, material=MATERIAL, **options)
        )
        return list(load_corpus([folder]))


@pytest.fixture
def write(tokenizer: Any) -> Run:
    return Run(tokenizer)


def keys(corpus: list[Conversation]) -> list[tuple[int, str]]:
    return sorted((c.number, c.task) for c in corpus)


def stop_after(server: CorpusServer, requests: int, number: signal.Signals) -> None:
    """Send this process a signal once the server was asked so often."""
    if number == signal.SIGINT:  # a job in the background was told to ignore it
        signal.signal(number, signal.default_int_handler)

    def wait() -> None:
        while len(server.asked) < requests:
            sleep(0.01)
        os.kill(os.getpid(), number)

    Thread(target=wait, daemon=True).start()


@pytest.fixture(scope="module")
def calm(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, str], Conversation]:
    """What a server without faults writes."""
    with CorpusServer(tokenizer) as server:
        corpus = Run(tokenizer)(server.url, tmp_path_factory.mktemp("calm"), 60)
    return {(c.number, c.task): c for c in corpus}


def test_completions_write_every_kind_of_dialogue(calm: dict[tuple[int, str], Conversation], tokenizer: Any) -> None:
    chat = ChatPieces(tokenizer)
    tasks = {task for _, task in calm}
    assert len(calm) == 60
    assert {"follow_up", "own_text", "invented"} & tasks
    for c in calm.values():
        assert list(c.prompt[: len(chat.head)]) == chat.head
        assert list(c.prompt[-len(chat.tail) :]) == chat.tail
        assert chat.end not in c.response[:-1]
        assert tokenizer.encode(tokenizer.decode(c.response), add_special_tokens=False) == list(c.response)


def test_chat_sends_the_messages_the_prompt_was_rendered_from(
    write: Run, tokenizer: Any, tmp_path: Path, calm: dict[tuple[int, str], Conversation]
) -> None:
    """The server renders them with its own template and reports the same length, or the answer is not used."""
    with CorpusServer(tokenizer, chat_only=True) as server:
        corpus = write(server.url, tmp_path, 20)
    tally = write.reports[0].tally
    assert tally.api == "chat"
    assert len(corpus) == 20
    assert "invented" not in {c.task for c in corpus}
    assert set(tally.skipped) == {"invented (needs completions)"}
    same = [(c, calm[c.number, c.task]) for c in corpus if (c.number, c.task) in calm]
    assert len(same) > 8
    assert all(ours == theirs for ours, theirs in same)


def test_resuming_goes_on_where_it_ended(
    write: Run, tokenizer: Any, tmp_path: Path, calm: dict[tuple[int, str], Conversation]
) -> None:
    with CorpusServer(tokenizer) as server:
        write(server.url, tmp_path, 8, concurrency=1)
        corpus = write(server.url, tmp_path, 8, concurrency=1)
    assert len(set(keys(corpus))) == 16
    assert all(calm[c.number, c.task] == c for c in corpus if (c.number, c.task) in calm)


def test_a_stopped_server_loses_nothing(
    write: Run, tokenizer: Any, tmp_path: Path, calm: dict[tuple[int, str], Conversation]
) -> None:
    """It hangs up, is busy, goes away for a while, and comes back on the same port."""

    def fault(before: int, _: Any) -> Any:
        return {3: "hang up", 5: 503, 6: 429}.get(before)

    first = CorpusServer(tokenizer, fault=fault)
    done: list[list[Conversation]] = []
    with first:
        work = Thread(target=lambda: done.append(write(first.url, tmp_path, 12, concurrency=1)))
        work.start()
        while len(first.asked) < 9:
            work.join(0.01)
    work.join(0.15)
    assert work.is_alive()  # it waits
    with CorpusServer(tokenizer, port=first.port):
        work.join(15)
    (corpus,) = done
    tally = write.reports[0].tally
    assert tally.retries >= 4
    assert not tally.skipped
    assert len(set(keys(corpus))) == 12
    assert all(calm[key] == c for key, c in {(c.number, c.task): c for c in corpus}.items())


def test_a_server_that_stays_away_ends_the_run_and_all_is_saved(write: Run, tokenizer: Any, tmp_path: Path) -> None:
    def fault(before: int, _: Any) -> Any:
        return 503 if before > 8 else None

    saved = pytest.raises(EndpointError, match="All finished conversations are saved")
    with CorpusServer(tokenizer, fault=fault) as server, saved:
        write(server.url, tmp_path, 50, patience=0.1)
    assert 5 <= len(list(load_corpus([tmp_path]))) <= 8
    with pytest.raises(EndpointError, match=r"no server at http://127\.0\.0\.1:9"):
        write("http://127.0.0.1:9", tmp_path)


USELESS = {
    2: b"<html>", 3: b"[1]", 4: {"choices": []}, 5: {"choices": [{"text": None, "finish_reason": "stop"}]},
    6: {"choices": [{"text": "", "finish_reason": "length"}]},
    7: {"choices": [{"text": "half a char\ufffd", "finish_reason": "length"}]},
    8: {"choices": [{"text": "hi", "finish_reason": "stop"}], "usage": {"prompt_tokens": 1}},
    9: {"choices": [{"text": "<|im_start|>user", "finish_reason": "stop"}]}, 10: 400,
}  # fmt: skip


def test_useless_answers_are_counted_and_asked_again_by_the_next_run(
    write: Run, tokenizer: Any, tmp_path: Path, calm: dict[tuple[int, str], Conversation]
) -> None:
    with CorpusServer(tokenizer, fault=lambda before, _: USELESS.get(before)) as server:
        first = write(server.url, tmp_path, 6, concurrency=1)
    skipped = write.reports[0].tally.skipped
    assert sum(skipped.values()) == len(USELESS)
    assert {"not JSON", "not a JSON object", "no choice with a text", "no text"} <= set(skipped)
    with CorpusServer(tokenizer) as server:
        whole = write(server.url, tmp_path, 14, concurrency=1)
    assert len(first) == 6
    assert len(set(keys(whole))) == 20
    assert {c.number for c in whole} >= {
        n for n, _ in calm if n < max(c.number for c in first)
    }  # what was skipped came after all
    assert all(calm[c.number, c.task] == c for c in whole if (c.number, c.task) in calm)
    many = pytest.raises(EndpointError, match="5 useless answers in a row, the last one: not JSON")
    with CorpusServer(tokenizer, fault=lambda before, _: b"<html>" if before > 4 else None) as server, many:
        write(server.url, tmp_path, 40, most_malformed=5)


def test_duplicates_are_written_once(write: Run, tokenizer: Any, tmp_path: Path) -> None:
    """A folder that holds the same conversations under another seed's name already: they are not written again."""
    with CorpusServer(tokenizer) as server:
        corpus = write(server.url, tmp_path, 10, concurrency=1)
        for shard in tmp_path.glob("seed5-*.npz"):
            shard.rename(shard.with_name(shard.name.replace("seed5", "seed4")))
        again = write(server.url, tmp_path, 4, concurrency=1)
    assert write.reports[1].tally.duplicates >= 1
    texts = [(c.prompt, c.response) for c in again]
    assert len(set(texts)) == len(texts) == 14
    assert len(corpus) == 10


def test_text_of_held_out_prompts_is_kept_out(write: Run, tokenizer: Any, tmp_path: Path) -> None:
    with CorpusServer(tokenizer) as server:
        free = write(server.url, tmp_path / "free", 6, concurrency=1)
        chat = ChatPieces(tokenizer)
        secret = list(free[2].prompt[len(chat.head) : -len(chat.tail)])
        kept = write(server.url, tmp_path / "kept", 6, concurrency=1, held_out=[secret])
    assert write.reports[1].tally.held_out >= 1
    assert free[2].prompt not in {c.prompt for c in kept}
    assert len(kept) == 6


def test_agreement_with_the_target_is_reported(tokenizer: Any, tmp_path: Path) -> None:
    """The server's own weights agree; another checkpoint does not. A line about each run stays with the shards."""
    model, other = byte_llama(tokenizer), byte_llama(tokenizer)
    printable = tokenizer.encode(ascii_letters, add_special_tokens=False)
    model.lm_head.weight.data[printable] *= 50.0  # it writes letters alone, as the server does
    other.lm_head.weight.data[printable] = model.lm_head.weight.data[printable].roll(1, 0)
    config, asking = replace(SMALL, temperatures=(0.0, 0.7)), Asking("http://127.0.0.1", concurrency=2)
    shares = []
    with CorpusServer(tokenizer, model) as server:
        for judge in (model, other, None):
            report = serve_corpus(
                replace(config, conversations=4),
                replace(asking, url=server.url),
                tokenizer,
                tmp_path,
                material=MATERIAL,
                model=judge,
                check=2,
            )
            shares.append(report.agreement)
    assert shares[0] > 0.9
    assert shares[1] < 0.3
    assert shares[2] is None
    lines = [json.loads(line) for line in (tmp_path / "endpoint.jsonl").read_text().splitlines()]
    assert [line["conversations"] for line in lines] == [4, 4, 4]
    assert 24 <= lines[0]["compared"] <= 52  # two answers


def test_an_interrupt_saves_what_is_finished(write: Run, tokenizer: Any, tmp_path: Path) -> None:
    with CorpusServer(tokenizer) as server:
        stop_after(server, 12, signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            write(server.url, tmp_path, 100_000)
    saved = list(load_corpus([tmp_path]))
    assert len(saved) > 3
    assert len(set(keys(saved))) == len(saved)


def test_the_command_line_saves_on_sigterm_and_goes_on(
    tokenizer: Any, tmp_path: Path, specdec: Specdec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One command, stopped from outside and given again; then what it reports, and what it refuses."""
    monkeypatch.setattr(prompts, "collect", lambda: MATERIAL)  # reading the machine's files takes half a minute
    argv = ["train", "corpus", "--target", save_byte_model(tmp_path / "target"), "--preset", "tiny", "--check", "1",
            "--concurrency", "4", "--out", tmp_path / "corpus"]  # fmt: skip

    with CorpusServer(tokenizer) as server:
        stop_after(server, 10, signal.SIGTERM)
        assert specdec(*argv, "--endpoint", server.url, "--conversations", "100000") == 130
        saved = list(load_corpus([tmp_path / "corpus"]))
        assert 1 <= len(saved) < 1000
        assert specdec(*argv, "--endpoint", server.url, "--conversations", "5") == 0, specdec.err
    whole = list(load_corpus([tmp_path / "corpus"]))
    assert len(set(keys(whole))) == len(saved) + 5
    assert specdec.out.strip() == str(tmp_path / "corpus")
    assert "5 conversations added" in specdec.err
    assert "by bytes (test, completions)" in specdec.err
    assert specdec(*argv, "--endpoint", "http://127.0.0.1:9") == 1
    assert "no server at http://127.0.0.1:9" in specdec.err
    assert specdec("train", "eagle", "--endpoint", "http://127.0.0.1:9", "--out", tmp_path) == 2


def test_unknown_models_and_addresses_are_refused(write: Run, tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no address of a server"):
        Asking("localhost:30000")
    with CorpusServer(tokenizer) as server, pytest.raises(EndpointError, match="does not serve 'large'; it has"):
        serve_corpus(SMALL, Asking(server.url, "large"), tokenizer, tmp_path, material=MATERIAL)
