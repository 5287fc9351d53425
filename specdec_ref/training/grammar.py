"""A tiny context-free grammar of prompts: `symbol -> one of several templates`, whose `{slots}` are symbols again.

`{symbol}` is expanded anew each time, `{symbol#1}` keeps its choice within one prompt, `{Symbol}` starts with a capital
letter and `{a symbol}` carries its article. Symbols can also be Python functions (`edits.py`): numbers, code, passages.
"""

import re
from collections.abc import Callable, Mapping
from random import Random

__all__ = ["Expand", "Grammar", "Rule"]

Expand = Callable[[str], str]  # a symbol of the same prompt
Rule = Callable[[Random, Expand], str]

_SLOT = re.compile(r"\{(a )?([A-Za-z_]+)(#\w)?\}")


class Grammar:
    """Reads the format described at the top of `_text/grammar.txt`."""

    def __init__(self, text: str, rules: Mapping[str, Rule]) -> None:
        """`rules`: symbols computed by a function. Raises ValueError if a template uses a symbol that has no rule."""
        self.rules = dict(rules)
        self.templates: dict[str, list[str]] = {}
        current: list[str] = []
        for line in text.splitlines():
            if heading := re.fullmatch(r"\[(\w+)\]", line):
                current = self.templates.setdefault(heading[1], [])
            elif line and not line.startswith("#"):
                current += [part.replace("\\n", "\n") for part in line.split(" | ")]
        known = self.templates.keys() | self.rules.keys()
        for symbol, templates in self.templates.items():
            for slot in (slot for template in templates for slot in _SLOT.finditer(template)):
                if slot[2].lower() not in known:
                    raise ValueError(f"grammar: [{symbol}] uses {slot[0]}, which has no rule: add one or fix the name")

    def expand(self, symbol: str, rng: Random, memory: dict[str, str] | None = None) -> str:
        """A random text of this symbol. `memory`: what `{symbol#1}` stands for in this prompt, filled as it goes.

        Raises KeyError for an unknown symbol.
        """
        known = {} if memory is None else memory
        if symbol in self.rules:
            return self.rules[symbol](rng, lambda name: self.expand(name, rng, known))
        return _SLOT.sub(lambda slot: self._fill(slot, rng, known), rng.choice(self.templates[symbol]))

    def _fill(self, slot: re.Match[str], rng: Random, known: dict[str, str]) -> str:
        """The text of one `{slot}`."""
        name, key = slot[2].lower(), slot[2].lower() + (slot[3] or "")
        text = known[key] if slot[3] and key in known else self.expand(name, rng, known)
        if slot[3]:
            known[key] = text
        text = text[:1].upper() + text[1:] if slot[2][0].isupper() else text
        article = ("an " if text[:1].lower() in "aeiou" else "a ") if slot[1] else ""
        return article + text
