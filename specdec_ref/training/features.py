"""What a head learns from: the target's hidden states, computed once and kept in memory-mapped files.

A text of L tokens, P of them prompt, gives the pairs (feature_i, token_{i+1}) for i = 0 .. L-3; the head guesses
token_{i+2} from pair i and all before it. It is trained where a guess would be a response token, i >= P-2, against the
distribution that the target's last hidden state gives there (EAGLE, arXiv 2401.15077, section 3.1). So on disk, in
float16:

    fused  hidden_states of `layers` side by side, tokens 0 .. L-3         what the head reads
    final  the hidden state after the final norm, tokens P-1 .. L-2        what it is to predict: a row a response token

SmolLM2-135M: 3.5 kB a token and 1.2 kB a response token. A block of conversations is complete or absent, so extraction
can be stopped at any time, and picks up what a growing corpus has added. The corpus generator has these states at hand
and can write them as it goes (`Store`): then no second forward is needed.
"""

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from specdec_ref.models.fetch import cache_dir
from specdec_ref.training.shards import Conversation, load_corpus

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Block", "Example", "States", "Store", "extract_features", "feature_folder", "open_features"]

States = tuple[Tensor, Tensor]  # one conversation's fused (pairs x features) and final (response x hidden), float16

BLOCK = 128  # conversations a block: about a minute of one core for a 135M target
ROWS = 2048  # tokens a target forward: enough for a fast matrix product, few enough for the cache
LARGEST = torch.finfo(torch.float16).max


@dataclass(frozen=True, slots=True)
class Example:
    """One conversation with its hidden states, float16, read from disk when they are touched."""

    task: str
    number: int
    tokens: Int[Tensor, " tokens"]
    prompt: int
    fused: Float[Tensor, "pairs features"]
    final: Float[Tensor, "response hidden"]

    @property
    def response(self) -> int:
        """Number of response tokens, each of which the head is trained to guess."""
        return len(self.final)


@dataclass(frozen=True, slots=True)
class Block:
    """A finished piece of the feature store."""

    folder: Path
    name: str

    def examples(self) -> Iterator[Example]:
        """Its conversations in corpus order. Nothing is read but the index until a tensor is used."""
        with np.load(self.folder / f"{self.name}.index.npz", allow_pickle=False) as index:
            tokens = torch.from_numpy(index["tokens"].astype(np.int64))
            sizes = list(zip(index["prompts"].tolist(), index["responses"].tolist(), strict=True))
            tasks, numbers = index["tasks"].tolist(), index["numbers"].tolist()
        fused, final = (_mapped(self.folder / f"{self.name}.{part}.npy") for part in ("fused", "final"))
        token = pair = row = 0
        for (prompt, response), task, number in zip(sizes, tasks, numbers, strict=True):
            length, pairs = prompt + response, prompt + response - 2
            yield Example(
                task,
                number,
                tokens[token : token + length],
                prompt,
                fused[pair : pair + pairs],
                final[row : row + response],
            )
            token, pair, row = token + length, pair + pairs, row + response


def _mapped(path: Path) -> Tensor:
    """A read-only memory map as a tensor. Mode "c": writes, which nobody makes, would not reach the file."""
    return torch.from_numpy(np.load(path, mmap_mode="c"))


def feature_folder(corpus: str, model: str, layers: Sequence[int]) -> Path:
    """Where the features of a corpus are kept by default: in the user's cache, see `models.fetch.cache_dir`."""
    return cache_dir() / "features" / f"{corpus}-{model}-{'.'.join(map(str, layers))}"


def open_features(folders: Sequence[Path]) -> list[Block]:
    """All finished blocks of these folders, by name. Raises FileNotFoundError if there is none."""
    blocks = [
        Block(folder, path.name.removesuffix(".index.npz"))
        for folder in folders
        for path in sorted(Path(folder).glob("*.index.npz"))
    ]
    if not blocks:
        raise FileNotFoundError(f"no features in {', '.join(map(str, folders))}: extract them from a corpus first")
    return blocks


def extract_features(
    model: Any, files: Sequence[Path], folder: Path, layers: Sequence[int], *, longest: int = 1024
) -> int:
    """Write the blocks of these corpus files that are not there yet; returns how many response tokens were added.

    `model`: the target, a transformers causal LM, float32 on a CPU without bfloat16 instructions. `layers` index its
    `hidden_states` (0 = embeddings, n = after the final norm). Conversations of more than `longest` tokens are left
    out. Raises ValueError if a hidden state does not fit into float16, or if `folder` holds other layers.
    """
    store, added = Store(folder, model, layers, longest), 0
    with tqdm(unit="tok", unit_scale=True, mininterval=0.5 if sys.stderr.isatty() else 60.0, desc="features") as bar:
        for file in files:
            for name, piece in store.missing(file, load_corpus([file])):
                _write_block(store.folder / name, piece, _read(model, piece, layers, bar))
                added += sum(len(c.response) for c in piece)
    return added


class Store:
    """A folder of features of one target's `layers`; conversations longer than `longest` are left out."""

    def __init__(self, folder: Path, model: Any, layers: Sequence[int], longest: int = 1024) -> None:
        """Raises ValueError if `folder` holds features of other layers."""
        self.folder, self.layers, self.longest = folder, tuple(layers), longest
        folder.mkdir(parents=True, exist_ok=True)
        _claim(folder, {"layers": list(layers), "hidden": int(model.config.hidden_size), "longest": longest})

    def add(self, file: Path, conversations: Sequence[Conversation], states: Sequence[States]) -> None:
        """Write the blocks of a corpus file whose conversations came with their states."""
        known = {id(c): pair for c, pair in zip(conversations, states, strict=True)}
        for name, piece in self.missing(file, conversations):
            _write_block(self.folder / name, piece, ((i, known[id(c)]) for i, c in enumerate(piece)))

    def write(self, name: str, piece: Sequence[Conversation], states: Iterable[tuple[int, States]]) -> None:
        """Write one block under this name; `states` as each conversation's place in `piece`, and its states."""
        _write_block(self.folder / name, piece, states)

    def missing(self, file: Path, conversations: Iterable[Conversation]) -> Iterator[tuple[str, list[Conversation]]]:
        """The blocks of a corpus file that are not there yet: their names and conversations."""
        stem = file.name.split(".")[0]
        usable = iter(
            [
                c
                for c in conversations
                if len(c.prompt) > 1 and c.response and len(c.prompt) + len(c.response) <= self.longest
            ]
        )
        for number, piece in enumerate(iter(lambda: list(islice(usable, BLOCK)), [])):
            name = _free_name(self.folder, f"{stem}-{number:04d}", piece)
            if name is not None:
                yield name, piece


def _free_name(folder: Path, name: str, piece: Sequence[Conversation]) -> str | None:
    """A name for the block of these conversations, None if it is there. Files of two corpora may share a name."""
    tokens = np.concatenate([np.array(c.prompt + c.response, dtype=np.int32) for c in piece])
    for copy in count(2):
        path = folder / f"{name}.index.npz"
        if not path.exists():
            return name
        with np.load(path, allow_pickle=False) as index:
            if np.array_equal(index["tokens"], tokens):
                return None
        name = f"{name.partition('~')[0]}~{copy}"
    return None


def _claim(folder: Path, settings: dict[str, Any]) -> None:
    """A folder belongs to one choice of layers: written down on first use, compared later."""
    path = folder / "features.json"
    if not path.exists():
        path.write_text(json.dumps(settings) + "\n", encoding="utf8")
    elif (found := json.loads(path.read_text(encoding="utf8"))) != settings:
        raise ValueError(f"{folder} holds features of {found}, not {settings}: choose another folder")


def _write_block(stem: Path, piece: Sequence[Conversation], states: Iterable[tuple[int, States]]) -> None:
    """`states`: those of each conversation, by its place in `piece`, in any order."""
    pairs = np.array([len(c.prompt) + len(c.response) - 2 for c in piece])
    rows = np.array([len(c.response) for c in piece])
    pair_starts, row_starts = pairs.cumsum() - pairs, rows.cumsum() - rows
    fused, final = np.empty((0, 0), dtype=np.float16), np.empty((0, 0), dtype=np.float16)
    for i, (head, last) in states:
        if not len(fused):
            fused = np.empty((int(pairs.sum()), head.shape[-1]), dtype=np.float16)
            final = np.empty((int(rows.sum()), last.shape[-1]), dtype=np.float16)
        fused[pair_starts[i] : pair_starts[i] + pairs[i]] = head.cpu().numpy()
        final[row_starts[i] : row_starts[i] + rows[i]] = last.cpu().numpy()
    _save(stem.with_name(f"{stem.name}.fused.npy"), fused)
    _save(stem.with_name(f"{stem.name}.final.npy"), final)
    index: dict[str, Any] = {
        "tokens": np.concatenate([np.array(c.prompt + c.response, dtype=np.int32) for c in piece]),
        "prompts": np.array([len(c.prompt) for c in piece]), "responses": rows,
        "tasks": np.array([c.task for c in piece]), "numbers": np.array([c.number for c in piece]),
    }  # fmt: skip
    scratch = stem.with_name(f"{stem.name}.index.tmp.npz")
    np.savez(scratch, **index)  # last, since its presence says that the block is whole
    os.replace(scratch, stem.with_name(f"{stem.name}.index.npz"))


def _save(path: Path, array: "NDArray[np.float16]") -> None:
    if not np.isfinite(array).all():
        raise ValueError(
            "a hidden state is too large for float16 (or is NaN): this target needs another feature format"
        )
    np.save(path, array)


def _batches(piece: Sequence[Conversation]) -> Iterator[list[int]]:
    """Conversations of like length together, about ROWS tokens a batch, so that little is padded."""
    lengths = [len(c.prompt) + len(c.response) for c in piece]
    batch: list[int] = []
    for i in sorted(range(len(piece)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[i] > ROWS:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def _read(model: Any, piece: Sequence[Conversation], layers: Sequence[int], bar: Any) -> Iterator[tuple[int, States]]:
    """The states of every conversation, by its place."""
    for batch in _batches(piece):
        for i, states in zip(batch, _hidden_states(model, [piece[i] for i in batch], layers), strict=True):
            yield i, states
            bar.update(len(piece[i].prompt) + len(piece[i].response))


@torch.inference_mode()
def _hidden_states(model: Any, batch: Sequence[Conversation], layers: Sequence[int]) -> Iterator[States]:
    """(fused, final) of each conversation. Padding on the right needs no mask: nobody before it looks there."""
    texts = [(*c.prompt, *c.response) for c in batch]
    width = max(map(len, texts))
    output = model.base_model(
        input_ids=torch.tensor([[*text, *[0] * (width - len(text))] for text in texts], device=model.device),
        output_hidden_states=True,
        use_cache=False,
    )
    states = output.hidden_states
    for row, (text, conversation) in enumerate(zip(texts, batch, strict=True)):
        fused = torch.cat([states[layer][row, : len(text) - 2] for layer in layers], -1)
        final = states[-1][row, len(conversation.prompt) - 1 : len(text) - 1]
        yield fused.half(), final.half()
