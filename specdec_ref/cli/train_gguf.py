"""`specdec train export --format gguf`: a head and its target as llama.cpp loads them."""

import argparse
from pathlib import Path

__all__ = ["export_for_llamacpp"]


def export_for_llamacpp(args: argparse.Namespace) -> int:
    """Write both files and print their paths, the target's first."""
    from specdec_ref.cli.shared import UsageError, say
    from specdec_ref.models.hub import load
    from specdec_ref.training.gguf_export import export_gguf
    from specdec_ref.training.gguf_target import TYPES

    if args.out is None:
        raise UsageError("export needs --out DIR")
    if args.type not in TYPES:
        raise UsageError(f"unknown GGUF type {args.type!r}; choose from {', '.join(TYPES)}")
    if args.gguf is not None and not args.gguf.is_file():
        raise UsageError(f"--gguf: there is no file {args.gguf}")
    source = args.folder or _shipped(args.target)
    say(f"loading {args.target}")
    model, tokenizer = load(args.target, dtype=args.dtype, device="cpu", pack=False)
    for path in export_gguf(source, model, tokenizer, args.out, args.type, target=args.gguf):
        print(path)
    return 0


def _shipped(target: str) -> Path:
    """The head that comes with the package for this target."""
    from specdec_ref.cli.shared import UsageError
    from specdec_ref.weights import SHIPPED, shipped_folder

    folder = shipped_folder(target)
    if folder is None:
        raise UsageError(
            f"no EAGLE head is shipped for {target} (there is one for {', '.join(SHIPPED)}): name a RUN, "
            "a folder of `specdec train`"
        )
    return folder
