"""llama.cpp's server inside a Python process: the only module that imports `xllamacpp`.

    python -m specdec_ref.engines.llamacpp -m target.gguf --port 0 --spec-type draft-eagle3 -md head.gguf ...

takes llama-server's own flags (those in FLAGS), prints one JSON line {"url": ...} once the model is loaded, and serves
until its standard input is closed. It runs in a process of its own (`process.py` starts it), because llama.cpp aborts
the whole process on some wrong files. Flags, their types and the attributes behind them: xllamacpp 2026.10.11549.
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import xllamacpp

__all__ = ["FLAGS", "main", "parameters"]


def _types(names: str) -> list[Any]:
    """The engine's own constants for a comma-separated list of draft types."""
    known = xllamacpp.common_speculative_type
    return [getattr(known, f"COMMON_SPECULATIVE_TYPE_{name.replace('-', '_').upper()}") for name in names.split(",")]


def _probabilistic(name: str) -> bool:
    return {"greedy": False, "probabilistic": True}[name]


# flag -> attributes of CommonParams, and what turns the flag's word into their value; None: a flag without a value
FLAGS: Mapping[str, tuple[tuple[str, ...], Callable[[str], Any] | None]] = MappingProxyType(
    {
        "--model": (("model.path",), str),
        "--alias": (("model_alias",), lambda name: {name}),
        "--host": (("hostnames",), lambda name: [name]),
        "--port": (("port",), int),
        "--ctx-size": (("n_ctx",), int),
        "--parallel": (("n_parallel",), int),
        "--threads": (
            (
                "cpuparams.n_threads",
                "cpuparams_batch.n_threads",
                "speculative.draft.cpuparams.n_threads",
                "speculative.draft.cpuparams_batch.n_threads",
            ),
            int,
        ),
        "--metrics": (("endpoint_metrics",), None),
        "--spec-type": (("speculative.types",), _types),
        "--spec-draft-model": (("speculative.draft.mparams.path",), str),
        "--spec-draft-n-max": (("speculative.draft.n_max",), int),
        "--spec-draft-n-min": (("speculative.draft.n_min",), int),
        "--spec-draft-p-min": (("speculative.draft.p_min",), float),
        "--spec-draft-sampling": (("speculative.draft.probabilistic",), _probabilistic),
        "--spec-ngram-simple-size-n": (("speculative.ngram_simple.size_n",), int),
        "--spec-ngram-simple-size-m": (("speculative.ngram_simple.size_m",), int),
        "--temp": (("sampling.temp",), float),
        "--top-k": (("sampling.top_k",), int),
        "--top-p": (("sampling.top_p",), float),
        "--min-p": (("sampling.min_p",), float),
    }
)


def parameters(words: Sequence[str]) -> Any:
    """`CommonParams` with these flags set. Raises ValueError for an unknown flag or a value that it cannot take."""
    params, rest = xllamacpp.CommonParams(), list(words)
    while rest:
        flag = rest.pop(0)
        if flag not in FLAGS:
            raise ValueError(f"{flag} is no flag of this adapter; it has {', '.join(FLAGS)}")
        paths, convert = FLAGS[flag]
        try:
            value = True if convert is None else convert(rest.pop(0))
            for path in paths:
                _set(params, path, value)
        except (IndexError, KeyError, AttributeError, TypeError, ValueError) as error:
            raise ValueError(f"{flag}: llama.cpp does not take this value ({error})") from error
    return params


def _set(params: Any, path: str, value: Any) -> None:
    *outer, last = path.split(".")
    for name in outer:
        params = getattr(params, name)
    setattr(params, last, value)


def main(words: Sequence[str]) -> int:
    """Serve until standard input ends; 1 if the engine cannot load what it was given (the cause is on stderr)."""
    params = parameters(words)
    params.fit_params = False  # a dry run that estimates memory, of no use on a CPU
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        print(f"E {error}", file=sys.stderr, flush=True)
        return 1
    print(json.dumps({"url": server.listening_address}), flush=True)
    sys.stdin.read()
    del server  # stops it
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
