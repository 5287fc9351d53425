"""`model.generate(custom_generate=...)`: transformers' greedy texts, its sampling distribution, and clear refusals."""

from typing import Any

import pytest
import torch
from helpers import tiny_model
from transformers import LogitsProcessorList, MaxTimeCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from specdec_ref.config import SamplingParams
from specdec_ref.engine import SpecEngine
from specdec_ref.exact import engine_distribution, total_variation
from specdec_ref.hf_generate import SpeculativeGenerate, sampling_of

PROMPTS = [[3, 4, 5, 3, 4, 5, 3, 4], [7, 8, 7, 8, 7], [9]]
PAD = 0


def batch(*prompts: list[int]) -> dict[str, torch.Tensor]:
    """Left-padded ids and their mask."""
    width = max(map(len, prompts))
    ids = torch.tensor([[PAD] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return {"input_ids": ids, "attention_mask": mask}


def both(model: Any, fast: SpeculativeGenerate, **settings: Any) -> tuple[torch.Tensor, torch.Tensor]:
    settings = {"do_sample": False, "pad_token_id": PAD} | settings
    return model.generate(**settings), model.generate(**settings, custom_generate=fast)


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt2"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_greedy_is_generates_own_tensor(architecture: str, dtype: torch.dtype) -> None:
    model, fast = tiny_model(architecture, dtype=dtype), SpeculativeGenerate("ngram")
    for prompts in (PROMPTS[:1], PROMPTS):
        wanted, found = both(model, fast, **batch(*prompts), max_new_tokens=24)
        assert torch.equal(wanted, found)
    ends = wanted[:, wanted.shape[1] - 12].tolist()  # an end for each row, at different places
    wanted, found = both(model, fast, **batch(*PROMPTS), max_new_tokens=24, eos_token_id=ends)
    assert torch.equal(wanted, found)
    wanted, found = both(model, fast, **batch(*PROMPTS), max_length=14)
    assert torch.equal(wanted, found)
    assert found.dtype == torch.long


def test_drafts_are_accepted_and_statistics_kept() -> None:
    model, fast = tiny_model(), SpeculativeGenerate("ngram")
    model.generate(**batch(PROMPTS[0]), max_new_tokens=120, do_sample=False, pad_token_id=PAD, custom_generate=fast)
    (done,) = fast.generations
    assert done.stats.accepted > 0, "no draft was accepted: the other tests are empty"


def test_sampling_has_the_distribution_of_transformers_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine that a call uses, enumerated, against the model's logits under transformers' own processors."""
    model, engines, processors = tiny_model(vocab_size=5, spread=0.5), list[SpecEngine](), list[LogitsProcessorList]()
    generate = SpecEngine.generate

    def caught(engine: SpecEngine, *given: Any) -> Any:
        engines.append(engine)
        return generate(engine, *given)

    class Watching(SpeculativeGenerate):
        def __call__(self, *given: Any, **named: Any) -> torch.Tensor:
            processors.append(named["logits_processor"])
            return super().__call__(*given, **named)

    monkeypatch.setattr(SpecEngine, "generate", caught)
    prompt = [1, 2, 3, 1, 2, 3, 1]
    settings = {"do_sample": True, "temperature": 0.8, "top_k": 4, "top_p": 0.95, "min_p": 0.02, "pad_token_id": PAD}
    model.generate(**batch(prompt), **settings, max_new_tokens=30, custom_generate=Watching("ngram"))
    found = engine_distribution(engines[0], prompt, 3, 3)
    wanted: dict[tuple[int, ...], float] = {(): 1.0}
    for _ in range(3):
        longer = {}
        for text, weight in wanted.items():
            ids = torch.tensor([[*prompt, *text]])
            p = processors[0](ids, model(ids).logits[:, -1]).softmax(-1)[0]
            longer |= {(*text, token): weight * share for token, share in enumerate(p.tolist()) if share}
        wanted = longer
    assert len(processors[0]) == 4
    assert total_variation(found, wanted) < 1e-9
    assert total_variation(found, wanted | {max(wanted): 0.0}) > 0


def test_torchs_seed_repeats_a_sample_and_rows_differ() -> None:
    model, fast = tiny_model(), SpeculativeGenerate("ngram")
    texts = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        texts.append(
            model.generate(
                **batch(PROMPTS[1]),
                do_sample=True,
                num_return_sequences=2,
                max_new_tokens=12,
                pad_token_id=PAD,
                custom_generate=fast,
            )
        )
    assert torch.equal(texts[0], texts[1])
    assert not torch.equal(texts[0], texts[2])
    assert not torch.equal(texts[0][0], texts[0][1])


class Heard(BaseStreamer):
    """Remembers what it was given."""

    def __init__(self) -> None:
        self.parts, self.ended = list[torch.Tensor](), False

    def put(self, value: torch.Tensor) -> None:
        self.parts.append(value.flatten())

    def end(self) -> None:
        self.ended = True


def test_streamer_hears_prompt_and_every_token() -> None:
    model, heard = tiny_model(), Heard()
    settings = {"max_new_tokens": 16, "do_sample": False, "pad_token_id": PAD}
    fast = SpeculativeGenerate(streamer=heard)
    text = model.generate(**batch(PROMPTS[0]), custom_generate=fast, **settings)
    assert torch.equal(torch.cat(heard.parts), text[0])
    assert heard.ended
    with pytest.raises(ValueError, match="a streamer shows one text, but there are 3"):
        model.generate(**batch(*PROMPTS), custom_generate=fast, **settings)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"repetition_penalty": 1.2}, "RepetitionPenaltyLogitsProcessor"),
        ({"suppress_tokens": [3]}, "SuppressTokensLogitsProcessor"),
        ({"no_repeat_ngram_size": 2}, "NoRepeatNGramLogitsProcessor"),
        ({"do_sample": True, "typical_p": 0.5}, "TypicalLogitsWarper"),
        ({"num_beams": 2}, "num_beams=2"),
        ({"return_dict_in_generate": True}, "return_dict_in_generate=True"),
        ({"stopping_criteria": StoppingCriteriaList([MaxTimeCriteria(9.0)])}, "MaxTimeCriteria"),
        (
            {"attention_mask": torch.tensor([[1, 0]]), "input_ids": torch.tensor([[3, 4]])},
            "padding must be on the left",
        ),
    ],
)
def test_what_is_not_honoured_is_refused_by_name(settings: dict[str, Any], named: str) -> None:
    given = batch([3, 4]) | {"max_new_tokens": 4, "do_sample": False, "pad_token_id": PAD} | settings
    with pytest.raises(ValueError, match=named):
        tiny_model().generate(**given, custom_generate=SpeculativeGenerate())


def test_plain_sampling_without_processors_is_temperature_one() -> None:
    assert sampling_of([], do_sample=True) == SamplingParams(1.0)
    assert sampling_of([], do_sample=False) == SamplingParams()
