"""The forward pass of the Llama family, written for this work: nothing padded, every prompt once.

`recognises` says whether a model is exactly what is computed here; for any other model callers use its own forward
pass. Parameters are those of the Hugging Face module, and gradients arrive there.

Further axes: X packed tokens (all prompts' tokens, then the response tokens that have to be read), S columns of
attended keys, H heads, h head size, I inner size of the feed-forward part.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional
from transformers import LlamaForCausalLM, LlamaModel
from transformers.models.llama.modeling_llama import (
    LlamaAttention,
    LlamaDecoderLayer,
    LlamaMLP,
    LlamaRMSNorm,
    LlamaRotaryEmbedding,
)

from policies.batch import TokenBatch

_MODULES = {
    LlamaForCausalLM,
    LlamaModel,
    LlamaDecoderLayer,
    LlamaAttention,
    LlamaMLP,
    LlamaRMSNorm,
    LlamaRotaryEmbedding,
    torch.nn.ModuleList,
    torch.nn.Linear,
    torch.nn.Embedding,
    torch.nn.SiLU,
}
"""Exact types: an adapter, a quantised layer or a subclass is something else."""
_ACTIVATIONS = {"silu", "swish"}


def recognises(model: Any) -> bool:
    """Say whether `model` (with or without language-modelling head) is exactly what this module computes.

    Llama with plain rotary positions, no biases, no dropout, float32 weights, no hooks.
    """
    config = getattr(model, "config", None)
    if type(model) not in (LlamaForCausalLM, LlamaModel) or config is None:
        return False
    plain = (
        config.hidden_act in _ACTIVATIONS
        and not config.attention_bias
        and not config.mlp_bias
        and not config.attention_dropout
        and config.rope_parameters["rope_type"] == "default"
        and config.rope_parameters.get("partial_rotary_factor", 1.0) == 1.0
    )
    return (
        plain
        and all(_is_plain(module) for module in model.modules())
        and all(weight.dtype == torch.float32 for weight in model.parameters())
    )


def _is_plain(module: torch.nn.Module) -> bool:
    known = type(module) in _MODULES or type(module).__name__ == "SiLUActivation"
    hooked = module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module)
    return known and not hooked


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the tokens of a batch stand when packed, and back."""

    ids_X: Tensor
    """int64; first the prompts' tokens, prompt by prompt, then the responses', row by row."""
    position_X: Tensor
    """int64, each sequence counted from 0."""
    wanted_N: Tensor
    """int64, index into X: whose state is wanted for each kept response token."""
    prompts: "Ragged"
    responses: "Ragged"
    """Of the response tokens that stand among X."""
    mask_B1TS: Tensor
    """float32, 0 = seen, -inf = not; what response tokens see: prompt columns, then response columns. B may be 1."""
    samples_per_prompt: int

    @classmethod
    def of(cls, batch: TokenBatch, *, own_states: bool = False) -> "Layout":
        """Lay out a batch.

        The state wanted for a response token is the one that it is predicted from, its predecessor's, so that a
        response's last token need not be read; with `own_states` it is the token's own.

        Raises:
            ValueError: if a prompt is empty: nothing would predict its responses' first tokens.
        """
        prompts = Ragged.of(batch.prompt_keep_GP.flip(1))
        keep_BT = batch.response_keep_BT
        read_BT = keep_BT if own_states else keep_BT[:, 1:]
        responses = Ragged.of(read_BT)
        each, device = batch.samples_per_prompt, keep_BT.device
        length_G, read_B = batch.prompt_keep_GP.sum(dim=1), read_BT.sum(dim=1)
        if not bool((length_G > 0).all()):
            raise ValueError("a prompt has no tokens; begin it with a start token")
        length_B = length_G.repeat_interleave(each)
        column_T = torch.arange(keep_BT.shape[1], device=device)
        wanted_BT = (length_G.sum() + read_B.cumsum(0) - read_B).unsqueeze(1) + column_T
        if not own_states:
            # Before the first response token stands its prompt's last token, before every other one its predecessor.
            last_B1 = (length_G.cumsum(0).repeat_interleave(each) - 1).unsqueeze(1)
            wanted_BT = torch.where(column_T == 0, last_B1, wanted_BT - 1)
        prompt_position_GP = torch.arange(batch.prompt_keep_GP.shape[1], device=device).expand_as(batch.prompt_keep_GP)
        return cls(
            ids_X=torch.cat(
                [batch.prompt_ids_GP[batch.prompt_keep_GP], batch.response_ids_BT[:, : responses.columns][read_BT]]
            ),
            position_X=torch.cat(
                [
                    prompts.pack(prompt_position_GP),
                    responses.pack(length_B.unsqueeze(1) + column_T[: responses.columns]),
                ]
            ),
            wanted_N=wanted_BT[keep_BT],
            prompts=prompts,
            responses=responses,
            mask_B1TS=_mask(length_B, int(length_G.min()), prompts.columns, responses.columns),
            samples_per_prompt=each,
        )


def _mask(length_B: Tensor, shortest: int, prompt_columns: int, response_columns: int) -> Tensor:
    column_T = torch.arange(response_columns, device=length_B.device)
    causal_TT = column_T <= column_T.unsqueeze(1)
    rows = length_B if shortest < prompt_columns else length_B[:1]
    prompt_BP = torch.arange(prompt_columns, device=length_B.device) < rows.unsqueeze(1)
    seen_BTS = torch.cat(
        [
            prompt_BP.unsqueeze(1).expand(-1, response_columns, -1),
            causal_TT.unsqueeze(0).expand(len(rows), -1, -1),
        ],
        dim=2,
    )
    return torch.zeros(seen_BTS.shape, device=length_B.device).masked_fill(~seen_BTS, -torch.inf).unsqueeze(1)


@dataclass(frozen=True, slots=True)
class Ragged:
    """Rows of unequal length that begin in one column: how to lay them out in a rectangle, and how to pack them."""

    rows: int
    columns: int
    slot_X: Tensor | None
    """int64; place of each packed token in the flattened rectangle. None = the rectangle is full."""

    @classmethod
    def of(cls, keep_RC: Tensor) -> "Ragged":
        """Take rows whose tokens stand where `keep_RC` is True, in the leading columns."""
        rows, columns = keep_RC.shape
        full = bool(keep_RC.all())
        return cls(rows, columns, None if full else keep_RC.reshape(-1).nonzero().squeeze(1))

    @property
    def tokens(self) -> int:
        """Count what is kept."""
        return self.rows * self.columns if self.slot_X is None else len(self.slot_X)

    def pack(self, values_RC: Tensor) -> Tensor:
        """[R, C, ...] to [X, ...]. Differentiable."""
        flat = values_RC.flatten(0, 1)
        return flat if self.slot_X is None else _Pack.apply(flat, self.slot_X)

    def unpack(self, values_X: Tensor) -> Tensor:
        """[X, ...] to [R, C, ...], 0 in empty places. Differentiable."""
        flat = values_X if self.slot_X is None else _Unpack.apply(values_X, self.slot_X, self.rows * self.columns)
        return flat.unflatten(0, (self.rows, self.columns))


class _Pack(Function):
    """Rows by index. No row is taken twice, so gradients are put in place rather than added up."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, index: Tensor) -> Tensor:
        ctx.index, ctx.rows = index, len(values)
        return values.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _place(grads[0], ctx.index, ctx.rows), None


class _Unpack(Function):
    """The opposite of `_Pack`."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, index: Tensor, rows: int) -> Tensor:
        ctx.index = index
        return _place(values, index, rows)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return grads[0].index_select(0, ctx.index), None, None


def _place(values: Tensor, index: Tensor, rows: int) -> Tensor:
    return values.new_zeros(rows, *values.shape[1:]).index_copy_(0, index, values)


def states(
    model: Any,
    layout: Layout,
    seen: list[tuple[Tensor, Tensor]] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Final hidden states wanted for each kept response token, after the last norm; float32 [N, D]. Differentiable.

    model: one that `recognises` accepts. seen: gathers, layer by layer, the prompts' keys and values
    [G, P, H', h], for a decoder to go on from; each prompt in the leading columns. dtype: of the factors where states
    are multiplied by weights; all else is float32.
    """
    backbone = getattr(model, "model", model)
    config = backbone.config
    angle_X1h = angles(backbone, layout.position_X).unsqueeze(1)
    cos, sin = angle_X1h.cos(), angle_X1h.sin()
    x_XD = functional.embedding(layout.ids_X, backbone.embed_tokens.weight)
    for number, layer in enumerate(backbone.layers):
        attention, norm = layer.self_attn, layer.input_layernorm
        qkv = torch.cat([attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight])
        heads_XHh = linear(_norm(x_XD, norm), qkv, dtype).unflatten(1, (-1, attention.head_dim))
        attended_XD = _attend(heads_XHh, cos, sin, config.num_attention_heads, layout, seen)
        x_XD = x_XD + linear(attended_XD, attention.o_proj.weight, dtype)
        if number + 1 == len(backbone.layers):
            x_XD = x_XD.index_select(0, layout.wanted_N)  # nobody asks about the others any more
        n_XD, mlp = _norm(x_XD, layer.post_attention_layernorm), layer.mlp
        inner_XI = _Gated.apply(linear(n_XD, mlp.gate_proj.weight, dtype), linear(n_XD, mlp.up_proj.weight, dtype))
        x_XD = x_XD + linear(inner_XI, mlp.down_proj.weight, dtype)
    return _norm(x_XD, backbone.norm)


def angles(backbone: Any, position_X: Tensor) -> Tensor:
    """Rotary angle of each pair of a head's numbers at each position; float32 [X, h / 2]."""
    return position_X.unsqueeze(1).float() * backbone.rotary_emb.inv_freq.float()


def _attend(
    heads_XHh: Tensor,
    cos: Tensor,
    sin: Tensor,
    query_heads: int,
    layout: Layout,
    seen: list[tuple[Tensor, Tensor]] | None,
) -> Tensor:
    """Causal attention; a response sees its prompt and itself. heads: queries, then keys, then values."""
    prompts, responses = layout.prompts, layout.responses
    parts = [part.split([prompts.tokens, responses.tokens]) for part in _Rotate.apply(heads_XHh, cos, sin, query_heads)]
    q_GPHh, k_GPHh, v_GPHh = (prompts.unpack(part) for part, _ in parts)
    if seen is not None:
        seen.append((k_GPHh, v_GPHh))
    packed = [prompts.pack(_sdpa(q_GPHh, k_GPHh, v_GPHh, None))]
    if responses.tokens:
        q_BTHh, k_BTHh, v_BTHh = (responses.unpack(part) for _, part in parts)
        k_BSHh, v_BSHh = (
            torch.cat([_for_each(shared, layout.samples_per_prompt), own], dim=1)
            for shared, own in ((k_GPHh, k_BTHh), (v_GPHh, v_BTHh))
        )
        packed.append(responses.pack(_sdpa(q_BTHh, k_BSHh, v_BSHh, layout.mask_B1TS)))
    return torch.cat(packed).flatten(1)


def _for_each(values_G: Tensor, samples: int) -> Tensor:
    """[G, ...] to [B, ...], each K times."""
    return values_G.unsqueeze(1).expand(-1, samples, *values_G.shape[1:]).flatten(0, 1)


def _sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Attention of q [R, C, H, h] to k and v [R, S, H', h] under an additive mask, or a causal one."""
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    grouped = q.shape[1] != k.shape[1]
    said = functional.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None, enable_gqa=grouped)
    return said.transpose(1, 2)


def linear(x_XD: Tensor, weight: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """x · weightᵀ in float32, the factors of it and of its gradients rounded to `dtype`; differentiable in both."""
    return _Linear.apply(x_XD, weight, dtype)


class _Linear(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
        x, weight = x.to(dtype), weight.to(dtype)
        ctx.save_for_backward(x, weight)
        return product(x, weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        dy = grads[0].to(x.dtype)
        dx = product(dy, weight.T) if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return dx, None, None
        # The wider factor is the one that oneDNN lays out anew, which it does faster than a plain transposition.
        wide = weight.shape[0] > weight.shape[1]
        return dx, product(x.T, dy.T).T if wide else product(dy.T, x.T), None


def product(a: Tensor, b: Tensor) -> Tensor:
    """a · bᵀ of matrices [M, K] and [N, K], in float32; no gradient of its own.

    Where b is bfloat16, a is rounded to it, and so is the result, from sums in float32.

    torch gives float32 products to MKL, which keeps to narrower instructions on processors that are not Intel's;
    oneDNN uses what is there: twice as fast on an AMD EPYC with AVX-512, the same exact float32.
    """
    if b.dtype == torch.bfloat16:
        return functional.linear(a.to(b.dtype), b).float()
    if _ONE_DNN and a.device.type == "cpu" and a.dtype == torch.float32:
        return torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")
    return functional.linear(a, b)


_ONE_DNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _norm(x_XD: Tensor, norm: Any) -> Tensor:
    return _RootMeanSquareNorm.apply(x_XD, norm.weight, norm.variance_epsilon)


class _RootMeanSquareNorm(Function):
    """x / √(mean x² + ε) · weight (arXiv:1910.07467)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        scale = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        scale = scale.square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return (x * scale).mul_(weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        (dy,), (x, weight, scale) = grads, ctx.saved_tensors
        normed = x * scale
        dweight = (dy * normed).sum(dim=0)
        dnormed = dy * weight
        along = (dnormed * normed).mean(dim=-1, keepdim=True)
        return dnormed.sub_(normed.mul_(along)).mul_(scale), dweight, None


class _Gated(Function):
    """silu(gate) · up; keeps its arguments only."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return functional.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        (dy,), (gate, up) = grads, ctx.saved_tensors
        dgate = torch.ops.aten.silu_backward(dy * up, gate)
        return dgate, functional.silu(gate).mul_(dy)


class _Rotate(Function):
    """Heads [X, H, h] into queries, keys and values of their own; rotary positions on the first two.

    Halves are rotated against one another, as Hugging Face lays heads out (arXiv:2104.09864).
    """

    @staticmethod
    def forward(ctx: Any, heads: Tensor, cos: Tensor, sin: Tensor, query_heads: int) -> tuple[Tensor, Tensor, Tensor]:
        kv_heads = (heads.shape[1] - query_heads) // 2
        ctx.save_for_backward(cos, sin)
        q, k, v = heads.split([query_heads, kv_heads, kv_heads], dim=1)
        return _rotated(q, cos, sin), _rotated(k, cos, sin), v.clone(memory_format=torch.contiguous_format)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        dq, dk, dv = grads
        cos, sin = ctx.saved_tensors
        return torch.cat([_rotated(dq, cos, -sin), _rotated(dk, cos, -sin), dv], dim=1), None, None, None


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    turned = torch.empty_like(x, memory_format=torch.contiguous_format)
    for out, mine, other, sign in zip(turned.chunk(2, dim=-1), (first, second), (second, first), (-1, 1), strict=True):
        torch.mul(mine, cos, out=out).addcmul_(other, sin, value=sign)
    return turned
