"""The one attention processor for all operators, and watching what passes through it.

It keeps nothing between calls: the operator is a submodule of the attention, where it stands comes from the
clock, and with neither operator nor observer its result is bit-equal to the original processor's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from torch import Tensor, nn

from workbench.models.adapter import Adapter
from workbench.operators.context import (
    AttentionContext,
    BlockContext,
    ForwardClock,
    attach_clock,
    release_clock,
)
from workbench.operators.softmax import softmax_attention

OPERATOR = "operator"
"""Name of the operator inside the self-attention module, and so in state-dict keys."""

Observer = Callable[[int, Tensor, Tensor, Tensor, AttentionContext], None]


class HasTransformer(Protocol):
    """A `LoadedModel`, or anything else with a transformer and its adapter."""

    @property
    def transformer(self) -> nn.Module: ...

    @property
    def adapter(self) -> Adapter: ...


class OperatorProcessor:
    """Compute one self-attention: project, let observers look, attend with the block's operator, project
    back.

    `original` is the processor that was there; diffusers' attention backend is read from it and set on it.
    """

    def __init__(
        self, original: Any, *, clock: ForwardClock, block: int, observers: tuple[Observer, ...] = ()
    ) -> None:
        self.original = original
        self.clock = clock
        self.context = BlockContext(clock, block, original)
        self.observers = observers

    @property
    def _attention_backend(self) -> Any:
        return self.original._attention_backend

    @_attention_backend.setter
    def _attention_backend(self, backend: Any) -> None:
        self.original._attention_backend = backend

    @property
    def _parallel_config(self) -> Any:
        return self.original._parallel_config

    @_parallel_config.setter
    def _parallel_config(self, config: Any) -> None:
        self.original._parallel_config = config

    def __call__(
        self,
        attn: nn.Module,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: Any = None,
        **arguments: Any,
    ) -> Tensor:
        """Attend from [B, N, H*D] to [B, N, H*D], with the signature of diffusers' processors."""
        adapter = self.clock.adapter
        query, key, value = adapter.query_key_value(attn, hidden_states, rotary_emb=rotary_emb, **arguments)
        return adapter.output(attn, self.attend(attn, query, key, value))

    def attend(self, attn: nn.Module, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Let observers look and attend with the block's operator; [B, N, H, D] in and out."""
        for observer in self.observers:
            observer(self.context.block, query, key, value, self.context.freeze())
        operator = None if self.clock.dense else getattr(attn, OPERATOR, None)
        if operator is None:
            result = softmax_attention(
                query, key, value, backend=self._attention_backend, parallel_config=self._parallel_config
            )
        else:
            result = operator(query, key, value, context=self.context)
        return result.type_as(query)


@contextmanager
def observe(
    model: HasTransformer, callback: Observer, *, blocks: Sequence[int] | None = None
) -> Iterator[None]:
    """Let `callback` see every self-attention of a model while the block runs; results stay bit-equal.

    `callback(block, query, key, value, context)` sees [B, N, H, D] after qk-norm and rotary embedding. A
    student may be observed too, and observers may be nested.

    Args:
        model: the model to watch.
        callback: must not change what it is given.
        blocks: which blocks; None for all.
    """
    transformer, adapter = model.transformer, model.adapter
    chosen = range(adapter.shape(transformer).num_blocks) if blocks is None else blocks
    attentions: list[Any] = [adapter.attention(transformer, block) for block in chosen]
    before = [attention.processor for attention in attentions]
    clock = attach_clock(transformer, adapter)
    try:
        for block, attention, processor in zip(chosen, attentions, before, strict=True):
            known = isinstance(processor, OperatorProcessor)
            attention.set_processor(
                OperatorProcessor(
                    processor.original if known else processor,
                    clock=clock,
                    block=block,
                    observers=(*processor.observers, callback) if known else (callback,),
                )
            )
        yield
    finally:
        for attention, processor in zip(attentions, before, strict=True):
            attention.set_processor(processor)
        release_clock(transformer)
