"""Speculative decoding behind transformers' own `generate`, for code that already calls it.

    from specdec_ref.hf_generate import SpeculativeGenerate
    fast = SpeculativeGenerate("ngram")
    model.generate(**inputs, max_new_tokens=100, custom_generate=fast)

transformers prepares the call as always (defaults, `generation_config.json`, special tokens) and hands over the logits
processors and stopping criteria that it would apply. Temperature, top-k, top-p, min-p, the maximum length and EOS are
honoured; anything else among them is refused by name. Sampling draws its seed from torch's global generator, so
`torch.manual_seed` repeats a text, but not the text of transformers' own sampler: only the distribution is the same.
transformers (5.23) does not pass `streamer=` and `assistant_model=` on to such a function: give the streamer here.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from specdec_ref.config import DraftBudget, SamplingParams
from specdec_ref.core import Drafter
from specdec_ref.drafters import build_drafter
from specdec_ref.engine import SpecEngine
from specdec_ref.models.target import Target
from specdec_ref.request import Generation, Limits

__all__ = ["SpeculativeGenerate", "sampling_of"]

_WARPERS = {  # in the order in which both transformers and `sampling.warp` apply them: class -> its attribute and ours
    "TemperatureLogitsWarper": "temperature",
    "TopKLogitsWarper": "top_k",
    "TopPLogitsWarper": "top_p",
    "MinPLogitsWarper": "min_p",
}
_CRITERIA = ("MaxLengthCriteria", "EosTokenCriteria")
_OUTPUTS = ("return_dict_in_generate", "output_scores", "output_logits", "output_attentions", "output_hidden_states")
_PREPARED = {  # what transformers adds to every call, and what the engine makes for itself
    "attention_mask", "position_ids", "past_key_values", "use_cache", "cache_position", "logits_to_keep",
    "synced_gpus", "token_type_ids",
}  # fmt: skip


class SpeculativeGenerate:
    """Pass it as `custom_generate`. It keeps one model's drafter; `generations`: the last call, with statistics."""

    def __init__(
        self,
        drafter: str | Drafter = "ngram",
        *,
        draft_model: str | None = None,
        budget: DraftBudget = DraftBudget(6),
        streamer: Any = None,
    ) -> None:
        """`drafter`: a name of `drafters.DRAFTERS` or an object of your own; `draft_model` as for `--draft-model`.

        `streamer`: one of transformers', which gets the prompt and then every token of a single text.
        """
        self.streamer = streamer
        self.drafter, self.draft_model, self.budget = drafter, draft_model, budget
        self.generations: list[Generation] = []
        self._target: Target | None = None
        self._guess: Drafter | None = None

    def __call__(
        self,
        model: Any,
        input_ids: Int[Tensor, "batch tokens"],
        logits_processor: Any,
        stopping_criteria: Any,
        generation_config: Any,
        **model_kwargs: Any,
    ) -> Int[Tensor, "batch longer"]:
        """What transformers calls. Raises ValueError that names a setting which is not honoured."""
        mask = model_kwargs.get("attention_mask")
        _refuse(generation_config, stopping_criteria, model_kwargs)
        streamer = self.streamer
        if streamer is not None and len(input_ids) > 1:
            raise ValueError(f"a streamer shows one text, but there are {len(input_ids)}: pass one prompt, or none")
        sampling = sampling_of(logits_processor, do_sample=bool(generation_config.do_sample))
        ends = generation_config._eos_token_tensor
        eos = frozenset() if ends is None else frozenset(int(end) for end in ends.flatten())
        limits = Limits(generation_config.max_length - input_ids.shape[1], eos)
        engine = self._engine(model, sampling, limits)
        first = 0 if sampling.greedy else int(torch.randint(2**62, ()))
        prompts = _prompts(input_ids, mask)
        self.generations = _decode(engine, prompts, range(first, first + len(prompts)), streamer)
        pad = generation_config._pad_token_tensor
        return _joined(input_ids, [done.tokens for done in self.generations], 0 if pad is None else int(pad))

    def _engine(self, model: Any, sampling: SamplingParams, limits: Limits) -> SpecEngine:
        """An engine for this call; target and drafter are made once per model."""
        if self._target is None or self._guess is None or self._target.model is not model:
            self._target = Target(model)
            named = self.drafter
            self._guess = build_drafter(named, self._target, self.draft_model) if isinstance(named, str) else named
        return SpecEngine(self._target, self._guess, budget=self.budget, sampling=sampling, limits=limits)


def sampling_of(processors: Sequence[Any], *, do_sample: bool) -> SamplingParams:
    """What transformers' prepared logits processors do, as our settings. Raises ValueError if we cannot do the same."""
    names = [type(processor).__name__ for processor in processors]
    known = [name for name in _WARPERS if name in names]
    if names != known or (names and not do_sample):
        foreign = [name for name in names if name not in _WARPERS]
        raise ValueError(
            f"custom_generate with speculative decoding does not apply {', '.join(foreign or names)}: it honours "
            "temperature, top_k, top_p and min_p, in this order. Unset the others (also in model.generation_config), "
            "or generate without custom_generate"
        )
    if not do_sample:
        return SamplingParams()
    given = {_WARPERS[name]: getattr(one, _WARPERS[name]) for name, one in zip(names, processors, strict=True)}
    return SamplingParams(**{"temperature": 1.0} | given)


def _refuse(config: Any, criteria: Sequence[Any], model_kwargs: dict[str, Any]) -> None:
    """Raises ValueError for what decoding would otherwise ignore."""
    wrong = [f"{name}={getattr(config, name)}" for name in _OUTPUTS if getattr(config, name)]
    if (config.num_beams or 1) > 1:
        wrong.append(f"num_beams={config.num_beams}")
    wrong += [type(one).__name__ for one in criteria if type(one).__name__ not in _CRITERIA]
    wrong += sorted(name for name, value in model_kwargs.items() if name not in _PREPARED and value is not None)
    cache = model_kwargs.get("past_key_values")
    if cache is not None and cache.get_seq_length() > 0:
        wrong.append("past_key_values that already hold tokens")
    if wrong:
        raise ValueError(
            f"custom_generate with speculative decoding does not support {', '.join(wrong)}: leave it out, or generate "
            "without custom_generate"
        )


def _prompts(input_ids: Int[Tensor, "batch tokens"], mask: Int[Tensor, "batch tokens"] | None) -> list[list[int]]:
    """Every row without its padding on the left. Raises ValueError for padding elsewhere."""
    if mask is None:
        return [[int(token) for token in row] for row in input_ids.tolist()]
    seen = mask.bool()
    if not bool(seen[:, -1].all()) or bool((seen[:, :-1] & ~seen[:, 1:]).any()):
        raise ValueError("padding must be on the left: set padding_side='left' when you make the tokenizer")
    return [row[shown].tolist() for row, shown in zip(input_ids, seen, strict=True)]


def _decode(engine: SpecEngine, prompts: list[list[int]], seeds: Sequence[int], streamer: Any) -> list[Generation]:
    """All prompts; with a streamer, one prompt whose tokens it gets after every round."""
    if streamer is None:
        return engine.generate(prompts, seeds)
    (request,) = engine.start(prompts, seeds)
    streamer.put(torch.tensor(prompts))
    try:
        while engine.requests:
            before = len(request.tokens)
            engine.step()
            for token in request.tokens[before:]:
                streamer.put(torch.tensor([token]))
        streamer.end()
        return [request.result()]
    finally:
        engine.close()


def _joined(input_ids: Int[Tensor, "batch tokens"], texts: list[list[int]], pad: int) -> Int[Tensor, "batch longer"]:
    """Prompts and new tokens, rows padded on the right, as transformers returns them."""
    longest = max(map(len, texts))
    new = input_ids.new_tensor([text + [pad] * (longest - len(text)) for text in texts])
    return torch.cat([input_ids, new], 1)
