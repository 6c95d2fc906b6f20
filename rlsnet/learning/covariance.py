"""Protocol of P, the inverse of the penalised correlation matrix of a neuron's inputs, which can be stored in three forms.

    FullCovariance     [G, L, L] in engine precision
    EncodedCovariance  numbers of fewer bits, or packed upper triangles; decoded in blocks of groups
    WindowCovariance   the inputs at the last learning points, from which P is computed

A learning rule uses the P of one group, with two methods: `product(x)` = P x, and `downdate(k, den, scale)` = P after a rank-1 downdate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, Self

from jax import Array, lax

from rlsnet.model.network import Network

EXACT = lax.Precision.HIGHEST  # no TF32 on GPUs


Extra = dict[str, tuple[Any, list[str]]]  # arrays of a checkpoint by name, with the names of their dimensions


Rule = Callable[..., Any]  # (P of a group, w [L, S], x [L], e [S], trained) -> (P, w), for one group


class Covariance(Protocol):
    """P of all groups of neurons; a pytree."""

    @property
    def numbers(self) -> Array | None:
        """Elements of P, [G, L, L] or packed [G, L*(L+1)/2], which a checkpoint stores in blocks; None if P is not stored."""

    def update(self, rule: Rule, network: Network, r: Array, w: Array, x: Array, e: Array, trained: Array) -> tuple[Self, Array]:
        """P and w [G, L, S] after one learning point.

        Args:
          rule: learning rule of one group.
          network: neurons and connectivity.
          r: [N+X] filtered spikes, 1/ms.
          w: [G, L, S] trained weights.
          x: [G, L] filtered spikes of the inputs.
          e: [G, S] errors.
          trained: [G] bool, whether any neuron of the group is trained at this learning point.
        """

    def extra(self) -> Extra:
        """Other arrays of P that a checkpoint stores."""

    def restored(self, numbers: Any, extra: Mapping[str, Array]) -> Self:
        """P of the same form with the arrays of a checkpoint; `numbers` is None if P is not stored."""
