"""An instructor's own hidden tests, from a private folder that is not published: PRIVATE/NAME.py, a section a task.

    # %% lookup-tests
    mine = check.lookup(my_lookup, more=[("a rose is a rose is a rose", 3, 4, 1)])
    report += mine

They run behind the public hidden tests. Those are in a public repository and so are no secret.
"""

import copy
import re
from typing import Any

from specdec_course.grader.sources import role, source

__all__ = ["overlaid"]

SECTION = re.compile(r"^# %% *(\S+) *$", re.MULTILINE)
END = "### END HIDDEN TESTS\n"


def overlaid(notebook: dict[str, Any], text: str) -> dict[str, Any]:
    """The source of an exercise with these tests in it. Raises ValueError if they belong to no task."""
    _, *parts = SECTION.split(text)
    tests = dict(zip(parts[::2], parts[1::2], strict=True))
    merged = copy.deepcopy(notebook)
    cells = {cell["metadata"]["nbgrader"]["grade_id"]: cell for cell in merged["cells"] if role(cell) == "tests"}
    if strangers := sorted(tests.keys() - cells.keys()):
        raise ValueError(f"no graded cells are called {', '.join(strangers)}; there are {', '.join(cells)}")
    for name, code in tests.items():
        cells[name]["source"] = source(cells[name]).replace(END, f"{code.strip()}\n{END}")
    return merged
