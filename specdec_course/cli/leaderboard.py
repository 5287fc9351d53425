"""`specdec leaderboard`: measure capstone entries beside our reference, and keep the board."""

import argparse
import hashlib
import json
import secrets
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from specdec_ref.cli.flags import add_model
from specdec_ref.cli.shared import UsageError, console, open_session, say
from specdec_ref.config import SpecConfig

__all__ = ["DESCRIPTION", "EPILOG", "HELP", "add_arguments", "run"]

HELP = "measure decoders of exercise 09 against the reference, and rank them"
DESCRIPTION = """\
Measure the decoders of exercise 09 against our reference, and rank them on a
board. SUBMISSION is a Python file with a class MyDecoder, or the exercise's
notebook. Without SUBMISSION, the board so far is shown.

Each submission is first tested for exactness on small models that are made for
this run. Then plain decoding, our reference and the submission answer the same
new prompts in turn. It runs in float32 unless --dtype is given, because in
narrower formats rounding can change a text.

columns:
  score    the smaller of the speed-ups by wall clock and by processor time
  95 %     its bootstrap interval
  wall     reference's seconds per token / submission's, median over prompts
  cpu      the same by processor time
  x plain  plain decoding's seconds per token / submission's
  tok/s    tokens per second
  tau      tokens per target forward
  same     answers that are identical to the target's, of how many

A submission is refused if an answer is not the target's, or if it emits a token
that it never asked the target about; the board gives the reason.

The code of each submission runs on your machine, in a process of its own, in a
sandbox where the system offers one. docs/CAPSTONE.md lists what this prevents.
"""
EPILOG = """\
examples:
  $ specdec leaderboard work/09_capstone/09_capstone.ipynb
  $ specdec leaderboard ada.py ben.py --prompts 24
  $ specdec leaderboard gradebook/submitted/*/09_capstone/09_capstone.ipynb
  $ specdec leaderboard                            the board so far

Exit code 1 if a submission is refused.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    add_model(parser)
    parser.set_defaults(dtype="float32")
    parser.add_argument(
        "what", nargs="*", type=Path, metavar="SUBMISSION", help="Python files or notebooks (default: show the board)"
    )
    group = parser.add_argument_group("work")
    group.add_argument("--prompts", type=int, default=12, metavar="N", help="prompts per submission (default 12)")
    group.add_argument("--tokens", type=int, default=64, metavar="N", help="new tokens per answer (default 64)")
    group.add_argument(
        "--seed", type=int, metavar="N", help="for the prompts and small models (default: random, noted on the board)"
    )
    group = parser.add_argument_group("output")
    group.add_argument(
        "--board",
        type=Path,
        default=Path("leaderboard.jsonl"),
        metavar="FILE",
        help="JSONL file of the board; rows are appended (default leaderboard.jsonl)",
    )
    group.add_argument(
        "--json", action="store_true", help="the new rows as one JSON object per line on stdout, nothing else"
    )


def run(args: argparse.Namespace) -> int:
    """Measure all, entry by entry; 1 if one was refused. An interrupted run keeps the rows it has."""
    from specdec_course.capstone.board import append, best, load

    if args.prompts < 2 or args.tokens < 2:
        raise UsageError(f"--prompts and --tokens must be at least 2, got {args.prompts} and {args.tokens}")
    rows = load(args.board)
    names = _names(args.what)
    refused = 0
    if names:
        for row in _measured(args, names):
            append(args.board, row)
            rows.append(row)
            refused += row["verdict"] == "refused"
            if args.json:
                print(json.dumps(row), flush=True)
    if not args.json:
        _show(best(rows))
    if not rows:
        say(f"the board {args.board} is empty: add an entry with `specdec leaderboard SUBMISSION`", style="")
    return 1 if refused else 0


def _names(paths: Sequence[Path]) -> dict[str, Path]:
    """Name on the board -> file: the file's name, or as much of its path as tells it from the others."""
    for path in paths:
        if not path.is_file():
            raise UsageError(f"there is no file {path}")
    for parts in range(1, max((len(path.parts) for path in paths), default=1) + 1):
        names = {"/".join(path.with_suffix("").parts[-parts:]): path for path in paths}
        if len(names) == len(set(paths)):
            return names
    raise UsageError("two submissions have the same path except for the ending: rename one")


def _measured(args: argparse.Namespace, names: dict[str, Path]) -> "Any":
    """A row an entry, as each is done."""
    from specdec_course.capstone.leaderboard import Arena, fingerprint, fresh_prompts
    from specdec_course.grader.policy import namespaces
    from specdec_ref.machine import machine_line

    if why := namespaces():
        say(f"submissions run under limits but in no sandbox here ({why}): see docs/CAPSTONE.md", style="")
    with redirect_stdout(sys.stderr):
        session = open_session(SpecConfig(target=args.target, dtype=args.dtype, device=args.device))
    about = {
        "target": f"{args.target} {str(session.target.dtype).removeprefix('torch.')}",
        "fingerprint": fingerprint(session.target)[:16], "machine": machine_line(session.target.device),
    }  # fmt: skip
    with console(stderr=True).status("prompts") as status:
        for name, path in names.items():
            seed = secrets.randbits(53) if args.seed is None else args.seed
            arena = Arena(session.target, session.eos, fresh_prompts(session, args.prompts + 1, seed), args.tokens)
            row = _row(name, path, arena, seed, partial(_told, status, name))
            yield row | about | {"seed": seed, "prompts": args.prompts, "tokens": args.tokens}


def _told(status: Any, name: str, text: str) -> None:
    status.update(f"{name}: {text}")


def _row(name: str, path: Path, arena: "Any", seed: int, tick: Callable[[str], None]) -> dict[str, Any]:
    from specdec_course.capstone.entry import EntryError
    from specdec_course.capstone.leaderboard import compete, read_entry, rows_of

    row = {"entry": name, "when": datetime.now(UTC).isoformat(timespec="seconds")}
    try:
        code = read_entry(path)
    except EntryError as error:
        return row | rows_of({}, str(error))
    calls, why = compete(arena, code, seed=seed, tick=tick)
    figures = {key: round(v, 4) if isinstance(v, float) else v for key, v in rows_of(calls, why).items()}
    return row | {"sha256": hashlib.sha256(code.encode()).hexdigest()[:16]} | figures


def _show(rows: Sequence[dict[str, Any]]) -> None:
    """A table a target; the reference stands where it belongs, at 1."""
    from rich.table import Table
    from rich.text import Text

    for target in dict.fromkeys(row["target"] for row in rows):
        here = [row for row in rows if row["target"] == target]
        table = Table("", "entry", title=f"{target}: speed-up over our reference", title_justify="left", box=None)
        for column in ("score", "95 %", "wall", "cpu", "x plain", "tok/s", "tau", "same"):
            table.add_column(column, justify="right", no_wrap=True)
        admitted = [row for row in here if row["score"] is not None]
        beaten = sum(row["score"] > 1 for row in admitted)
        for rank, row in enumerate(admitted):
            if rank == beaten:
                table.add_row("", Text("our reference"), *_cells(row, "reference"), style="dim")
            table.add_row(str(rank + 1), Text(row["entry"]), *_cells(row, "entry"))
        if admitted and beaten == len(admitted):
            table.add_row("", Text("our reference"), *_cells(admitted[-1], "reference"), style="dim")
        console().print(table)
        for row in here:
            if row["score"] is None:
                console().print(Text(f"refused  {row['entry']}: {row['why']}"), soft_wrap=True)
    if rows:
        say("score: the smaller of the speed-ups by wall and by processor clock; tok/s: on each row's own machine")


def _cells(row: dict[str, Any], side: str) -> list[str]:
    speed = [f"{row[f'{side}_vs_plain']:.2f}", f"{row[f'{side}_tokens_per_s']:.1f}", f"{row[f'{side}_tau']:.2f}"]
    if side == "reference":
        return ["1.00", "", "", "", *speed, ""]
    known = [clock for clock in ("seconds", "cpu") if row[f"{clock}_speedup"] is not None]
    binds = min(known, key=lambda clock: row[f"{clock}_speedup"])
    clocks = [f"{row[f'{clock}_speedup']:.2f}" if clock in known else "" for clock in ("seconds", "cpu")]
    interval = f"{row[f'{binds}_low']:.2f}-{row[f'{binds}_high']:.2f}"
    return [f"{row['score']:.2f}", interval, *clocks, *speed, f"{row['identical']}/{row['texts']}"]
