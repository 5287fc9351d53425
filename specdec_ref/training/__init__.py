"""Training: text written by the target itself, and the draft heads fitted to it.

A draft model is accepted with probability 1 - TV(p, q) where p is the *target's* distribution on the *target's* text,
so the text to learn from must come from the target (self-distillation; EAGLE-3, arXiv 2503.01840, sections 3 and 4).

* ``prompts.py`` what to ask: a small grammar, plus material found in the running Python
* ``material.py`` docstrings, functions and paragraphs under permissive licences
* ``rows.py`` decoding many rows at once with a preallocated KV cache
* ``corpus.py`` the generator: prompts in, shards of conversations out, resumable
"""
