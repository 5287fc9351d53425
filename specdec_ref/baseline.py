"""Plain autoregressive decoding: one target forward a token. Oracle of the tests, denominator of every speed-up.

    x_t ~ p(. | x_<t)        T = 0: the argmax

It runs the same `Target` on the same cache as the engine, and its first token comes from the prefill, as that of an
engine that drafts nothing does: the fairest plain decoder this package can offer. A batch shares every forward.
"""

import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from specdec_ref.config import SamplingParams
from specdec_ref.core import DraftTree, Randomness
from specdec_ref.models.target import Target
from specdec_ref.randomness import KeyedRandomness, Purpose
from specdec_ref.request import Generation, Limits, Request, check_prompts
from specdec_ref.sampling import best_tokens, warp

__all__ = ["plain_generate", "plain_stream"]

_ROOT = torch.tensor([-1])


def plain_generate(
    target: Target,
    prompts: Sequence[Sequence[int]],
    *,
    limits: Limits = Limits(),
    sampling: SamplingParams = SamplingParams(),
    seeds: Sequence[int] | None = None,
    randomness: Callable[[int, int, Purpose], Randomness] = KeyedRandomness,
) -> list[Generation]:
    """Decode every prompt to its end. Same limits, seeds and errors as `SpecEngine.generate`."""
    requests: list[Request] = []
    for _ in _rounds(target, prompts, limits, sampling, seeds, randomness, requests):
        pass
    return [request.result() for request in requests]


def plain_stream(
    target: Target,
    prompt: Sequence[int],
    *,
    limits: Limits = Limits(),
    sampling: SamplingParams = SamplingParams(),
    seed: int = 0,
) -> Iterator[int]:
    """Yield one token at a time. Raises RuntimeError if another batch came in between."""
    requests: list[Request] = []
    for _ in _rounds(target, [prompt], limits, sampling, [seed], KeyedRandomness, requests):
        yield requests[0].tokens[-1]


def _rounds(
    target: Target,
    prompts: Sequence[Sequence[int]],
    limits: Limits,
    sampling: SamplingParams,
    seeds: Sequence[int] | None,
    randomness: Callable[[int, int, Purpose], Randomness],
    requests: list[Request],
) -> Iterator[None]:
    """Fill `requests` with one request a prompt and yield after every token of the batch."""
    check_prompts(prompts, target, limits)
    seeds = range(len(prompts)) if seeds is None else seeds
    requests += [Request(i, list(p), seed, limits) for i, (p, seed) in enumerate(zip(prompts, seeds, strict=True))]
    started = time.perf_counter()
    target.feature_layers = ()
    prefill = target.start(prompts, capacity=max(map(len, prompts)) + limits.max_new_tokens)
    batch = target.batch
    if prefill is None:
        raise RuntimeError("prefill of non-empty prompts gave no logits")
    logits, running = prefill.logits[:, 0], list(requests)
    for request in requests:
        request.prefill_seconds = time.perf_counter() - started
    while True:
        clock = time.perf_counter()
        for request, token in zip(running, _choose(logits, sampling, running, randomness), strict=True):
            request.emit([token])
        kept = [i for i, request in enumerate(running) if not request.finish_reason]
        if kept:
            target.check_batch(batch)
        if kept and len(kept) < len(running):
            target.cache.select(kept)
        ended = [request for request in running if request.finish_reason]
        running = [running[i] for i in kept]
        if running:
            trees = [DraftTree(torch.tensor(request.tokens[-1:]), _ROOT) for request in running]
            logits = target.forward(trees).logits[:, 0]
            target.commit([(0,)] * len(running))
        for request in running + ended:
            request.seconds += time.perf_counter() - clock
        yield
        if not running:
            return


def _choose(
    logits: Tensor,
    sampling: SamplingParams,
    running: Sequence[Request],
    randomness: Callable[[int, int, Purpose], Randomness],
) -> list[int]:
    if sampling.greedy:
        return best_tokens(logits).tolist()
    p = warp(logits, sampling)
    return [randomness(r.seed, len(r.tokens), "plain").draw(p[i]) for i, r in enumerate(running)]
