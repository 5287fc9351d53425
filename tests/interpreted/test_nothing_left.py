"""A rejection by rounding, with q >= p everywhere: the residual is empty, and the token is a draw from p."""

import torch

from specdec_ref.kernels import ops
from specdec_ref.kernels.contract import DraftProbs


def test_an_empty_residual_draws_from_p_by_keys_and_by_coins() -> None:
    size, vocab = 40, 5
    logits = torch.tensor([0.0, 1.0, -30.0, 0.5, 0.0]).expand(size, 2, vocab)
    p = torch.softmax(logits[0, 0], -1)
    tokens = torch.tensor([[0, 2]]).expand(size, 2)  # the draft is a token that p all but excludes
    links = ops("torch").tree_links(
        tokens, torch.tensor([[-1, 0]]).expand(size, 2), torch.zeros(size, dtype=torch.long)
    )
    above = p * 1.001 + torch.tensor([0.0, 0.0, 0.5, 0.0, 0.0])
    q = DraftProbs([above.expand(2, vocab).contiguous() for _ in range(size)])
    coins, keys = torch.full((size, 2), 0.999).double(), torch.arange(size) * 7919 + 1
    last = torch.linspace(0.001, 0.999, size).double()[:, None].expand(size, 2)
    for given in (None, keys):
        answers = []
        for name in ("torch", "triton"):
            walk = ops(name).chain_reject(logits, tokens, links, coins, last, 1.0, None, q, given)
            assert bool((walk.accept_index[:, 1] == -1).all())
            share = torch.bincount(walk.next_token, minlength=vocab) / size  # raises for -1
            assert float((share - p).abs().max()) < 0.25
            answers.append(walk.next_token)
        assert torch.equal(*answers)
