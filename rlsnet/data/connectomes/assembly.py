"""From the wiring of a source to the arrays of a network.zarr: selection, signs, sums, weights, and plastic or static."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from rlsnet.data.connectomes.options import Options
from rlsnet.data.connectomes.wiring import Wiring, some
from rlsnet.errors import UserError
from rlsnet.io import memory
from rlsnet.io.formatting import byte_size, counted, percent
from rlsnet.model import rng
from rlsnet.model.connectivity import Edges
from rlsnet.model.regions import generator_of

DRAWN, LEARNED = 0, 1  # blocks of random numbers: classes, plastic connections


class Assembled(NamedTuple):
    """A network.

    excitatory: [N] bool.
    edges: static synapses.
    plastic: ([G, L] inputs, [N, L] initial weights, S); None: no connection is plastic.
    cell_class: where the classes come from, in words.
    summary: what was imported and what was not, name -> words.
    """

    excitatory: np.ndarray
    edges: Edges
    plastic: tuple[np.ndarray, np.ndarray, int] | None
    cell_class: str
    summary: dict[str, str]


class _Pairs(NamedTuple):
    """Connections of which no two join the same neurons with the same delay and role; arrays [E].

    weight: threshold*ms; 0 where the sign is learned.
    strength: amount of the weight, also where the sign is learned.
    """

    pre: np.ndarray
    post: np.ndarray
    weight: np.ndarray
    strength: np.ndarray
    delay: np.ndarray | None
    plastic: np.ndarray

    def part(self, keep: np.ndarray) -> _Pairs:
        """The connections `keep` [E] bool."""
        delay = None if self.delay is None else self.delay[keep]
        return _Pairs(self.pre[keep], self.post[keep], self.weight[keep], self.strength[keep], delay, self.plastic[keep])


def selected(wiring: Wiring, options: Options) -> Wiring:
    """The neurons and connections that the settings select; raises UserError if none is left."""
    if options.connections is not None:
        keep = wiring.select_connections(options.connections, "connections")
        wiring = wiring.with_connections(keep, "connections that connections=... does not select")
    if not options.self_connections:
        wiring = wiring.with_connections(wiring.pre != wiring.post, "connections of neurons with themselves")
    wiring = wiring.with_connections(wiring.strength > 0, "connections of weight 0")
    if options.neurons is not None:
        wiring = wiring.with_neurons(wiring.select_neurons(options.neurons), "neurons that neurons=... does not select")
    if len(wiring.name) < 2 or not len(wiring.pre):
        found = f"there are {counted(len(wiring.name), 'neuron')} and {counted(len(wiring.pre), 'connection')}"
        left = "".join(f"; left out: {number:,} {why}" for why, number in wiring.left_out.items())
        raise UserError(f"{found}; expected at least 2 and 1{left}.")
    return wiring


def assemble(wiring: Wiring, options: Options) -> Assembled:
    """The network of a wiring; raises UserError where signs are unknown and may not be, or settings do not fit."""
    n, used = len(wiring.name), len(wiring.pre)
    wiring, sign, rows = _with_signs(wiring, options)
    pairs = _summed(wiring, sign, _plastic(wiring, options) | (sign == 0))
    different, merged = len(np.unique(pairs.pre * n + pairs.post)), len(wiring.pre) - len(pairs.pre)
    words = f"{used:,} of the source, between {different:,} pairs of neurons; {merged:,} were added to others of their pair"
    rows = {"connections": words} | rows | {f"left out: {why}": f"{number:,}" for why, number in wiring.left_out.items()}
    if options.min_synapses is not None:
        keep = pairs.strength >= options.min_synapses
        pairs, rows["left out: below min_synapses"] = pairs.part(keep), f"{int((~keep).sum()):,} connections"
    if not len(pairs.pre):
        settings = "unknown=drop" if options.min_synapses is None else f"min_synapses={options.min_synapses:g}"
        raise UserError(f"{settings}: no connection is left; expected another value, or signs of more neurons.")
    pairs, rows["weights"] = _scaled(pairs, wiring, options)
    pairs, more = _capped(pairs, options)
    static, plastic = pairs.part(~pairs.plastic), pairs.part(pairs.plastic)
    dtype = np.dtype(np.float32 if wiring.counted else np.float64)  # of numbers of synapses, more digits would mean nothing
    edges = Edges.from_pairs(static.pre, static.post.astype(np.int32), static.weight, n, static.delay).ascending()
    inputs = _inputs(plastic, n, wiring.group_size, dtype) if len(plastic.pre) else None
    rows |= more | _sizes(pairs, static, plastic, n, inputs)
    weight = None if edges.weight is None else edges.weight.astype(dtype)
    return Assembled(wiring.neuron_sign > 0, dataclasses.replace(edges, weight=weight), inputs, rows["signs"], rows)


def _sizes(pairs: _Pairs, static: _Pairs, plastic: _Pairs, n: int, inputs: tuple[np.ndarray, np.ndarray, int] | None) -> dict[str, str]:
    """Rows of the summary about numbers of connections and inputs; `inputs` as of `Assembled.plastic`."""
    rows = {
        "self-connections": f"{int(np.sum(pairs.pre == pairs.post)):,}",
        "inputs of a neuron": _range(np.bincount(pairs.post, minlength=n)),
    }
    rows |= {"static connections": f"{len(static.pre):,}", "plastic connections": f"{len(plastic.pre):,}"}
    if inputs is not None:
        groups, width = inputs[0].shape
        rows["largest number of plastic inputs"] = f"{width:,}; P takes {byte_size(groups * width * (width + 1) * 2)} in float32"
        if pairs.delay is not None:
            rows["left out: delays of plastic connections"] = f"{len(plastic.pre):,}; they have the delay of the settings (synapse.delay)"
    return rows


def _range(number: np.ndarray) -> str:
    """Smallest, mean and largest of some numbers."""
    return f"{number.min():,} to {number.max():,}, mean {number.mean():.1f}"


def _with_signs(wiring: Wiring, options: Options) -> tuple[Wiring, np.ndarray, dict[str, str]]:
    """(wiring with the sign of every neuron, [E] sign of every connection, 0: learned; rows of the summary).

    A neuron without a sign of its own has that of most of its synapses. Its class decides which static current its spikes go to.
    """
    n, rows = len(wiring.name), {}
    known = wiring.sign != 0
    votes = np.bincount(wiring.pre[known], weights=(wiring.sign * wiring.strength)[known], minlength=n)
    own = np.where(wiring.neuron_sign != 0, wiring.neuron_sign, np.sign(votes)).astype(np.int8)
    keep_own = wiring.signed or options.sign_of == "connection"
    sign = np.where(known, wiring.sign, own[wiring.pre]) if keep_own else own[wiring.pre]
    against = known & (wiring.sign == -own[wiring.pre])
    if against.any():
        what = "which they keep" if keep_own else "replaced by that of their neuron"
        of_neurons = counted(len(np.unique(wiring.pre[against])), "neuron")
        rows["connections of another sign than their neuron"] = f"{int(against.sum()):,}, of {of_neurons}, {what}"
    has_outputs, missing = (np.bincount(pre, minlength=n) > 0 for pre in (wiring.pre, wiring.pre[sign == 0]))
    if missing.any() and options.unknown == "refuse":
        _refuse(wiring, missing, has_outputs)
    if options.unknown == "drop" and (sign == 0).any():
        wiring, sign = wiring.with_connections(sign != 0, "connections of unknown sign"), sign[sign != 0]
    unsigned = own == 0
    drawn = generator_of(np.asarray(rng.key(options.seed, rng.Purpose.CELL_CLASS)), DRAWN).random(n) < options.fraction_excitatory
    classes = np.where(unsigned, np.where(drawn, 1, -1), own).astype(np.int8)
    if options.unknown == "draw":
        sign = np.where(sign == 0, classes[wiring.pre], sign)
    words = f"{int((own > 0).sum()):,} excitatory, {int((own < 0).sum()):,} inhibitory, by the source"
    if unsigned.any():
        share = f"{percent(options.fraction_excitatory)} excitatory, seed {options.seed}"
        words += f"; {int(unsigned.sum()):,} drawn ({share}), {int((unsigned & ~has_outputs).sum()):,} of them without outputs"
    rows["signs"] = words
    if options.unknown == "learn" and (sign == 0).any():
        rows["signs that are learned"] = f"those of {int((sign == 0).sum()):,} connections; they start with weight 0"
    return dataclasses.replace(wiring, neuron_sign=classes), sign, rows


def _refuse(wiring: Wiring, missing: np.ndarray, has_outputs: np.ndarray) -> None:
    """Raises UserError for neurons of unknown sign, with what would help."""
    names = some(wiring.name[missing])
    words = f"the sign of {int(missing.sum()):,} of {int(has_outputs.sum()):,} neurons with outputs is not known ({names})"
    unclear = list(dict.fromkeys(wiring.without_sign))
    more = f"signs.{unclear[0]}=exc or inh (for {some(np.array(unclear))})" if unclear else "a column of signs or transmitters"
    raise UserError(f"{words}; expected {more}, or unknown=draw, unknown=learn or unknown=drop.")


def _plastic(wiring: Wiring, options: Options) -> np.ndarray:
    """[E] bool, which connections the setting `plastic` makes plastic; raises UserError if it cannot be read."""
    text, n = options.plastic, len(wiring.pre)
    if text is None:
        return np.zeros(n, bool) if wiring.plastic is None else wiring.plastic
    if text in ("none", "all"):
        return np.full(n, text == "all")
    try:
        share = float(text)
    except ValueError:
        return wiring.select_connections(text, "plastic")
    if not 0 <= share <= 1:
        raise UserError(f"plastic={text}: expected none, all, a share from 0 to 1, or an expression such as pre_type == 'KC'.")
    pairs, inverse = np.unique(wiring.pre * len(wiring.name) + wiring.post, return_inverse=True)
    drawn = generator_of(np.asarray(rng.key(options.seed, rng.Purpose.CELL_CLASS)), LEARNED).random(len(pairs)) < share
    return drawn[inverse.reshape(-1)]


def _summed(wiring: Wiring, sign: np.ndarray, plastic: np.ndarray) -> _Pairs:
    """Connections of the same neurons, delay and role as one; plastic ones have no delay."""
    n = len(wiring.name)
    delays, which = np.zeros(1), np.zeros(len(wiring.pre), np.int64)
    if wiring.delay is not None:
        delays, which = np.unique(wiring.delay, return_inverse=True)
        which = np.where(plastic, 0, which.reshape(-1))
    key = ((wiring.pre * n + wiring.post) * len(delays) + which) * 2 + plastic
    found, inverse = np.unique(key, return_inverse=True)
    inverse = inverse.reshape(-1)
    pair, role = found // 2 // len(delays), found % 2 == 1
    weight = np.bincount(inverse, weights=sign * wiring.strength, minlength=len(found))
    strength = np.bincount(inverse, weights=wiring.strength, minlength=len(found))
    delay = None if wiring.delay is None else delays[found // 2 % len(delays)]
    return _Pairs(pair // n, pair % n, weight, strength, delay, role)


def _scaled(pairs: _Pairs, wiring: Wiring, options: Options) -> tuple[_Pairs, str]:
    """(connections with weights in threshold*ms, words about them)."""
    normalise = options.normalise or ("mean" if wiring.counted else "none")
    total = np.bincount(pairs.post, weights=pairs.strength, minlength=len(wiring.name)) * options.scale
    has_inputs = total > 0
    factor = np.full(len(total), options.scale)
    if normalise == "mean":
        factor *= options.input / total[has_inputs].mean() if has_inputs.any() else 1.0
    elif normalise == "each":
        factor[has_inputs] *= options.input / total[has_inputs]
    of_edge = factor[pairs.post]
    pairs = pairs._replace(weight=pairs.weight * of_edge, strength=pairs.strength * of_edge)
    unit = "synapse" if wiring.counted else "unit of the source"
    words = "a factor for each neuron" if normalise == "each" else f"{factor[0]:.4g} threshold*ms for a {unit}"
    if not wiring.counted and np.all(pairs.strength == np.rint(pairs.strength)) and options.scale == 1:
        words += " (all are whole numbers: of numbers of synapses, count=COLUMN names the column)"
    if has_inputs.any():
        sums = np.bincount(pairs.post, weights=pairs.strength, minlength=len(wiring.name))[has_inputs]
        words += f"; the |weights| of the inputs of a neuron add up to {sums.mean():.4g} threshold*ms on average (normalise={normalise})"
    return pairs, words


def _capped(pairs: _Pairs, options: Options) -> tuple[_Pairs, dict[str, str]]:
    """Connections of which each neuron has at most max_inputs plastic ones, the strongest; the others are static if their sign is known."""
    if options.max_inputs is None or not pairs.plastic.any():
        return pairs, {}
    place = np.flatnonzero(pairs.plastic)
    order = place[np.lexsort((pairs.pre[place], -pairs.strength[place], pairs.post[place]))]
    first = np.flatnonzero(np.r_[True, np.diff(pairs.post[order]) != 0])
    rank = np.arange(len(order)) - np.repeat(first, np.diff(np.r_[first, len(order)]))
    beyond = order[rank >= options.max_inputs]
    plastic = pairs.plastic.copy()
    plastic[beyond] = False
    learned = beyond[pairs.weight[beyond] == 0]
    keep = np.ones(len(plastic), bool)
    keep[learned] = False
    rows = {"beyond max_inputs": f"{len(beyond) - len(learned):,} plastic connections became static"}
    if len(learned):
        rows["left out: beyond max_inputs, of unknown sign"] = f"{len(learned):,}"
    return pairs._replace(plastic=plastic).part(keep), rows


def _inputs(pairs: _Pairs, n: int, size: int, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray, int]:
    """([G, L] plastic inputs in ascending order, -1 pads; [N, L] weights; S).

    Raises:
      UserError: the arrays do not fit in the free memory, or neurons of a group of the source have different inputs.
    """
    number = np.bincount(pairs.post, minlength=n)
    width = int(number.max())
    memory.check_fits(n * width * (4 + 8), f"{n:,} neurons with up to {width:,} plastic inputs")
    pre, weight = np.full((n, width), -1, np.int32), np.zeros((n, width), dtype)
    used = np.arange(width) < number[:, None]
    order = np.lexsort((pairs.pre, pairs.post))
    pre[used], weight[used] = pairs.pre[order], pairs.weight[order]
    if size > 1 and not np.array_equal(pre, np.repeat(pre[::size], size, axis=0)[:n]):
        size = 1  # the source has changed since its neurons shared inputs
    return pre[::size], weight, size
