"""Decoding token by token: one row a sequence, a cache of keys and values that is written in place.

A decoder says what comes next for each of its rows, is told what was drawn, and can forget rows that have ended.
Prompts are read once, whatever the number of samples. Called by the sampler alone; axes as in `policies.transformer`,
and here L columns of the cache, R rows that are still decoded.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional
from transformers import DynamicCache

from policies import transformer
from policies.batch import TokenBatch, positions_BL
from policies.precision import Precision, module_precision


class Decoder(Protocol):
    """Logits after prompts, then after each token."""

    def first(self) -> Tensor:
        """Logits after the prompts; float32 [B, V]."""
        ...

    def after(self, token_R: Tensor) -> Tensor:
        """Append a token to each row; gives the logits after it, float32 [R, V]."""
        ...

    def keep(self, index_R: Tensor) -> None:
        """Go on with these rows only."""
        ...


def decoder(
    model: Any,
    prompt_ids_GP: Tensor,
    prompt_keep_GP: Tensor,
    samples: int,
    max_new_tokens: int,
    precision: Precision = Precision.FLOAT32,
) -> Decoder:
    """Begin to decode `samples` rows for each prompt, padded on the left."""
    kind = LlamaDecoder if transformer.recognises(model) else ModuleDecoder
    return kind(model, prompt_ids_GP, prompt_keep_GP, samples, max_new_tokens, precision)


@dataclass(frozen=True, slots=True)
class _Block:
    """A layer's weights, joined where they share an input, each with the norm before it multiplied in; then rounded."""

    qkv: Tensor
    """Queries come out scaled by 1 / √h."""
    out: Tensor
    gate_up: Tensor
    down: Tensor

    @classmethod
    def of(cls, layer: Any, dtype: torch.dtype) -> "_Block":
        attention, mlp = layer.self_attn, layer.mlp
        q = attention.q_proj.weight * attention.head_dim**-0.5
        qkv = torch.cat([q, attention.k_proj.weight, attention.v_proj.weight]) * layer.input_layernorm.weight
        gate_up = torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]) * layer.post_attention_layernorm.weight
        return cls(
            qkv=qkv.to(dtype),
            out=attention.o_proj.weight.to(dtype),
            gate_up=gate_up.to(dtype),
            down=mlp.down_proj.weight.to(dtype),
        )


class LlamaDecoder:
    """For models that `transformer.recognises`. Holds a second copy of the layers' weights while it lives."""

    def __init__(
        self, model: Any, ids_GP: Tensor, keep_GP: Tensor, samples: int, max_new_tokens: int, precision: Precision
    ) -> None:
        config, backbone = model.config, model.model
        self._embedding = backbone.embed_tokens.weight
        self._head = (model.lm_head.weight * backbone.norm.weight).to(precision.dtype)
        self._epsilon = torch.tensor(config.rms_norm_eps, device=ids_GP.device)
        self._blocks = [_Block.of(layer, precision.dtype) for layer in backbone.layers]
        self._query_heads, self._kv_heads, self._size = (
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
        )
        one_GT = torch.ones(len(ids_GP), 1, dtype=torch.bool, device=ids_GP.device)
        layout = transformer.Layout.of(TokenBatch(ids_GP, keep_GP, one_GT.long(), one_GT))
        seen: list[tuple[Tensor, Tensor]] = []
        own_GD = transformer.states(model, layout, seen, precision.dtype)
        self._first = transformer.product(own_GD, model.lm_head.weight.to(precision.dtype))
        self._samples = samples
        self._column = ids_GP.shape[1]
        length_G = keep_GP.sum(dim=1)
        self._position_R = length_G.repeat_interleave(samples)
        columns = self._column + max_new_tokens
        self._cache = [(self._room(k, columns), self._room(v, columns)) for k, v in seen]
        self._hidden_RL = self._hidden(columns) if int(length_G.min()) < self._column else None
        half = transformer.angles(backbone, torch.arange(columns, device=ids_GP.device))
        self._cos = torch.cat([half.cos(), half.cos()], dim=1).unsqueeze(1)
        self._sin = torch.cat([-half.sin(), half.sin()], dim=1).unsqueeze(1)

    def first(self) -> Tensor:
        return self._first.repeat_interleave(self._samples, dim=0)

    def after(self, token_R: Tensor) -> Tensor:
        rows, seen = len(token_R), self._column + 1
        cos, sin = self._cos[self._position_R], self._sin[self._position_R]
        x_RD = functional.embedding(token_R, self._embedding)
        for block, (k_cache, v_cache) in zip(self._blocks, self._cache, strict=True):
            heads = transformer.product(self._normed(x_RD), block.qkv).view(rows, -1, self._size)
            turning, v = heads.split([self._query_heads + self._kv_heads, self._kv_heads], dim=1)
            turned = (turning * cos).addcmul_(turning.roll(self._size // 2, -1), sin)
            q, k = turned.split([self._query_heads, self._kv_heads], dim=1)
            k_cache[:, :, self._column] = k
            v_cache[:, :, self._column] = v
            # Query heads that share a key head stand next to one another: one product each.
            share = torch.matmul(q.reshape(rows, self._kv_heads, -1, self._size), k_cache[:, :, :seen].transpose(2, 3))
            if self._hidden_RL is not None:
                share += self._hidden_RL[:, None, None, :seen]
            attended = torch.matmul(torch.softmax(share, dim=-1), v_cache[:, :, :seen])
            x_RD += transformer.product(attended.view(rows, -1), block.out)
            gate, up = transformer.product(self._normed(x_RD), block.gate_up).chunk(2, dim=-1)
            x_RD += transformer.product(functional.silu(gate).mul_(up), block.down)
        self._column += 1
        self._position_R = self._position_R + 1
        return transformer.product(self._normed(x_RD), self._head)

    def keep(self, index_R: Tensor) -> None:
        self._cache = [(k.index_select(0, index_R), v.index_select(0, index_R)) for k, v in self._cache]
        self._position_R = self._position_R[index_R]
        if self._hidden_RL is not None:
            self._hidden_RL = self._hidden_RL[index_R]

    def _normed(self, x_RD: Tensor) -> Tensor:
        """Root mean square 1; the norm's weight is in the product that follows."""
        size = torch.linalg.vector_norm(x_RD, dim=-1, keepdim=True)
        return x_RD * torch.addcmul(self._epsilon, size, size, value=1 / x_RD.shape[-1]).rsqrt_()

    def _room(self, prompt_GPHh: Tensor, columns: int) -> Tensor:
        """Put what prompts left behind into a cache [B, H', L, h] with room for the responses."""
        groups, width, heads, size = prompt_GPHh.shape
        cache = prompt_GPHh.new_empty(groups, self._samples, heads, columns, size)
        cache[:, :, :, :width] = prompt_GPHh.transpose(1, 2).unsqueeze(1)
        return cache.flatten(0, 1)

    def _hidden(self, columns: int) -> Tensor:
        """0 where a row has a token, -inf in the columns between its prompt's end and the longest prompt's."""
        column_L = torch.arange(columns, device=self._position_R.device)
        hidden_RL = (column_L >= self._position_R.unsqueeze(1)) & (column_L < self._column)
        return torch.zeros(hidden_RL.shape, device=hidden_RL.device).masked_fill_(hidden_RL, -torch.inf)


class ModuleDecoder:
    """For every other causal language model: its own forward pass with its own cache."""

    def __init__(
        self, model: Any, ids_GP: Tensor, keep_GP: Tensor, samples: int, max_new_tokens: int, precision: Precision
    ) -> None:
        self._model, self._precision = model, precision
        self._cache = DynamicCache(config=model.config)
        self._keep_RL = None if bool(keep_GP.all()) else keep_GP.repeat_interleave(samples, dim=0)
        arguments = {}
        if self._keep_RL is not None:
            arguments = {"attention_mask": keep_GP.long(), "position_ids": positions_BL(keep_GP)}
        logits_GV = self._say(ids_GP, logits_to_keep=1, **arguments)
        self._first = logits_GV.repeat_interleave(samples, dim=0)
        self._cache.batch_repeat_interleave(samples)

    def first(self) -> Tensor:
        return self._first

    def after(self, token_R: Tensor) -> Tensor:
        arguments = {}
        if self._keep_RL is not None:
            self._keep_RL = functional.pad(self._keep_RL, (0, 1), value=True)
            position_R1 = self._keep_RL.sum(dim=1, keepdim=True) - 1
            arguments = {"attention_mask": self._keep_RL.long(), "position_ids": position_R1}
        return self._say(token_R.unsqueeze(1), **arguments)

    def keep(self, index_R: Tensor) -> None:
        self._cache.batch_select_indices(index_R)
        if self._keep_RL is not None:
            self._keep_RL = self._keep_RL[index_R]

    def _say(self, ids: Tensor, **arguments: Any) -> Tensor:
        with module_precision(self._precision, ids.device):
            said = self._model(input_ids=ids, past_key_values=self._cache, use_cache=True, **arguments)
        return said.logits[:, -1].float()
