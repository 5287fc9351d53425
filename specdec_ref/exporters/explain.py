"""A launch command explained: flag by flag, what the engine makes of it, and the same in our words.

Nothing is run, and nothing but the text is looked at: no model, no network.
"""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from specdec_ref.config import SpecConfig
from specdec_ref.exporters.launch import Finding, note, refused
from specdec_ref.exporters.llamacpp import from_llamacpp
from specdec_ref.exporters.meanings import MEANINGS
from specdec_ref.exporters.sglang import from_sglang
from specdec_ref.exporters.table import ENGINES, REMOVED
from specdec_ref.exporters.vllm import from_vllm

__all__ = ["Explained", "Explanation", "explain"]

Status = Literal["known", "removed", "unknown", "other"]
DEAD_VARIABLES = {"SGLANG_ENABLE_SPEC_V2": "ignored with a warning: there is one speculative worker now"}
SPEC_FLAGS = {"--spec-method": "method", "--spec-model": "model", "--spec-tokens": "num_speculative_tokens"}


@dataclass(frozen=True, slots=True)
class Explained:
    """A flag, or a key of vLLM's JSON, as it was written; "other" is not about speculation.

    `now`: the name that takes its value, of a removed flag or of one that guides made up (then it is "unknown").
    """

    name: str
    value: Any
    status: Status
    meaning: str
    default: Any = None
    now: str | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """`config` is None if the engine refuses the command, or this package has no such drafter.

    `translated` is the command with every removed or made-up name replaced, and without names that are unknown; None
    if there was neither.
    """

    engine: str
    version: str
    flags: tuple[Explained, ...]
    findings: tuple[Finding, ...]
    config: SpecConfig | None
    translated: str | None


def explain(command: str) -> Explanation:
    """Explain a command line of SGLang, vLLM or llama.cpp. Raises ValueError if it is none of theirs, or no command."""
    try:
        words = shlex.split(command.replace("\\\n", " "))
    except ValueError as error:
        raise ValueError(f"this is no command line: {error}") from error
    engine = _engine(words)
    target = _target(words, engine)
    flags = [flag for name, value in _flags(words, engine) for flag in _read(name, value, engine)]
    variables = [word.partition("=") for word in words if word.partition("=")[0] in DEAD_VARIABLES]
    flags += [Explained(name, value, "removed", DEAD_VARIABLES[name]) for name, _, value in variables]
    values = {flag.now or flag.name: flag.value for flag in flags if flag.status == "known" or flag.now}
    if engine == "sglang" and target is not None:
        values.setdefault("--model-path", target)
    findings = [refused(text) for flag in flags if (text := _ill_typed(flag, engine))]
    if findings:
        return Explanation(engine, ENGINES[engine]["version"], tuple(flags), tuple(findings), None, None)
    findings = [
        refused(f"{flag.name}: {'gone' if flag.status == 'removed' else 'unknown'}, the engine stops at it")
        for flag in flags
        if flag.status in ("removed", "unknown") and flag.name not in DEAD_VARIABLES
    ]
    if engine == "sglang":
        config, said = from_sglang(values)
    elif engine == "llamacpp":
        config, said = from_llamacpp(values)
    else:
        config, said = from_vllm(values, target) if values else (SpecConfig(target or "smollm2-135m", "none"), [])
    if files := [flag.value for flag in flags if flag.name == "--config"]:
        said = [*said, note(f"--config {files[-1]}: that file is not read here; flags on the command line override it")]
    strange = any(flag.status == "unknown" and not flag.now for flag in flags)
    if strange or (files and config and config.drafter == "none"):
        config = None  # what drafts may be in the file
    table = ENGINES[engine]
    return Explanation(
        engine, table["version"], tuple(flags), (*findings, *said), config, _translated(words, flags, engine)
    )


def _target(words: Sequence[str], engine: str) -> str | None:
    """The model that is served: the word after `serve`, or the value of vLLM's --model."""
    if "serve" in words:
        after = words[words.index("serve") + 1 :]
        if after and not after[0].startswith("-"):
            return after[0]
    given = [value for name, value in _flags(words, engine) if name == "--model" and isinstance(value, str)]
    return given[-1] if engine == "vllm" and given else None


_WHOLE, _REAL = ("int", "Optional[int]", "int | None", "N"), ("float", "Optional[float]", "float | None", "P")
_REAL_N = ("--temperature", "--top-p", "--min-p")  # llama.cpp's help calls whole and real numbers N


def _ill_typed(flag: Explained, engine: str) -> str | None:
    """Why the engine's parser would not take this value; None if it would."""
    table = ENGINES[engine]["keys" if engine == "vllm" else "flags"]
    name = flag.now or flag.name
    row, value = table.get(name, {}), flag.value
    kind, number = row.get("type"), isinstance(value, int | float) and not isinstance(value, bool)
    if kind in _WHOLE and name not in _REAL_N and value is not None and not (number and isinstance(value, int)):
        return f"{name} takes a whole number, not {value!r}: the engine stops at it"
    if kind in _REAL and value is not None and not number:
        return f"{name} takes a number, not {value!r}: the engine stops at it"
    counted = name.endswith(("num-steps", "eagle-topk", "num-draft-tokens", "draft-n-max"))
    if counted and isinstance(value, int) and value < 0:
        return f"{name} {value}: it must not be negative"
    return None


def _engine(words: Sequence[str]) -> str:
    config = ("--speculative-config", "--speculative_config", "-sc")
    if any(word == "vllm" or word.startswith(("vllm.", *config)) for word in words):
        return "vllm"
    if any(word == "sglang" or word.startswith("sglang.") for word in words):
        return "sglang"
    if any(word.partition("=")[0] in ENGINES["sglang"]["flags"] and word.startswith("--speculative") for word in words):
        return "sglang"
    if any(word.rpartition("/")[2] == "llama-server" or word == "--spec-type" for word in words):
        return "llamacpp"
    if any(Path(word).name.startswith("llama-") or word == "llama.cpp" for word in words[:3]):
        raise ValueError("of llama.cpp's programs only llama-server is explained: begin with `llama-server`")
    raise ValueError(
        "neither SGLang's nor vLLM's nor llama.cpp's: start with `python -m sglang.launch_server`, "
        "`vllm serve` or `llama-server`"
    )


def _flags(words: Sequence[str], engine: str) -> list[tuple[str, Any]]:
    """(flag, value); True for a flag without one."""
    found: list[tuple[str, Any]] = []
    for index, word in enumerate(words):
        if not word.startswith("--") and word != "-sc" and _full(word, engine) == word:
            continue
        name, equals, value = word.partition("=") if engine != "llamacpp" else (word, "", "")
        following = words[index + 1] if index + 1 < len(words) else "--"
        given = value if equals else following if _is_value(following, engine) else True
        found.append((_full(name, engine), given))
    return found


def _is_value(word: str, engine: str) -> bool:
    """Whether the word after a flag belongs to it; llama.cpp's short flags, -md, do not."""
    return not word.startswith("--") and not (engine == "llamacpp" and re.match("-[a-z]", word))


def _full(name: str, engine: str) -> str:
    """The flag's own name: argparse takes an alias or an unambiguous beginning, vLLM's parser underscores as well."""
    if engine == "vllm":
        head, dot, key = name.partition(".")
        return ("--speculative-config" if head == "-sc" else head.replace("_", "-")) + dot + key
    table: Mapping[str, Any] = ENGINES[engine]["flags"]
    name = name.replace("_", "-") if engine == "llamacpp" else name
    for flag, row in table.items():
        if name == flag or name in row.get("aliases", ()):
            return flag
    longer = [flag for flag in table if name.startswith("--speculative-") and flag.startswith(name)]
    return longer[0] if len(longer) == 1 else name


def _read(name: str, value: Any, engine: str) -> list[Explained]:
    """The flag; for vLLM's config, its keys."""
    if engine == "vllm" and name.partition(".")[0] == "--speculative-config":
        key = name.partition(".")[2]
        return [_key(k, v) for k, v in ({key: _number(value)} if key else _json(value)).items()]
    if engine == "vllm" and name in SPEC_FLAGS:
        return [_key(SPEC_FLAGS[name], _number(value))]
    if name in REMOVED[engine]:
        gone = REMOVED[engine][name]
        return [Explained(name, _number(value), "removed" if gone.was else "unknown", gone.why, now=gone.now)]
    row = ENGINES[engine]["flags"].get(name)
    if engine != "vllm" and row is not None and name in MEANINGS[engine]:
        return [Explained(name, _number(value), "known", MEANINGS[engine][name], row.get("default"))]
    if name.lstrip("-").startswith(("speculative", "spec-", "num-speculative", "ngram-", "draft-")):
        return [Explained(name, value, "unknown", _absent("flag", name, engine))]
    return [Explained(name, value, "other", "not about speculation")]


def _absent(kind: str, name: str, engine: str) -> str:
    """That the engine has no such name, and the closest one about speculation, if one is close."""
    known = ["--speculative-config"] if engine == "vllm" and name.startswith("-") else MEANINGS[engine]
    close = get_close_matches(name, known, n=1)
    found = f"no {kind} in {engine} {ENGINES[engine]['version']}"
    return f"{found}. Did you mean {close[0]}?" if close else found


def _key(key: str, value: Any) -> Explained:
    key = key.replace("-", "_")
    if key in REMOVED["vllm"]:
        gone = REMOVED["vllm"][key]
        return Explained(key, value, "removed", gone.why, now=gone.now)
    row = ENGINES["vllm"]["keys"].get(key)
    if row is None:
        return Explained(key, value, "unknown", _absent("key of --speculative-config", key, "vllm"))
    return Explained(key, value, "known", MEANINGS["vllm"][key], row["default"])


def _json(text: Any) -> dict[str, Any]:
    try:
        found = json.loads(str(text))
    except json.JSONDecodeError as error:
        raise ValueError(
            f"--speculative-config takes JSON in single quotes, and this is none: {text!r} ({error})"
        ) from error
    if not isinstance(found, dict):
        raise ValueError(f"--speculative-config takes a JSON object, not {text!r}")  # noqa: TRY004  (a wrong text)
    return found


def _number(value: Any) -> Any:
    """Words that spell a number or a truth are one."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except json.JSONDecodeError:
        return value


def _translated(words: Sequence[str], flags: Sequence[Explained], engine: str) -> str | None:
    """The command without what is gone; what has a successor says it by its new name."""
    gone = {flag.name: flag for flag in flags if flag.status in ("removed", "unknown") or flag.now}
    if not gone:
        return None
    kept, skip, moved = [], False, {flag.now: flag.value for flag in gone.values() if flag.now}
    for index, word in enumerate(words):
        name = word.partition("=")[0]
        if skip:
            skip = False
        elif name in gone or _full(name, engine) in gone:
            skip = "=" not in word and index + 1 < len(words) and _is_value(words[index + 1], engine)
        elif not (engine == "vllm" and (name == "-sc" or name.replace("_", "-").startswith("--speculative-config"))):
            kept.append(word)
        else:
            skip = "=" not in word
    if engine != "vllm":
        return shlex.join([*kept, *(w for flag, value in moved.items() for w in (flag, str(value)))])
    keys = {flag.name: flag.value for flag in flags if flag.status == "known"} | moved
    method = {} if "method" in keys or keys.get("model") not in ("ngram", "[ngram]") else {"method": "ngram"}
    if method:
        keys.pop("model")
    return shlex.join([*kept, "--speculative-config", json.dumps(method | keys)])
