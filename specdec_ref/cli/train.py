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

from specdec_ref.cli.train_flags import ACTIONS, DESCRIPTION, EPILOG, HELP, add_arguments

if TYPE_CHECKING:
    from specdec_ref.training.recipe import Recipe

__all__ = ["ACTIONS", "DESCRIPTION", "EPILOG", "HELP", "add_arguments", "run"]


def run(args: argparse.Namespace) -> int:
    """Do one step, or for a head all that is missing."""
    from specdec_ref.cli.shared import UsageError, say
    from specdec_ref.cli.train_endpoint import write_served
    from specdec_ref.models.fetch import cache_dir
    from specdec_ref.training.recipe import PRESETS

    if args.action == "export" and args.format == "gguf":
        from specdec_ref.cli.train_gguf import export_for_llamacpp

        return export_for_llamacpp(args)
    if args.action in ("plot", "export") and args.folder is None:
        raise UsageError(f"name the folder of a run; see `specdec train {args.action} --help`")
    if args.action == "plot":
        return _plot(args.folder, args.out or args.folder)
    if args.action == "export":
        return _export(args)
    if args.preset not in PRESETS:
        raise UsageError(f"--preset: unknown preset {args.preset!r}; choose from {', '.join(PRESETS)}")
    recipe = _recipe(PRESETS[args.preset], args)
    out = args.out or cache_dir() / "training" / f"{args.action}-{args.preset}"
    if args.endpoint and args.features:
        raise UsageError("--features needs the target on this machine, since a server returns text only: drop it")
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
    from specdec_ref.cli.shared import UsageError
    from specdec_ref.training.kinds import KINDS

    given = {
        name: getattr(args, name, None) for name in ("tokens", "batch_tokens", "rate", "fall", "loss", "loss_vocab")
    }
    changes = {name: value for name, value in given.items() if value is not None}
    version: Any = args.eagle if args.action != "draft" else 0
    if version == 0:
        changes["curriculum"] = ((0.0, 1),)  # a model that reads no output of its own learns nothing from unrolling
    kind = getattr(args, "kind", "eagle")
    if kind not in KINDS:
        raise UsageError(f"--kind: unknown kind {kind!r}; choose from {', '.join(KINDS)}")
    changes = {**KINDS[kind].settings, **changes}
    if kind in ("p-eagle", "medusa"):
        changes["curriculum"] = ((0.0, preset.train.measure_steps),)  # one pass gives all positions
    if kind != "eagle":
        version = KINDS[kind].reads
    elif version == 1:
        changes |= {"feature_weight": 1.0, "distribution_weight": 0.1}  # as its paper has them
    changes |= {"version": version, "kind": kind, "seed": args.seed, "bfloat16": getattr(args, "bfloat16", False)}
    train = replace(preset.train, **changes)
    wanted = {name: getattr(args, name) for name in ("conversations", "rows")}
    sizes = {name: n for name, n in wanted.items() if n is not None}
    worker, workers = _worker(args.worker)
    corpus = replace(preset.corpus, seed=args.seed, worker=worker, workers=workers, **sizes)
    wanted_vocab = getattr(args, "draft_vocab", None)
    vocab = preset.draft_vocab if wanted_vocab is None else wanted_vocab
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
    from specdec_ref.weights import shipped_folder

    if recipe.train.loss not in LOSSES:
        raise UsageError(f"--loss: unknown loss {recipe.train.loss!r}; choose from {', '.join(LOSSES)}")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and (args.features is None or args.corpus is not None):
        raise UsageError("several processes need stored features: give --features and drop --corpus")
    corpus, features = args.corpus, args.features or [out / "features"]
    if corpus is None and args.features is None:
        if recipe.corpus.conversations is None:
            raise UsageError("give text to learn from with --corpus or --features: `specdec train corpus` writes it")
        corpus = [out / "corpus"]
        _corpus(recipe, model, tokenizer, corpus[0])
    if corpus is not None:
        write_features(model, corpus, features[0], recipe.train.version)
    say(f"training in {out}: {recipe.train.tokens:,} response tokens; Ctrl-C stops, the same command goes on")
    start = args.start or (shipped_folder(Path(args.target).name) if recipe.train.kind == "p-eagle" else None)
    fit(recipe.train, model, features, out, draft_vocab=recipe.draft_vocab, like=args.like, start=start)
    log = read_log(out)
    first, last = (" ".join(f"{share:.2f}" for share in line["chain"]) for line in (log[0], log[-1]))
    say(f"held-out drafts alive by position: {first} at first, {last} after {log[-1]['tokens']:,} tokens")


def _plot(folder: Path, out: Path) -> int:
    from specdec_ref.cli.shared import UsageError, check_plots
    from specdec_ref.training.recipe import read_log

    if not (folder / "log.jsonl").is_file():
        raise UsageError(f"{folder} holds no log.jsonl: name a folder that `specdec train eagle` or `draft` wrote")
    check_plots()
    from specdec_ref.plots import training_curves

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
        raise UsageError(f"give --out DIR, and a --format from {', '.join(FORMATS)}, gguf, card")
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
