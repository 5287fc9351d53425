"""Rows of `specdec bench` as Markdown."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

__all__ = ["markdown", "served"]


def markdown(about: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """The environment in a line, then for each temperature and batch a table: methods down, tasks across."""
    where = f"{about['machine']} ({', '.join(about['features'])})"
    lines = [f"{about['target']} in {about['dtype']} on {where}, torch {about['torch']}, transformers "
             f"{about['transformers']}, {about['date']}. Speed-up over plain decoding: median of paired ratios; over "
             "all tasks their geometric mean, with a 95 % bootstrap interval."]  # fmt: skip
    for (temperature, batch, context), group in groupby(rows, key=_setting):
        lines += ["", f"Temperature {temperature:g}, batch {batch}" + (f", context {context}" if context else ""), ""]
        lines += _table(list(group))
    return "\n".join(lines) + "\n"


def _setting(row: Mapping[str, Any]) -> tuple[float, int, int]:
    return row["temperature"], row["batch"], row["context"]


def _table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    tasks = list(dict.fromkeys(row["task"] for row in rows if row["task"] != "all"))
    cells = {(row["method"], row["task"]): row for row in rows}
    yield f"| method | setting | {' | '.join(tasks)} | all | 95 % | over transformers | tau | same text |"
    yield f"|---|---|{'---:|' * len(tasks)}---:|---|---:|---:|---:|"
    for method in dict.fromkeys(row["method"] for row in rows):
        mean = cells[method, "all"]
        speeds = [f"{cells[method, task]['speedup_vs_plain']:.2f}" for task in tasks]
        over = "" if mean["speedup_vs_hf"] is None else f"{mean['speedup_vs_hf']:.2f}"
        same = [cells[method, task] for task in tasks if cells[method, task]["identical"] is not None]
        texts = f"{sum(c['identical'] for c in same)}/{sum(c['texts'] for c in same)}" if same else ""
        interval = "" if mean["ci_low"] is None else f"{mean['ci_low']:.2f}-{mean['ci_high']:.2f}"
        yield (
            f"| {method} | {mean['setting']} | {' | '.join(speeds)} | **{mean['speedup_vs_plain']:.2f}** | {interval} "
            f"| {over} | {mean['tau']:.2f} | {texts} |"
        )


def served(about: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of `specdec bench --endpoint`: tasks and servers down."""
    lines = [
        f"- {server['url']}: {server['model']}, {server['engine']} {server['version'] or ''}".rstrip()
        for server in about["servers"]
    ]
    for (temperature, batch, _), group in groupby(rows, key=_setting):
        lines += ["", f"Temperature {temperature:g}, {batch} at a time, {about['date']}", ""]
        lines += ["| task | server | setting | tokens/s | first, ms | tau | alpha | over plain | 95 % | same text |",
                  "|---|---|---|---:|---:|---:|---:|---:|---|---:|"]  # fmt: skip
        lines += [f"| {' | '.join(_served(row))} |" for row in group]
    return "\n".join(lines) + "\n"


def _served(row: Mapping[str, Any]) -> Iterator[str]:
    """A row's cells; empty where there is nothing to say."""
    yield from (row["task"], row["method"], row["setting"])
    for key, digits in (("tokens_per_s", 1), ("ttft_ms", 0), ("tau", 2), ("alpha", 2), ("speedup_vs_plain", 2)):
        yield "" if row.get(key) is None else f"{row[key]:.{digits}f}"
    yield "" if row.get("ci_low") is None else f"{row['ci_low']:.2f}-{row['ci_high']:.2f}"
    yield "" if row.get("identical") is None else f"{row['identical']}/{row['texts']}"
