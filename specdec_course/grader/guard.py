"""What the tests rely on, kept as it was while a student's cells run; and what those cells are refused."""

import builtins
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from types import FunctionType, ModuleType
from typing import Any

__all__ = ["POLICY", "Guard", "only_what_the_exercise_imports", "refuse"]

POLICY = "SPECDEC_GRADE"  # the environment variable that holds what a kernel is told
PACKAGES = ("specdec_ref", "specdec_course")
ALSO = ("builtins", "math", "torch", "torch.testing")
# Of torch, what decides whether two results are the same. It replaces others of its functions itself, when it likes.
COMPARE = set("allclose equal isclose all any eq ne lt le gt ge abs sub sum max min item tolist assert_close".split())
COMPARE |= {f"__{name}__" for name in ("eq", "ne", "lt", "le", "gt", "ge", "bool", "float", "abs", "sub", "rsub")}
Place = tuple[Any, str, str, Any]  # owner, name, how to say it, value


class Guard:
    """Knows by heart this package and what it compares results with.

    `names`: name in the notebook -> (module, attribute, or "" for the module itself).
    """

    def __init__(self, names: Mapping[str, tuple[str, str]]) -> None:
        self._names, self._bound = dict(names), dict[str, Any]()
        self._places: list[Place] = []
        self._known: set[int] = set()
        self._learn()

    def mend(self, shell: Any) -> list[str]:
        """Put back whatever is not what it was; returns the names of that."""
        changed = [said for owner, name, said, value in self._places if _put_back(owner, name, value)]
        for name, value in self._bound.items():
            if shell.user_ns.get(name, value) is not value:
                changed.append(name)
            shell.user_ns[name] = value
        for hooks in (shell.ast_transformers, shell.input_transformers_post):
            changed += [f"IPython's {type(hook).__name__}" for hook in hooks]
            hooks.clear()
        self._learn()
        return changed

    def _learn(self) -> None:
        """Modules that were loaded since."""
        for name, (home, attribute) in self._names.items():
            if home in sys.modules and name not in self._bound:
                self._bound[name] = getattr(sys.modules[home], attribute) if attribute else sys.modules[home]
        for name, module in list(sys.modules.items()):
            if (name in ALSO or name.partition(".")[0] in PACKAGES) and id(module) not in self._known:
                self._known.add(id(module))
                self._places += _callables(module, name, COMPARE if name.startswith("torch") else None)
                owned = [value for value in vars(module).values() if getattr(value, "__module__", "") == name]
                if name == "torch":
                    self._places += _callables(vars(module)["Tensor"], "torch.Tensor", COMPARE)
                    owned = []
                for value in owned:
                    if isinstance(value, type):
                        self._places += _callables(value, f"{name}.{value.__name__}")
                    elif isinstance(value, FunctionType):
                        self._places += _insides(value, f"{name}.{value.__name__}")


def _callables(owner: Any, said: str, only: set[str] | None = None) -> list[Place]:
    kept = (ModuleType, property, staticmethod, classmethod)
    found = []
    for name, value in vars(owner).items():
        wanted = name not in ("__class__", "__doc__") if only is None else name in only
        if wanted and (callable(value) or isinstance(value, kept)):
            found.append((owner, name, f"{said}.{name}", value))
            if isinstance(value, FunctionType) and isinstance(owner, type):
                found += _insides(value, f"{said}.{name}")
    return found


def _insides(function: FunctionType, said: str) -> list[Place]:
    return [(function, name, said, getattr(function, name)) for name in ("__code__", "__defaults__", "__kwdefaults__")]


def _put_back(owner: Any, name: str, value: Any) -> bool:
    """Whether it had to be done."""
    found = getattr(owner, name) if isinstance(owner, FunctionType) else vars(owner).get(name)
    if found is value:
        return False
    setattr(owner, name, value)
    return True


def only_what_the_exercise_imports(modules: Sequence[str]) -> None:
    """From now on, a notebook's cell that imports anything else of this package gets an ImportError that says so."""
    ordinary: Callable[..., Any] = builtins.__import__
    allowed = {module for module in modules if module.partition(".")[0] in PACKAGES}

    def checked(
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> Any:
        if name.partition(".")[0] in PACKAGES and (globals or {}).get("__name__") == "__main__" and name not in allowed:
            wanted = {f"{name}.{part}" for part in fromlist or ()}
            if not wanted or not wanted <= allowed:
                raise ImportError(
                    f"{name} is the package's own work, and this exercise asks for yours. While it is graded, cells "
                    f"can import of the package only {', '.join(sorted(allowed))}."
                )
        return ordinary(name, globals, locals, fromlist, level)

    builtins.__import__ = checked


WRITES = {
    "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.chmod", "os.chown", "os.link", "os.symlink", "os.truncate",
    "os.utime", "shutil.rmtree", "shutil.move",
}  # fmt: skip
READS = {"open", "os.listdir", "os.scandir", "os.chdir", "shutil.copyfile", "shutil.copytree"}
STARTS = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty"}
CALLS = {"socket.connect", "socket.sendto", "socket.bind", "socket.getaddrinfo", "ctypes.dlopen"}


def refuse(scratch: str, hidden: Sequence[str], sees: Sequence[str]) -> None:
    """Without namespaces: no files but those of Python and of the scratch folder, no processes, no network."""
    scratch, forbidden = os.path.realpath(scratch), tuple(os.path.realpath(path) + os.sep for path in hidden)
    open_to_all = tuple(os.path.realpath(path) + os.sep for path in [scratch, *sees])

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event in STARTS or event in CALLS or (event in ("os.kill", "os.killpg") and args[0] != os.getpid()):
            raise PermissionError(f"{event}: not while the notebook is graded")
        if event in READS or event in WRITES:
            writes = event in WRITES or (event == "open" and _writes(args[1:]))
            for path in (arg for arg in args[:2] if isinstance(arg, str | bytes | os.PathLike)):
                where = os.path.realpath(os.fsdecode(path)) + os.sep
                mine = where.startswith((scratch + os.sep, "/dev/"))
                unseen = where.startswith(forbidden) and not where.startswith(open_to_all)
                if not mine and (writes or unseen):
                    raise PermissionError(f"{os.fsdecode(path)}: out of reach while the notebook is graded")
                if event == "open":
                    break

    sys.addaudithook(hook)


def _writes(how: Sequence[Any]) -> bool:
    mode, flags = how
    if isinstance(mode, str):
        return any(letter in mode for letter in "wax+")
    return bool(isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))
