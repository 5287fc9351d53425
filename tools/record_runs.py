"""Record the runs that the site's landing page replays: plain decoding, n-grams and EAGLE on a few prompts.

    python tools/record_runs.py --into docs/site/runs

One trace per prompt and decoder, which `specdec replay` reads as well. The decoders take turns, several times, and each
keeps the take with its median time. Prefill is not counted. The texts of all decoders must be the same, token for
token: a prompt whose texts differ (a near tie in bfloat16 can do that) is refused. Needs an idle machine, because the
page plays the recorded seconds.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["DECODERS", "PROMPTS", "main", "record"]

PROMPTS: Mapping[str, tuple[str, str, int]] = {  # name -> (title, prompt, tokens at most)
    "question": ("Answer a question", "Name three animals that live in the sea and say one thing about each.", 80),
    "code": ("Write code", "Write a Python function that returns the largest number in a list.", 80),
    "editing": (
        "Edit a text",
        "Correct the spelling and repeat the whole text:\n\nThe old lighthouse stands at the end of the harbour wall. "
        "Every evening the keeper climbs the ninety-two steps to the lantern room, lights the lamp and watches the "
        "ships come home. When the fog is thik, he rings the bell.",
        80,
    ),
}
DECODERS: Mapping[str, int] = {"plain": 0, "eagle": 3, "ngram": 6}  # name -> draft length


def record(session: Any, prompt: str, most: int, takes: int) -> dict[str, list[Any]]:
    """The rounds of each decoder's median take. Raises ValueError if a text differs from plain decoding's."""
    from specdec_ref.config import DraftBudget
    from specdec_ref.drafters import build_drafter
    from specdec_ref.trace import plain_rounds, rounds

    ids, limits = session.encode(prompt), session.limits(most)
    runs: dict[str, list[list[Any]]] = {name: [] for name in DECODERS}
    for number in range(takes + 1):  # the first take of each warms up
        for name, depth in DECODERS.items():
            if name == "plain":
                done = list(plain_rounds(session.target, ids, limits=limits))
            else:
                drafter = build_drafter(name, session.target)
                done = list(rounds(session.engine(drafter, budget=DraftBudget(depth), limits=limits), ids))
            if number:
                runs[name].append(done)
    first = tokens_of(runs["plain"][0])
    for name, taken in runs.items():
        if any(tokens_of(done) != first for done in taken):
            raise ValueError(f"the texts of plain decoding and {name} differ: try --dtype float32 or another prompt")
    return {name: sorted(taken, key=seconds_of)[len(taken) // 2] for name, taken in runs.items()}


def tokens_of(done: Sequence[Any]) -> list[int]:
    """What a run emitted."""
    return [token for step in done for token in step.tokens]


def seconds_of(done: Sequence[Any]) -> float:
    """Seconds of a run, without prefill."""
    return float(sum(step.seconds for step in done))


def written(about: Mapping[str, Any], done: Sequence[Any], session: Any) -> Iterator[str]:
    """A trace without what the page does not draw: the seconds inside a round."""
    from specdec_ref.replay import trace_lines

    for line in trace_lines(done, session.decode, byte_tokens=session.byte_tokens, **about):
        row = json.loads(line)
        if row.get("record"):
            row["record"] = {
                name: value
                for name, value in row["record"].items()
                if not name.endswith("_s") and name not in {"distortion", "context"}
            }
        yield json.dumps(row, ensure_ascii=False) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Record all prompts, or those named."""
    parser = argparse.ArgumentParser(description="Record the runs that the site's landing page replays.")
    parser.add_argument("--into", type=Path, required=True, help="folder for the traces, made if it is missing")
    parser.add_argument("--dtype", default="float32", help="default: float32, in which the texts are the same")
    parser.add_argument("--takes", type=int, default=3, help="takes per decoder, of which the median is kept")
    parser.add_argument("names", nargs="*", help=f"prompts (default: all): {', '.join(PROMPTS)}")
    args = parser.parse_args(argv)
    import torch

    from specdec_ref.machine import cpu_features, machine_line
    from specdec_ref.session import Session

    session = Session.open(dtype=args.dtype, device="cpu")
    machine = f"{machine_line(torch.device('cpu'))} ({', '.join(cpu_features())})"
    args.into.mkdir(parents=True, exist_ok=True)
    failed = 0
    for name in args.names or PROMPTS:
        title, prompt, most = PROMPTS[name]
        try:
            runs = record(session, prompt, most, args.takes)
        except ValueError as error:
            print(f"{name}: {error}", file=sys.stderr)
            failed = 1
            continue
        plain = seconds_of(runs["plain"])
        for decoder, done in runs.items():
            about = {
                "target": session.name,
                "drafter": decoder,
                "budget": f"depth {DECODERS[decoder]}" if DECODERS[decoder] else "none",
                "dtype": args.dtype,
                "machine": machine,
                "torch": torch.__version__,
                "title": title,
                "prompt": prompt,
            }
            (args.into / f"{name}-{decoder}.jsonl").write_text("".join(written(about, done, session)), encoding="utf-8")
            seconds, tokens = seconds_of(done), len(tokens_of(done))
            print(
                f"{name}, {decoder}: {tokens} tokens in {len(done)} rounds, {tokens / seconds:.1f} tokens/s, "
                f"{plain / seconds:.2f} times plain",
                file=sys.stderr,
            )
    return failed


if __name__ == "__main__":
    sys.exit(main())
