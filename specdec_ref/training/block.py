"""The rows of a block in training: from every response token, a block is predicted as if the text ended there.

Query i is the pair (feature_i, token_{i+1}), as in `unroll.py`: token_{i+1} is the root, the features 0 .. i are the
context, and row j of the block predicts token_{i+2+j}. The Markov head reads the text's own token before it, the
situation of a draft whose tokens so far were accepted. One pass computes all rows, so nothing is fed back.
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from specdec_ref.drafters.block_head import BlockHead, block_config
from specdec_ref.training.unroll import Batch, Stay

__all__ = ["BLOCK", "new_block", "unroll_block"]

BLOCK, RANK = 4, 16  # of new heads: tokens per block, and the rank of the Markov head


@torch.no_grad()
def new_block(
    target: nn.Module, q_vocab: Int[Tensor, " draft_vocab"] | None = None, *, rank: int = RANK, block: int = BLOCK,
    layers: int = 1,
) -> BlockHead:  # fmt: skip
    """An untrained head for a Llama-like target; float32. Its embeddings and LM head are the target's, frozen.

    It is warm-started: `fc` passes the last of the three features on, v and o of the first layer pass on what a row
    attends to, and its MLP has neurons of the target's last one. W2 starts at zero: rank r predicts what rank 0 does.
    """
    model: Any = target
    head = BlockHead(block_config(model.config, layers), block, rank, q_vocab).float()
    head.embed_tokens.weight.copy_(model.get_input_embeddings().weight)
    lm_head, hidden = model.get_output_embeddings().weight, head.config.hidden_size
    head.lm_head.weight.copy_(lm_head if q_vocab is None else lm_head[q_vocab])
    for frozen in (head.embed_tokens, head.lm_head):
        frozen.requires_grad_(False)
    head.fc.weight.mul_(0.1)[:, -hidden:] += torch.eye(hidden)
    head.norm.load_state_dict(model.base_model.norm.state_dict())
    layer: Any = head.layers[0]
    last, width = model.base_model.layers[-1], head.config.intermediate_size
    for linear in (layer.self_attn.v_proj, layer.self_attn.o_proj):
        linear.weight.mul_(0.1).add_(torch.eye(*linear.weight.shape))
    layer.mlp.gate_proj.weight.copy_(last.mlp.gate_proj.weight[:width])
    layer.mlp.up_proj.weight.copy_(last.mlp.up_proj.weight[:width])
    layer.mlp.down_proj.weight.copy_(last.mlp.down_proj.weight[:, :width])
    layer.post_attention_layernorm.load_state_dict(last.post_attention_layernorm.state_dict())
    head.confidence.weight.zero_()
    if rank:
        head.after.weight.zero_()
    return head


def unroll_block(
    head: BlockHead, batch: Batch, steps: int, stay: Stay | None = None
) -> Iterator[tuple[Int[Tensor, " rows"], Float[Tensor, "rows both"]]]:
    """(rows, g) of each row of the block, see `BlockHead.joined`; rows are queries.

    `stay(step, rows)`: as for `unroll`, and it saves the loss alone. Raises ValueError for more steps than the block.
    """
    if steps > head.block:
        raise ValueError(f"the block has {head.block} tokens, asked for {steps}")
    context = head.keys(batch.fused[None], batch.position[None])
    roots = batch.tokens[batch.pair_token[batch.query]]
    positions = batch.position[batch.query][:, None] + torch.arange(1, head.block + 1)
    h = head.rows(roots, positions, lambda i, q, k, v: _attend(q, k, v, context[i], batch))
    rows = torch.arange(len(roots))
    for step in range(steps):
        if step and stay is not None:
            rows = rows[stay(step, rows)]
        yield rows, head.joined(h[rows, step], batch.step_tokens(step)[rows])


def _attend(
    q: Float[Tensor, "queries heads block head_dim"],
    k: Float[Tensor, "queries key_heads block head_dim"],
    v: Float[Tensor, "queries key_heads block head_dim"],
    context: tuple[Tensor, Tensor],
    batch: Batch,
) -> Float[Tensor, "queries heads block head_dim"]:
    """Attention text by text: to the context up to each query's own feature, and to all of the query's block."""
    _, heads, block, size = q.shape
    group = heads // k.shape[1]
    k, v = (x.repeat_interleave(group, 1) for x in (k, v))
    context = tuple(x[0].repeat_interleave(group, 0) for x in context)  # type: ignore[assignment]
    q = q * size**-0.5
    own, read = q @ k.transpose(-1, -2), []
    for pairs, queries in batch.spans:
        length, count = pairs.stop - pairs.start, queries.stop - queries.start
        hidden = torch.arange(length) > (batch.query[queries] - pairs.start)[:, None]
        flat = q[queries].transpose(0, 1).flatten(1, 2)  # heads x (queries of this text, block) x head_dim
        scores = (flat @ context[0][:, pairs].transpose(1, 2)).unflatten(1, (count, block))
        scores = scores.masked_fill(hidden[None, :, None], -torch.inf)
        weights = torch.cat([scores, own[queries].transpose(0, 1)], -1).softmax(-1).to(v.dtype)
        found = (weights[..., :length].flatten(1, 2) @ context[1][:, pairs]).unflatten(1, (count, block))
        read.append((found + weights[..., length:] @ v[queries].transpose(0, 1)).transpose(0, 1))
    return torch.cat(read)
