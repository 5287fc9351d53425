"""What the demo prints of its measurements: the result first, at the end every figure and what the words mean."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from specdec_ref.cli.identity import difference, parting
from specdec_ref.cli.shared import activation
from specdec_ref.identity import first_difference
from specdec_ref.machine import machine_line

if TYPE_CHECKING:
    from rich.console import Console

    from specdec_ref.cli.contest import Contest, Task
    from specdec_ref.cli.timing import Pair
    from specdec_ref.request import Limits

__all__ = ["BUSY", "best", "print_details", "print_result", "verdict"]

BUSY = "machine busy: timing not usable"

if TYPE_CHECKING:
    Pairs = Mapping[tuple[Task, str], Pair]


def best(pairs: "Pairs") -> "dict[Task, str | None]":
    """For each prompt the fastest drafter; None where no timing is usable."""
    names: dict[Task, str | None] = dict.fromkeys(task for task, _ in pairs)
    for task in names:
        usable = {name: pair.ratio for (asked, name), pair in pairs.items() if asked == task and pair.usable}
        names[task] = max(usable, key=lambda name: usable[name]) if usable else None
    return names


def print_result(pairs: "Pairs", out: "Console") -> None:
    """The result in a sentence, and a row of figures for each prompt."""
    out.print()
    out.print(verdict(pairs), style="bold", markup=False)
    out.print()
    table = _table(
        "prompt", "plain", "best", "times as fast", "drafter", "text", numbers=("plain", "best", "times as fast")
    )
    for task, name in best(pairs).items():
        if name is None:
            table.add_row(
                task.kind, "busy", "busy", "", "", _same([pair for key, pair in pairs.items() if key[0] == task])
            )
        else:
            pair = pairs[task, name]
            table.add_row(
                task.kind, f"{pair.plain.speed:.1f}", f"{pair.fast.speed:.1f}", f"{pair.ratio:.2f}", name, _same([pair])
            )
    out.print(table)
    out.print("plain, best: tokens per second", style="dim")
    if not all(pair.usable for pair in pairs.values()):
        out.print(f"{BUSY} where it reads busy. Try again when other programs are done.")


def verdict(pairs: "Pairs") -> str:
    """The result in a sentence for readers who are new to it."""
    gains = {task: (name, pairs[task, name].ratio) for task, name in best(pairs).items() if name is not None}
    same = "the text was the model's own in every case"
    if any(first_difference(pair.plain.tokens, pair.fast.tokens) is not None for pair in pairs.values()):
        same = "the text was the model's own, apart from the differences listed below"
    if not gains:
        return f"In short: the machine was too busy to time anything, but {same}."
    faster = [
        f"the {task.kind} answer came {ratio:.2f} times as fast (drafter {name})"
        for task, (name, ratio) in gains.items()
        if ratio > 1
    ]
    if not faster:
        return f"In short: guessing ahead saved no time on this machine, and {same}."
    rest = [f"the {task.kind} answer was not faster" for task, (_, ratio) in gains.items() if ratio <= 1]
    return f"In short: by guessing ahead and checking several guesses at once, {', '.join(faster + rest)}, and {same}."


def print_details(
    contest: "Contest",
    work: "Mapping[Task, tuple[list[int], Limits]]",
    pairs: "Pairs",
    left_out: Sequence[str],
    out: "Console",
) -> None:
    """Every drafter's figures, places where texts differ, words, machine, and what to try next."""
    _print_figures(pairs, out)
    for (task, name), pair in pairs.items():
        if (words := _difference(contest, work[task][0], pair)) is not None:
            out.print(f"\n{task.kind}, {name}: {words}.", markup=False)
    target = contest.session.target
    dtype = str(target.dtype).removeprefix("torch.")
    lines = (
        "",
        "plain, with it  tokens per second without prefill, of two runs in a row",
        "ratio           the second divided by the first, rounded down",
        "tau             mean tokens per forward of the target",
        "alpha           share of the tested guesses that were accepted",
        "",
        *(f"left out: {line}" for line in left_out),
        f"{contest.session.name} in {dtype} on {machine_line(target.device)}",
    )
    for line in lines:
        out.print(line, style="dim", markup=False)
    out.print()
    if (first := activation()) is not None:
        out.print(Text.assemble((first, "bold"), "  comes first: specdec is not on the PATH"))
    out.print(
        "next: [bold]specdec demo -v[/] shows every guess, [bold]specdec generate --check[/] answers your prompt, "
        "[bold]specdec prove[/] shows that the output distribution is exact"
    )


def _print_figures(pairs: "Pairs", out: "Console") -> None:
    """A row for every prompt and drafter, busy in place of speeds where the timing is not usable."""
    _heading("every drafter", out)
    table = _table(
        "prompt",
        "drafter",
        "plain",
        "with it",
        "ratio",
        "tau",
        "alpha",
        "text",
        numbers=("plain", "with it", "ratio", "tau", "alpha"),
    )
    before = None
    for (task, name), pair in pairs.items():
        speeds = (
            (f"{pair.plain.speed:.1f}", f"{pair.fast.speed:.1f}", f"{pair.ratio:.2f}") if pair.usable else ("busy",) * 3
        )
        kind, before = "" if task == before else task.kind, task
        table.add_row(kind, name, *speeds, f"{pair.tau:.2f}", f"{pair.alpha:.2f}", _same([pair]))
    out.print(table)


def _heading(words: str, out: "Console") -> None:
    out.print()
    out.rule(f"[bold]{words}[/]", align="left", style="dim")


def _table(*columns: str, numbers: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, collapse_padding=True, header_style="bold")
    for column in columns:
        table.add_column(column, no_wrap=True, justify="right" if column in numbers else "left")
    return table


def _same(pairs: "Sequence[Pair]") -> str:
    parted = any(first_difference(pair.plain.tokens, pair.fast.tokens) is not None for pair in pairs)
    return "differs" if parted else "identical"


def _difference(contest: "Contest", prompt: Sequence[int], pair: "Pair") -> str | None:
    """Where the text differs from plain decoding's and why, measured at the place; None if it does not differ."""
    plain, other = pair.plain.tokens, pair.fast.tokens
    at = first_difference(plain, other)
    if at is None:
        return None
    target = contest.session.target
    look = parting(target, prompt, plain, at, other[at]) if at < min(len(plain), len(other)) else None
    return difference(target, contest.session.decode, plain, other, look)
