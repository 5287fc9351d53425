"""The process that a student's notebook runs in: a Python kernel that keeps its own checks whole.

`box` has set the limits and hidden what is not the notebook's. Here, around each cell: what the tests call (this
package, torch, the names that the notebook's locked cells import) is compared with what it was and put back, and of
this package the cells may import only what the exercise itself imports. Where the operating system offers no
namespaces, files, processes and network are refused to Python code by an audit hook.

None of this can hold against code that is bent on it, since it runs in the same process: see docs/INSTRUCTORS.md.
"""

import json
import os
import signal
import sys
from importlib import import_module
from types import FrameType
from typing import Any

from ipykernel.iostream import OutStream
from ipykernel.ipkernel import IPythonKernel
from ipykernel.kernelapp import IPKernelApp

from specdec_ref.grading.guard import POLICY, Guard, only_what_the_exercise_imports, refuse

__all__ = ["main"]

FLOOD = 2_000_000  # characters of output; the whole notebook has ten times as many (`submission`)


class StudentKernel(IPythonKernel):
    """IPython's kernel with a guard around each cell."""

    guard: Guard

    async def do_execute(self, *args: Any, **options: Any) -> Any:
        """Run a cell between two looks. What it changed is said on stderr, which voids the points of a graded cell."""
        self.guard.mend(self.shell)
        BoundedStream.printed = 0
        reply = await super().do_execute(*args, **options)  # type: ignore[no-untyped-call]
        if changed := self.guard.mend(self.shell):
            text = f"{', '.join(changed[:5])}: replaced by this cell. The tests rely on it, so it was put back.\n"
            self.send_response(self.iopub_socket, "stream", {"name": "stderr", "text": text})  # type: ignore[no-untyped-call]
        return reply


class BoundedStream(OutStream):
    """stdout and stderr, up to `FLOOD` characters a cell.

    `submission` counts from outside, and cannot read as fast as a loop prints: that would fill this process's memory.
    """

    printed = 0

    def write(self, string: str) -> int | None:  # type: ignore[override]
        """Write it, or raise OSError."""
        BoundedStream.printed += len(string)
        if BoundedStream.printed > FLOOD:
            raise OSError(f"this cell printed more than {FLOOD // 10**6} million characters")
        return super().write(string)


def main() -> None:
    """Arm the guard as the environment says, then be a kernel."""
    policy = json.loads(os.environ.pop(POLICY))
    signal.signal(signal.SIGXCPU, _out_of_time)
    import_module("torch")  # before the first cell's clock starts
    only_what_the_exercise_imports(policy["modules"])
    if policy["refuse"]:
        refuse(policy["scratch"], policy["hidden"], policy["sees"])
    StudentKernel.guard = Guard(policy["names"])
    app = IPKernelApp.instance(kernel_class=StudentKernel, outstream_class=f"{__name__}.BoundedStream")
    app.initialize(sys.argv[1:])
    app.start()


def _out_of_time(signum: int, frame: FrameType | None) -> None:
    raise TimeoutError("the notebook has used up its CPU time")


if __name__ == "__main__":
    main()
