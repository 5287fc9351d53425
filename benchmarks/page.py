"""docs/BENCHMARKS.md from the committed rows alone, each table with the command that measured it.

    python -m benchmarks.page > docs/BENCHMARKS.md

Nothing is measured here, and a test holds the page to the rows. Foreign numbers stand with their model and hardware.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from math import exp, log
from statistics import fmean
from typing import Any

from benchmarks import page_text as text
from benchmarks.page_after import after_eagle, suffix_decoding
from benchmarks.page_costs import memory, where_time_goes
from benchmarks.page_served import round_trip, under_load, with_and_without
from benchmarks.predict import summary
from specdec_ref.bench.report import markdown
from specdec_ref.bench.rows import committed, runs
from specdec_ref.cost_model import expected_tau

__all__ = ["CLAIMS", "best_of", "main", "page", "quotient"]

Row = Mapping[str, Any]
CLAIMS = {  # what a tutorial says, which names no model, machine or source: task -> EAGLE, n-grams
    "code": ("2 to 3", "1.5 to 2"),
    "translation": ("2", "1.2"),
    "summary": ("1.8", "1.1"),
    "creative": ("1.5", "1.0"),
}
PEERS = (  # the same kind of draft on both sides
    ("ngram", "hf prompt lookup"), ("ngram adaptive", "hf prompt lookup"), ("layer-skip", "hf assisted layer-skip"),
)  # fmt: skip
ACCEPTANCE = {
    "eagle-acceptance": "--drafter eagle --drafter draft --split test dev --temperature 0 1",
    "ngram-acceptance": "--drafter ngram --temperature 0 1 --prompts 8",
}


def page() -> str:
    """The whole page; a section whose rows are not there is left out."""
    lines = [text.INTRO]
    for section in (_tasks, _never, _elsewhere, _peers, _claims, _published, _predicted, _acceptance, _heads,
                    after_eagle, _drafters, suffix_decoding, where_time_goes, memory, round_trip,
                    with_and_without, under_load):  # fmt: skip
        try:
            lines += [*section(), ""]
        except FileNotFoundError:
            continue
    return "\n".join(lines).rstrip() + "\n"


def _tasks() -> Iterator[str]:
    measured = runs("tasks")
    yield from ("## Tasks", "", "`specdec bench`, every method, a table for each temperature, batch and context.", "")
    yield from _tables(measured)
    yield from _hindsight(measured)


def _never() -> Iterator[str]:
    measured = runs("never")
    yield from (text.NEVER, "")
    for _, rows in measured:
        cells = [row for row in rows if row["method"] != "plain" and row["task"] != "all"]
        worst = min(cells, key=lambda row: float(row["speedup_vs_plain"]))
        enough, more = (sum(row["speedup_vs_plain"] >= bound for row in cells) for bound in (0.97, 0.99))
        yield (
            f"{enough} of {len(cells)} cells at 0.97 or more, {more} at 0.99 or more; the lowest is "
            f"{worst['speedup_vs_plain']:.3f}: {worst['method']}, {worst['task']}."
        )
        yield ""
    yield from _tables(measured)


def _elsewhere() -> Iterator[str]:
    yield from (text.ELSEWHERE, "")
    yield from _tables(runs("lookup"))


def _drafters() -> Iterator[str]:
    yield from (text.DRAFTERS, "")
    yield from _tables(runs("drafters"))


def _tables(measured: Sequence[tuple[Row, Sequence[Row]]]) -> Iterator[str]:
    for about, rows in measured:
        yield from (f"### {about['dtype']}: {_span(rows)}", "", *_command(about["command"]), "")
        yield from markdown(about, rows).splitlines()
        yield ""


def _peers() -> Iterator[str]:
    """Ours and theirs with the same kind of draft, from every run that has both."""
    yield from ("## Against the same kind of draft in transformers", "")
    yield "Geometric mean over tasks of our speed-up over theirs at temperature 0, both tuned alike or both not tuned."
    yield from (
        "",
        "| date, processor | dtype | batch | context | ours | theirs | ours / theirs |",
        "|---|---|---:|---:|---|---|---:|",
    )
    for about, rows in [run for name in ("tasks", "lookup") for run in runs(name)]:
        for (temperature, batch, context), some in _settings(rows):
            for ours, theirs in PEERS if temperature == 0 else ():
                if (ratio := quotient(some, ours, theirs)) is not None:
                    when = ", ".join([about["date"][:10], *about["features"][-1:]])
                    where = f"{when} | {about['dtype']} | {batch} | {context or ''}"
                    yield f"| {where} | {ours} | {theirs} | {ratio:.2f} |"


def _every_setting(about: Row) -> bool:
    """Whether a run has a row for each setting, and nothing was tuned."""
    return "--all-settings" in about["command"].split()


def _hindsight(every: Sequence[tuple[Row, Sequence[Row]]]) -> Iterator[str]:
    measured = [(about, rows) for about, rows in every if _every_setting(about)]
    if not measured:
        return
    yield text.HINDSIGHT
    for about, rows in measured:
        means = {row["method"]: row["speedup_vs_plain"] for row in rows if row["task"] == "all"}
        for method, speedup in means.items():
            name, _, kind = method.partition(",")[0].partition(" ")
            if kind == "adaptive":
                fixed = [(mean, other) for other, mean in means.items() if other.partition(",")[0] == name]
                best, setting = max(fixed, default=(0.0, "not run"))
                figures = [_number(best or None), _number(speedup), _number(speedup / max(1.0, best) if best else None)]
                clock = "processor" if rows[0]["clock"] == "cpu" else "wall"
                worst = min(_cells(rows, method).values())
                yield f"| {about['dtype']}, {clock} | {name} | {setting} | {' | '.join(figures)} | {worst:.2f} |"
    yield ""


def _span(rows: Sequence[Row]) -> str:
    """What a run covers, in a few words."""
    kinds = (("T =", "temperature"), ("batch", "batch"), ("context", "context"))
    values = [(name, sorted({row[key] for row in rows})) for name, key in kinds]
    told = [
        f"{name} {' and '.join(f'{value:g}' for value in found)}"
        for name, found in values
        if found != [0] or name == "T ="
    ]
    return ", ".join(told) + (", processor seconds" if rows[0]["clock"] == "cpu" else "")


def _settings(rows: Sequence[Row]) -> Iterator[tuple[tuple[float, int, int], list[Row]]]:
    for key, some in groupby(rows, key=lambda row: (row["temperature"], row["batch"], row["context"])):
        yield key, list(some)


def _cells(rows: Sequence[Row], method: str) -> dict[str, float]:
    """Task -> speed-up over plain."""
    return {row["task"]: row["speedup_vs_plain"] for row in rows if row["method"] == method and row["task"] != "all"}


def quotient(rows: Sequence[Row], ours: str, theirs: str) -> float | None:
    """Geometric mean over tasks of one method's speed-up over another's; None if either has no rows."""
    left, right = _cells(rows, ours), _cells(rows, theirs)
    return exp(fmean(log(left[task] / right[task]) for task in left)) if left and left.keys() == right.keys() else None


def best_of(rows: Sequence[Row], kind: str, task: str) -> Row | None:
    """The fastest row of a drafter on a task: its chain, its tree, or adaptive."""
    own = [row for row in rows if row["task"] == task and row["method"].partition(" ")[0] == kind]
    return max(own, key=lambda row: float(row["speedup_vs_plain"]), default=None)


def _claims() -> Iterator[str]:
    measured = runs("tasks")
    yield text.CLAIMED
    for about, rows in measured:
        for setting, some in _settings(rows):
            kinds = {row["method"].partition(" ")[0] for row in some}
            if setting == (0, 1, 0) and {"eagle", "ngram"} <= kinds and not _every_setting(about):
                for task in dict.fromkeys(row["task"] for row in some if row["task"] != "all"):
                    here = [best_of(some, kind, task) for kind in ("eagle", "ngram")]
                    cells = [
                        f"{said} | {row['speedup_vs_plain']:.2f} ({row['method']})" if row else f"{said} | "
                        for said, row in zip(CLAIMS.get(task, ("", "")), here, strict=True)
                    ]
                    yield f"| {about['dtype']} | {task} | {' | '.join(cells)} |"
    yield text.FIVE.format(low=expected_tau(0.6, 5), high=expected_tau(0.8, 5))


def _published() -> Iterator[str]:
    _, rows = committed("published")
    yield text.PUBLISHED
    for (source, where), some in groupby(rows, key=lambda row: (row["source"], row["where"])):
        group = list(some)
        tasks = list(dict.fromkeys(task for row in group for task in row["tasks"]))
        yield from ("", f"**{source}** ({where}), batch 1:", "")
        yield f"| model, hardware | T | method | {' | '.join(tasks)} | all | tau |"
        yield f"|---|---|---|{'---:|' * len(tasks)}---:|---:|"
        for row in group:
            cells = [_number(row["tasks"].get(task)) for task in tasks]
            model = ", ".join(filter(None, (row["model"], row["dtype"], row["hardware"])))
            yield (
                f"| {model} | {row['temperature']} | {row['method']} | {' | '.join(cells)} "
                f"| {_number(row['speedup'])} | {_number(row['tau'])} |"
            )


def _predicted() -> Iterator[str]:
    measured = runs("predicted")
    yield text.PREDICTED
    for about, rows in measured:
        yield from ("", *_command(about["command"]), "")
        yield f"{about['dtype']}, {about['machine']}, {about['date']}: **{summary(rows)}**."
        yield from (
            "",
            "| task | method | setting | tau, dev | test | prefill | foretold | measured | 95 % | reason |",
            "|---|---|---|---:|---:|---:|---:|---:|---|---|",
        )
        for row in rows:
            figures = " | ".join(_number(row[key]) for key in ("tau_dev", "tau", "prefill", "predicted", "measured"))
            interval = f"{row['ci_low']:.2f}-{row['ci_high']:.2f}"
            yield f"| {row['task']} | {row['method']} | {row['setting']} | {figures} | {interval} | {row['reason']} |"


def _acceptance() -> Iterator[str]:
    yield text.COUNTED
    for name, words in ACCEPTANCE.items():
        about, rows = committed(name)
        yield from ("", *_command(f"python -m benchmarks.acceptance {words}"), "")
        yield f"{about['target']} in {about['dtype'].removeprefix('torch.')}, torch {about['torch']}."
        yield from ("", "| drafter | T | split | tau | worst task | by position |", "|---|---:|---|---:|---:|---|")
        for row in rows:
            if row["task"] == "mean":
                shares = " ".join(f"{share:.2f}" for share in row["per_position"])
                drafter = row["drafter"].partition("=")[0]
                yield (
                    f"| {drafter} | {row['temperature']:g} | {row['split']} | {row['tau']:.2f} "
                    f"| {row['tau_worst']:.2f} | {shares} |"
                )


def _heads() -> Iterator[str]:
    about, rows = committed("eagle-speed")
    dtype = about["dtype"].removeprefix("torch.")
    yield from ("## The shipped heads at one setting", "")
    yield from _command("python -m benchmarks.speed --drafter eagle --drafter draft --depth 3")
    yield from (
        "",
        f"{about['target']} in {dtype}, {about['threads']} threads, torch {about['torch']}, "
        f"{about['prompts']} prompts a task of {about['tokens']} tokens; with 95 % intervals:",
        "",
    )
    yield from ("| task | drafter | over plain | over transformers | tau |", "|---|---|---:|---:|---:|")
    for row in rows:
        if row["side"] not in ("plain", "transformers"):
            drafter, tau = row["side"].partition("=")[0], _number(row.get("tau"))
            over = " | ".join(_with_interval(row, key) for key in ("over_plain", "over_transformers"))
            yield f"| {row['task']} | {drafter} | {over} | {tau} |"


def _with_interval(row: Row, key: str) -> str:
    low, high = row.get(f"{key}_ci", (None, None))
    return f"{row[key]:.2f}" + (f" ({low:.2f}-{high:.2f})" if low is not None else "")


def _command(words: str) -> list[str]:
    return ["```sh", words, "```"]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def main() -> int:
    """The command of the module docstring."""
    sys.stdout.write(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
