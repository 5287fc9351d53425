"""What cells import of this package in a box: it is not there, and the judge answers what the exercise offers."""

import importlib.abc
import importlib.util
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

from specdec_course.grader.handles import packed

if TYPE_CHECKING:
    from specdec_course.grader.worker import Worker

__all__ = ["PACKAGES", "Answered"]

PACKAGES = ("specdec_ref", "specdec_course")


class Answered(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Modules of this package that are not here: the functions that the exercise offers are calls to the judge."""

    def __init__(self, worker: "Worker", offered: dict[str, list[str]]) -> None:
        self.worker, self.offered = worker, offered

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """One of ours, a package that leads to one, or an ImportError that says so."""
        if name.partition(".")[0] not in PACKAGES:
            return None
        if not any(f"{module}.".startswith(f"{name}.") for module in self.offered):
            raise ImportError(
                f"{name} is the package's own work, and this exercise asks for yours. While it is graded, cells can "
                f"import of the package only {', '.join(sorted(self.offered))}."
            )
        return importlib.util.spec_from_loader(name, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """With the functions that are offered."""
        module = ModuleType(spec.name)
        for name in self.offered.get(spec.name, ()):
            setattr(module, name, self._function(spec.name, name))
        module.__getattr__ = self._missing(spec.name)  # type: ignore[method-assign]
        return module

    def exec_module(self, module: ModuleType) -> None:
        """It is ready."""

    def _function(self, home: str, name: str) -> Callable[..., Any]:
        def answered(*args: Any, **named: Any) -> Any:
            return self.worker.ask("use", home, name, packed(self.worker, args), packed(self.worker, named))

        answered.__name__ = answered.__qualname__ = name
        answered.__module__ = home
        return answered

    def _missing(self, home: str) -> Callable[[str], Any]:
        def look(name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            raise AttributeError(f"{home}.{name} is not here while the notebook is graded: the tests run elsewhere")

        return look
