"""What a worker in the hands of an attacker may put on the wire in place of an answer: values, whole messages, bytes.

Who has such a worker can send anything; so these are sent without one. None may earn a point or harm the judge.
"""

from typing import Any

__all__ = ["BYTES", "REPLIES", "VALUES"]

VALUES: tuple[Any, ...] = (
    ["known", "Report", [["title", ""], ["cases", ["tuple", []]]]], ["known", "Case", []],
    ["known", "DraftTree", [["__class__", 1]]], ["known", "DraftTree", [["tokens", 3], ["parents", 3]]],
    ["known", "../os", []], ["opaque", "bool", "True", 1.0, [1, 2, 3]], ["opaque", "list", "[]", None, []],
    ["opaque", "__import__", "x", "1", 3], ["handle", 1], ["handle", "__class__"], ["callable", 1],
    ["tensor", "float64", [4], "", None], ["tensor", "float64", [-1], "AAAA", None],
    ["tensor", "float64", [2**62, 2**62], "AAAAAAAAAAA=", None], ["tensor", "object", [1], "AAAA", None],
    ["array", "O", [1], "AAAAAAAAAAA="], ["scalar", "U9", [], "AAAA"], ["dict", [[["list", []], 1]]],
    ["dict", [[1]]], ["set", [["list", []]]], ["list", 3], ["list"], [], ["range", 0, 10**30, 1],
    ["namespace", [["__class__", 3]]], ["error", "SystemExit", "x"], ["error", "object", "x"], ["pickle", "gAR9lC4="],
    ["dtype", "__dict__"], {"cases": []}, "\ud800", float("nan"), 10**4000,
)  # fmt: skip
REPLIES: tuple[Any, ...] = (
    ["done", 4.0], ["done"], ["done", 1, 2, 3, 4], ["done", ["list", []], [[0, ["list", []]], [-1, 3], ["x", 3]], 0],
    ["done", None, [[0, ["list", ["a"]]]], -10**9], ["done", None, [], True], [{"a": 1}], ["told", 1],
    ["raised", "AssertionError", ["AssertionError", "Exception"], "all 6 cases hold", "all 6 cases hold"],
    ["raised", "SystemExit", ["SystemExit", "BaseException"], "0", "0"],
    ["raised", "KeyboardInterrupt", ["KeyboardInterrupt"], "", ""], ["raised", "StopIteration", ["StopIteration", "Exception"], "", ""],
    ["raised", "x", ["eval", "Exception"], "", ""], ["raised", "x", [], 1, 2], ["raised", "StrayError", ["Exception"], "", ""],
    ["ask"], ["ask", "use", "os", "system", ["list", ["true"]], ["dict", []]],
    ["ask", "use", "specdec_course.checks.ngram", "examine", ["list", []], ["dict", []]],
    ["ask", "use", "specdec_course.checks.ngram", "look", ["list", [["opaque", "a", "a", None, None]]], ["dict", []]],
    ["ask", "use", "specdec_ref.cost_model", "expected_tau", ["list", [0.5, 10**12]], ["dict", []]],
    ["ask", "use", "specdec_course.checks.production", "run_of", ["list", [["list", [10**12]]]], ["dict", []]],
    ["ask", "call", 1, "__init__", ["list", []], ["dict", []]], ["ask", "get", 1, "__globals__"], ["ask", "get", 1, "_text"],
    ["ask", "load", [0, 0, 0], ["array", "int64", [1], "AAAAAAAAAAA="], ["array", "bool", [1], "AQ=="], "float32"],
    ["ask", "store", [0, 0, 0], 1, 2, 3],
)  # fmt: skip


BYTES = (
    b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\x00\x00\x00\x05hello", b"\x00\x00\x00\x02[]", b"\x00\x00\x00\x02{}",
    b"\x00\x00\x27\x10" + b"[" * 10_000, b"\x00\x00\x17\x70[" + b"9" * 5998 + b"]",
    b"\x00\x00\x00\x09\xff\xfe\xfd\xfc\xfb\xfa\xf9\xf8\xf7", b"\x00\x00\x00\x13{\"__class__\": \"x\"}",
)  # fmt: skip
