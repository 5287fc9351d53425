"""Settings that a model brings along in generation_config.json, and that `specdec generate` does not apply."""

from typing import Any

__all__ = ["unapplied"]

# what each setting is when it changes nothing
_LOGITS = {
    "repetition_penalty": 1.0, "encoder_repetition_penalty": 1.0, "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0, "bad_words_ids": None, "suppress_tokens": None, "begin_suppress_tokens": None,
    "forced_bos_token_id": None, "forced_eos_token_id": None, "sequence_bias": None, "min_length": 0,
    "min_new_tokens": None, "exponential_decay_length_penalty": None, "guidance_scale": 1.0, "num_beams": 1,
    "stop_strings": None,
}  # fmt: skip
_SAMPLING = {"temperature": 1.0, "top_k": 50, "top_p": 1.0, "min_p": None, "typical_p": 1.0, "epsilon_cutoff": 0.0}


def unapplied(generation_config: Any, *, sampled: bool) -> list[str]:
    """Each setting that would change the text and is not applied, as "name value".

    `sampled`: the caller chose how to sample, so the model's own suggestion for that is not reported.
    """
    found = _changed(generation_config, _LOGITS)
    if not sampled and getattr(generation_config, "do_sample", False):
        found += ["do_sample True", *_changed(generation_config, _SAMPLING)]
    return found


def _changed(generation_config: Any, neutral: dict[str, Any]) -> list[str]:
    """Settings with a value that is neither unset nor neutral."""
    values = {name: getattr(generation_config, name, None) for name in neutral}
    return [
        f"{name} {_short(value)}"
        for name, value in values.items()
        if value is not None and value != neutral[name] and value != []
    ]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 24 else f"{text[:20]}..."
