"""The `specdec` command line: `main`, and a file a command. What a machine reads goes to stdout, all else to stderr.

Exit codes: 0 done, 1 it failed, 2 the input is wrong, 130 interrupted, 141 the reader of stdout went away. An error is
one line that says what to do; `--debug` or SPECDEC_DEBUG=1 shows the traceback.
"""

import argparse
import os
import re
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from types import MappingProxyType, ModuleType
from typing import Any

from specdec_ref.cli import (
    bench,
    choose,
    demo,
    doctor,
    explain,
    export_command,
    fetch,
    generate,
    prove,
    replay,
    serve,
    train,
)
from specdec_ref.cli.shared import Parser, UsageError, one_line, spellings, version
from specdec_ref.cli.streams import writable_streams
from specdec_ref.config import DraftBudget

__all__ = ["COMMANDS", "commands", "main"]

COMMANDS: Mapping[str, ModuleType] = MappingProxyType(
    {
        "demo": demo,
        "generate": generate,
        "prove": prove,
        "doctor": doctor,
        "bench": bench,
        "fetch": fetch,
        "train": train,
        "replay": replay,
        "choose": choose,
        "export-command": export_command,
        "explain": explain,
        "serve": serve,
    }
)
PLUGINS = "specdec.commands"  # the entry points under which other packages, such as the course, add commands

_DESCRIPTION = f"""\
Speculative decoding: the same text from the same model, in less time.

A language model produces one token per forward pass. On most machines a pass
over five tokens costs little more than a pass over one, so a cheap drafter
guesses ahead and the model checks all guesses at once. Each round has three
steps:

  1. draft    a drafter guesses gamma tokens
  2. verify   one forward of the target scores them all
  3. accept   the guesses that match are kept, and the target adds one token:
              a bonus after them all, or a correction where one fails

words:
  target, p     the model whose text is wanted, and its distribution
  draft, q      the guesses, and the distribution they are drawn from
  gamma         guesses per round (--depth)
  alpha         share of the tested guesses that are accepted
  tau           mean tokens per round, the added one included: 1 to gamma + 1
  v(k)          time to check k tokens, in plain steps (`specdec doctor`)
  speed-up      tau / (gamma c + v(gamma + 1)), if one guess costs c steps
  lossless      the output is the target's own: the same text at temperature 0,
                the same distribution above it

the same budget as three engines spell it, first a chain, then a tree:
{spellings(DraftBudget(4))}

{spellings(DraftBudget(5, 4, 16))}
"""

_EPILOG = """\
examples:
  $ specdec demo                                   watch it; about a minute
  $ specdec prove                                  the distribution is exact
  $ specdec generate --check "Name three colours."
                                                   compared with plain decoding
  $ specdec generate --prompts-file prompts.jsonl --json
                                                   one JSON object per line
  $ specdec doctor                                 this machine's verify curve

`specdec help COMMAND` shows the help of a command. Exit codes: 0 done, 1
failed, 2 wrong input, 130 interrupted, 141 the reader of the output went away.
Errors are one line; --debug shows the traceback.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        with writable_streams():
            return _guarded(argv)
    except OSError as error:  # stdout is closed
        if sys.stderr is not None:
            print(f"specdec: error: {one_line(error)}", file=sys.stderr)
        return 1


def _guarded(argv: Sequence[str]) -> int:
    """The exit code of a command line; what it raises becomes one line on stderr."""
    debug = "--debug" in argv or os.environ.get("SPECDEC_DEBUG", "") not in ("", "0")
    try:
        return _run(argv)
    except SystemExit as leave:  # --help and --version
        return leave.code if isinstance(leave.code, int) else 0
    except KeyboardInterrupt:
        print("specdec: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read stdout went away, e.g. `| head`
        _discard_stdout()
        return 141
    except (ValueError, RuntimeError, OSError, ImportError) as error:
        if debug:
            raise
        print(f"specdec: error: {_message(error, argv)}", file=sys.stderr)
        return 2 if isinstance(error, ValueError) else 1
    except Exception as error:
        if debug:
            raise
        about = f"unexpected {type(error).__name__}: {one_line(error)}"
        print(f"specdec: error: {about}; --debug shows where, please report it", file=sys.stderr)
        return 1


def commands() -> dict[str, ModuleType]:
    """This package's commands, and those that installed packages add. A plugin is a module of the same shape."""
    plugins = {point.name: point.load() for point in metadata.entry_points(group=PLUGINS)}
    return {**COMMANDS, **{name: command for name, command in plugins.items() if name not in COMMANDS}}


def _run(argv: Sequence[str]) -> int:
    """Parse and run; without a command, show the help."""
    try:
        parser = _parser()
        args = parser.parse_args(argv or ["--help"])
        args.argv = list(argv)  # for what writes down how it was made
        if getattr(args, "action", "") is None or not hasattr(args, "run"):  # `specdec train`, and `specdec` alone
            return _run([*(word for word in argv if word != "--debug"), "--help"])
        code: int = args.run(args)
    finally:
        _flush(sys.stdout)  # a reader that went away shows here, where it is expected
    return code


def _flush(stream: Any) -> None:
    """Write what is buffered. If that fails, drop it, so that the interpreter does not fail again as it exits."""
    try:
        stream.flush()
    except BrokenPipeError:
        raise
    except OSError:
        _discard_stdout()
        raise


def _discard_stdout() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> Parser:
    parser = Parser("specdec", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("--version", action="version", version=f"specdec {version()}", help="show the version and exit")
    known = parser.add_subparsers(title="commands", metavar="COMMAND", prog="specdec")
    for name, command in commands().items():
        sub = known.add_parser(name, help=command.HELP, description=command.DESCRIPTION, epilog=command.EPILOG)
        command.add_arguments(sub)
        sub.set_defaults(run=command.run)
    about = known.add_parser("help", help="show this text, or the help of a command")
    about.add_argument("words", nargs="*", metavar="COMMAND", help="the command (default: specdec itself)")
    about.set_defaults(run=_help)
    return parser


def _help(args: argparse.Namespace) -> int:
    """`specdec help COMMAND` is `specdec COMMAND --help`; a command within it may follow."""
    return _run([*args.words[:2], "--help"])


def _message(error: Exception, argv: Sequence[str]) -> str:
    """The error on one line; one about a flag names the help that lists the flags."""
    text = one_line(error)
    if isinstance(error, ImportError):
        return f"{text}. The command line needs more packages: pip install 'specdec-ref[cli,models]'"
    if isinstance(error, UsageError) and re.search(r"(?<!\w)--[a-z]", text) and "--help`" not in text:
        return f"{text}; see `{_called(argv)} --help`"
    return text or f"{type(error).__name__} without a message; --debug shows where"


def _called(argv: Sequence[str]) -> str:
    """The command that was called, `specdec train corpus`, as far as it is known."""
    known = commands()
    at = next((i for i, word in enumerate(argv) if word in known), len(argv))
    actions = getattr(known[argv[at]], "ACTIONS", ()) if at < len(argv) else ()
    return " ".join(["specdec", *argv[at : at + 1], *(word for word in argv[at + 1 : at + 2] if word in actions)])
