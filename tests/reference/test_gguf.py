"""Heads and targets as GGUF: they read back the same, and what llama.cpp would misread is an error by name."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli_helpers import Specdec, folder, save_model, specdec
from eagle_heads import random_head
from gguf import GGUFReader, GGUFWriter
from tokenizers import pre_tokenizers
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from specdec_ref.drafters.eagle import default_layers
from specdec_ref.drafters.eagle_head import EagleHead, Variant
from specdec_ref.training import gguf_head
from specdec_ref.training.gguf_file import GGUFFile, open_gguf
from specdec_ref.training.gguf_head import check_head, write_head
from specdec_ref.training.gguf_read import compare, read_gguf_head
from specdec_ref.training.gguf_target import pairs_from_halves, write_target
from specdec_ref.weights.heads import LoadedHead

__all__ = ["folder", "specdec"]  # fixtures


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny chat model of eight layers whose tokenizer llama.cpp can name."""
    path = save_model(tmp_path_factory.mktemp("gguf") / "tiny", layers=8)
    tokenizer = AutoTokenizer.from_pretrained(path)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def model(chat: Path) -> nn.Module:
    return AutoModelForCausalLM.from_pretrained(chat)


@pytest.fixture(scope="module")
def target(chat: Path, model: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> GGUFFile:
    """That model as GGUF."""
    out = tmp_path_factory.mktemp("target") / "target-f16.gguf"
    return open_gguf(write_target(model, AutoTokenizer.from_pretrained(chat), out))


def loaded(model: nn.Module, **changes: Any) -> LoadedHead:
    return replace(LoadedHead(random_head(model, 3, draft_vocab=60), default_layers(3, 8)), **changes)


@pytest.fixture
def written(model: nn.Module, target: GGUFFile, tmp_path: Path) -> Path:
    return write_head(loaded(model), target, tmp_path / "head.gguf")


def test_our_reader_and_the_formats_own_agree(target: GGUFFile, written: Path) -> None:
    for file in (target, open_gguf(written)):
        theirs = GGUFReader(file.path)
        assert {name: field.value for name, field in file.fields.items()} == {
            name: field.contents() for name, field in theirs.fields.items() if not name.startswith("GGUF.")
        }
        assert len(theirs.tensors) == len(file.tensors) > 10
        for tensor in theirs.tensors:
            ours = file.tensors[tensor.name]
            assert ours.shape == tuple(tensor.shape)
            np.testing.assert_array_equal(ours.read().numpy(), np.asarray(tensor.data, ours.read().numpy().dtype))


def test_a_head_reads_back(model: nn.Module, target: GGUFFile, written: Path) -> None:
    found, head = read_gguf_head(written, target), loaded(model)
    compare(found, head)
    assert found.q_vocab.tolist() == head.head.q_vocab.tolist()  # type: ignore[union-attr]
    assert found.layers == head.layers == default_layers(3, 8)


def test_a_target_reads_back(chat: Path, model: nn.Module, target: GGUFFile, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(chat)
    assert target.told("tokenizer.ggml.tokens") == tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    assert target.told("tokenizer.ggml.pre") == "gpt-2"
    state: Any = model.state_dict()
    torch.testing.assert_close(
        target.tensors["blk.3.ffn_up.weight"].read(), state["model.layers.3.mlp.up_proj.weight"], rtol=2**-10, atol=1e-7
    )
    key = state["model.layers.3.self_attn.k_proj.weight"]
    heads = model.config.num_key_value_heads  # type: ignore[union-attr]
    torch.testing.assert_close(
        target.tensors["blk.3.attn_k.weight"].read(), pairs_from_halves(key, heads), rtol=2**-10, atol=1e-7
    )
    small = open_gguf(write_target(model, tokenizer, tmp_path / "q8.gguf", "q8_0"))
    assert small.tensors["blk.3.ffn_up.weight"].kind.name == "Q8_0"
    assert torch.allclose(
        small.tensors["blk.3.ffn_up.weight"].read(), state["model.layers.3.mlp.up_proj.weight"], atol=0.02
    )


def test_rows_move_from_halves_to_neighbours() -> None:
    """Head dimension 4, two heads: rows 0 1 2 3 of a head become 0 2 1 3."""
    assert pairs_from_halves(torch.arange(8.0)[:, None], 2)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


@pytest.mark.parametrize(
    ("mistake", "complaint"),
    [
        ("offsets", "d2t"),
        ("halves", "attn_q.weight in the file is not the head's"),
        ("shifted layers", "the file's layers are"),
        ("norm flag", "norm_before_residual"),
        ("rope", "rope.freq_base"),
    ],
)
def test_a_wrong_convention_does_not_read_back(
    model: nn.Module, target: GGUFFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mistake: str, complaint: str
) -> None:
    head = loaded(model)
    wrong = head
    if mistake == "offsets":
        monkeypatch.setattr(gguf_head, "_draft_ids", lambda h: h.q_vocab - torch.arange(len(h.q_vocab)))
        monkeypatch.setattr(gguf_head, "check_head", lambda *_: None)
    elif mistake == "halves":
        monkeypatch.setattr(gguf_head, "pairs_from_halves", lambda weight, heads: weight)
    elif mistake == "shifted layers":
        wrong = replace(head, layers=tuple(layer + 1 for layer in head.layers))
    elif mistake == "norm flag":
        wrong = replace(head, head=variant(head.head, norm_before_residual=True))
    else:
        wrong = loaded(model)
        wrong.head.config.rope_parameters = {"rope_type": "default", "rope_theta": 5.0}
    with pytest.raises(ValueError, match=complaint):
        compare(read_gguf_head(write_head(wrong, target, tmp_path / "wrong.gguf"), target), head)


def variant(head: EagleHead, **flags: bool) -> EagleHead:
    other = EagleHead(head.config, 3, q_vocab=head.q_vocab, variant=Variant(**flags)).double()
    other.load_state_dict(head.state_dict(), strict=False)
    return other


def spoil(name: str, path: Path, target: GGUFFile, out: Path) -> Path:
    """Copy a head's file with one mistake that llama.cpp would refuse, abort on or not notice."""
    file, writer = open_gguf(path), GGUFWriter(out, "eagle3")
    for key, field in file.fields.items():
        value = field.value
        if key.endswith("target_layers") and name == "layer too high":
            value = [*value[:2], target.told("llama.block_count") + 1]
        if key.endswith("target_hidden_size") and name == "width":
            value = value * 2
        if key != "general.architecture" and not (key.endswith("target_layers") and name == "no layers"):
            writer.add_key_value(key, value, field.kind, field.inner)
    for tensor, stored in file.tensors.items():
        values = stored.read().numpy()
        if tensor == "d2t":
            values = values.astype(np.int32) if name == "type" else values
            values = values - np.arange(len(values)) if name == "offsets" else values
        if not (tensor == "blk.0.attn_norm_2.weight" and name == "no hidden_norm"):
            writer.add_tensor(tensor, values)
    if name == "one too many":
        writer.add_tensor("t2d", np.zeros(4, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("layer too high", "outside 0 to 8"),
        ("width", "fc.weight has shape"),
        ("no layers", "no eagle3.target_layers"),
        ("type", "d2t is I32, expected I64"),
        ("offsets", "does it hold offsets"),
        ("no hidden_norm", "missing blk.0.attn_norm_2.weight"),
        ("one too many", "unexpected t2d"),
    ],
)
def test_a_spoilt_file_is_refused(written: Path, target: GGUFFile, tmp_path: Path, name: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        read_gguf_head(spoil(name, written, target, tmp_path / "spoilt.gguf"), target)


def test_damaged_files_are_refused(written: Path, target: GGUFFile, tmp_path: Path) -> None:
    data = written.read_bytes()
    for name, content, complaint in (
        ("none", b"", "no GGUF"), ("other", b"GGML" + data[4:], "no GGUF"), ("head", data[:2000], "no GGUF"),
        ("tail", data[:-64], "cut off"),
    ):  # fmt: skip
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=complaint):
            read_gguf_head(tmp_path / name, target)
    with pytest.raises(ValueError, match="there is no file"):
        open_gguf(tmp_path / "absent")
    with pytest.raises(ValueError, match="'llama', an EAGLE-3 head is 'eagle3'"):
        read_gguf_head(target.path)


def odd_heads(model: nn.Module) -> dict[str, LoadedHead]:
    """What llama.cpp would refuse, abort on or compute differently."""
    good = loaded(model)
    biased = loaded(model)
    biased.head.layer.self_attn.q_proj.bias = nn.Parameter(torch.zeros(biased.head.layer.self_attn.q_proj.out_features))
    normed = loaded(model)
    normed.head.layer.self_attn.q_norm = nn.LayerNorm(4, bias=False)
    bare = loaded(model)
    del bare.head.layer.hidden_norm
    deep = loaded(model)
    deep.head.config.num_hidden_layers = 2
    scaled = loaded(model)
    scaled.head.config.rope_parameters = {"rope_type": "llama3", "rope_theta": 1e4}
    twice = loaded(model)
    twice.head.q_vocab[1] = twice.head.q_vocab[0]  # type: ignore[index]
    return {
        "q_proj.bias": biased, "q_norm": normed, "needs midlayer.hidden_norm": bare, "2 layers": deep,
        "rotary": scaled, "different tokens": twice, "EAGLE-1": LoadedHead(random_head(model, 1), (8,)),
        "fc has a bias": replace(good, head=variant(good.head, bias=True)),
        "variant norm_before_fc": replace(good, head=variant(good.head, norm_before_fc=True)),
        "variant fc_norm": replace(good, head=variant(good.head, fc_norm=True)),
        "variant norm_output": replace(good, head=variant(good.head, norm_output=True)),
        "reads 2 layers": replace(good, layers=(2, 3)), "outside 0 to 8": replace(good, layers=(2, 4, 9)),
        "rising order": replace(good, layers=(4, 2, 6)),
    }  # fmt: skip


def test_odd_heads_are_refused_by_name(model: nn.Module, target: GGUFFile, tmp_path: Path) -> None:
    check_head(loaded(model), target)
    for complaint, head in odd_heads(model).items():
        with pytest.raises(ValueError, match=complaint):
            write_head(head, target, tmp_path / "x.gguf")
    assert not (tmp_path / "x.gguf").exists()


def test_another_targets_file_is_refused(model: nn.Module, target: GGUFFile) -> None:
    narrow = replace(
        target,
        fields=target.fields | {"llama.embedding_length": replace(target.fields["llama.embedding_length"], value=8)},
    )
    with pytest.raises(ValueError, match="another target"):
        check_head(loaded(model), narrow)
    small = replace(
        target,
        fields=target.fields | {"tokenizer.ggml.tokens": replace(target.fields["tokenizer.ggml.tokens"], value=["a"])},
    )
    with pytest.raises(ValueError, match="vocabulary"):
        check_head(loaded(model), small)


def test_odd_targets_are_refused(chat: Path, model: nn.Module, tmp_path: Path) -> None:
    tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(chat)
    with pytest.raises(ValueError, match="unknown GGUF type 'q2'"):
        write_target(model, tokenizer, tmp_path / "x", "q2")
    with pytest.raises(ValueError, match="q4_1 is the embedded model's own"):
        write_target(model, tokenizer, tmp_path / "x", "q4_1")
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    with pytest.raises(ValueError, match="cannot name"):
        write_target(model, tokenizer, tmp_path / "x")
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(ValueError, match="cannot name"):
        write_target(model, tokenizer, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_cli_exports(specdec: Specdec, chat: Path, model: nn.Module, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from specdec_ref.training.checkpoint import trained_tensors

    (tmp_path / "run").mkdir()
    save_file(
        trained_tensors(random_head(model, draft_vocab=60)),
        tmp_path / "run/head.safetensors",
        metadata={"version": "3"},
    )
    argv = ["train", "export", tmp_path / "run", "--target", chat, "--format", "gguf", "--dtype", "float32"]
    assert specdec(*argv, "--out", tmp_path / "out") == 0, specdec.err
    assert specdec.out.split() == [str(tmp_path / "out" / name) for name in ("target-f16.gguf", "head.gguf")]
    ready = tmp_path / "out" / "target-f16.gguf"
    assert specdec(*argv, "--out", tmp_path / "only", "--gguf", ready) == 0, specdec.err
    assert specdec.out.split() == [str(ready), str(tmp_path / "only" / "head.gguf")]
    assert "no EAGLE head is shipped" in specdec.error(
        2, "train", "export", "--target", chat, "--format", "gguf", "--out", tmp_path
    )
    assert "unknown GGUF type" in specdec.error(2, *argv, "--type", "q2", "--out", tmp_path)
    assert "there is no file" in specdec.error(2, *argv, "--gguf", tmp_path / "none", "--out", tmp_path)
    assert "export needs --out" in specdec.error(2, *argv)
