"""The recorded runs as the landing page needs them: JSON for the player, and a table that needs no script."""

import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from specdec_ref.replay import Trace, read_trace

__all__ = ["DECODERS", "block", "runs", "table"]

PROMPTS = ("editing", "question", "code")
DECODERS = {"plain": "plain decoding", "eagle": "EAGLE", "ngram": "n-grams"}
CHINESE = {  # the site's other language; a prompt and its answer stay as they were recorded
    "plain": "普通解码", "eagle": "EAGLE", "ngram": "n 元组",
    "Edit a text": "修改文本", "Answer a question": "回答问题", "Write code": "写代码",
}  # fmt: skip
HEADS = {
    "en": "| prompt | decoder | tokens | forward passes | τ = tokens per pass | seconds | times plain |",
    "zh_CN": "| 提示词 | 解码方法 | token 数 | 前向计算次数 | τ = 每次前向的 token 数 | 秒 | 普通解码的倍数 |",
}
UNPLAYED = {
    "en": "The replay needs JavaScript. The table below has the same runs in numbers.",
    "zh_CN": "回放需要 JavaScript。下面的表格用数字列出同样的运行。",
}


def runs(folder: Path) -> dict[str, dict[str, Trace]]:
    """The committed traces: prompt -> decoder -> trace. Raises ValueError if the texts of a prompt differ."""
    read = {
        prompt: {name: read_trace((folder / f"{prompt}-{name}.jsonl").read_text("utf-8")) for name in DECODERS}
        for prompt in PROMPTS
    }
    for prompt, traces in read.items():
        if len({_text(trace) for trace in traces.values()}) != 1:
            raise ValueError(f"the recorded texts of {prompt!r} differ between the decoders: record them again")
    return read


def _text(trace: Trace) -> str:
    return "".join(trace.decode(step.tokens) for step in trace.rounds)


def packed(trace: Trace) -> dict[str, Any]:
    """A round is [seconds, accepted, rejected, untested, added]; tokens are texts."""

    def texts(places: Sequence[int]) -> list[str]:
        return [trace.texts[place] for place in places]

    rounds = [
        [step.seconds, texts(step.accepted), texts(step.rejected), texts(step.untested),
         None if step.added is None else trace.texts[step.added]]
        for step in trace.rounds
    ]  # fmt: skip
    return {"rounds": rounds}


def figures(traces: Mapping[str, Trace]) -> Iterator[tuple[str, int, int, float, float]]:
    """(decoder, tokens, passes, seconds, times plain), one per decoder."""
    plain = sum(step.seconds for step in traces["plain"].rounds)
    for name, trace in traces.items():
        seconds = sum(step.seconds for step in trace.rounds)
        yield name, sum(len(step.tokens) for step in trace.rounds), len(trace.rounds), seconds, plain / seconds


def table(read: Mapping[str, Mapping[str, Trace]], language: str = "en") -> str:
    """What was recorded, in numbers, as a Markdown table."""
    names = DECODERS if language == "en" else CHINESE
    lines = [HEADS[language], "|---|---|--:|--:|--:|--:|--:|"]
    for traces in read.values():
        title = _title(traces, language)
        for name, tokens, passes, seconds, times in figures(traces):
            lines.append(
                f"| {title} | {names[name]} | {tokens} | {passes} | **{tokens / passes:.2f}** | {seconds:.2f} | "
                f"{times:.2f} |"
            )
    return "\n".join(lines)


def _title(traces: Mapping[str, Trace], language: str) -> str:
    title = str(traces["plain"].about["title"])
    return title if language == "en" else CHINESE[title]


def where(read: Mapping[str, Mapping[str, Trace]], language: str = "en") -> str:
    """Model, number format and machine, as one sentence. Raises ValueError if the traces name more than one."""
    named = {
        tuple(str(trace.about[key]) for key in ("target", "dtype", "machine", "torch"))
        for traces in read.values()
        for trace in traces.values()
    }
    if len(named) != 1:
        raise ValueError(f"the runs were recorded in different ways: {sorted(named)}")
    target, dtype, machine, torch = named.pop()
    if language == "zh_CN":
        machine = machine.replace(" cores", " 核").replace(" threads", " 线程").replace(", ", "、")
        return f"{target}、{dtype}、温度 0、批大小 1、{machine}、PyTorch {torch}"
    return f"{target} in {dtype}, temperature 0, batch 1, on {machine}; PyTorch {torch}"


def block(folder: Path, language: str = "en") -> Mapping[str, str]:
    """What `index.md` has a place for: the player, its table, the machine, and one prompt's figures for the text."""
    read = runs(folder)
    data = {
        "prompts": [
            {
                "title": _title(traces, language),
                "prompt": traces["plain"].about["prompt"],
                "runs": {name: packed(trace) for name, trace in traces.items()},
            }
            for traces in read.values()
        ]
    }
    inline = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    player = (
        f'<div class="replay" data-runs="recorded-runs"><p>{UNPLAYED[language]}</p></div>\n'
        f'<script type="application/json" id="recorded-runs">{inline}</script>'
    )
    told: dict[str, str] = {}
    for decoder, name in (("eagle", "tau"), ("ngram", "ngram")):
        _, tokens, passes, _, times = next(row for row in figures(read["editing"]) if row[0] == decoder)
        words = {
            "tokens": str(tokens),
            "passes": str(passes),
            "value": f"{tokens / passes:.2f}",
            "times": f"{times:.2f}",
        }
        told |= {f"{name}_{key}": value for key, value in words.items()}
    return {
        "replay": player,
        "runs_table": table(read, language),
        "runs_where": escape(where(read, language)),
        **told,
    }
