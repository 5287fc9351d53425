"""Symbols of the prompt grammar that are computed: numbers, dates, passages, code, and texts with planted faults."""

import json
import re
import textwrap
from collections.abc import Callable
from random import Random

from specdec_ref.training.grammar import Expand, Rule
from specdec_ref.training.material import Material

__all__ = ["computed_rules", "first_sentences", "misspell"]

_MONTHS = "January February March April May June July August September October November December".split()
_DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
_OWN_PROSE = ("story_with_name", "passage_story", "passage_present", "news", *4 * ["own_paragraph"])


def computed_rules(material: Material) -> dict[str, Rule]:
    """Every computed symbol. `material` gives the code and the prose; the grammar's own passages are mixed in."""
    return {**_numbers(), **_prose(material), **_code(material), **_records()}


def misspell(text: str, rng: Random) -> str:
    """About one word in six with a letter dropped, doubled or swapped with its neighbour."""
    words = text.split(" ")
    for i in rng.sample(range(len(words)), max(1, len(words) // 6)):
        word = words[i]
        if len(word) > 4 and word.isalpha():
            j = rng.randrange(1, len(word) - 2)
            head, a, b, tail = word[:j], word[j], word[j + 1], word[j + 2 :]
            words[i] = head + rng.choice([b + tail, a + a + b + tail, b + a + tail])
    return " ".join(words)


def first_sentences(text: str, limit: int) -> str:
    """As many whole sentences as fit into `limit` characters, at least one."""
    kept = ""
    for sentence in re.split(r"(?<=[.!?]) ", text):
        if kept and len(kept) + len(sentence) >= limit:
            break
        kept = f"{kept} {sentence}".strip()
    return kept


def _numbers() -> dict[str, Rule]:
    def simple(draw: Callable[[Random], object]) -> Rule:
        return lambda rng, _: str(draw(rng))

    return {
        "n": simple(lambda rng: rng.randint(2, 12)),
        "number": simple(lambda rng: rng.randint(11, 99) if rng.random() < 0.5 else rng.randint(100, 990)),
        "price": simple(lambda rng: f"{rng.choice('$€')}{rng.randint(3, 400)}"),
        "year": simple(lambda rng: rng.randint(1880, 2024)),
        "time": simple(lambda rng: f"{rng.randint(7, 21)}:{rng.choice(['00', '15', '30', '45'])}"),
        "date": simple(lambda rng: f"{rng.choice(_MONTHS)} {rng.randint(1, 28)}"),
        "weekday": simple(lambda rng: rng.choice(_DAYS)),
        "answer": lambda rng, _: "{answer}",  # filled with the target's last response when there is one
    }


def _prose(material: Material) -> dict[str, Rule]:
    def any_passage(rng: Random, expand: Expand, limit: int) -> str:
        own = not material.paragraphs or rng.random() < 0.6  # found prose is all about software: mix in stories, news
        text = expand(rng.choice(_OWN_PROSE)) if own else rng.choice(material.paragraphs)
        return first_sentences(text, limit)

    def uncapitalised(rng: Random, expand: Expand) -> str:
        return re.sub(r"[.,;:!?\"']", "", any_passage(rng, expand, 260)).lower()

    def swap_task(rng: Random, expand: Expand) -> str:
        text = any_passage(rng, expand, 420)
        words = sorted(set(re.findall(r"[A-Za-z]{4,}", text))) or ["the"]
        old, new = rng.choice(words), expand(rng.choice(["noun", "adjective", "name"]))
        ask = rng.choice(
            [
                'Replace "{old}" with "{new}" in this text and return the whole text:',
                'Change the word "{old}" to "{new}". Return the full text.',
                'Return the following text with "{new}" instead of "{old}":',
                'In the text below, write "{new}" wherever it says "{old}", and change nothing else.',
            ]
        )
        return f"{ask.format(old=old, new=new)}\n\n{text}"

    return {
        "passage": lambda rng, expand: any_passage(rng, expand, rng.choice([180, 280, 400])),
        "passage_long": lambda rng, expand: any_passage(rng, expand, 700),
        "passage_two": lambda rng, expand: "\n\n".join(any_passage(rng, expand, 480) for _ in range(2)),
        "story_long": lambda rng, expand: "\n\n".join(expand(rng.choice(_OWN_PROSE[:3])) for _ in range(2)),
        "misspelled": lambda rng, expand: misspell(any_passage(rng, expand, rng.choice([180, 300, 400])), rng),
        "misspelled_mail": lambda rng, expand: misspell(expand("mail"), rng),
        "uncapitalised": uncapitalised,
        "swap_task": swap_task,
    }


def _code(material: Material) -> dict[str, Rule]:
    functions = material.functions or ("def add(a, b):\n    total = a + b\n    return total\n",)
    short = [code for code in functions if len(code) < 320] or functions
    documented = [code for code in functions if '"""' in code or "#" in code] or functions
    sentences = material.sentences or ("Return the sum of two numbers",)

    def rename_task(rng: Random, expand: Expand) -> str:
        code = rng.choice(functions)
        names = [n for n in sorted(set(re.findall(r"\b[a-z_]{2,}\b(?= =[^=])", code))) if n not in {"self", "cls"}]
        function = re.search(r"def (\w+)", code)
        old = rng.choice(names or [function[1] if function else "x"])
        new = rng.choice([*"value result item count current data entry text name".split(), expand("noun")])
        ask = rng.choice(
            [
                "Rename `{old}` to `{new}` and return the full code:",
                "Return this code with the name {old} changed to {new}:",
                "Change {old} into {new} everywhere in this code. Return the whole code.",
            ]
        )
        return f"{ask.format(old=old, new=new)}\n\n```python\n{code}\n```"

    def head(rng: Random, _: Expand) -> str:
        lines = rng.choice(documented).splitlines()
        return "\n".join(lines[: max(1, min(len(lines) - 1, rng.randint(2, 6)))])

    return {
        "function": lambda rng, _: rng.choice(functions),
        "function_short": lambda rng, _: rng.choice(short),
        "function_documented": lambda rng, _: rng.choice(documented),
        "function_flat": lambda rng, _: "\n".join(line.strip() for line in rng.choice(short).splitlines()),
        "function_head": head,
        "doc_line": lambda rng, _: rng.choice(sentences),
        "rename_task": rename_task,
    }


def _records() -> dict[str, Rule]:
    def rows(rng: Random, expand: Expand) -> list[dict[str, object]]:
        key = expand("number_column")
        return [
            {"name": expand("name"), "city": expand("place"), key: rng.randint(2, 99)} for _ in range(rng.randint(3, 5))
        ]

    def csv(rng: Random, expand: Expand) -> str:
        table = rows(rng, expand)
        return "\n".join([",".join(table[0]), *(",".join(map(str, row.values())) for row in table)])

    def plain(rng: Random, expand: Expand) -> str:
        return "\n".join(", ".join(f"{key}: {value}" for key, value in row.items()) for row in rows(rng, expand))

    def python(rng: Random, expand: Expand) -> str:
        lines = ",\n".join(json.dumps(row) for row in rows(rng, expand))
        return f"```python\nrecords = [\n{textwrap.indent(lines, '    ')},\n]\n```"

    return {"csv": csv, "records": plain, "python_records": python}
