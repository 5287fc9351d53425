"""`specdec train`: a corpus that the target writes, and the heads that learn from it."""

import argparse
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from specdec_ref.training.recipe import Recipe

__all__ = ["DESCRIPTION", "EPILOG", "HELP", "add_arguments", "run"]

HELP = "train an EAGLE head, or a plain draft model of its size, on the target's own text"
DESCRIPTION = """\
Train a drafter on its target's own text. Each step can be stopped at any time
with Ctrl-C and continues when the same command is run again:

  corpus       the target answers prompts: what a draft must predict
  eagle        features of that corpus, then an EAGLE head on them
  draft        a plain one-layer model of the same size on the same text. It
               reads tokens only, so it shows what the features add
  plot         loss and agreement of a run, as pictures
  export       a run's head for others: --format engine (SGLang, vLLM),
               speculators or eagle1, with the target beside it; gguf
               (llama.cpp; without RUN the head that is shipped); or card:
               its weights in bfloat16 with a card

Without --corpus, `eagle` and `draft` write the corpus of the preset first.
On stdout: the folder that holds the result.
"""
EPILOG = """\
examples:
  $ specdec train eagle --preset tiny --out run        all of it, in a minute
  $ specdec train corpus --out corpus                  for hours, then Ctrl-C
  $ specdec train corpus --worker 0/2 --out corpus     and 1/2 in another shell
  $ specdec train corpus --endpoint http://localhost:30000 --out corpus
  $ specdec train eagle --corpus corpus --out head --tokens 5000000
  $ specdec train draft --features head/features --like head --out plain
  $ specdec train plot head
  $ specdec train export head --format engine --out for-sglang
  $ specdec train export --format gguf --out for-llama.cpp
  $ specdec generate --drafter eagle --draft-model head "Name three colours."
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    from specdec_ref.cli.flags import add_model

    parser.add_argument("action", choices=("corpus", "eagle", "draft", "plot", "export"), help="see above")
    parser.add_argument("folder", nargs="?", type=Path, metavar="RUN", help="plot, export: the folder of a run")
    parser.add_argument("--preset", default="full", metavar="NAME", help="full (default) or tiny")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the result goes (default: in the user's cache)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default 0")
    parser.set_defaults(dtype="auto")
    add_model(parser)
    parser.add_argument("--format", default="engine", metavar="NAME", help="export: see above (default engine)")
    parser.add_argument("--type", default="f16", metavar="NAME",
                        help="gguf: the target's weights, f16 (default), f32, q8_0, q4_1 (embedded model)")  # fmt: skip
    parser.add_argument("--gguf", type=Path, metavar="FILE", help="gguf: a GGUF file of the target that exists already")
    parser.add_argument("--measured", type=Path, metavar="FILE", help="export card: rows of bench.acceptance for it")
    _add_corpus(parser)
    training = parser.add_argument_group("training")
    training.add_argument("--corpus", type=Path, nargs="+", metavar="PATH", help="folders or files to learn from")
    training.add_argument("--features", type=Path, nargs="+", metavar="DIR",
                          help="feature stores; the first is filled from --corpus (default: in --out); "
                          "`corpus` fills it, too, if it is named, and saves a second forward")  # fmt: skip
    training.add_argument("--eagle", type=int, choices=(1, 3), default=3, help="the version of the head (default 3)")
    training.add_argument("--start", type=Path, metavar="HEAD", help="go on from these weights instead of new ones")
    training.add_argument("--like", type=Path, metavar="HEAD", help="take the draft vocabulary of this head")
    for flag, kind, text in (
        ("--draft-vocab", int, "tokens a draft can say; 0: all"), ("--tokens", int, "response tokens to train on"),
        ("--batch-tokens", int, "response tokens an update"), ("--rate", float, "peak learning rate"),
        ("--fall", float, "share of the run over which the rate falls"),
        ("--loss", str, "cross_entropy, total_variation or acceptance"),
        ("--loss-vocab", int, "draft tokens that the loss of an update looks at; 0: all"),
    ):  # fmt: skip
        training.add_argument(flag, type=kind, metavar="N" if kind is int else "X", help=text)
    training.add_argument("--bfloat16", action="store_true",
                          help="products in bfloat16: faster on CPUs that have it, else slower")  # fmt: skip


def _add_corpus(parser: argparse.ArgumentParser) -> None:
    from specdec_ref.cli.train_endpoint import add_endpoint

    corpus = parser.add_argument_group("corpus")
    corpus.add_argument("--conversations", type=int, metavar="N", help="stop after so many (full: when interrupted)")
    corpus.add_argument("--rows", type=int, metavar="N", help="conversations side by side")
    corpus.add_argument("--worker", default="0/1", metavar="W/N",
                        help="be worker W (from 0) of N processes that share one seed and --out")  # fmt: skip
    add_endpoint(parser)


def run(args: argparse.Namespace) -> int:
    """Do one step, or for a head all that is missing."""
    from specdec_ref.cli.shared import UsageError, say
    from specdec_ref.cli.train_endpoint import write_served
    from specdec_ref.models.fetch import cache_dir
    from specdec_ref.training.recipe import PRESETS

    if args.action == "export" and args.format == "gguf":
        from specdec_ref.cli.train_gguf import export_for_llamacpp

        return export_for_llamacpp(args)
    if (args.folder is not None) != (args.action in ("plot", "export")):
        raise UsageError(f"`specdec train {args.action} RUN` needs a run's folder" if args.folder is None else
                         f"{args.action} takes no RUN: the result goes to --out")  # fmt: skip
    if args.action == "plot":
        return _plot(args.folder, args.out or args.folder)
    if args.action == "export":
        return _export(args)
    if args.preset not in PRESETS:
        raise UsageError(f"unknown preset {args.preset!r}; choose from {', '.join(PRESETS)}")
    recipe = _recipe(PRESETS[args.preset], args)
    out = args.out or cache_dir() / "training" / f"{args.action}-{args.preset}"
    if args.endpoint and args.features and args.action == "corpus":
        raise UsageError("--features needs the target here; a server returns text only: extract them afterwards")
    if args.endpoint and args.action != "corpus":
        raise UsageError(f"--endpoint is for `specdec train corpus`; `train {args.action}` runs here")
    if args.endpoint:
        with _saving_on_sigterm():
            write_served(args, recipe.corpus, out)
        print(out)
        return 0
    model, tokenizer = _model(args)
    if args.action == "corpus":
        with _saving_on_sigterm():
            written = _corpus(recipe, model, tokenizer, out, args.features[0] if args.features else None)
        say(f"{written} conversations added")
    else:
        _train(args, recipe, model, tokenizer, out)
    print(out)
    return 0


@contextmanager
def _saving_on_sigterm() -> Iterator[None]:
    """SIGTERM acts as Ctrl-C: a job in the background, which may ignore SIGINT, saves what is finished as well."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        on_sigint = signal.getsignal(signal.SIGINT)  # asyncio has its own
        (on_sigint if callable(on_sigint) else signal.default_int_handler)(number, frame)

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _recipe(preset: "Recipe", args: argparse.Namespace) -> "Recipe":
    """The preset, with what was asked for instead."""
    given = {name: getattr(args, name) for name in ("tokens", "batch_tokens", "rate", "fall", "loss", "loss_vocab")}
    changes = {name: value for name, value in given.items() if value is not None}
    version: Any = args.eagle if args.action != "draft" else 0
    if version == 0:
        changes["curriculum"] = ((0.0, 1),)  # a model that reads no output of its own learns nothing from unrolling
    if version == 1:
        changes |= {"feature_weight": 1.0, "distribution_weight": 0.1}  # as its paper has them
    train = replace(preset.train, version=version, seed=args.seed, bfloat16=args.bfloat16, **changes)
    wanted = {name: getattr(args, name) for name in ("conversations", "rows")}
    sizes = {name: n for name, n in wanted.items() if n is not None}
    worker, workers = _worker(args.worker)
    corpus = replace(preset.corpus, seed=args.seed, worker=worker, workers=workers, **sizes)
    vocab = preset.draft_vocab if args.draft_vocab is None else args.draft_vocab
    return replace(preset, corpus=corpus, train=train, draft_vocab=vocab)


def _worker(text: str) -> tuple[int, int]:
    """`W/N` as two numbers."""
    from specdec_ref.cli.shared import UsageError

    worker, slash, workers = text.partition("/")
    if not (slash and worker.isdecimal() and workers.isdecimal() and int(worker) < int(workers)):
        raise UsageError(f"--worker is {text!r}; write W/N with 0 <= W < N, for example 0/2 and 1/2 for two processes")
    return int(worker), int(workers)


def _model(args: argparse.Namespace) -> tuple[Any, Any]:
    from specdec_ref.cli.shared import say
    from specdec_ref.models.hub import load

    say(f"loading {args.target}")
    return load(args.target, dtype=args.dtype, device="cpu", pack=False)


def _corpus(recipe: "Recipe", model: Any, tokenizer: Any, folder: Path, features: Path | None = None) -> int:
    from specdec_ref.cli.shared import say
    from specdec_ref.training.recipe import write_corpus

    many = recipe.corpus.conversations
    say(f"corpus in {folder}: {'until Ctrl-C' if many is None else f'{many} conversations'}")
    return write_corpus(recipe.corpus, model, tokenizer, folder, features=features)


def _train(args: argparse.Namespace, recipe: "Recipe", model: Any, tokenizer: Any, out: Path) -> None:
    """Corpus and features where they are missing, then the training itself."""
    from specdec_ref.cli.shared import UsageError, say
    from specdec_ref.training.losses import LOSSES
    from specdec_ref.training.recipe import fit, read_log, write_features

    if recipe.train.loss not in LOSSES:
        raise UsageError(f"unknown loss {recipe.train.loss!r}; choose from {', '.join(LOSSES)}")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and (args.features is None or args.corpus is not None):
        raise UsageError("several processes train on features that are there already: --features, and no --corpus")
    corpus, features = args.corpus, args.features or [out / "features"]
    if corpus is None and args.features is None:
        if recipe.corpus.conversations is None:
            raise UsageError("--corpus or --features: text to learn from, e.g. of `specdec train corpus`")
        corpus = [out / "corpus"]
        _corpus(recipe, model, tokenizer, corpus[0])
    if corpus is not None:
        write_features(model, corpus, features[0], recipe.train.version)
    say(f"training in {out}: {recipe.train.tokens:,} response tokens; Ctrl-C stops, the same command goes on")
    fit(recipe.train, model, features, out, draft_vocab=recipe.draft_vocab, like=args.like, start=args.start)
    log = read_log(out)
    first, last = (" ".join(f"{share:.2f}" for share in line["chain"]) for line in (log[0], log[-1]))
    say(f"held-out drafts alive by position: {first} at first, {last} after {log[-1]['tokens']:,} tokens")


def _plot(folder: Path, out: Path) -> int:
    from specdec_ref.cli.shared import UsageError
    from specdec_ref.training.recipe import read_log

    if not (folder / "log.jsonl").is_file():
        raise UsageError(f"{folder} holds no log.jsonl: name the folder of a run of `specdec train`")
    try:
        from specdec_ref.plots import training_curves
    except ImportError as error:
        raise RuntimeError("pictures need matplotlib: pip install 'specdec-ref[notebooks]'") from error
    out.mkdir(parents=True, exist_ok=True)
    for name, picture in training_curves(read_log(folder)).items():
        (out / f"{name}.png").write_bytes(picture.png)
        print(out / f"{name}.png")
    return 0


def _export(args: argparse.Namespace) -> int:
    from specdec_ref.cli.shared import UsageError
    from specdec_ref.training.card import ship
    from specdec_ref.training.export import FORMATS, export, save_target
    from specdec_ref.weights.files import read_head
    from specdec_ref.weights.heads import build_head

    if args.out is None or args.format not in (*FORMATS, "card"):
        raise UsageError(f"export needs --out DIR and --format, one of {', '.join(FORMATS)}, gguf, card")
    files = read_head(args.folder)
    model, tokenizer = _model(args)
    if args.format == "card":
        print(ship(args.folder, model, args.out, name=args.target, measured=args.measured))
        return 0
    target = args.out / "target"
    folders = export(build_head(files, model), model, args.out / "head", args.format, target_path=str(target))
    save_target(model, tokenizer, target)
    print("\n".join(str(folder) for folder in [*folders, target]))
    return 0
