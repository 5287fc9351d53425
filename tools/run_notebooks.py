"""Run notebooks from the top and store what came out: `make notebooks`, or `python tools/run_notebooks.py PATH ...`.

The kernel is the Python that runs this, whatever kernels the machine knows. What a run leaves that says nothing to a
reader (times, versions, random ids of widgets) is cleaned away, so that a file changes only where an output did.
A notebook that fails keeps its old outputs.
"""

import base64
import hashlib
import json
import sys
import time
from io import BytesIO
from pathlib import Path

import nbformat
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from PIL import Image
from tqdm import tqdm

CHAPTERS = Path(__file__).parent.parent / "notebooks"
CELL_SECONDS = 600
WIDGETS = "application/vnd.jupyter.widget-state+json"
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"file_extension": ".py", "mimetype": "text/x-python", "name": "python"},
}


class ThisPython(KernelSpecManager):
    """Knows one kernel."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        """The Python that runs this file."""
        return KernelSpec(**get_kernel_dict())


def execute(notebook: NotebookNode, folder: Path, title: str = "") -> NotebookNode:
    """A copy of the notebook with fresh outputs. Raises CellExecutionError, whose text names the cell."""
    fresh = NotebookNode(nbformat.from_dict(json.loads(json.dumps(notebook))))
    with tqdm(total=sum(cell.cell_type == "code" for cell in fresh.cells), desc=title, unit="cell") as bar:
        NotebookClient(
            fresh,
            km=AsyncKernelManager(kernel_spec_manager=ThisPython()),
            timeout=CELL_SECONDS,
            resources={"metadata": {"path": str(folder)}},
            record_timing=False,
            coalesce_streams=True,
            on_cell_executed=lambda **_: bar.update(),
        ).execute()
    return clean(fresh, title)


def clean(notebook: NotebookNode, title: str) -> NotebookNode:
    """Keep tags and widget state, and give widgets ids that a second run would give them as well."""
    widgets = notebook.metadata.get("widgets", {})
    notebook.metadata = nbformat.from_dict({**METADATA, **({"widgets": widgets} if widgets else {})})
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({"tags": cell.metadata.tags} if cell.metadata.get("tags") else {})
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                output["data"]["image/png"] = smaller(output["data"]["image/png"])
    text = json.dumps(notebook)
    ids = widgets.get(WIDGETS, {}).get("state", {})
    for number, old in enumerate(sorted(ids, key=text.index)):
        text = text.replace(old, hashlib.md5(f"{title} {number}".encode()).hexdigest())
    return nbformat.from_dict(json.loads(text))


def smaller(png: str) -> str:
    """A picture with at most 128 colours, in base64, if that is shorter: drawings have few colours."""
    buffer = BytesIO()
    with Image.open(BytesIO(base64.b64decode(png))) as picture:
        picture.convert("RGB").quantize(128).save(buffer, "png", optimize=True)
    fewer = base64.b64encode(buffer.getvalue()).decode()
    return fewer if len(fewer) < len(png) else png


def main(paths: list[Path]) -> int:
    """Run each in place; 1 if one failed."""
    failed = []
    for path in paths or sorted(CHAPTERS.glob("*.ipynb")):
        started = time.perf_counter()
        try:
            fresh = execute(nbformat.read(path, as_version=4), path.parent, path.stem)
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            failed.append(path.stem)
            print(error, file=sys.stderr)
            continue
        nbformat.write(fresh, path)
        print(f"{path.stem}: {time.perf_counter() - started:.1f} s, {path.stat().st_size / 1024:.0f} KiB")
    if failed:
        print(f"not changed, because a cell failed: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main([Path(name) for name in sys.argv[1:]]))
