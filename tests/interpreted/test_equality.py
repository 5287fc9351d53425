"""Every kernel in Triton's interpreter against its twin: number formats, odd shapes, trees that Hypothesis makes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import quick, tree_parents

from specdec_ref.config import SamplingParams
from specdec_ref.kernels import ops
from specdec_ref.kernels.cases import OPS, Shape, make_case
from specdec_ref.kernels.contract import DraftProbs
from specdec_ref.kernels.tables import DTYPES, LONG, SHAPES, WIDE, difference, equality_table

TWIN, KERNEL = ops("torch"), ops("triton")


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_kernel_equals_its_twin(op: str, dtype: str) -> None:
    if op in ("links", "greedy") and dtype != "float32":
        return  # integers only: the format of the logits does not reach them
    (row,) = equality_table((*SHAPES, WIDE, LONG), seeds=1, operations=(op,), dtypes=(dtype,))
    assert row["cases"] == len(SHAPES) + 2
    assert row["equal"], row


@quick(25)
@given(st.data(), tree_parents(7), st.integers(1, 3))
def test_walks_on_any_tree(data: st.DataObject, parents: list[int], kinds: int) -> None:
    """Few kinds of tokens, so siblings repeat; coins at 0, in between, and just below 1."""
    count, vocab = len(parents), kinds + 2
    tokens = torch.tensor([[data.draw(st.integers(0, kinds - 1)) for _ in range(count)]])
    links = TWIN.tree_links(tokens, torch.tensor([parents]), torch.tensor([3]))
    made = KERNEL.tree_links(tokens, torch.tensor([parents]), torch.tensor([3]))
    names = ("next_token", "next_sibling", "positions", "bits")
    assert all(torch.equal(getattr(links, name), getattr(made, name)) for name in names)
    logits = torch.tensor([[[data.draw(st.integers(-3, 3)) for _ in range(vocab)] for _ in range(count)]]).float()
    predict = TWIN.predictions(logits)
    agree("greedy_walk", tokens, links, predict)
    coin = st.sampled_from([0.0, 0.137, 0.391, 0.618, 0.883, 1 - 2.0**-53])
    coins, last = (torch.tensor([[data.draw(coin) for _ in range(count)]]).double() for _ in range(2))
    agree("tree_sample", logits, tokens, links, coins, last, 0.7)


def agree(op: str, *arguments: object) -> None:
    ours, theirs = (getattr(side, op)(*arguments) for side in (TWIN, KERNEL))
    assert torch.equal(ours.accept_index, theirs.accept_index)
    assert torch.equal(ours.next_token, theirs.next_token)


@quick(12)
@given(
    st.sampled_from(list(DTYPES.values())), st.integers(0, 60), st.sampled_from([1.0, 0.9, 0.5, 0.05]),
    st.sampled_from([0.0, 0.01, 0.3]), st.integers(0, 5),
)  # fmt: skip
def test_floors_keep_what_warp_keeps(dtype: torch.dtype, top_k: int, top_p: float, min_p: float, seed: int) -> None:
    """Ties included: logits in half precision are full of them."""
    sampling = SamplingParams(0.9, top_k, top_p, min_p)
    logits = (3 * torch.randn(1, 2, 1500, generator=torch.Generator().manual_seed(seed))).to(dtype)
    picked = torch.tensor([[0, 1]])
    ours, theirs = (side.logit_floors(logits, picked, sampling) for side in (TWIN, KERNEL))
    assert (ours is None) == (theirs is None)
    if ours is not None:
        assert torch.equal(logits >= ours[..., None], logits >= theirs[..., None])


@pytest.mark.parametrize("cut", [SamplingParams(0.8, top_k=9), SamplingParams(0.8, top_p=0.7)])
def test_sampling_under_floors(cut: SamplingParams) -> None:
    """Tokens that top-k or top-p drop are neither accepted nor drawn, with q over a smaller vocabulary."""
    generator = torch.Generator().manual_seed(1)
    logits = 2 * torch.randn(2, 4, 97, generator=generator)
    tokens = logits.topk(12, -1).indices[:, :, 11].contiguous()  # the twelfth: dropped by top-k 9
    tokens[:, 1:3] = logits.argmax(-1)[:, :2]
    chain = torch.tensor([[-1, 0, 1, 2], [-1, 0, 1, -1]])
    links = TWIN.tree_links(tokens, chain, torch.zeros(2, dtype=torch.long))
    floors = TWIN.logit_floors(logits, torch.arange(4).expand(2, 4), cut)
    coins, last = (torch.rand(2, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    agree("tree_sample", logits, tokens, links, coins, last, cut.temperature, floors)
    column = torch.full((97,), -1).scatter_(0, torch.arange(0, 97, 2), torch.arange(49))
    q = DraftProbs([torch.rand(4, 49, generator=generator).softmax(-1), None], column)
    for keys in (None, torch.tensor([11, -5])):
        agree("chain_reject", logits, tokens, links, coins, last, cut.temperature, floors, q, keys)


def test_last_coin_a_row_as_sglang_gives_it() -> None:
    """`(batch,)`, and float32 coins."""
    case = {"tokens": torch.tensor([[5, 1, 2]]), "parents": torch.tensor([[-1, 0, 0]])}
    links = TWIN.tree_links(case["tokens"], case["parents"], torch.tensor([0]))
    logits = torch.linspace(-1, 2, 18).view(1, 3, 6)
    last = torch.tensor([0.71])
    agree("tree_sample", logits, case["tokens"], links, torch.tensor([[0.9, 0.1, 0.2]]), last, 1.0)


def test_half_of_a_wider_buffer() -> None:
    """Strided inputs: logits of every other node, keys and values as views of a longer cache."""
    case = make_case("attention", Shape(batch=2, nodes=4, length=9))
    assert difference(case.run(TWIN), case.run(KERNEL)) < 2e-5
    wide = torch.randn(2, 6, 50, generator=torch.Generator().manual_seed(0))
    tokens = torch.tensor([[1, 2, 3], [4, 5, 6]])
    links = TWIN.tree_links(tokens, torch.tensor([[-1, 0, 1], [-1, 0, 0]]), torch.tensor([0, 0]))
    coins = torch.full((2, 3), 0.01).double()
    agree("tree_sample", wide[:, ::2], tokens, links, coins, coins + 0.4, 1.0)


def test_attention_looks_at_nothing_else() -> None:
    """NaN in every slot at and behind length + nodes, and in the slots of strangers' nodes, changes nothing."""
    generator = torch.Generator().manual_seed(0)
    query, keys, values = (
        torch.randn(1, heads, size, 16, generator=generator) for heads, size in ((2, 3), (1, 12), (1, 12))
    )
    links = TWIN.tree_links(torch.zeros(1, 3, dtype=torch.long), torch.tensor([[-1, 0, 0]]), torch.tensor([5]))
    clean = KERNEL.tree_attention(query, keys, values, torch.tensor([5]), links.bits, 0.25)
    keys[:, :, 8:], values[:, :, 8:] = float("nan"), float("nan")
    spoiled = KERNEL.tree_attention(query, keys, values, torch.tensor([5]), links.bits, 0.25)
    assert torch.equal(clean, spoiled)
    keys[:, :, 7] = 50.0  # the second sibling's slot: the first must not see it
    assert torch.equal(
        KERNEL.tree_attention(query, keys, values, torch.tensor([5]), links.bits, 0.25)[0, 1], clean[0, 1]
    )


def test_split_prefix_does_not_depend_on_the_batch() -> None:
    """Each row alone, with a cache that ends at its own last slot, gives the very bits that it gives in the batch."""
    generator = torch.Generator().manual_seed(3)
    lengths, nodes = torch.tensor([1100, 512, 513, 3]), 3
    query = torch.randn(4, 4, nodes, 8, generator=generator)
    keys, values = (torch.randn(4, 2, 1100 + nodes, 8, generator=generator) for _ in range(2))
    parents, zeros = torch.tensor([[-1, 0, 0]] * 4), torch.zeros(4, dtype=torch.long)
    bits = TWIN.tree_links(zeros[:, None].expand(-1, nodes), parents, zeros).bits
    together = KERNEL.tree_attention(query, keys, values, lengths, bits, 0.3)
    torch.testing.assert_close(
        together, TWIN.tree_attention(query, keys, values, lengths, bits, 0.3), rtol=0, atol=2e-6
    )
    for row, length in enumerate(lengths.tolist()):
        one = slice(row, row + 1)
        cache = (x[one, :, : length + nodes] for x in (keys, values))
        alone = KERNEL.tree_attention(query[one], *cache, lengths[one], bits[one], 0.3)
        assert torch.equal(alone, together[one]), length
