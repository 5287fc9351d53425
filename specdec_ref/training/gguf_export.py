"""Target and head for llama.cpp, two files in a folder, each read back before it counts as written.

<folder>/target-<type>.gguf    the target, see `gguf_target.py`; left out where the reader has such a file already
<folder>/head.gguf             its EAGLE-3 head, see `gguf_head.py`
"""

from pathlib import Path
from typing import Any

from specdec_ref.training.gguf_file import open_gguf
from specdec_ref.training.gguf_head import write_head
from specdec_ref.training.gguf_read import compare, read_gguf_head
from specdec_ref.training.gguf_target import write_target
from specdec_ref.weights.files import read_head
from specdec_ref.weights.heads import build_head

__all__ = ["HEAD", "export_gguf"]

HEAD = "head.gguf"


def export_gguf(
    source: Path, model: Any, tokenizer: Any, folder: Path, kind: str = "f16", *, target: Path | None = None
) -> tuple[Path, Path]:
    """Write target and head; returns their paths. `source`: the head's folder or file, as for `read_head`.

    `target`: a GGUF file of this target that exists already; then only the head is written.
    Raises ValueError for what cannot be written; a file that does not read back as it should is deleted.
    """
    loaded = build_head(read_head(source), model)
    ready = target if target is not None else write_target(model, tokenizer, folder / f"target-{kind}.gguf", kind)
    file = open_gguf(ready)
    head = write_head(loaded, file, folder / HEAD)
    try:
        compare(read_gguf_head(head, file), loaded)
    except ValueError:
        head.unlink()
        raise
    return ready, head
