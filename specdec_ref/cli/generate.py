"""`specdec generate`: answer one prompt, streamed, or a file of them, a JSON object each."""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from contextlib import closing, redirect_stdout
from typing import TYPE_CHECKING, Any

from specdec_ref.cli.check import Comparison, compare, report
from specdec_ref.cli.flags import add_drafting, add_model, add_sampling, add_suffix, add_trie
from specdec_ref.cli.observe import add_observing, check_observing, write_metrics, write_trace
from specdec_ref.cli.prompts import Job, read_jobs
from specdec_ref.cli.settings import unapplied
from specdec_ref.cli.shared import UsageError, check_names, config_from, console, engine_for, open_session, plural, say
from specdec_ref.cli.work import Work, failing
from specdec_ref.config import SamplingParams

if TYPE_CHECKING:
    from typing import TextIO

    from rich.progress import Progress

    from specdec_ref.config import SpecConfig
    from specdec_ref.metrics import StepRecord
    from specdec_ref.request import Generation, Limits
    from specdec_ref.session import Session
    from specdec_ref.trace import Round

__all__ = ["DESCRIPTION", "EPILOG", "HELP", "add_arguments", "run"]

HELP = "answer a prompt, or a file of them"
DESCRIPTION = """\
Answer a prompt with speculative decoding. The text is streamed to stdout,
everything else goes to stderr. A prompt is put into the model's chat template
as a user's message; --raw continues the text as it is.

--check decodes the same prompt again without speculation and compares. On a
CPU, with a model of Llama's kind, the texts are identical in every number
format. Elsewhere they can part at a near-tie, where rounding decides between
two tokens of almost equal probability; the place is shown, and the exit code
is 0. It is 1 for a difference that rounding does not explain.
"""
EPILOG = """\
--json writes one object per line, in the file's order, as soon as it is done:
  id, drafter           of the prompt; the drafter used
  tokens, text          new ids, EOS included; their text, without special
                        tokens and cut before a stop text
  seconds               decoding, without prefill; rounds are shared in a batch
  prefill_seconds       reading the prompt
  rounds                forwards of the target
  tau, alpha            tokens per round; accepted / tested guesses
  accepted_per_position rounds that accepted guess 1, guess 2, ...
  finish_reason         eos, stop or length
and every other key of the prompt's line.

examples:
  $ specdec generate --check "Name three colours."
  $ specdec generate --raw --max-new-tokens 40 < notes.txt
  $ specdec generate --temperature 0.8 --seed 7 "Tell me a story."
  $ specdec generate --prompts-file prompts.jsonl --json > out.jsonl
      with a line such as {"id": "a", "prompt": "Name three colours."} each
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    group = parser.add_argument_group("prompt and output")
    group.add_argument("prompt", nargs="?", help="the prompt; - or nothing reads standard input")
    group.add_argument("--prompts-file", metavar="FILE", help='JSONL, {"id", "prompt"} per line; one load for all')
    group.add_argument("--raw", action="store_true", help="no chat template: continue the text as it is")
    group.add_argument("--json", action="store_true", help="one JSON object per prompt on stdout, nothing else")
    group.add_argument("--check", action="store_true", help="decode again without speculation and compare the texts")
    group.add_argument("-v", "--verbose", action="store_true", help="show the set-up and the acceptance on stderr")
    group.add_argument(
        "--batch-size",
        type=int,
        default=1,
        metavar="N",
        help="prompts decoded together (default 1); changes no token except by rounding",
    )
    add_model(parser)
    add_drafting(parser, best=True)
    add_trie(parser)
    add_suffix(parser)
    add_sampling(parser)
    add_observing(parser)


def run(args: argparse.Namespace) -> int:
    """Check everything that needs no model, load it, decode."""
    from specdec_ref.request import Limits

    jobs, config = read_jobs(args), _config(args)
    Limits(args.max_new_tokens, stop=tuple(args.stop), decode=str)  # refuses bad numbers and empty stop texts now
    if args.batch_size < 1:
        raise UsageError(f"--batch-size must be >= 1, got {args.batch_size}")
    streamed = len(jobs) == 1 and not args.json and args.prompts_file is None
    check_observing(args, streamed=streamed)
    out = sys.stdout
    with redirect_stdout(sys.stderr):  # stdout is for results alone, whatever a library may print
        session = open_session(config)
        limits = session.limits(args.max_new_tokens, args.stop, ignore_eos=args.ignore_eos)
        engine = engine_for(session, limits)
        prompts = [_encode(session, job, limits, raw=args.raw) for job in jobs]
        _announce(session, config, verbose=args.verbose)
        work = Work(session, config, engine, limits, args.seed, verbose=args.verbose)
        found: list[Comparison] | None = [] if args.check else None
        if streamed:
            code = _answer(work, jobs[0], prompts[0], args, out, found)
        else:
            code = _decode_all(work, jobs, prompts, args, out, found)
        return code or (0 if found is None else report(work, found))


def _config(args: argparse.Namespace) -> "SpecConfig":
    """The set-up, with the best drafter that ships unless one is named. Raises UsageError or ValueError."""
    if args.drafter is None:
        if args.draft_model is not None:
            raise UsageError("--draft-model is for one drafter: add --drafter draft, eagle, hybrid or block")
        from specdec_ref.weights import best_drafter  # imports torch, which no help text needs

        args.drafter = best_drafter(args.target)
    config = config_from(args)
    check_names(config)
    if args.check and (not config.sampling.greedy or config.lossy):
        raise UsageError(
            "--check compares texts, and those are equal only for a lossless verifier at temperature 0: "
            f"drop --{'lossy' if config.sampling.greedy else 'temperature'}"
        )
    return config


def _encode(session: "Session", job: Job, limits: "Limits", *, raw: bool) -> list[int]:
    """Token ids; every prompt is checked before the first is decoded. Raises UsageError that names the prompt."""
    from specdec_ref.request import check_prompts

    try:
        tokens = session.encode(job.prompt, raw=raw)
        check_prompts([tokens], session.target, limits)
    except ValueError as error:
        raise UsageError(f"{job.where}: {str(error).removeprefix('prompt 0 ')}") from error
    return tokens


def _announce(session: "Session", config: "SpecConfig", *, verbose: bool) -> None:
    """The set-up for those who want it; for all, settings of the model that are not applied."""
    from specdec_ref.models.probe import exact_rows

    dtype = str(session.target.dtype).removeprefix("torch.")
    if verbose:
        say(f"{config.target} in {dtype} on {session.target.device}, drafter {config.drafter}")
        say(f"short forward {session.target.forward_note}")
        if config.drafter != "none":
            say(config.budget.describe())
        if config.drafter != "none" and config.sampling.greedy and "16" in dtype and not exact_rows(session.target):
            say(f"{dtype} rounds coarsely, so the text can part from plain decoding's at a near-tie: --check compares")
    ignored = unapplied(
        getattr(session.target.model, "generation_config", None), sampled=config.sampling != SamplingParams()
    )
    if ignored:
        say(f"not applied from the model's generation_config.json: {', '.join(ignored)}")


def _answer(
    work: Work,
    job: Job,
    prompt: Sequence[int],
    args: argparse.Namespace,
    out: "TextIO",
    found: "list[Comparison] | None",
) -> int:
    """One prompt, streamed."""
    done = _stream(work, prompt, out)
    write_trace(args.trace, work, job.prompt, done)
    seconds = sum(step.seconds for step in done)
    write_metrics(args.metrics, work, [step.record for step in done if step.record], seconds)
    if found is not None:
        found.append(compare(work, prompt, [token for step in done for token in step.tokens], job.where))
    return 0


def _stream(work: Work, prompt: Sequence[int], out: "TextIO") -> "list[Round]":
    """Text to stdout as it becomes certain; what it took to stderr."""
    from specdec_ref.text import TextStream

    text = TextStream(work.session.decode, work.limits.stop, work.session.byte_tokens)
    done: list[Round] = []
    try:
        with closing(work.rounds(prompt)) as stream:
            for step in failing(stream):
                done.append(step)
                out.write("".join(map(text.feed, step.tokens)))
                out.flush()
        out.write(text.flush())
    finally:
        out.write("\n")
        out.flush()
    seconds = sum(step.seconds for step in done)
    _say_stats(work, sum(len(step.tokens) for step in done), seconds, [step.record for step in done if step.record])
    return done


def _say_stats(work: Work, tokens: int, seconds: float, records: "Sequence[StepRecord]", texts: str = "") -> None:
    """One line of figures; with -v the acceptance as well, and a setting that had no effect."""
    from specdec_ref.metrics import RunStats

    stats = RunStats.from_records(records)
    tau = stats.tau if records else 1.0
    speed = tokens / max(seconds, 1e-9)
    counts = f"{texts}{plural(tokens, 'token')}, {tau:.2f} per target forward"
    drafter = "plain decoding" if work.engine is None else f"drafter {work.config.drafter}"
    say(f"{counts}, {seconds:.2f} s{' with prefill' if texts else ''}, {speed:.1f} tokens/s, {drafter}")
    if not work.verbose:
        return
    if records:
        say(stats.log_line())
    if work.config.budget.topk > 1 and all(record.drafted == record.depth for record in records):
        say(f"every draft was a chain: --topk {work.config.budget.topk} had no effect on {work.config.drafter}")


def _decode_all(
    work: Work,
    jobs: Sequence[Job],
    prompts: Sequence[Sequence[int]],
    args: argparse.Namespace,
    out: "TextIO",
    found: "list[Comparison] | None",
) -> int:
    """All prompts, in batches. Results are written in the file's order, and flushed, as soon as that allows."""
    started, written, tokens = time.perf_counter(), 0, 0
    records: list[StepRecord] = []
    answers: list[tuple[int, list[int]]] = []
    with _progress(out) as bar:
        task = bar.add_task("decoding", total=len(jobs), speed="")
        try:
            for index, result in failing(work.in_order(prompts, args.batch_size)):
                _write(work, jobs[index], result, out, as_json=args.json)
                answers.append((index, result.tokens))
                written, tokens = written + 1, tokens + len(result.tokens)
                records += result.records
                bar.update(task, advance=1, speed=f"{tokens / (time.perf_counter() - started):.1f} tokens/s")
        except KeyboardInterrupt:
            say(f"interrupted: {written} of {plural(len(jobs), 'result')} written", style="")
            write_metrics(args.metrics, work, records, None)
            return 130
    seconds = time.perf_counter() - started
    _say_stats(work, tokens, seconds, records, f"{plural(written, 'prompt')}, ")
    write_metrics(args.metrics, work, records, None)
    if found is not None:
        found += [compare(work, prompts[index], answer, jobs[index].where) for index, answer in answers]
    return 0


def _result(work: Work, job: Job, result: "Generation") -> dict[str, Any]:
    """The object that --json prints. Plain decoding has one round a token, the prefill's included, and no drafts."""
    from specdec_ref.text import cut_at_stop

    plain, stats = work.engine is None, result.stats
    row = {
        "id": job.id,
        "drafter": work.config.drafter,
        "tokens": result.tokens,
        "text": cut_at_stop(work.session.decode(result.tokens), work.limits.stop),
        "seconds": round(result.seconds, 6),
        "prefill_seconds": round(result.prefill_seconds, 6),
        "rounds": len(result.tokens) if plain else stats.rounds,
        "tau": 1.0 if plain else stats.tau,
        "alpha": stats.alpha,
        "accepted_per_position": list(stats.accepted_per_position),
        "finish_reason": result.finish_reason,
    }
    return row | job.kept


def _write(work: Work, job: Job, result: "Generation", out: "TextIO", *, as_json: bool) -> None:
    row = _result(work, job, result)
    out.write(f"{json.dumps(row)}\n" if as_json else f"== {job.id} ==\n{row['text']}\n\n")
    out.flush()


def _progress(out: "TextIO") -> "Progress":
    """A bar on stderr; none where results scroll by on the same terminal, or where nobody looks."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    screen = console(stderr=True)
    columns = (
        TextColumn("specdec: {task.description}"), BarColumn(), MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
    )  # fmt: skip
    hidden = out.isatty() or not screen.is_terminal
    return Progress(*columns, console=screen, transient=True, redirect_stdout=False, disable=hidden)
