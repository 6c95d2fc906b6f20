"""Window form of P (rls.storage=window): the inputs at the last learning points are stored, and P is computed from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from rlsnet.config.schema import RLSConfig
from rlsnet.learning.blocks import by_blocks
from rlsnet.learning.covariance import Extra, Rule
from rlsnet.learning.covariance_prior import penalty
from rlsnet.model.network import Network


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class GroupWindow:
    """P of one group from its inputs at the last W learning points: inv(A_0 + sum of x x^T), with A_0 = inv(P_0).

    regressors: [W, L] filtered spikes x of the inputs, 1/ms.
    positive: [L] bool, whether the initial weight was positive.
    pre: [L] int32, presynaptic neurons.
    rls: section rls with the penalties.
    n_neurons: N.
    """

    regressors: Array
    positive: Array
    pre: Array
    rls: RLSConfig = dataclasses.field(metadata={"static": True})
    n_neurons: int = dataclasses.field(metadata={"static": True})

    def product(self, x: Array) -> Array:
        """[L] product P x, by a Cholesky decomposition."""
        A = penalty(self.rls, self.positive[None], self.pre[None], self.n_neurons, x.dtype)[0]
        A = A + jnp.einsum("wi,wj->ij", self.regressors, self.regressors, precision="highest")
        factor = jax.scipy.linalg.cho_factor(A)[0]
        return jax.scipy.linalg.cho_solve((factor, False), x[:, None])[:, 0]

    def downdate(self, k: Array, den: Array, scale: Array | None) -> GroupWindow:
        """The same P: `WindowCovariance.update` moves the window."""
        return self


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class WindowCovariance:
    """P = inv(A_0 + sum of x x^T over the last W learning points) of all groups, computed at each update.

    r: [W, N+X] filtered spikes at these learning points, 1/ms; 0 before the first one.
    used: [G, W] bool, whether any neuron of the group was trained at the learning point.
    count: [1] int32, number of learning points so far; the next one is stored in row count % W.
    positive: [G, L] bool, whether the initial weight was positive.
    rls: section rls with the penalties.
    """

    r: Array
    used: Array
    count: Array
    positive: Array
    rls: RLSConfig = dataclasses.field(metadata={"static": True})

    @staticmethod
    def initial(rls: RLSConfig, network: Network, positive: Array, dtype: jnp.dtype) -> WindowCovariance:
        """An empty window."""
        n, groups = network.n_presynaptic, len(positive)
        r, used = jnp.zeros((rls.window, n), dtype), jnp.zeros((groups, rls.window), bool)
        return WindowCovariance(r, used, jnp.zeros(1, jnp.int32), positive, rls)

    @staticmethod
    def n_bytes(rls: RLSConfig, groups: int, inputs: int, sources: int, engine: np.dtype) -> int:
        """Bytes of the window."""
        return rls.window * (sources * engine.itemsize + groups) + groups * inputs

    @property
    def numbers(self) -> None:
        """None: P is not stored."""
        return None

    def update(
        self, rule: Rule, network: Network, r: Array, w: Array, x: Array, e: Array, trained: Array
    ) -> tuple[WindowCovariance, Array]:
        """See `Covariance.update`; this learning point is added to the window afterwards."""

        def block(w: Array, positive: Array, used: Array, pre: Array, *given: Array) -> Array:
            regressors = jnp.where((pre >= 0)[None] & used.T[:, :, None], self.r[:, pre], 0)
            P = GroupWindow(jnp.moveaxis(regressors, 1, 0), positive, pre, self.rls, network.n_neurons)
            return jax.vmap(rule)(P, w, *given)[1]

        w = by_blocks(network.n_inputs, block, w, (self.positive, self.used, network.pre, x, e, trained))
        if not self.rls.apply:
            return self, w
        row = self.count[0] % self.rls.window
        seen = lax.dynamic_update_slice_in_dim(self.r, r[None], row, 0)
        used = lax.dynamic_update_slice_in_dim(self.used, trained[:, None], row, 1)
        return dataclasses.replace(self, r=seen, used=used, count=self.count + 1), w

    def extra(self) -> Extra:
        """The window."""
        return {
            "window/r": (self.r, ["update", "neuron"]),
            "window/on": (self.used, ["group", "update"]),
            "window/count": (self.count, ["one"]),
            "window/positive": (self.positive, ["group", "input"]),
        }

    def restored(self, numbers: Any, extra: Mapping[str, Array]) -> WindowCovariance:
        """See `Covariance.restored`."""
        r, used, count, positive = (extra[f"window/{name}"] for name in ("r", "on", "count", "positive"))
        return dataclasses.replace(self, r=r, used=used, count=count, positive=positive)
