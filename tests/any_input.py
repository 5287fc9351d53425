"""Malformed input for every command: files, flags, streams and servers' answers, drawn from a `Random` of Hypothesis."""

import argparse
import io
import json
import shutil
import signal
import sys
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from specdec_ref import cli

__all__ = ["CODES", "Outcome", "command", "environment", "harmed", "lines", "mutated", "run"]

CODES = {0, 1, 2, 130, 141}  # the documented ones: `specdec --help`
JUNK: list[Any] = [None, True, [], {}, "x", "", -1, 0, 3, 0.5, 1e308, 10**18, [[1]], {"a": None}]
WORDS = ["-1", "0", "1", "3", "7", "nan", "inf", "1e999", "x", "", "é中😀", "\udcff", "a=b", "9" * 25, "[1]", "{}", "..",
         "/dev/null", "-", "--", "--nope", "http://127.0.0.1:9", "http://127.0.0.1:99999", "cuda:x", "a\x00b"]  # fmt: skip
ROWS = ["{", "[1]", "null", '"x"', "NaN", '{"id": "\\ud800", "prompt": "\\ud800"}', "\x00", '{"id": 1e999}', "[" * 9999]
PATHS = {"target", "draft_model", "folder", "start", "like", "out", "measured", "corpus", "features", "gguf",
         "prompts_file", "file", "trace", "metrics", "plot", "drafter"}  # fmt: skip


class Outcome(NamedTuple):
    """How a call ended."""

    code: int
    out: bytes
    err: str

    def fault(self) -> str:
        """What breaks the promise "a documented exit code, one line, never a traceback"; "" if nothing does."""
        last = (self.err.strip().splitlines() or [""])[-1]
        if self.code not in CODES:
            return f"exit code {self.code}"
        if "Traceback" in self.err or "please report it" in last:
            return f"a fault of ours: {self.err[-500:]}"
        if self.code in (1, 2) and not last.startswith("specdec: error: ") and not self.out:
            return f"no error line: {self.err[-500:]!r}"
        return "a line of more than 1,000 characters" if len(last) > 1000 else ""


def run(argv: list[str], stdin: bytes = b"", encoding: str = "utf-8", seconds: float = 10.0) -> Outcome:
    """`specdec` in this process with streams of its own; interrupted like by Ctrl-C if it takes too long."""
    streams = sys.stdin, sys.stdout, sys.stderr
    sys.stdin = io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8")
    sys.stdout = out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    sys.stderr = err = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="backslashreplace")
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        code = cli.main(argv)
    except KeyboardInterrupt:  # in the moment between the call and its own handler
        code = 130
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        sys.stdin, sys.stdout, sys.stderr = streams
    for stream in (out, err):
        stream.flush()
    return Outcome(code, out.buffer.getvalue(), err.buffer.getvalue().decode())  # type: ignore[attr-defined]


def mutated(chance: Random, value: Any) -> Any:
    """The same JSON with something left out or replaced."""
    value = json.loads(json.dumps(value))
    if isinstance(value, list) and value and chance.random() < 0.8:
        place = chance.randrange(len(value))
        value[place] = mutated(chance, value[place])
        return value
    if not isinstance(value, dict) or not value or chance.random() < 0.1:
        return chance.choice(JUNK)
    key = chance.choice(sorted(value))
    if chance.random() < 0.3:
        del value[key]
    else:
        deeper = isinstance(value[key], dict | list) and chance.random() < 0.7
        value[key] = mutated(chance, value[key]) if deeper else chance.choice(JUNK)
    return value


def harmed(chance: Random, model: Path, into: Path) -> Path:
    """A copy of a model folder with one damaged file."""
    folder = into / f"harmed{len(list(into.iterdir()))}"
    shutil.copytree(model, folder)
    names = ["config.json"] * 3 + sorted(str(p.relative_to(model)) for p in model.rglob("*") if p.is_file())
    file = folder / chance.choice(names)
    data = file.read_bytes()
    ways = [data[: chance.randrange(len(data))], b"", b'{"a": "\xff"}', b"[1, 2]", b"\xef\xbb\xbf" + data]
    if file.suffix == ".json" and chance.random() < 0.7:
        file.write_text(json.dumps(mutated(chance, json.loads(data))))
    else:
        file.write_bytes(chance.choice(ways))
    return folder


def lines(chance: Random, into: Path) -> Path:
    """A JSONL file of which some lines may be right."""
    good = {"id": 1, "prompt": "red", "task": "chat", "more": [1]}
    rows = [
        json.dumps(mutated(chance, good)) if chance.random() < 0.7 else chance.choice(ROWS)
        for _ in range(chance.randrange(3))
    ]
    file = into / f"lines{len(list(into.iterdir()))}.jsonl"
    encoding = chance.choice(["utf-8", "utf-8", "utf-16", "utf-8-sig"])
    file.write_bytes("\n".join(rows).encode(encoding) if chance.random() < 0.9 else chance.randbytes(40))
    return file


def command(chance: Random, names: list[str], model: Path, into: Path) -> list[str]:
    """A call of one of these commands with flags of its own and values that are often wrong."""
    parser = cli._parser()
    commands = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    name = chance.choice(names)
    called, argv = commands.choices[name], [name]
    inner = next((a for a in called._actions if isinstance(a, argparse._SubParsersAction)), None)
    if inner is not None and chance.random() < 0.95:
        argv.append(chance.choice(sorted(inner.choices)))
        called = inner.choices[argv[-1]]
    actions = [a for a in called._actions if a.dest not in ("help", "debug")]
    words = [action for action in actions if not action.option_strings and chance.random() < 0.8]
    argv += [_value(chance, action, model, into) for action in words]
    flags = [action for action in actions if action.option_strings]
    for action in chance.sample(flags, min(len(flags), chance.choice([0, 1, 1, 2, 3]))):
        argv.append(chance.choice(action.option_strings))
        argv += [_value(chance, action, model, into)] * (action.nargs != 0)
    if any(a.dest == "target" for a in flags) and "--target" not in argv:
        argv += ["--target", str(model if chance.random() < 0.7 else harmed(chance, model, into))]
    if chance.random() < 0.05:
        argv.insert(chance.randrange(len(argv) + 1), chance.choice(WORDS))
    return argv


def _value(chance: Random, action: argparse.Action, model: Path, into: Path) -> str:
    if isinstance(action, argparse._SubParsersAction) or (action.choices and chance.random() < 0.7):
        return str(chance.choice(sorted(map(str, action.choices or ()))))
    if action.dest in PATHS and chance.random() < 0.75:
        makers = (
            lambda: model, lambda: model / "eagle", lambda: harmed(chance, model, into), lambda: lines(chance, into),
            lambda: into / "none", lambda: model / "config.json", lambda: harmed(chance, model, into) / "eagle",
            lambda: "org/none", lambda: chance.choice(["ngram", "trie", "suffix", "hybrid", "eagle", "draft", "none"]),
        )  # fmt: skip
        return str(chance.choice(makers)())
    if action.type in (int, float) and chance.random() < 0.6:
        return chance.choice(["0", "1", "2", "0.5"])
    return chance.choice(WORDS)


def environment(chance: Random) -> dict[str, str]:
    """Variables that we or the libraries below read."""
    names = ["SPECDEC_DEVICE", "SPECDEC_DTYPE", "COLUMNS", "OPENAI_API_KEY", "ALL_PROXY", "http_proxy", "NO_COLOR", "TERM",
             "WORLD_SIZE", "RANK", "LANG"]  # fmt: skip
    values = ["", "x", "-1", "0", "socks5://127.0.0.1:9", "http://[", "é", "9" * 20]
    return {name: chance.choice(values) for name in chance.sample(names, 2)}
