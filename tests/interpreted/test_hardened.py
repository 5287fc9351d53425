"""What breaks kernels in production, provoked: bad rows, tails, placeholders, extreme coins, large offsets, empty batches."""

import pytest
import torch
from torch import Tensor

from specdec_ref.kernels import ops
from specdec_ref.kernels.contract import BAD_ROW, DraftProbs, Links

TWIN, KERNEL = ops("torch"), ops("triton")
NAN, INF = float("nan"), float("inf")
TOKENS = torch.tensor([[0, 3, 4, 5]])
CHAIN, FORK = torch.tensor([[-1, 0, 1, 2]]), torch.tensor([[-1, 0, 0, 1]])
COINS = torch.full((1, 4), 0.3).double()


def links_of(parents: Tensor, tokens: Tensor = TOKENS) -> Links:
    return TWIN.tree_links(tokens, parents, torch.zeros(len(parents), dtype=torch.long))


def answers(op: str, *arguments: object) -> tuple[list[int], int]:
    """(path, token) of row 0, the same on both sides."""
    ours, theirs = (getattr(side, op)(*arguments) for side in (TWIN, KERNEL))
    assert torch.equal(ours.accept_index, theirs.accept_index), (ours, theirs)
    assert torch.equal(ours.next_token, theirs.next_token), (ours, theirs)
    return ours.accept_index[0].tolist(), int(ours.next_token[0])


@pytest.mark.parametrize("poison", [NAN, INF, -INF], ids=str)
def test_a_bad_row_is_said_to_be_bad(poison: float) -> None:
    """Node 1 has no distribution: the walk stops there and says so; one that never gets there does not mind."""
    for op, parents in (("tree_sample", FORK), ("chain_reject", CHAIN)):
        logits = torch.zeros(1, 4, 9)
        logits[0, 0, 3] = 9.0  # child 1 passes at the root
        logits[0, 1] = -INF if poison == -INF else 0.0
        logits[0, 1, 7] = poison
        path, token = answers(op, logits, TOKENS, links_of(parents), COINS, COINS, 1.0)
        assert (path, token) == ([0, 1, -1, -1], BAD_ROW)
        logits[0, 0, 3] = -9.0  # nothing passes at the root
        assert answers(op, logits, TOKENS, links_of(parents), COINS, COINS, 1.0)[1] >= 0
    logits[0, 0, 3] = 9.0
    predict = TWIN.predictions(logits)
    assert torch.equal(predict, KERNEL.predictions(logits))
    assert answers("greedy_walk", TOKENS, links_of(CHAIN), predict) == ([0, 1, -1, -1], BAD_ROW)


def test_a_bad_leaf_and_a_bad_row_under_q_or_keys() -> None:
    logits = torch.zeros(1, 4, 9)
    logits[0, [0, 1, 2], [3, 4, 5]] = 30.0
    logits[0, 3, 2] = NAN
    q = DraftProbs([torch.full((4, 9), 1 / 9)])
    for dist, keys in ((None, None), (q, None), (None, torch.tensor([1])), (q, torch.tensor([1]))):
        path, token = answers("chain_reject", logits, TOKENS, links_of(CHAIN), COINS, COINS, 1.0, None, dist, keys)
        assert (path, token) == ([0, 1, 2, 3], BAD_ROW)


def test_tails_hold_no_tokens() -> None:
    """The logits are a slice of a wider buffer, whose next columns would win every draw."""
    for vocab in (5, 4095, 4097):
        wide = torch.full((1, 4, vocab + 300), 50.0)
        wide[..., :vocab] = torch.linspace(-1, 1, vocab)
        for op, parents in (("tree_sample", FORK), ("chain_reject", CHAIN)):
            tokens = TOKENS.clamp(max=vocab - 1)
            for coin in (0.02, 1 - 2.0**-53):
                last = torch.full((1, 4), coin, dtype=torch.float64)
                _, token = answers(op, wide[..., :vocab], tokens, links_of(parents, tokens), COINS, last, 1.0)
                assert token < vocab


def test_zero_probability_is_never_emitted() -> None:
    """Coins of exactly 0, and of almost 1, at break points: the strict rule."""
    logits = torch.full((1, 4, 9), -INF)
    logits[0, :, 6] = 0.0
    for coin in (0.0, 1 - 2.0**-53):
        coins = torch.full((1, 4), coin, dtype=torch.float64)
        for op, parents in (("tree_sample", FORK), ("chain_reject", CHAIN)):
            assert answers(op, logits, TOKENS, links_of(parents), coins, coins, 1.0) == ([0, -1, -1, -1], 6)
    q = DraftProbs([torch.full((4, 9), 1 / 9)])
    assert answers("chain_reject", logits, TOKENS, links_of(CHAIN), COINS * 0, COINS, 1.0, None, q)[1] == 6


def test_certain_tokens_always_pass() -> None:
    logits = torch.full((1, 4, 9), -INF)
    logits[0, [0, 1, 2, 3], [3, 4, 5, 8]] = 0.0
    coins = torch.full((1, 4), 1 - 2.0**-53, dtype=torch.float64)
    assert answers("chain_reject", logits, TOKENS, links_of(CHAIN), coins, coins, 1.0) == ([0, 1, 2, 3], 8)


def test_nothing_left_after_a_refusal() -> None:
    """q = p: a residual of nothing. Rounding may refuse all the same; then p itself is drawn from."""
    logits = torch.linspace(0, 1, 9).expand(1, 4, 9).contiguous()
    q = DraftProbs([torch.softmax(logits[0], -1)])
    almost = torch.full((1, 4), 1 + 1e-5, dtype=torch.float64)  # a coin no generator gives: it forces the refusal
    path, token = answers("chain_reject", logits, TOKENS, links_of(CHAIN), almost, COINS, 1.0, None, q)
    assert path == [0, -1, -1, -1]
    assert 0 <= token < 9


@pytest.mark.parametrize("temperature", [1e-38, 1e-3, 1e4])
def test_any_temperature(temperature: float) -> None:
    logits = torch.tensor([3.0, 1.0, 2.0, 2.5, -40.0, 1e4, 0.0]).roll(2).expand(1, 4, 7).contiguous()
    for op, parents in (("tree_sample", FORK), ("chain_reject", CHAIN)):
        answers(op, logits, TOKENS, links_of(parents), COINS, COINS, temperature)
    answers("chain_reject", logits, TOKENS, links_of(CHAIN), COINS, COINS, temperature, None, None, torch.tensor([3]))


def test_placeholders_are_never_followed() -> None:
    """-1 in the links, and tokens of pads that no vocabulary holds: reading there would be out of bounds."""
    tokens = torch.tensor([[0, 3, 10**12, 10**12]])
    links = links_of(torch.tensor([[-1, 0, -1, -1]]), tokens)
    logits = torch.zeros(1, 4, 9)
    for op in ("tree_sample", "chain_reject"):
        path, token = answers(op, logits, tokens, links, COINS * 0, COINS, 1.0)
        assert path == [0, 1, -1, -1]
        assert 0 <= token < 9
    column = torch.arange(9).where(torch.arange(9) < 4, -1)
    q = DraftProbs([torch.full((4, 4), 0.25)], column)
    answers("chain_reject", logits, tokens, links, COINS + 0.6, COINS, 1.0, None, q)


def unmixed(bits: int) -> int:
    """The state that splitmix64 mixes to `bits`: its three steps undone."""
    mask = (1 << 64) - 1
    for shift, factor in ((31, 1), (27, 0x94D049BB133111EB), (30, 0xBF58476D1CE4E5B9)):
        if factor != 1:
            bits = bits * pow(factor, -1, 1 << 64) & mask
        x = bits
        for _ in range(64 // shift + 1):
            x = bits ^ (x >> shift)
        bits = x
    return bits


@pytest.mark.parametrize("high", [0, (1 << 32) - 1])
def test_noise_is_never_zero_or_infinite(high: int) -> None:
    """Keys made so that token 2 gets the 32 bits 00..0 and 11..1: it wins, or loses, by a finite margin."""
    state = unmixed(high << 32) - 3 * 0x9E3779B97F4A7C15 & ((1 << 64) - 1)
    key = torch.tensor([state - (1 << 64) if state >> 63 else state])
    root = torch.tensor([[-1, -1, -1, -1]])
    logits = torch.zeros(1, 4, 9)
    given = (TOKENS, links_of(root), COINS, COINS, 1.0, None, None, key)
    _, token = answers("chain_reject", logits, *given)
    assert (token == 2) == (high == 0)
    logits[0, 0] = logits[0, 0].where(torch.arange(9) == 2, -INF)
    assert answers("chain_reject", logits, *given)[1] == 2  # alone it wins whatever its noise


@pytest.mark.parametrize("nodes", [1, 3])
def test_empty_batch(nodes: int) -> None:
    tokens = torch.zeros(0, nodes, dtype=torch.long)
    links = KERNEL.tree_links(tokens, tokens, tokens[:, 0])
    coins, logits = torch.zeros(0, nodes).double(), torch.zeros(0, nodes, 9)
    for op in ("tree_sample", "chain_reject"):
        walk = getattr(KERNEL, op)(logits, tokens, links, coins, coins, 1.0)
        assert (walk.accept_index.shape, walk.next_token.shape) == ((0, nodes), (0,))
    assert KERNEL.greedy_walk(tokens, links, tokens).next_token.shape == (0,)


def test_offsets_beyond_two_to_the_31() -> None:
    """Rows that lie more than 2^31 elements apart; the memory in between is reserved and never touched."""
    far, vocab = 2**31 + 40, 33
    buffer = torch.empty(far + 4 * 64, dtype=torch.bfloat16)
    logits = buffer.as_strided((2, 4, vocab), (far, 64, 1))
    logits[0], logits[1] = 0.0, torch.linspace(-4, 4, 4 * vocab).view(4, vocab)
    tokens = TOKENS.expand(2, 4).contiguous()
    coins = COINS.expand(2, 4).contiguous()
    for op, parents in (("tree_sample", FORK), ("chain_reject", CHAIN)):
        answers(op, logits, tokens, links_of(parents.expand(2, 4), tokens), coins, coins, 1.0)
    cache = buffer.as_strided((2, 1, 4, 8), (far, 32, 8, 1))
    cache[0], cache[1] = 1.0, torch.arange(32).view(1, 4, 8)
    query = torch.ones(2, 1, 2, 8, dtype=torch.bfloat16)
    bits, lengths = torch.tensor([[[1], [3]]] * 2), torch.tensor([1, 2])
    seen = [side.tree_attention(query, cache, cache, lengths, bits, 0.1) for side in (TWIN, KERNEL)]
    torch.testing.assert_close(*seen, rtol=0, atol=0.125)  # one unit in the last place of values up to 32
    KERNEL.move_slots([cache], torch.tensor([0, 0]), torch.tensor([[0, 2], [1, 3]]))
    assert cache[1, 0, :2].float().tolist() == torch.arange(32).view(4, 8)[[1, 3]].tolist()
