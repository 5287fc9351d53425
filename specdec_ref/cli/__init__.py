"""The `specdec` command line: `main`, and a file a command. What a machine reads goes to stdout, all else to stderr.

Exit codes: 0 done, 1 it failed, 2 the input is wrong, 130 interrupted. An error is one line that says what to do;
`--debug` or SPECDEC_DEBUG=1 shows the traceback.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from types import MappingProxyType, ModuleType

from specdec_ref.cli import (
    bench,
    choose,
    demo,
    doctor,
    explain,
    export_command,
    fetch,
    generate,
    replay,
    serve,
    train,
)
from specdec_ref.cli.shared import Parser, one_line, spellings, version
from specdec_ref.config import DraftBudget

__all__ = ["COMMANDS", "commands", "main"]

COMMANDS: Mapping[str, ModuleType] = MappingProxyType({
    "demo": demo, "generate": generate, "doctor": doctor, "bench": bench, "fetch": fetch, "train": train,
    "replay": replay, "choose": choose, "export-command": export_command, "explain": explain,
    "serve": serve,
})  # fmt: skip
PLUGINS = "specdec.commands"  # the entry points under which other packages, such as the course, add commands

_DESCRIPTION = f"""\
Speculative decoding: the same text from the same model, in less time.

A language model writes one token a forward pass. On most machines a pass over
five tokens costs little more than a pass over one, so something cheap guesses
ahead and the model checks the guesses all at once. A round:

  1. draft    a drafter guesses gamma tokens
  2. verify   one forward of the target scores them all
  3. accept   guesses it agrees with stay, and it adds a token of its own:
              a bonus after them all, or a correction where one fails

words:
  target, p     the model whose text is wanted, and its distribution
  draft, q      whatever guesses, and its distribution
  gamma         guesses a round (--depth)
  alpha         share of the tested guesses that are accepted
  tau           mean tokens a round, the added one included: 1 to gamma + 1
  v(k)          time to check k tokens, in plain steps (`specdec doctor`)
  speed-up      tau / (gamma c + v(gamma + 1)), where a guess costs c steps
  lossless      the output is the target's own: the same text at temperature 0,
                the same distribution above it

a budget in the words of three engines, first a chain, then a tree:
{spellings(DraftBudget(4))}

{spellings(DraftBudget(5, 4, 16))}
"""

_EPILOG = """\
examples:
  $ specdec demo                                   watch it; about a minute
  $ specdec generate "Name three colours."         one answer, streamed
  $ specdec generate --prompts-file prompts.jsonl --json
                                                   one JSON object a line
  $ specdec doctor                                 this machine's verify curve

`specdec COMMAND --help` says more. Exit codes: 0 done, 1 failed, 2 bad input,
130 interrupted. Errors are one line; --debug shows the traceback.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in argv or os.environ.get("SPECDEC_DEBUG", "") not in ("", "0")
    try:
        return _run(argv)
    except SystemExit as leave:  # --help and --version
        return leave.code if isinstance(leave.code, int) else 0
    except KeyboardInterrupt:
        print("specdec: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read stdout went away, e.g. `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (ValueError, RuntimeError, OSError, ImportError) as error:
        if debug:
            raise
        print(f"specdec: error: {_message(error)}", file=sys.stderr)
        return 2 if isinstance(error, ValueError) else 1


def commands() -> dict[str, ModuleType]:
    """This package's commands, and those that installed packages add. A plugin is a module of the same shape."""
    plugins = {point.name: point.load() for point in metadata.entry_points(group=PLUGINS)}
    return {**plugins, **COMMANDS}


def _run(argv: Sequence[str]) -> int:
    args = _parser().parse_args(argv)
    args.argv = list(argv)  # for what writes down how it was made
    code: int = args.run(args)
    sys.stdout.flush()  # a reader that went away shows here, where it is expected
    return code


def _parser() -> Parser:
    parser = Parser("specdec", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("--version", action="version", version=f"specdec {version()}", help="show the version and exit")
    known = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, command in commands().items():
        sub = known.add_parser(name, help=command.HELP, description=command.DESCRIPTION, epilog=command.EPILOG)
        command.add_arguments(sub)
        sub.set_defaults(run=command.run)
    return parser


def _message(error: Exception) -> str:
    if isinstance(error, ImportError):
        return f"{one_line(error)}. The command line needs more packages: pip install 'specdec-ref[cli,models]'"
    return one_line(error) or f"{type(error).__name__} without a message; --debug shows where"
