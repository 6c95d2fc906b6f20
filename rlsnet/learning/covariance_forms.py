"""Stored forms of P: full, in engine precision; encoded, in fewer bits or as packed upper triangles. `initial` chooses the form."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rlsnet.config.schema import RLSConfig
from rlsnet.kernels.backend import covariance_kind
from rlsnet.learning.blocks import by_blocks
from rlsnet.learning.covariance import EXACT, Covariance, Extra, Rule
from rlsnet.learning.covariance_prior import initial_P, starting_sign
from rlsnet.learning.window_covariance import WindowCovariance
from rlsnet.model.network import Network

CACHE_LINE_BYTES = 64
MAX_ELEMENTS_UNBLOCKED = 2**25  # elements of P up to which all groups are updated at once


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class GroupMatrix:
    """P [L, L] of one group, for a learning rule."""

    P: Array

    def product(self, x: Array) -> Array:
        """[L] product P x."""
        return jnp.matmul(self.P, x, precision=EXACT)

    def downdate(self, k: Array, den: Array, scale: Array | None) -> GroupMatrix:
        """P after a rank-1 downdate, scale*(P - den k k^T), with k [L]; a scale of None is 1."""
        P = self.P - den * (k[:, None] * k[None, :])
        return GroupMatrix(P if scale is None else P * scale)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class FullCovariance:
    """Full P in engine precision.

    numbers: [G, L, L], or with padded rows, see `row_length`, [G, L, row]; the padding is zero.
    """

    numbers: Array

    @staticmethod
    def initial(rls: RLSConfig, network: Network, positive: Array, dtype: jnp.dtype) -> FullCovariance:
        """P_0 of all groups."""
        return FullCovariance(initial_P(rls, positive, network.pre, network.n_whole, dtype))

    @staticmethod
    def n_bytes(rls: RLSConfig, groups: int, inputs: int, sources: int, engine: np.dtype) -> int:
        """Bytes of P."""
        return groups * inputs**2 * engine.itemsize

    @property
    def n_inputs(self) -> int:
        """L."""
        return self.numbers.shape[-2]

    def with_rows(self, length: int) -> Self:
        """The same P with rows of this length, at least L."""
        if length == self.numbers.shape[-1]:
            return self
        return dataclasses.replace(self, numbers=jnp.pad(self.decode(), ((0, 0), (0, 0), (0, length - self.n_inputs))))

    @property
    def unblocked(self) -> bool:
        """Whether all groups are updated at once."""
        return self.numbers.size <= MAX_ELEMENTS_UNBLOCKED

    def decode(self) -> Array:
        """P [G, L, L] in engine precision."""
        return self.numbers[..., : self.n_inputs]

    def encoded(self, P: Array) -> Self:
        """P [G, L, L] kept in the same way."""
        return FullCovariance(P).with_rows(self.numbers.shape[-1])  # type: ignore[return-value]

    def update(self, rule: Rule, network: Network, r: Array, w: Array, x: Array, e: Array, trained: Array) -> tuple[Self, Array]:
        """See `Covariance.update`."""

        def block(changed: Any, x: Array, e: Array, trained: Array) -> Any:
            P, w = changed
            after, w = jax.vmap(rule)(GroupMatrix(P.decode()), w, x, e, trained)
            return P.encoded(after.P), w

        if self.unblocked:
            return block((self, w), x, e, trained)
        return by_blocks(self.n_inputs, block, (self, w), (x, e, trained))

    def read(self, function: Callable[..., Any], changed: Any, given: tuple[Any, ...]) -> Any:
        """Applies function(changed, P, *given), which only reads P [G, L, L]; see `by_blocks`."""
        return function(changed, self.decode(), *given)

    def rewrite(self, function: Callable[..., Array], given: tuple[Any, ...], now: Array | bool) -> Self:
        """Replaces P of all groups by function(P, *given), in place and in blocks of groups, if `now`."""

        def block(P: Self, *given: Any) -> Self:
            return P.encoded(function(P.decode(), *given))

        return by_blocks(self.n_inputs, block, self, given, now)

    def in_place(self, row: int) -> tuple[Array, Array]:
        """(numbers, scale) for a kernel, which changes them in place; the scale is [0, 1] where there is none.

        `row` is the length of the rows that the kernel expects; if they have another, they are copied.
        """
        return self.with_rows(row).numbers, jnp.zeros((0, 1), self.numbers.dtype)

    def after_kernel(self, numbers: Array, scale: Array) -> Self:
        """P with what a kernel has made of `in_place`."""
        return dataclasses.replace(self, numbers=numbers).with_rows(self.numbers.shape[-1])

    def extra(self) -> Extra:
        """None."""
        return {}

    def restored(self, numbers: Any, extra: Mapping[str, Array]) -> Self:
        """See `Covariance.restored`."""
        return dataclasses.replace(self, numbers=numbers)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class EncodedCovariance(FullCovariance):
    """Encoded P: in numbers of fewer bits, or packed, or both.

    numbers: [G, L, L], or [G, L*(L+1)/2] upper triangles row by row.
    scale: [G, 1] unit of int16 numbers; else None.
    inputs: number of inputs L.
    dtype: type of the decoded numbers.
    """

    scale: Array | None
    inputs: int = dataclasses.field(metadata={"static": True})
    dtype: jnp.dtype = dataclasses.field(metadata={"static": True})

    @staticmethod
    def initial(rls: RLSConfig, network: Network, positive: Array, dtype: jnp.dtype) -> EncodedCovariance:
        """P_0 of all groups, computed in blocks of groups."""

        def encoded_P(positive: Array, pre: Array) -> EncodedCovariance:
            P = initial_P(rls, positive, pre, network.n_whole, dtype)
            return EncodedCovariance.encode(P, number_type(rls, dtype), rls.storage == "packed")

        like = jax.eval_shape(encoded_P, positive, network.pre)
        empty = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)
        return by_blocks(network.n_inputs, lambda _, *given: encoded_P(*given), empty, (positive, network.pre))

    @staticmethod
    def encode(P: Array, kind: jnp.dtype, packed: bool) -> EncodedCovariance:
        """P [G, L, L] in numbers of type `kind`, rounded to the nearest."""
        scale, numbers = None, P
        if packed:
            numbers = numbers[(slice(None), *np.triu_indices(P.shape[-1]))]
        if kind == jnp.int16:
            flat = numbers.reshape(len(P), -1)
            scale = jnp.maximum(jnp.max(jnp.abs(flat), axis=1, keepdims=True), jnp.finfo(P.dtype).tiny) / 32767
            numbers = jnp.rint(flat / scale).reshape(numbers.shape)
        return EncodedCovariance(numbers.astype(kind), scale, P.shape[-1], P.dtype)

    @staticmethod
    def n_bytes(rls: RLSConfig, groups: int, inputs: int, sources: int, engine: np.dtype) -> int:
        """Bytes of P."""
        elements = inputs * (inputs + 1) // 2 if rls.storage == "packed" else inputs**2
        return groups * elements * number_type(rls, engine).itemsize

    @property
    def n_inputs(self) -> int:
        """L."""
        return self.inputs

    @property
    def unblocked(self) -> bool:
        """False: P of all groups decoded together would need the memory that the encoding saves."""
        return False

    def decode(self) -> Array:
        """P [G, L, L], the inverse of `encode` except for rounding."""
        numbers = self.numbers
        if numbers.ndim == 2:
            numbers = numbers[:, triangle(self.inputs)]
        numbers = numbers.astype(self.dtype)
        return numbers if self.scale is None else numbers * self.scale[:, :, None]

    def encoded(self, P: Array) -> EncodedCovariance:
        """P [G, L, L] kept in the same way."""
        return self.encode(P, self.numbers.dtype, self.numbers.ndim == 2)

    def read(self, function: Callable[..., Any], changed: Any, given: tuple[Any, ...]) -> Any:
        """Applies function(changed, P, *given), which only reads P, in blocks of groups."""
        return by_blocks(self.inputs, lambda changed, P, *given: function(changed, P.decode(), *given), changed, (self, *given))

    def in_place(self, row: int) -> tuple[Array, Array]:
        """(numbers, scale) for a kernel, which changes them in place; the scale is [0, 1] where there is none. Rows are not padded."""
        return self.numbers, jnp.zeros((0, 1), self.dtype) if self.scale is None else self.scale

    def after_kernel(self, numbers: Array, scale: Array) -> EncodedCovariance:
        """P with what a kernel has made of `in_place`."""
        return dataclasses.replace(self, numbers=numbers, scale=None if self.scale is None else scale)

    def extra(self) -> Extra:
        """The scale of int16 numbers."""
        return {} if self.scale is None else {"P_scale": (self.scale, ["group", "one"])}

    def restored(self, numbers: Any, extra: Mapping[str, Array]) -> EncodedCovariance:
        """See `Covariance.restored`."""
        return dataclasses.replace(self, numbers=numbers, scale=extra.get("P_scale"))


KINDS: dict[str, Any] = {"full": FullCovariance, "encoded": EncodedCovariance, "window": WindowCovariance}


def initial(rls: RLSConfig, network: Network, w: Array, update: str) -> Covariance:
    """P before the first update, in the form of rls.storage and rls.precision, for a form of the update.

    Args:
      rls: settings.
      network: neurons and connectivity.
      w: [G, L, S] initial weights.
      update: form of the update, see `kernels.backend`.
    """
    kind = KINDS[covariance_kind(rls, w.dtype.name)]
    P = kind.initial(rls, network, starting_sign(w, network), w.dtype)
    return P.with_rows(row_length(update, P.n_inputs, w.dtype)) if kind is FullCovariance else P


def n_bytes(rls: RLSConfig, groups: int, inputs: int, sources: int, engine: np.dtype, update: str) -> int:
    """Bytes of P of G groups with L inputs each, out of N+X presynaptic neurons, with numbers of the engine's type, see `initial`."""
    kind = KINDS[covariance_kind(rls, engine.name)]
    size = kind.n_bytes(rls, groups, inputs, sources, engine)
    return size // inputs * row_length(update, inputs, engine) if kind is FullCovariance and inputs else size


def row_length(update: str, inputs: int, dtype: jnp.dtype) -> int:
    """Length of the rows of full P and of the vectors [L] of pending updates: for native kernels, L padded to lines of the cache."""
    line = CACHE_LINE_BYTES // dtype.itemsize
    return -(-inputs // line) * line if update == "native" else inputs


def number_type(rls: RLSConfig, engine: jnp.dtype) -> jnp.dtype:
    """Type of the stored numbers of P; `engine` for rls.precision=auto."""
    return jnp.dtype(engine if rls.precision == "auto" else rls.precision)


def triangle(n: int) -> np.ndarray:
    """[n, n] int32, position of each entry of a symmetric matrix in its upper triangle, row by row."""
    i, j = np.triu_indices(n)
    place = np.empty((n, n), np.int32)
    place[i, j] = place[j, i] = np.arange(len(i))
    return place
