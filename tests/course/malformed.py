"""Hand-ins and archives that no program should have made: by hand, and by chance. Used by tests and `synthetic_class`."""

import copy
import io
import json
import random
import struct
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

from hostile import NAME, nothing, solved, with_code

from specdec_course.grader.sources import source

__all__ = ["ARCHIVES", "NOTEBOOKS", "READABLE", "fuzzed", "notebook"]

Change = Callable[[dict[str, Any]], Any]


def notebook(change: Change | None = None) -> bytes:
    """Our answers as a file, changed in place or replaced."""
    content = solved()
    changed = change(content) if change else None
    return json.dumps(content if changed is None else changed).encode()


def own(code: str) -> bytes:
    """With a cell of the student's own, at the end."""
    return notebook(lambda nb: nb["cells"].append({"cell_type": "code", "metadata": {}, "source": code}))


def answered(code: str) -> bytes:
    """With this in the first task."""
    return notebook(lambda nb: with_code(nb, {"lookup": code}))


def every(key: str, value: Any) -> bytes:
    """Each cell with this."""
    return notebook(lambda nb: {**nb, "cells": [{**cell, key: value} for cell in nb["cells"]]})


def format_3(nb: dict[str, Any]) -> dict[str, Any]:
    old = [{**cell, "input": cell["source"]} for cell in nb["cells"]]
    for cell in old:
        if cell["cell_type"] == "code":
            del cell["source"]
    return {
        "metadata": {},
        "nbformat": 3,
        "nbformat_minor": 0,
        "worksheets": [{"cells": [{"cell_type": "heading", "level": 1, "metadata": {}, "source": "T"}, *old]}],
    }


PLAIN = notebook()
OUTPUT = {"output_type": "display_data", "metadata": {}, "data": {"text/plain": "y" * 1000}}
DEEP_HTML = {"text/html": f"<p style='a{'(' * 30_000}'>x</p>"}
# Those in which every answer can still be read.
READABLE: dict[str, bytes] = {
    "UTF-16": PLAIN.decode().encode("utf-16"), "UTF-16 without a mark": PLAIN.decode().encode("utf-16-le"),
    "UTF-32": PLAIN.decode().encode("utf-32"), "a byte order mark": b"\xef\xbb\xbf" + PLAIN, "format 3": notebook(format_3),
    "much too large": notebook(lambda nb: nb["cells"][0].update(outputs=[OUTPUT] * 25_000)),
    "padded": b" " * 30_000_000 + PLAIN, "100,000 signs": own("x = " + "-" * 100_000 + "1"),
    "950 dots": own("x" + ".a" * 950 + " = 1"), "50,000 dots": own("x" + ".a" * 50_000 + " = 1"),
    "90 brackets": own("(" * 90 + ")" * 90), "100,000 brackets": own("(" * 100_000), "zeros in code": own("x = '\0'"),
    "lone surrogates": notebook(lambda nb: nb["cells"].append({"cell_type": "markdown", "metadata": {}, "source": "\ud800 a \udfff"})),
    "odd outputs": every("outputs", [{"output_type": "display_data", "data": {"text/html": {"a": 1}, "x/y": [None]}, "metadata": 3}]),
    "nested style": every("outputs", [{"output_type": "display_data", "metadata": {}, "data": DEEP_HTML}]),
    "outputs that are a number": every("outputs", 7), "odd execution counts": every("execution_count", {"a": []}),
    "odd ids": every("id", ["x"]), "no metadata of the notebook": notebook(lambda nb: {"cells": nb["cells"]}),
    "odd format numbers": notebook(lambda nb: {**nb, "nbformat": "four", "nbformat_minor": None}),
    "odd metadata of the notebook": notebook(lambda nb: {**nb, "metadata": [1, 2]}),
    "another kernel": notebook(lambda nb: {**nb, "metadata": {"kernelspec": {"name": "../../x", "language": "R"}}}),
    "widgets' state": notebook(lambda nb: {**nb, "metadata": {"widgets": {"a": "</script>"}}}),
    "odd attachments": every("attachments", {"x": {"image/png": 3, "text/html": "<b>"}, "y": None}),
    "a cell that is a number": notebook(lambda nb: nb["cells"].insert(3, 5)),
    "a cell without a type": notebook(lambda nb: nb["cells"].insert(3, {"source": "x", "metadata": {}})),
    "a cell of unknown type": notebook(lambda nb: nb["cells"].append({"cell_type": "video", "source": "", "metadata": {}})),
    "marks of nbgrader that are a list": notebook(lambda nb: nb["cells"].append({"cell_type": "code", "metadata": {"nbgrader": [1]}, "source": "y = 2"})),
    "an id that is a list": notebook(lambda nb: nb["cells"].append({"cell_type": "code", "metadata": {"nbgrader": {"grade_id": [1]}}, "source": "y = 2"})),
    "tags that are numbers": every("metadata", {"tags": 5}) and notebook(lambda nb: nb["cells"].append({"cell_type": "code", "metadata": {"tags": [1, None]}, "source": ""})),
    "2,000 cells more": notebook(lambda nb: nb["cells"].extend([{"cell_type": "code", "metadata": {}, "source": "1"}] * 2000)),
    "text as one string": notebook(lambda nb: {**nb, "cells": [{**c, "source": source(c)} for c in nb["cells"]]}),
    "escape sequences": own("# \x1b[2J\x1b]0;pwned\x07"), "not a number": PLAIN.replace(b'"nbformat"', b'"n": NaN, "nbformat"'),
    "keys twice": PLAIN.replace(b'"nbformat"', b'"metadata": {}, "nbformat"'), "null metadata": notebook(lambda nb: nb["cells"].append({"cell_type": "raw", "metadata": None, "source": "x"})),
}  # fmt: skip
NOTEBOOKS: dict[str, bytes] = {
    **READABLE, "empty": b"", "spaces": b" \n" * 100, "a list": b"[]", "a number": b"7", "null": b"null", "no cells": b"{}",
    "cells that are a number": b'{"cells": 3}', "cells that are text": b'{"cells": "abc"}', "cells that are numbers": b'{"cells": [1, 2]}',
    "worksheets that are a number": b'{"worksheets": 3}', "worksheets of numbers": b'{"worksheets": [3, {"cells": 4}]}',
    "100,000 lists": b"[" * 100_000, "100,000 objects": b'{"a":' * 100_000, "half": PLAIN[: len(PLAIN) // 2], "a picture": b"\x89PNG\r\n\x1a\n" + bytes(500),
    "zeros": bytes(10_000), "page": b"<html><body>404</body></html>", "a long number": b'{"cells": ' + b"9" * 100_000 + b"}",
    "a huge exponent": b'{"cells": [1e999999]}', "code page 1252": '{"cells": "é"}'.encode("cp1252"), "half a surrogate": '{"cells": "\ud83d"}'.encode("utf-8", "surrogatepass"),
    "a cell with text that is numbers": b'{"cells": [{"cell_type": "code", "metadata": {}, "source": [1, 2]}]}',
    "nothing but the wrong answer": answered(nothing("lookup")),
}  # fmt: skip


def _zip(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


GOOD = _zip({f"{NAME}.ipynb": PLAIN})
SIX = _zip({f"{n}/{NAME}.ipynb": PLAIN for n in range(6)})


def _cut_stream() -> bytes:
    """A damaged deflate stream: the sums are right, the data is not."""
    data = bytearray(GOOD)
    data[200:260] = b"\xff" * 60
    return bytes(data)


def _field(offset: int, value: int, size: str = "<I") -> bytes:
    """A number in the central directory replaced."""
    data, at = bytearray(GOOD), GOOD.rindex(b"PK\x01\x02")
    struct.pack_into(size, data, at + offset, value)
    return bytes(data)


def _bomb() -> bytes:
    """400 MB of zeros."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open(f"{NAME}.ipynb", "w", force_zip64=True) as stream,
    ):
        for _ in range(400):
            stream.write(bytes(1_000_000))
    return buffer.getvalue()


ARCHIVES: dict[str, bytes] = {
    "a damaged stream": _cut_stream(), "a size that is too small": _field(24, 10), "a size that is too large": _field(24, 2**31),
    "a packed size that is too large": _field(20, 2**31), "a wrong sum": _field(16, 1), "an unknown method": _field(10, 77, "<H"),
    "encrypted": _field(8, 1, "<H"), "an offset outside": _field(42, 2**31), "a date that is none": _field(12, 0xFFFFFFFF),
    "a bomb": _bomb(), "cut off": GOOD[:-30], "no archive": b"PK\x03\x04 and nothing", "empty": b"", "an empty archive": _zip({}),
    "other files": _zip({"essay.docx": b"x"}), "names that climb": _zip({f"../../../{NAME}.ipynb": PLAIN}),
    "names from the root": _zip({f"/etc/{NAME}.ipynb": PLAIN}), "a name too long": _zip({f"{'x' * 5000}/{NAME}.ipynb": PLAIN}),
    "names too deep": _zip({f"{'d/' * 3000}{NAME}.ipynb": PLAIN}), "a name with an escape": _zip({f"\x1b[2J{NAME}.ipynb": PLAIN}),
    "3,000 files": _zip({f"{n}.txt": b"" for n in range(3000)}), "an archive in an archive": _zip({"inner.zip": GOOD}),
    "stored": _zip({f"{NAME}.ipynb": PLAIN}, zipfile.ZIP_STORED), "bzip2": _zip({f"{NAME}.ipynb": PLAIN}, zipfile.ZIP_BZIP2),
    "a notebook that is damaged": _zip({f"{NAME}.ipynb": PLAIN[:999]}), "text before it": b"#!/bin/sh\n" + GOOD,
}  # fmt: skip


def fuzzed(count: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """(".ipynb" or ".zip", bytes): notebooks changed as text and as values, archives changed as bytes."""
    chance = random.Random(seed)
    for number in range(count):
        if number % 2:
            yield ".zip", _bytes_changed(chance, SIX, (1,))
        elif number % 4:
            yield ".ipynb", _bytes_changed(chance, PLAIN, (1, 3, 30))
        else:
            yield ".ipynb", json.dumps(_values_changed(chance, solved())).encode()


def _bytes_changed(chance: random.Random, data: bytes, times: tuple[int, ...]) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice(times)):
        at = chance.randrange(len(changed))
        kind = chance.randrange(4)
        if kind == 0:
            changed[at] = chance.randrange(256)
        elif kind == 1:
            del changed[at : at + chance.randrange(1, 200)]
        elif kind == 2:
            changed[at:at] = chance.randbytes(chance.randrange(1, 50))
        else:
            changed[at:at] = changed[chance.randrange(len(changed)) :][:100]
    return bytes(changed)


STRANGE: tuple[Any, ...] = (
    None,
    True,
    -1,
    10**30,
    1.5,
    "",
    "\ud800\x1b[2J\0",
    [],
    {},
    [[[]]],
    {"a": {"b": None}},
    "x" * 5000,
)


def _values_changed(chance: random.Random, content: Any) -> Any:
    """A few values anywhere in it replaced by strange ones, or left out."""
    for _ in range(chance.randrange(1, 8)):
        at = content
        while isinstance(at, dict | list) and at:
            key = chance.choice(list(at) if isinstance(at, dict) else range(len(at)))
            if chance.random() < 0.3 or not isinstance(at[key], dict | list) or not at[key]:
                if chance.random() < 0.3:
                    del at[key]
                else:
                    at[key] = copy.deepcopy(chance.choice(STRANGE))
                break
            at = at[key]
    return content
