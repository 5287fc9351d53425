"""Training-time test: a head is trained on its own output, as many steps deep as it will draft (EAGLE-3, section 3.2).

Step 0 reads the target's features. Step j reads, at every column i at once, the g that step j-1 put out there, with the
text's own token i+1+j: the situation of a draft whose first j tokens were accepted. Its query sees what it would see
when drafting from column i:

    step 0's keys of columns 0 .. i   |   its own keys of steps 1 .. j at column i only (a diagonal each)

A column may be left out of further steps (`stay`): a draft whose first token was rejected never gets a second one.
Texts are packed end to end, so linear layers run over one long axis and nothing is padded; attention goes text by text.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from specdec_ref.drafters.eagle_head import EagleHead, Projected
from specdec_ref.training.features import Example

__all__ = ["Batch", "Stay", "Unroll", "attend", "pack", "unroll"]

Stay = Callable[[int, Tensor], Tensor]  # (step, rows) -> mask of the rows that go on to it
Unroll = Callable[..., Iterator[tuple[Tensor, Tensor]]]  # `unroll`, or its counterpart for another network


@dataclass(frozen=True, slots=True)
class Batch:
    """Packed texts. `pairs` are all (feature_i, token_{i+1}); `queries` those whose guess is a response token."""

    tokens: Int[Tensor, " tokens"]
    fused: Float[Tensor, "pairs features"]
    final: Float[Tensor, "queries hidden"]
    pair_token: Int[Tensor, " pairs"]  # index into `tokens` of a pair's token: token_{i+1}
    position: Int[Tensor, " pairs"]  # i, within its text
    query: Int[Tensor, " queries"]  # index into `pairs`
    left: Int[Tensor, " queries"]  # response tokens from a query's guess on, itself counted: >= 1
    spans: tuple[tuple[slice, slice], ...]  # each text's pairs and queries

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on a device."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "spans"}
        return replace(self, **{name: tensor.to(device) for name, tensor in tensors.items()})

    def step_tokens(self, step: int) -> Int[Tensor, " queries"]:
        """token_{i+1+step} of every query; past the end of a text it repeats the last one, which no loss reads."""
        ahead = torch.minimum(torch.full_like(self.left, step), self.left)
        return self.tokens[self.pair_token[self.query] + ahead]

    def guessed(self, step: int) -> Bool[Tensor, " queries"]:
        """Queries whose guess at this step is still a response token; their target's row is their own + step."""
        return self.left > step

    def answers(self, step: int) -> Int[Tensor, " queries"]:
        """The token each query guesses at this step, where `guessed`."""
        return self.step_tokens(step + 1)


def pack(examples: Sequence[Example], dtype: torch.dtype = torch.float32) -> Batch:
    """Put conversations end to end."""
    pair_token, position, query, left, spans = [], [], [], [], []
    token = pair = row = 0
    for example in examples:
        pairs, response = len(example.fused), example.response
        pair_token.append(torch.arange(token + 1, token + 1 + pairs))
        position.append(torch.arange(pairs))
        query.append(torch.arange(pair + pairs - response, pair + pairs))
        left.append(torch.arange(response, 0, -1))
        spans.append((slice(pair, pair + pairs), slice(row, row + response)))
        token, pair, row = token + len(example.tokens), pair + pairs, row + response
    return Batch(
        torch.cat([e.tokens for e in examples]),
        torch.cat([e.fused for e in examples]).to(dtype),
        torch.cat([e.final for e in examples]).to(dtype),
        torch.cat(pair_token),
        torch.cat(position),
        torch.cat(query),
        torch.cat(left),
        tuple(spans),
    )


def unroll(
    head: EagleHead, batch: Batch, steps: int, stay: Stay | None = None
) -> Iterator[tuple[Int[Tensor, " rows"], Float[Tensor, "rows hidden"]]]:
    """(rows, g) after each step: g[r] is the guess of the token after `step_tokens(step)[rows[r]]`; rows are queries.

    `stay(step, rows)`, asked before each further step: a mask of the rows that go on to it. None: all do.
    """
    first = head.project(head.fuse(batch.fused[None]), batch.tokens[batch.pair_token][None], batch.position[None])
    rows, later = torch.arange(len(batch.query)), list[tuple[Tensor, Tensor]]()
    residual, q = first.residual[:, batch.query], first.q[:, :, batch.query]
    for step in range(1, steps + 1):
        g = head.finish(residual, attend(q, first, later, batch, rows))
        yield rows, g[0]
        if step < steps:
            if stay is not None:
                kept = stay(step, rows).nonzero()[:, 0]
                rows, g = rows[kept], g[:, kept]
                later = [(k[:, :, kept], v[:, :, kept]) for k, v in later]
            here = head.project(g, batch.step_tokens(step)[None, rows], batch.position[batch.query[rows]][None] + step)
            later.append((here.k, here.v))
            residual, q = here.residual, here.q


def attend(
    q: Float[Tensor, "1 heads rows head_dim"],
    first: Projected,
    later: Sequence[tuple[Tensor, Tensor]],
    batch: Batch,
    rows: Int[Tensor, " rows"],
) -> Float[Tensor, "1 heads rows head_dim"]:
    """Attention text by text: to step 0's keys of the text's pairs so far, and to the row's own of later steps.

    Written out because a row uses one of its step's own keys: with the library's attention, the mask would have a
    column for each row, most of them hidden.
    """
    kv_heads, scale = first.k.shape[1], q.shape[-1] ** -0.5
    q = q[0].unflatten(0, (kv_heads, -1)) * scale  # heads that share keys side by side: kv_heads, group, rows, head_dim
    own = [(q * k[0, :, None]).sum(-1, keepdim=True) for k, _ in later]
    read, trust = [q[:, :, :0]], [q[:, :, :0, : len(later)]]  # all that there is if no row went on
    starts = torch.tensor([queries.start for _, queries in batch.spans] + [len(batch.query)])
    bounds = torch.searchsorted(rows, starts).tolist()
    for (pairs, _), begin, end in zip(batch.spans, bounds, bounds[1:], strict=False):
        if begin == end:
            continue
        length = pairs.stop - pairs.start
        hidden = torch.arange(length) > (batch.query[rows[begin:end]] - pairs.start)[:, None]
        scores = q[:, :, begin:end].flatten(1, 2) @ first.k[0, :, pairs].transpose(1, 2)
        scores = scores.unflatten(1, (-1, end - begin)).masked_fill(hidden, -torch.inf)
        weights = torch.cat([scores, *(part[:, :, begin:end] for part in own)], -1).softmax(-1)
        read.append((weights[..., :length].flatten(1, 2) @ first.v[0, :, pairs]).unflatten(1, (-1, end - begin)))
        trust.append(weights[..., length:])
    attended, shares = torch.cat(read, 2), torch.cat(trust, 2)
    for step, (_, v) in enumerate(later):
        attended = attended + shares[..., step : step + 1] * v[0, :, None]
    return attended.flatten(0, 1)[None]
