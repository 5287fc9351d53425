"""What is known of the engines: `engines.json`, and the flags of older versions with what took their place."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from types import MappingProxyType
from typing import Any

__all__ = ["ENGINES", "REMOVED", "Removed"]

ENGINES: Mapping[str, Any] = MappingProxyType(
    json.loads(files("specdec_ref.exporters").joinpath("engines.json").read_text(encoding="utf-8"))
)


@dataclass(frozen=True, slots=True)
class Removed:
    """A name that people paste. `now`: the flag or key that takes its value, or None. `was`: it ever existed."""

    now: str | None
    why: str
    was: bool = True


_NEVER = "never was a flag of SGLang"
_ONE_JSON = "flags of its own became keys of --speculative-config (vllm #14434, removed by #15466)"
_RENAMED = "removed: each kind of draft has flags of its own now, and the parser stops at the old name"
REMOVED: Mapping[str, Mapping[str, Removed]] = MappingProxyType(
    {
        "sglang": {
            "--speculative-eagle-path": Removed("--speculative-draft-model-path", _NEVER, was=False),
            "--speculative-draft-path": Removed("--speculative-draft-model-path", _NEVER, was=False),
            "--speculative-ngram-branch-length": Removed(
                "--speculative-ngram-max-trie-depth",
                "renamed: the trie's depth holds match and guesses (sglang #21181)",
            ),
            "--speculative-ngram-min-match-window-size": Removed(
                None, "removed: a match of any length is used, the longest first (sglang #21225)"
            ),
            "--speculative-ngram-max-match-window-size": Removed(
                None, "removed: the trie's depth is the only bound on a match (sglang #21225)"
            ),
            "--speculative-dflash-draft-window-size": Removed("--speculative-draft-window-size", "renamed"),
        },
        "vllm": {
            "--speculative-model": Removed("model", _ONE_JSON),
            "--num-speculative-tokens": Removed("num_speculative_tokens", _ONE_JSON),
            "--ngram-prompt-lookup-max": Removed("prompt_lookup_max", _ONE_JSON),
            "--ngram-prompt-lookup-min": Removed("prompt_lookup_min", _ONE_JSON),
            "--speculative-draft-tensor-parallel-size": Removed("draft_tensor_parallel_size", _ONE_JSON),
            "--speculative-model-quantization": Removed("quantization", _ONE_JSON),
            "--speculative-max-model-len": Removed("max_model_len", _ONE_JSON),
            "--speculative-disable-by-batch-size": Removed(
                None, "gone with the first engine; now num_speculative_tokens_per_batch_size, a list of [low, high, K]"
            ),
            "--spec-decoding-acceptance-method": Removed(
                None,
                "gone with the first engine; rejection_sample_method takes its place and typical acceptance is gone",
            ),
            "--typical-acceptance-sampler-posterior-threshold": Removed(None, "gone: typical acceptance was lossy"),
            "--typical-acceptance-sampler-posterior-alpha": Removed(None, "gone: typical acceptance was lossy"),
            "disable_by_batch_size": Removed(
                None, "now num_speculative_tokens_per_batch_size, a list of [low, high, K]"
            ),
            "acceptance_method": Removed("rejection_sample_method", "renamed"),
        },
        "llamacpp": {
            "--draft": Removed("--spec-draft-n-max", _RENAMED),
            "--draft-n": Removed("--spec-draft-n-max", _RENAMED),
            "--draft-max": Removed("--spec-draft-n-max", _RENAMED),
            "--draft-min": Removed("--spec-draft-n-min", _RENAMED),
            "--draft-n-min": Removed("--spec-draft-n-min", _RENAMED),
            "--spec-ngram-size-n": Removed("--spec-ngram-simple-size-n", _RENAMED),
            "--spec-ngram-size-m": Removed("--spec-ngram-simple-size-m", _RENAMED),
            "--spec-ngram-min-hits": Removed("--spec-ngram-simple-min-hits", _RENAMED),
        },
    }
)
