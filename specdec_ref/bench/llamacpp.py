"""llama.cpp as sides of the benchmark: the same weights and prompts' tokens, a server of its own on this machine.

    llama.cpp f16          plain, the target's weights in 16 bits         llama.cpp q4_1          as they are shipped
    llama.cpp f16 n-gram   `ngram-simple`, its prompt lookup              llama.cpp q4_1 n-gram   the same

Needs the extra `llamacpp`. Batch 1. Its time holds a request over the loopback, under a millisecond. It keeps no prompt
from one call to the next, as the other sides do. Rounds are counted from its `timings`: the first token comes from the
prompt's pass, each later pass gives one token and the accepted drafts.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import torch

from specdec_ref.bench.sides import Answer, Call, Setting, Side
from specdec_ref.engines.process import LlamaServer
from specdec_ref.metrics import RunStats

__all__ = ["METHODS", "answer_of", "llamacpp_sides"]

METHODS: Mapping[str, tuple[str, ...]] = {"": (), " n-gram": ("--spec-type", "ngram-simple")}


@contextmanager
def llamacpp_sides(files: Mapping[str, Path], setting: Setting, context: int) -> Iterator[list[Side]]:
    """Start a server for each GGUF type and method; stop them at the end. `context`: slots, prompt and answer together.

    Raises EngineError if one does not start.
    """
    with ExitStack() as stack:
        http = stack.enter_context(httpx.Client(timeout=300.0, trust_env=False))
        sides = []
        for kind, file in files.items():
            for name, more in METHODS.items():
                words = ("--model", file, "--port", 0, "--ctx-size", context, "--parallel", 1,
                         "--threads", torch.get_num_threads(), *more)  # fmt: skip
                server = stack.enter_context(LlamaServer.start([str(word) for word in words]))
                sides.append(Side(f"llama.cpp {kind}{name}", "", partial(_call, http, server, setting)))
        yield sides


def _call(http: httpx.Client, server: LlamaServer, setting: Setting) -> Call:
    sampling, limits = setting.sampling, setting.limits
    chance = {"temperature": sampling.temperature, "top_k": max(sampling.top_k, 0), "top_p": sampling.top_p, "min_p": 0}
    body = chance | {"n_predict": limits.max_new_tokens, "cache_prompt": False, "return_tokens": True}

    def call(prompts: Sequence[list[int]], seeds: Sequence[int]) -> list[Answer]:
        answers = []
        for prompt, seed in zip(prompts, seeds, strict=True):
            server.check()
            reply = http.post(f"{server.url}/completion", json=body | {"prompt": prompt, "seed": seed})
            answers.append(answer_of(reply.raise_for_status().json(), limits.eos))
        return answers

    return call


def answer_of(reply: Mapping[str, Any], eos: frozenset[int]) -> Answer:
    """Its tokens, with the end-of-text token that llama.cpp leaves out, and its passes of the target."""
    tokens, timings = list(reply["tokens"]), reply["timings"]
    if reply.get("stop_type") == "eos" and eos and (not tokens or tokens[-1] not in eos):
        tokens.append(min(eos))
    accepted = int(timings.get("draft_n_accepted", 0))
    rounds = int(timings["predicted_n"]) - accepted
    return Answer(tokens, RunStats(rounds=rounds, tokens=len(tokens)))
