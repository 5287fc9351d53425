"""Mutants that no correct test can tell from the reference solution, each with the reason: an allow-list."""

__all__ = ["EQUIVALENT"]

EQUIVALENT: dict[tuple[str, str], dict[str, str]] = {  # (exercise, task) -> change -> reason
    ("01_bottleneck", "roofline"): {
        "`max(reading, computing)` → `max(computing, reading)`": "the larger of two numbers does not depend on the order",
    },
    ("01_bottleneck", "kv"): {
        "`config.hidden_size // config.num_attention_heads` → `config.hidden_size / config.num_attention_heads`":
            "a hidden size is a multiple of the number of heads, and then both are the same number",
    },
    ("04_ngram", "lookup"): {
        "`len(text) - 1` → `len(text) + 1`": "for a match as long as the text or longer there is no place to look at",
        "`1` → `2` (5)": "a match at the further place would begin before the text, and the slice there is empty",
    },
    ("04_ngram", "tree"): {
        "`break` → `continue`": "once the tree is full no node is added, however far the branches are read",
    },
    ("04_ngram", "grams"): {
        "`range(begin + 1, min(begin + depth, len(text)) + 1)` → "
        "`list(range(begin + 1, min(begin + depth, len(text)) + 1))[::-1]`": "counts do not depend on the order",
    },
    ("04_ngram", "propose"): {"`texts` → `ready`": "both lists have an item for each request, and only that is used"},
    ("06_metrics", "counts"): {
        "`0` → `-1` (2)": "the default is for a run without rounds, and range(-1) is as empty as range(0)",
    },
    ("08_production", "choice"): {
        "`range(1, len(alive) + 1)` → `list(range(1, len(alive) + 1))[::-1]`":
            "the order decides between equally fast lengths only, and either is right",
    },
}  # fmt: skip
