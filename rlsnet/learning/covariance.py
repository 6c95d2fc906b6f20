"""P, the inverse correlation matrix of a neuron's inputs, in the forms in which it can be kept.

    FullCovariance     [G, L, L] in the numbers of the engine
    EncodedCovariance  in numbers of fewer bits, or as packed upper triangles; decoded a block of groups at a time
    WindowCovariance   no P: the regressors of the last updates, from which it is computed

A learning rule sees one group's P, with two methods: `product(x)` = P x, and `downdate(k, den, scale)` = P after a rank-1 downdate.
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
    """P of all groups, a pytree."""

    @property
    def numbers(self) -> Array | None:
        """The elements of P, [G, L, L] or packed [G, L*(L+1)/2], which a checkpoint keeps in blocks; None if there are none."""

    def update(self, rule: Rule, network: Network, r: Array, w: Array, x: Array, e: Array, trained: Array) -> tuple[Self, Array]:
        """P and w [G, L, S] after one learning point.

        Args:
          rule: of one group.
          network: neurons and connectivity.
          r: [N+X] filtered spikes, 1/ms.
          w: [G, L, S] trained weights.
          x: [G, L] filtered spikes of the inputs.
          e: [G, S] errors.
          trained: [G] bool, whether any neuron of the group is trained now.
        """

    def extra(self) -> Extra:
        """The other arrays of a checkpoint."""

    def restored(self, numbers: Any, extra: Mapping[str, Array]) -> Self:
        """P of the same form with the arrays of a checkpoint; `numbers` is None where there are none."""
