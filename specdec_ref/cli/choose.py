"""`specdec choose`: which method and length pay here, and why."""

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from specdec_ref.cli.flags import add_model
from specdec_ref.cli.shared import UsageError, console, give_way, say, typed

if TYPE_CHECKING:
    from collections.abc import Callable

    from specdec_ref.bench.known import Known
    from specdec_ref.choose import Choice, Option

__all__ = ["DESCRIPTION", "EPILOG", "HELP", "add_arguments", "run"]

HELP = "which method and draft length pay, and why"
DESCRIPTION = """\
Choose a drafting method and draft length, or no speculation, from how often
drafts are accepted and what a round costs. Acceptance was measured on our
held-out prompts; --acceptance takes your own figures, by position. Costs are
measured on this machine once and kept. --gpu models another GPU from its data
sheet instead, which is not a measurement.
"""
EPILOG = """\
examples:
  $ specdec choose --task chat
  $ specdec choose --task editing --batch 16 --temperature 1
  $ specdec choose --gpu H100 --batch 32 --acceptance eagle=0.73,0.52,0.35
  $ specdec choose --engine llamacpp --type f32 --threads 2 --task code
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument(
        "--task",
        default="mean",
        metavar="NAME",
        help="code, chat, translation, summary, creative, editing; default: their mean",
    )
    parser.add_argument("--temperature", type=float, default=0.0, metavar="X", help="0 (default) or 1 were measured")
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="concurrent requests (default 1)")
    parser.add_argument(
        "--acceptance",
        action="append",
        default=[],
        metavar="NAME=A,B,..",
        help="share of rounds whose draft 1, 2, ... was accepted; repeatable",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout, nothing else")
    gpu = parser.add_argument_group("a GPU that is not here", "No model is loaded.")
    gpu.add_argument("--gpu", metavar="NAME", help="T4, RTX 3060, RTX 4090, A100, M1, ...; loosely written")
    gpu.add_argument("--size", default="8b", metavar="NAME", help="8b (default) or 70b: Llama 3.1's shapes, bfloat16")
    gpu.add_argument("--context", type=int, default=1024, metavar="N", help="tokens a row has cached (default 1024)")
    gpu.add_argument(
        "--draft-share",
        type=float,
        default=0.05,
        metavar="X",
        help="bytes a draft token reads, in the target's (default 0.05; n-grams: 0)",
    )
    engine = parser.add_argument_group("another engine", "Needs the extra llamacpp. --target: ours, or a GGUF file.")
    engine.add_argument(
        "--engine", choices=("specdec", "llamacpp"), default="specdec", help="default specdec: this package"
    )
    engine.add_argument("--type", default="f16", metavar="NAME", help="embedded model: f16 (default), f32, q8_0, q4_1")
    engine.add_argument("--draft-model", metavar="FILE", help="a head as GGUF (default: the shipped one)")
    engine.add_argument(
        "--threads", type=int, default=1, metavar="N", help="default 1; more are slower if a core is busy"
    )
    add_model(parser)


def run(args: argparse.Namespace) -> int:
    """Collect acceptance and costs, weigh, print."""
    from specdec_ref.choose import choose

    if args.batch < 1:
        raise UsageError(f"--batch must be >= 1, got {args.batch}")
    if args.engine == "llamacpp":
        options, v = _served(args)
    else:
        accepted = _acceptance(args)
        options, v = _modelled(args, accepted) if args.gpu else _measured(args, accepted)
    choice = choose(options, v, batch=args.batch)
    if args.json:
        print(json.dumps(_plain(choice)))
    else:
        _print(choice, args)
    return 0


def _acceptance(args: argparse.Namespace) -> "dict[str, Known]":
    """Ours, or the caller's."""
    from specdec_ref.bench.known import Known, known

    if not args.acceptance:
        return known(args.task, args.temperature)
    found = {}
    for spelled in args.acceptance:
        name, _, numbers = spelled.partition("=")
        try:
            alive = tuple(float(number) for number in numbers.replace(" ", ",").split(",") if number)
        except ValueError as error:
            raise UsageError(f"--acceptance {spelled}: write NAME=0.7,0.5,0.3") from error
        found[name] = Known(alive, 1.0, 1.0 + sum(alive))
    return found


def _modelled(args: argparse.Namespace, accepted: "dict[str, Known]") -> "tuple[list[Option], Callable[[int], float]]":
    from specdec_ref.choose import SHAPES, Option, roofline_cost
    from specdec_ref.gpus import find_card

    if args.size not in SHAPES:
        raise UsageError(f"{args.size!r} is not known; choose from {', '.join(SHAPES)}")
    try:
        shape, gpu = SHAPES[args.size], find_card(args.gpu)
    except ValueError as error:
        raise UsageError(str(error)) from error
    options = []
    for name, row in accepted.items():
        c = 0.0 if name in ("ngram", "trie", "suffix") else args.draft_share
        options.append(Option(name, row.alive, roofline_cost(shape, gpu, c, args.batch, args.context)[0], row.drafts))
    return options, roofline_cost(shape, gpu, 0.0, args.batch, args.context)[1]


def _measured(args: argparse.Namespace, accepted: "dict[str, Known]") -> "tuple[list[Option], Callable[[int], float]]":
    """Costs of this machine, for those drafters that can be had here."""
    from specdec_ref.calibrate import calibrate
    from specdec_ref.choose import Option, measured_cost
    from specdec_ref.config import DraftBudget
    from specdec_ref.drafters import build_drafter
    from specdec_ref.session import Session

    say(f"loading {args.target}; what a round takes is measured once, in ten seconds, and kept")
    give_way()
    session = Session.open(args.target, dtype=args.dtype, device=args.device, lean=True)
    drafters = []
    for name in accepted:
        try:
            drafters.append((name, build_drafter(name, session.target, None), DraftBudget()))
        except ValueError as error:
            say(f"{name} is left out: {error}")
    costs = calibrate(session, drafters)
    if not costs:
        raise UsageError("none of these drafters can be had here, so there is nothing to weigh")
    priced = {name: measured_cost(cost, args.batch) for name, cost in costs.items()}
    options = [Option(name, accepted[name].alive, cost, accepted[name].drafts) for name, (cost, _) in priced.items()]
    return options, next(iter(priced.values()))[1]


def _served(args: argparse.Namespace) -> "tuple[list[Option], Callable[[int], float]]":
    """Acceptance and costs of llama.cpp, on the task's dev prompts."""
    from specdec_ref.bench.priced import options, price_llamacpp
    from specdec_ref.cli.serve import gguf_files
    from specdec_ref.engines.process import EngineError, missing_wheel
    from specdec_ref.workloads import HELD_OUT, TASKS, load_prompts

    for given, name in ((args.gpu, "gpu"), (args.acceptance, "acceptance"), (args.batch > 1, "batch")):
        if given:
            more = "; bench --endpoint --load answers for several requests" if name == "batch" else ""
            raise UsageError(f"--{name} does not go with --engine llamacpp, which measures one request at a time{more}")
    if args.task not in ("mean", *TASKS):
        raise UsageError(f"unknown task {args.task!r}; choose from mean, {', '.join(TASKS)}")
    if complaint := missing_wheel():
        raise EngineError(complaint)
    target, head = gguf_files(args.target, args.draft_model, args.type)
    tasks, each = (TASKS, 1) if args.task == "mean" else ((args.task,), 4)
    prompts = [prompt.prompt for task in tasks for prompt in load_prompts([task], "dev", file=HELD_OUT)[:each]]
    with console(stderr=True).status("measuring llama.cpp") as status:
        priced = price_llamacpp(
            target, head, prompts, threads=args.threads, temperature=args.temperature,
            tick=lambda name: status.update(f"measuring llama.cpp: {name}"),
        )  # fmt: skip
    return options(priced)


def _plain(choice: "Choice") -> dict[str, Any]:
    return asdict(choice) | {"weighed": [asdict(way) | {"speedup": way.speedup} for way in choice.weighed]}


def _print(choice: "Choice", args: argparse.Namespace) -> None:
    from rich.text import Text

    from specdec_ref.models.hub import EMBEDDED

    out = console()
    name = "plain decoding" if choice.method == "none" else f"{choice.method}, gamma {choice.gamma}"
    files = f"--type {args.type}" if args.target == EMBEDDED else f"--target {args.target}"
    where = f"{args.gpu}, from its data sheet" if args.gpu else "this machine"
    if args.engine == "llamacpp":
        where = f"llama.cpp on this machine, {files.partition(' ')[2]}"
    whose = "your acceptance" if args.acceptance else f"task {args.task}, temperature {args.temperature:g}"
    out.print(
        Text(f"{name}: {choice.speedup:.2f} times plain, predicted ({whose}; {where})", style="bold"), soft_wrap=True
    )
    for reason in choice.reasons:
        out.print(Text(f"- {reason}"), soft_wrap=True)
    if args.engine == "llamacpp":
        drafting = "none" if choice.method == "none" else f"{choice.method} --depth {choice.gamma}"
        command = f"specdec serve --drafter {drafting} {files} --threads {args.threads}"
        out.print(Text(f"- To serve it: {typed(command)}"), soft_wrap=True)
