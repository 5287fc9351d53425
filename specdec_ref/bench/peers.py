"""transformers' own decoding as sides of the benchmark: the same loaded model, the same process, its own best settings.

    hf                 generate(), plain                                           any batch
    hf prompt lookup   prompt_lookup_num_tokens, max_matching_ngram_size           batch 1 only, transformers says
    hf assisted        assistant_model = the draft that our `layer-skip` uses      batch 1 only

The assistant is a model of some of the target's own layers, sharing its weights: a draft with the whole vocabulary that
both sides can run. Forwards of the target are counted by a hook, so that tau means the same.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from specdec_ref.bench.sides import Answer, Call, Setting, Side
from specdec_ref.core import Drafter
from specdec_ref.drafters.draft_model import DraftModelDrafter
from specdec_ref.metrics import RunStats

__all__ = ["HF", "peers"]

HF = "hf"
LOOKUPS = ((10, 2), (10, 3), (5, 2))  # tokens, longest n-gram; the first is what its documentation shows
ASSISTED = ((20, "constant", 0.4), (2, "constant", 0.0), (4, "constant", 0.0), (5, "heuristic", 0.0))  # defaults first


def peers(setting: Setting, drafters: Mapping[str, Drafter]) -> Iterator[Side]:
    """Plain generate(), and at batch 1 the two ways to speculate that need nothing but this model."""
    yield Side(HF, "", lambda: _generate(setting, {}))
    if setting.batch > 1:
        return
    for tokens, size in LOOKUPS:
        options = {"prompt_lookup_num_tokens": tokens, "max_matching_ngram_size": size}
        yield Side(f"{HF} prompt lookup", f"{tokens} tokens, n <= {size}", _bound(setting, options))
    for name, drafter in drafters.items():
        model = drafter.lm.model if isinstance(drafter, DraftModelDrafter) else None
        if isinstance(model, nn.Module):
            for tokens, schedule, floor in ASSISTED:
                words = f"{tokens} tokens, {schedule}" + (f", confidence {floor}" if floor else "")
                yield Side(f"{HF} assisted {name}", words, _assisted(setting, model, tokens, schedule, floor))


def _bound(setting: Setting, options: dict[str, Any]) -> Callable[[], Call]:
    return lambda: _generate(setting, options)


def _assisted(setting: Setting, model: Any, tokens: int, schedule: str, floor: float) -> Callable[[], Call]:
    def begin() -> Call:
        model.generation_config.num_assistant_tokens = tokens
        model.generation_config.num_assistant_tokens_schedule = schedule
        model.generation_config.assistant_confidence_threshold = floor
        call = _generate(setting, {"assistant_model": model})

        def configured(prompts: Sequence[list[int]], seeds: Sequence[int]) -> list[Answer]:
            model.generation_config.num_assistant_tokens = tokens  # sides of other settings share the model
            model.generation_config.num_assistant_tokens_schedule = schedule
            model.generation_config.assistant_confidence_threshold = floor
            return call(prompts, seeds)

        return configured

    return begin


def _generate(setting: Setting, options: dict[str, Any]) -> Call:
    """Left-padded batches; an answer ends with its end-of-text token, as ours do."""
    from transformers import GenerationConfig

    model, limits, sampling = setting.session.target.model, setting.limits, setting.sampling
    chance: dict[str, Any] = {"do_sample": False}
    if not sampling.greedy:
        chance = {
            "do_sample": True,
            "temperature": sampling.temperature,
            "top_k": sampling.top_k,
            "top_p": sampling.top_p,
        }

    def call(prompts: Sequence[list[int]], seeds: Sequence[int]) -> list[Answer]:
        longest = max(map(len, prompts))
        ids = torch.tensor([[0] * (longest - len(p)) + p for p in prompts], device=setting.session.target.device)
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=ids.device)
        torch.manual_seed(seeds[0])
        forwards, own = [0], model.generation_config
        model.generation_config = GenerationConfig()  # ours applies none of its penalties and forced tokens
        hook = model.register_forward_hook(lambda *_: forwards.__setitem__(0, forwards[0] + 1))
        try:
            out = model.generate(
                ids,
                attention_mask=mask,
                max_new_tokens=limits.max_new_tokens,
                pad_token_id=0,
                eos_token_id=sorted(limits.eos) or None,
                **chance,
                **options,
            )
        finally:
            hook.remove()
            model.generation_config = own
        answers = [_ended(row[longest:].tolist(), limits.eos) for row in out]
        stats = RunStats(rounds=forwards[0], tokens=len(answers[0])) if options else None
        return [Answer(answer, stats) for answer in answers]

    return call


def _ended(tokens: list[int], eos: frozenset[int]) -> list[int]:
    """Without the padding of rows that ended before others."""
    end = next((i for i, token in enumerate(tokens) if token in eos), len(tokens) - 1)
    return tokens[: end + 1]
