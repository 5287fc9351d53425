"""Our head in llama.cpp and here: the same prompts, the same texts, the same rounds? Counts, so no clock is needed.

    python -m benchmarks.llamacpp --prompts 4 > specdec_ref/bench/rows/llamacpp.jsonl

For each GGUF type and task, greedily: llama.cpp plain, llama.cpp with the shipped EAGLE head, and this package with the
same head in float32.

    identical     texts of llama.cpp with the head that are llama.cpp's plain text, character for character
    same_as_ours  texts of llama.cpp with the head that are also this package's text
    equal_rounds  of those, how many took the same number of target passes there and here
    tau           tokens per target pass; in llama.cpp without the prompt's pass and its token, which have no draft

Needs the extra `llamacpp`. One JSON object per line on stdout.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
from tqdm import tqdm

from benchmarks.command import command_parser
from specdec_ref.config import DraftBudget
from specdec_ref.engines.process import LlamaServer
from specdec_ref.machine import cpu_features, cpu_name
from specdec_ref.session import Session
from specdec_ref.training.gguf_export import export_gguf
from specdec_ref.weights import shipped_folder
from specdec_ref.workloads import HELD_OUT, load_prompts

__all__ = ["Answer", "compared", "main"]


@dataclass(frozen=True, slots=True)
class Answer:
    """A greedy answer: `tokens` come from `passes` forward passes of the target."""

    text: str
    tokens: int
    passes: int


def compared(plain: Sequence[Answer], drafted: Sequence[Answer], ours: Sequence[Answer]) -> dict[str, Any]:
    """The counts of one task.

    Here the first token comes from a round with drafts, in llama.cpp from the prompt's pass, which is not counted: the
    same text takes as many passes here as there, or one more.
    """
    same = [(there, here) for there, here in zip(drafted, ours, strict=True) if there.text == here.text]
    return {
        "prompts": len(plain),
        "identical": sum(a.text == b.text for a, b in zip(plain, drafted, strict=True)),
        "same_as_ours": len(same),
        "equal_rounds": sum(here.passes in (there.passes, there.passes + 1) for there, here in same),
        "tau_llamacpp": _tau(drafted),
        "tau_ours": _tau(ours),
        "tau_llamacpp_same": _tau([there for there, _ in same]),
        "tau_ours_same": _tau([here for _, here in same]),
    }


def _tau(answers: Sequence[Answer]) -> float | None:
    passes = sum(answer.passes for answer in answers)
    return sum(answer.tokens for answer in answers) / passes if passes else None


def served(target: Path, prompts: Sequence[str], tokens: int, head: Path | None, depth: int) -> list[Answer]:
    """The answers of llama.cpp, one thread."""
    words = ["--model", target, "--port", 0, "--ctx-size", 2048, "--parallel", 1, "--threads", 1]
    if head is not None:
        words += ["--spec-type", "draft-eagle3", "--spec-draft-model", head, "--spec-draft-n-max", depth]
    found = []
    with (
        LlamaServer.start([str(word) for word in words]) as server,
        httpx.Client(timeout=300.0, trust_env=False) as http,
    ):
        for prompt in tqdm(prompts, desc="llama.cpp with the head" if head else "llama.cpp plain"):
            body = {"messages": [{"role": "user", "content": prompt}], "max_tokens": tokens, "temperature": 0}
            reply = http.post(f"{server.url}/v1/chat/completions", json=body).raise_for_status().json()
            written, accepted = reply["timings"]["predicted_n"], reply["timings"].get("draft_n_accepted", 0)
            text = reply["choices"][0]["message"]["content"]
            found.append(Answer(text, written - 1, written - 1 - accepted))  # the first token is the prompt pass's
    return found


def here(session: Session, prompts: Sequence[str], tokens: int, depth: int) -> list[Answer]:
    """The answers of this package."""
    engine = session.engine("eagle", budget=DraftBudget(depth), limits=session.limits(tokens))
    found = []
    for prompt in tqdm(prompts, desc="this package"):
        answer = engine.generate([session.encode(prompt)])[0]
        found.append(Answer(session.decode(answer.tokens), len(answer.tokens), answer.stats.rounds))
    return found


def rows(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One per type and task."""
    work = [prompt for task in args.task for prompt in load_prompts([task], "test", file=HELD_OUT)[: args.prompts]]
    texts = [prompt.prompt for prompt in work]
    session, source = Session.open(args.target, dtype="float32"), shipped_folder(args.target)
    if source is None:
        raise SystemExit(f"{args.target} comes with no head")
    ours = here(session, texts, args.tokens, args.depth)
    with tempfile.TemporaryDirectory() as folder:
        for kind in args.type:
            target, head = export_gguf(source, session.target.model, session.tokenizer, Path(folder), kind)
            plain, drafted = (served(target, texts, args.tokens, h, args.depth) for h in (None, head))
            for task in args.task:
                mine = [i for i, prompt in enumerate(work) if prompt.task == task]
                picked = [[answers[i] for i in mine] for answers in (plain, drafted, ours)]
                yield {"type": kind, "task": task, **compared(*picked)}
            yield {"type": kind, "task": "all", **compared(plain, drafted, ours)}


def main(argv: Sequence[str] | None = None) -> int:
    """The command of the module docstring."""
    parser = command_parser("llamacpp", __doc__, prompts=4, tokens=64)
    parser.add_argument("--type", nargs="+", default=["f16", "q4_1"], help="GGUF types of the target")
    parser.add_argument("--depth", type=int, default=3, help="drafts per round (default 3)")
    args = parser.parse_args(argv)
    about = {
        "command": "python -m benchmarks.llamacpp " + " ".join(argv if argv is not None else sys.argv[1:]),
        "target": args.target, "ours": "float32", "llamacpp": f"xllamacpp {version('xllamacpp')}",
        "machine": cpu_name(), "features": cpu_features(), "tokens": args.tokens, "depth": args.depth,
    }  # fmt: skip
    for row in (about, *rows(args)):
        short = {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}
        sys.stdout.write(json.dumps(short) + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
