"""From a `SpecConfig` to the command that starts SGLang, vLLM or llama.cpp the same way, and from such a command back.

    export_command(config, "sglang")   -> Launch: the command, what a request has to say, a field-by-field map
    explain("python -m sglang...")     -> Explanation: flag by flag, what the engine makes of it, our SpecConfig

Flag names, types and defaults stand in `engines.json`, read from the engines' wheels by `tools/read_engine_flags.py`.
What an engine would refuse, or quietly change, is refused here by the same rule, in one place for both directions.
Nothing is started: these are words. The engines' rules: SGLang's speculative_hook.py, vLLM's SpeculativeConfig.
"""

from collections.abc import Callable, Mapping

from specdec_ref.config import SpecConfig
from specdec_ref.exporters.explain import Explained, Explanation, explain
from specdec_ref.exporters.launch import Finding, Launch, Mapped
from specdec_ref.exporters.llamacpp import to_llamacpp
from specdec_ref.exporters.sglang import to_sglang
from specdec_ref.exporters.table import ENGINES
from specdec_ref.exporters.vllm import to_vllm

__all__ = [
    "ENGINES", "EXPORTERS", "Explained", "Explanation", "Finding", "Launch", "Mapped", "explain", "export_command",
]  # fmt: skip

EXPORTERS: Mapping[str, Callable[..., Launch]] = {"sglang": to_sglang, "vllm": to_vllm, "llamacpp": to_llamacpp}


def export_command(config: SpecConfig, engine: str, *, folder: str | None = None, eagle: int = 3) -> Launch:
    """The command for that engine. `folder`: what `specdec train export` wrote, with `target` and `head` in it.

    `eagle`: the version of an EAGLE head. Raises ValueError, with the engine's rule, for what it cannot do.
    """
    if engine not in EXPORTERS:
        raise ValueError(f"unknown engine {engine!r}; choose from {', '.join(EXPORTERS)}")
    return EXPORTERS[engine](config, folder=folder, eagle=eagle)
