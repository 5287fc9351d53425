"""Run in a process of its own: llama-server's own argument parser, from the wheel, on commands read from stdin.

The wheel exports the C++ function and not a Python one; `CommonParams` holds the C++ struct behind its object header.
One JSON line per command: whether the parser accepts it, and what it understood.
"""

import ctypes
import json
import sys

import xllamacpp
from xllamacpp import xllamacpp as extension

SERVER = 12  # the enumerator of llama_example whose flags include --metrics and --port
HEADER = 16  # bytes of a Python object before its fields

parse = ctypes.CDLL(extension.__file__)._Z19common_params_parseiPPcR13common_params13llama_examplePFviS0_E
parse.restype = ctypes.c_bool
parse.argtypes = [ctypes.c_int, ctypes.POINTER(ctypes.c_char_p), ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]

for line in sys.stdin:
    words = json.loads(line)
    params = xllamacpp.CommonParams()
    accepted = parse(
        len(words),
        (ctypes.c_char_p * (len(words) + 1))(*[word.encode() for word in words], None),
        id(params) + HEADER,
        SERVER,
        None,
    )
    spec = params.speculative
    types = sorted(kind.name.removeprefix("COMMON_SPECULATIVE_TYPE_").lower() for kind in spec.types)
    sys.stdout.write(
        json.dumps(
            {
                "accepted": accepted,
                "types": [kind for kind in types if kind != "none"],
                "n_max": spec.draft.n_max,
                "size_m": spec.ngram_simple.size_m,
                "draft": spec.draft.mparams.path,
                "probabilistic": spec.draft.probabilistic,
            }
        )
        + "\n"
    )
