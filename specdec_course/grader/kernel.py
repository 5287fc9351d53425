"""The process that a student's notebook runs in: a Python kernel that keeps its own checks whole.

`box` has set the limits and hidden what is not the notebook's. Here, around each cell: what the tests call (this
package, torch, the names that the notebook's locked cells import) is compared with what it was and put back, and of
this package the cells may import only what the exercise itself imports. Where the operating system offers no
namespaces, files, processes and network are refused to Python code by an audit hook.

None of this can hold against code that is bent on it, since it runs in the same process: see docs/INSTRUCTORS.md.
"""

import json
import math
import os
import resource
import signal
import sys
import time
from importlib import import_module
from types import FrameType
from typing import Any

from ipykernel.iostream import OutStream
from ipykernel.ipkernel import IPythonKernel
from ipykernel.kernelapp import IPKernelApp

from specdec_course.grader.guard import POLICY, Guard, only_what_the_exercise_imports, refuse
from specdec_course.grader.policy import GRACE_SECONDS

__all__ = ["main"]

FLOOD = 2_000_000  # characters that a cell may print or display; a notebook, ten times as many (`submission`)


class StudentKernel(IPythonKernel):
    """IPython's kernel with a guard around each cell."""

    guard: Guard

    async def do_execute(self, *args: Any, **options: Any) -> Any:
        """Run a cell between two looks. What it changed is said on stderr, which voids the points of a graded cell."""
        self.guard.mend(self.shell)
        Output.said = 0
        reply = await super().do_execute(*args, **options)  # type: ignore[no-untyped-call]
        if changed := self.guard.mend(self.shell):
            text = f"{', '.join(changed[:5])}: replaced by this cell. The tests rely on it, so it was put back.\n"
            self.send_response(self.iopub_socket, "stream", {"name": "stderr", "text": text})  # type: ignore[no-untyped-call]
        return reply


class Output(OutStream):
    """stdout and stderr. What a cell says is counted here, and no message of it is dropped on its way.

    `submission` counts from outside, and cannot read as fast as a loop prints: that would fill this process's memory.
    """

    said = 0

    def write(self, string: str) -> int | None:  # type: ignore[override]
        """Write it, or raise OSError."""
        _count(len(string))
        return super().write(string)


def _count(characters: int) -> None:
    Output.said += characters
    if Output.said > FLOOD:
        raise OSError(f"this cell printed more than {FLOOD // 10**6} million characters")


def _displayed(message: dict[str, Any]) -> dict[str, Any]:
    _count(len(str(message["content"])))
    return message


class StudentApp(IPKernelApp):
    """ipykernel's, whose messages wait for a slow reader: by default it drops those beyond a thousand."""

    def init_iopub(self, context: Any) -> None:
        """Before the socket is made."""
        context.sndhwm = 0
        super().init_iopub(context)  # type: ignore[no-untyped-call]


def main() -> None:
    """Arm the guard as the environment says, then be a kernel."""
    policy = json.loads(os.environ.pop(POLICY))
    signal.signal(signal.SIGXCPU, _out_of_time)
    import_module("torch")  # before the clocks start
    only_what_the_exercise_imports(policy["modules"])
    if policy["refuse"]:
        refuse(policy["scratch"], policy["hidden"], policy["sees"])
    StudentKernel.guard = Guard(policy["names"])
    app: Any = StudentApp.instance(kernel_class=StudentKernel, outstream_class=f"{__name__}.Output")
    app.initialize(sys.argv[1:])
    app.shell.display_pub.register_hook(_displayed)
    _allow(policy["cpu_seconds"])
    app.start()


def _allow(cpu_seconds: int) -> None:
    """From now on; what the start took is not the notebook's."""
    soft = math.ceil(time.process_time()) + cpu_seconds
    hard = min(soft + GRACE_SECONDS, resource.getrlimit(resource.RLIMIT_CPU)[1])
    resource.setrlimit(resource.RLIMIT_CPU, (min(soft, hard), hard))


def _out_of_time(signum: int, frame: FrameType | None) -> None:
    raise TimeoutError("the notebook has used up its CPU time")


if __name__ == "__main__":
    main()
