"""`specdec train corpus --endpoint`: a server writes the corpus; the target here only checks it."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from specdec_ref.training.script import CorpusConfig
    from specdec_ref.training.served import ServedCorpus

__all__ = ["add_endpoint", "write_served"]

_LOWEST_AGREEMENT = 0.95  # below it the server most likely runs another checkpoint, or a coarse quantisation


def add_endpoint(parser: argparse.ArgumentParser) -> None:
    """The arguments that say which server, and how to ask it."""
    group = parser.add_argument_group(
        "corpus from a server",
        "Any OpenAI-compatible server that runs the target: SGLang, vLLM, llama.cpp.\n"
        "If it needs a key, set OPENAI_API_KEY.",
    )
    group.add_argument("--endpoint", metavar="URL", help="its address, for example http://localhost:30000")
    group.add_argument("--api-model", metavar="NAME", help="which of its models (default: the first)")
    group.add_argument(
        "--api",
        choices=("completions", "chat"),
        help="completions sends token ids; chat sends messages, and leaves out the dialogues whose user "
        "message the target writes itself (default: completions if the server has it)",
    )
    group.add_argument(
        "--concurrency", type=int, default=64, metavar="N", help="requests at the same time (default 64)"
    )
    group.add_argument(
        "--patience",
        type=float,
        default=1800.0,
        metavar="S",
        help="seconds to wait for a server that stopped (default 1800)",
    )
    group.add_argument(
        "--check",
        type=int,
        default=16,
        metavar="N",
        help="greedy answers to compare with the target on this machine; 0: none (default 16)",
    )


def write_served(args: argparse.Namespace, config: "CorpusConfig", out: Path) -> None:
    """Ask the server, then print what came of it."""
    from transformers import AutoTokenizer

    from specdec_ref.cli.shared import UsageError, say
    from specdec_ref.models.hub import load, resolve
    from specdec_ref.training.remote import Asking, EndpointError
    from specdec_ref.training.served import serve_corpus
    from specdec_ref.workloads import HELD_OUT, load_prompts

    if args.check < 0 or args.patience < 0:
        raise UsageError("--check and --patience must be >= 0")
    asking = Asking(
        args.endpoint,
        args.api_model,
        args.api,
        args.concurrency,
        patience=args.patience,
        key=os.environ.get("OPENAI_API_KEY"),
    )
    model: Any = None
    if args.check:
        model, tokenizer = load(args.target, dtype=args.dtype, device="cpu", pack=False)
    else:
        tokenizer = AutoTokenizer.from_pretrained(resolve(args.target))
    held_out = [tokenizer.encode(p.prompt, add_special_tokens=False) for p in load_prompts(file=HELD_OUT)]
    say(f"corpus in {out}, written by {args.endpoint}: Ctrl-C stops, the same command goes on")
    try:
        report = serve_corpus(config, asking, tokenizer, out, model=model, check=args.check, held_out=held_out)
    except EndpointError as error:
        raise RuntimeError(str(error)) from error
    _print(report)


def _print(report: "ServedCorpus") -> None:
    from specdec_ref.cli.shared import plural, say

    tally = report.tally
    say(
        f"{plural(tally.conversations, 'conversation')} added, {tally.tokens:,} response tokens, by {tally.model} "
        f"({tally.engine}, {tally.api})"
    )
    say(
        f"not used: {plural(tally.duplicates, 'duplicate')}, {tally.held_out} with text of held-out prompts, "
        f"{sum(tally.skipped.values())} skipped; {plural(tally.retries, 'request')} repeated"
    )
    for reason, times in tally.skipped.most_common():
        say(f"  {times} x {reason}")
    if tally.retokenised:
        say(f"{plural(tally.retokenised, 'answer')} stored in other tokens than the server counted")
    if report.agreement is not None:
        low = report.agreement < _LOWEST_AGREEMENT
        say(
            f"agreement with the target here: {report.agreement:.4f} of {report.compared:,} greedy tokens"
            + (": low, so check that the server runs the same weights and precision" if low else "")
        )
