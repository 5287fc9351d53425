"""Speculative decoding, small enough to read and exact enough to trust.

    from specdec_ref import Session
    answer = Session.open().generate("Name three colours.")
    print(answer.text, answer.stats.tau)

The names in `__all__` are the public API. Each is imported when it is first used, so `import specdec_ref` takes
milliseconds and loads no torch. Every other module is for advanced use: it may change between minor versions.
"""

TYPE_CHECKING = False  # as typing's: type checkers take it for True, and importing typing would cost more than the rest
if TYPE_CHECKING:
    from specdec_ref.config import DraftBudget, SamplingParams, SpecConfig
    from specdec_ref.core import Drafter, DraftTree, Verifier
    from specdec_ref.engine import SpecEngine
    from specdec_ref.models.target import Target
    from specdec_ref.request import Limits
    from specdec_ref.session import Session

    __version__: str

__all__ = [
    "DraftBudget", "DraftTree", "Drafter", "Limits", "SamplingParams", "Session", "SpecConfig", "SpecEngine", "Target",
    "Verifier", "__version__",
]  # fmt: skip

_HOMES = {
    "DraftBudget": "config", "DraftTree": "core", "Drafter": "core", "Limits": "request", "SamplingParams": "config",
    "Session": "session", "SpecConfig": "config", "SpecEngine": "engine", "Target": "models.target",
    "Verifier": "core",
}  # fmt: skip


def __getattr__(name: str) -> object:
    """A public name at its first use (PEP 562); afterwards it is an ordinary attribute."""
    from importlib import import_module

    value: object
    if name == "__version__":
        value = _version()
    elif name in _HOMES:
        value = getattr(import_module(f"specdec_ref.{_HOMES[name]}"), name)
    else:
        raise AttributeError(f"module 'specdec_ref' has no attribute {name!r}; its public names: {', '.join(__all__)}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version("specdec-ref")
    except metadata.PackageNotFoundError:
        return "0+unknown"  # a source tree that is not installed
