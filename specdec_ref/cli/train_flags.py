"""The help of `specdec train`: its actions, and the flags of each."""

from pathlib import Path
from typing import TYPE_CHECKING

from specdec_ref.cli.flags import add_model
from specdec_ref.cli.shared import Action, add_actions
from specdec_ref.cli.train_endpoint import add_endpoint

if TYPE_CHECKING:
    from specdec_ref.cli.shared import Parser

__all__ = ["ACTIONS", "DESCRIPTION", "EPILOG", "HELP", "add_arguments"]

HELP = "train an EAGLE head, or a plain draft model of its size, on the target's own text"
DESCRIPTION = """\
Train a drafter on text that its target wrote. This takes three steps: the
target answers prompts (corpus), its hidden states on that text are stored
(features), and a head learns to predict the target from them. Every step can
be stopped with Ctrl-C and continues when the same command is run again.
"""
EPILOG = """\
examples:
  $ specdec train eagle --preset tiny --out run    all steps, in a minute
  $ specdec train plot run                         its loss and agreement
  $ specdec generate --drafter eagle --draft-model run "Name three colours."

`specdec train ACTION --help` shows the options of an action. docs/TRAINING.md
follows a run of hours from the corpus to the exported head.
"""
_RESUMES = """\
Ctrl-C stops and saves; the same command continues. On stdout: the folder with
the result.
"""
ACTIONS = {
    "corpus": Action(
        "let the target answer prompts: the text to learn from",
        f"""\
Let the target answer prompts. Its answers are the text that a drafter has to
predict. The prompts come from a grammar, from code and prose that is found on
this machine, and in part from the target itself.

{_RESUMES}""",
        """\
examples:
  $ specdec train corpus --out corpus              for hours, then Ctrl-C
  $ specdec train corpus --worker 0/2 --out corpus
      and --worker 1/2 in another shell
  $ specdec train corpus --endpoint http://localhost:30000 --out corpus
""",
    ),
    "eagle": Action(
        "train an EAGLE head on the target's hidden states",
        f"""\
Store the target's hidden states (its features) on a corpus, and train an EAGLE
head on them. With --preset tiny or --conversations, the corpus is written
first if neither --corpus nor --features is given.

{_RESUMES}""",
        """\
examples:
  $ specdec train eagle --preset tiny --out run    all steps, in a minute
  $ specdec train eagle --corpus corpus --out head --tokens 5000000
  $ specdec generate --drafter eagle --draft-model head "Name three colours."
  $ specdec train eagle --kind p-eagle --features head/features --out parallel
  $ specdec train eagle --kind dspark --corpus corpus --out block
  $ specdec generate --drafter block --draft-model block "Name three colours."
""",
    ),
    "draft": Action(
        "train a plain draft model of the same size",
        f"""\
Train a plain one-layer draft model of the same size as the EAGLE head, on the
same text. It reads tokens only, so a comparison shows what the features add.

{_RESUMES}""",
        """\
examples:
  $ specdec train draft --features head/features --like head --out plain
  $ specdec generate --drafter draft --draft-model plain "Name three colours."
""",
    ),
    "plot": Action(
        "draw loss and agreement of a run",
        """\
Draw the loss and the agreement with the target of a run, as loss.png and
agreement.png. On stdout: the files.
""",
        """\
examples:
  $ specdec train plot head
""",
    ),
    "export": Action(
        "write the head of a run in another format",
        """\
Write the head of a run in the format that another program reads, together with
its target. On stdout: what was written.

formats:
  engine       for SGLang and vLLM (default)
  speculators  for the library of that name
  eagle1       for SGLang and vLLM, from a run with --eagle 1
  gguf         for llama.cpp; without RUN, the head that ships with the target
  card         for publishing: weights in bfloat16 with a model card, without
               the target
""",
        """\
examples:
  $ specdec train export head --out for-sglang
  $ specdec train export --format gguf --out for-llama.cpp
  $ specdec train export head --format card --out card
""",
    ),
}


def add_arguments(parser: "Parser") -> None:
    """The actions, each with its own arguments."""
    parser.set_defaults(endpoint=None, features=None, eagle=3, conversations=None, rows=None, worker="0/1")
    each = add_actions(parser, ACTIONS)
    for name in ("plot", "export"):
        each[name].add_argument("folder", nargs="?", type=Path, metavar="RUN", help="the folder of a run")
    for name, sub in each.items():
        where = {"plot": "default: RUN", "export": "needed"}.get(name, "default: in the cache folder")
        sub.add_argument("--out", type=Path, metavar="DIR", help=f"where the result goes ({where})")
        if name in ("corpus", "eagle", "draft"):
            sub.add_argument("--preset", default="full", metavar="NAME",
                             help="full (default), for hours, or tiny, for a minute")  # fmt: skip
            sub.add_argument("--seed", type=int, default=0, metavar="N", help="random seed (default 0)")
        if name != "plot":
            sub.set_defaults(dtype="auto")
            add_model(sub, device=False)
        if name in ("corpus", "eagle", "draft"):
            _add_corpus(sub, alone=name == "corpus")
        if name in ("eagle", "draft"):
            _add_training(sub)
    each["eagle"].add_argument("--eagle", type=int, choices=(1, 3), default=3, help="version of the head (default 3)")
    each["eagle"].add_argument(
        "--kind", default="eagle", metavar="NAME",
        help="eagle (default); p-eagle: continue an EAGLE-3 head, the shipped one or --start, until it drafts all "
        "tokens in one pass; mtp: a module as in DeepSeek-V3; medusa: one small head per position; dspark: a head for "
        "--drafter block, which drafts 4 tokens in one pass and completes each with the token before it; dflash: the "
        "same without that",
    )  # fmt: skip
    add_endpoint(each["corpus"])
    _add_export(each["export"])


def _add_corpus(parser: "Parser", *, alone: bool) -> None:
    group = parser.add_argument_group("corpus", None if alone else "When it is written here, without --corpus.")
    group.add_argument("--conversations", type=int, metavar="N",
                       help="stop after N (default: full never, tiny 48)")  # fmt: skip
    group.add_argument("--rows", type=int, metavar="N", help="conversations side by side (default: full 96, tiny 48)")
    if alone:
        group.add_argument("--worker", default="0/1", metavar="W/N",
                           help="be worker W, from 0, of N processes with the same --seed and --out")  # fmt: skip
        group.add_argument("--features", type=Path, nargs=1, metavar="DIR",
                           help="also store the features of an EAGLE-3 head, which saves a second pass")  # fmt: skip


def _add_training(parser: "Parser") -> None:
    group = parser.add_argument_group("training")
    group.add_argument("--corpus", type=Path, nargs="+", metavar="PATH", help="folders or files to learn from")
    group.add_argument("--features", type=Path, nargs="+", metavar="DIR",
                       help="feature stores (default: in --out); the first is filled from --corpus")  # fmt: skip
    group.add_argument(
        "--start", type=Path, metavar="HEAD", help="begin with the weights of this head, not with random ones"
    )
    group.add_argument("--like", type=Path, metavar="HEAD", help="use the draft vocabulary of this head")
    for flag, kind, text in (
        ("--draft-vocab", int, "tokens in the draft vocabulary; 0: all (default: full 8192, tiny 4096)"),
        ("--tokens", int, "response tokens to train on (default: full 5000000, tiny 40000)"),
        ("--batch-tokens", int, "response tokens per update (default: full 1024, tiny 512)"),
        ("--rate", float, "peak learning rate (default 0.001)"),
        ("--fall", float, "share of the run over which the rate falls (default: full 0.4, tiny 1)"),
        ("--loss", str, "cross_entropy (default of eagle), total_variation, acceptance or dspark (default of blocks)"),
        ("--loss-vocab", int, "sampled draft tokens in the loss of an update (default 0: all)"),
    ):
        group.add_argument(flag, type=kind, metavar={int: "N", float: "X"}.get(kind, "NAME"), help=text)
    group.add_argument("--bfloat16", action="store_true",
                       help="multiply in bfloat16: faster on processors that have it, slower elsewhere")  # fmt: skip


def _add_export(parser: "Parser") -> None:
    group = parser.add_argument_group("export")
    group.add_argument("--format", default="engine", metavar="NAME", help="see above (default engine)")
    group.add_argument("--type", default="f16", metavar="NAME",
                       help="gguf: the target's weights, f16 (default), f32, q8_0 or q4_1")  # fmt: skip
    group.add_argument("--gguf", type=Path, metavar="FILE", help="gguf: use this GGUF file of the target")
    group.add_argument("--measured", type=Path, metavar="FILE",
                       help="card: rows of `python -m benchmarks.acceptance` to put on it")  # fmt: skip
