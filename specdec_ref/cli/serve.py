"""`specdec serve`: llama.cpp's HTTP server with this set-up, until Ctrl-C."""

import argparse
import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from specdec_ref.config import DraftBudget, SpecConfig

if TYPE_CHECKING:
    from specdec_ref.engines.process import LlamaServer

__all__ = ["DESCRIPTION", "EPILOG", "HELP", "add_arguments", "gguf_files", "run"]

HELP = "serve a model over HTTP with llama.cpp, with speculation or without"
DESCRIPTION = """\
Start llama.cpp's own server (an OpenAI-compatible API) on the embedded model or
a local GGUF file, wait until it answers, print its address and a request to
try, and stop it on Ctrl-C. Needs the extra llamacpp.
On first use the embedded model and its EAGLE head are exported to the cache.
"""
EPILOG = """\
examples:
  $ specdec serve                                  the embedded model, EAGLE
  $ specdec serve --drafter none --port 8081       the same without speculation
  $ specdec serve --target model.gguf --drafter ngram --depth 6
  $ specdec bench --endpoint http://127.0.0.1:8080 \\
      --endpoint-plain http://127.0.0.1:8081
"""
DRAFTERS = ("none", "ngram", "eagle", "hybrid")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    default = SpecConfig().target
    parser.add_argument("--target", default=default, metavar="MODEL", help=f"{default} (default), or a GGUF file")
    parser.add_argument("--drafter", default="eagle", metavar="NAME", help=f"{', '.join(DRAFTERS)} (default eagle)")
    parser.add_argument(
        "--draft-model", metavar="FILE", help="eagle, hybrid: a head as GGUF (default: the shipped one)"
    )
    parser.add_argument("--depth", type=int, metavar="N", help="tokens drafted per round (3 eagle; 6 ngram, hybrid)")
    parser.add_argument(
        "--p-min",
        type=float,
        default=0.0,
        metavar="X",
        help="eagle, hybrid: end a draft where its probability is below X (default 0)",
    )
    parser.add_argument("--type", default="f16", metavar="NAME", help="embedded model: f16 (default), f32, q8_0, q4_1")
    parser.add_argument("--host", default="127.0.0.1", metavar="NAME", help="default 127.0.0.1")
    parser.add_argument("--port", type=int, default=8080, metavar="N", help="default 8080; 0: a free one")
    parser.add_argument("--context", type=int, default=2048, metavar="N", help="tokens per request (default 2048)")
    parser.add_argument("--parallel", type=int, default=1, metavar="N", help="concurrent requests (default 1)")
    parser.add_argument(
        "--threads", type=int, default=1, metavar="N", help="default 1; more are slower if a core is busy"
    )
    parser.add_argument(
        "--timeout", type=float, default=120.0, metavar="S", help="seconds to wait for its start (default 120)"
    )


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C or until the server ends by itself."""
    from specdec_ref.cli.shared import UsageError, say, typed
    from specdec_ref.engines.process import EngineError, LlamaServer, missing_wheel
    from specdec_ref.exporters.llamacpp import to_llamacpp

    if args.drafter not in DRAFTERS:
        raise UsageError(f"unknown drafter {args.drafter!r}; choose from {', '.join(DRAFTERS)}")
    for name, low, high in (("port", 0, 65535), ("context", 1, 1 << 20), ("parallel", 1, 256), ("threads", 1, 1024)):
        if not low <= getattr(args, name) <= high:
            raise UsageError(f"--{name} must be from {low} to {high}, got {getattr(args, name)}")
    if not 0.0 <= args.p_min <= 1.0:
        raise UsageError(f"--p-min must be from 0 to 1, got {args.p_min:g}")
    if complaint := missing_wheel():
        raise EngineError(complaint)
    budget = DraftBudget.suited_to(args.drafter) if args.depth is None else DraftBudget(args.depth)
    config = SpecConfig(args.target, args.drafter, args.draft_model, budget=budget)
    launch = to_llamacpp(_with_files(config, args.type))
    more = ("--host", args.host, "--port", args.port, "--ctx-size", args.context * args.parallel, "--parallel",
            args.parallel, "--threads", args.threads, "--metrics", "--alias", Path(args.target).stem)  # fmt: skip
    words = [*launch.command[1:], *(("--spec-draft-p-min", f"{args.p_min:g}") if args.p_min else ())]
    say(f"starting llama.cpp: {shlex.join(['llama-server', *words])}")
    with LlamaServer.start([*words, *map(str, more)], timeout=args.timeout) as server:
        print(server.url, flush=True)
        say(f"try: {_curl(server.url)}")
        say(f"counters: curl {server.url}/metrics")
        if args.drafter != "none":
            measure = typed("specdec choose --engine llamacpp")
            say(f"speculation can be slower than plain decoding in llama.cpp: {measure} measures it here")
        say("Ctrl-C stops it")
        _wait(server)
    say("stopped")
    return 0


def _wait(server: "LlamaServer") -> None:
    """Until Ctrl-C. Raises EngineError if the server ends by itself."""
    try:
        server.process.wait()
    except KeyboardInterrupt:
        return
    server.check()


def _with_files(config: SpecConfig, kind: str) -> SpecConfig:
    """The same with GGUF files; the embedded model and the shipped head are exported on first use."""
    needs = config.drafter in ("eagle", "hybrid")
    target, head = gguf_files(config.target, config.draft_model if needs else None, kind)
    return replace(config, target=str(target), draft_model=str(head) if needs and head is not None else None)


def gguf_files(target: str, head: str | None, kind: str) -> tuple[Path, Path | None]:
    """(target, head) as GGUF files; the embedded model comes with its head, and a head that does not fit is refused."""
    from specdec_ref.cli.shared import UsageError
    from specdec_ref.models.hub import EMBEDDED
    from specdec_ref.training.gguf_file import open_gguf
    from specdec_ref.training.gguf_read import read_gguf_head

    file, draft = Path(target), None if head is None else Path(head)
    if target == EMBEDDED:
        file, shipped = _exported(target, kind)
        draft = draft or shipped
    elif not file.is_file():
        raise UsageError(f"--target: there is no file {target}: name a GGUF file, or {EMBEDDED}")
    opened = open_gguf(file)
    if draft is not None:
        read_gguf_head(draft, opened)  # llama.cpp would abort, or draft badly without a word
    return file, draft


def _exported(name: str, kind: str) -> tuple[Path, Path]:
    """The embedded model and its head in the cache, written if they are not there."""
    from specdec_ref.cli.shared import UsageError, say
    from specdec_ref.models.fetch import cache_dir
    from specdec_ref.models.hub import load
    from specdec_ref.training.gguf_export import HEAD, export_gguf
    from specdec_ref.training.gguf_target import TYPES
    from specdec_ref.weights import shipped_folder

    if kind not in TYPES:
        raise UsageError(f"unknown GGUF type {kind!r}; choose from {', '.join(TYPES)}")
    folder, source = cache_dir() / "gguf" / f"{name}-{kind}", shipped_folder(name)
    target, head = folder / f"target-{kind}.gguf", folder / HEAD
    if source is not None and not (target.is_file() and head.is_file()):  # the head is written last
        say(f"exporting {name} and its head to {folder}")
        model, tokenizer = load(name, device="cpu", pack=False)
        export_gguf(source, model, tokenizer, folder, kind)
    return target, head


def _curl(url: str) -> str:
    """A request to paste."""
    body = {"messages": [{"role": "user", "content": "Name three colours."}], "max_tokens": 64, "temperature": 0}
    return f"curl {url}/v1/chat/completions -H 'Content-Type: application/json' -d '{json.dumps(body)}'"
