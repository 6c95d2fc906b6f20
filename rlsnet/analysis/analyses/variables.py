"""Results of analyses as named arrays, which are stored in analysis.zarr and drawn from there."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from rlsnet import errors
from rlsnet.io import zarr_store

if TYPE_CHECKING:
    import xarray


@dataclasses.dataclass(frozen=True)
class Variable:
    """An array with the names of its dimensions, and its unit and meaning as attributes."""

    values: Any
    dims: tuple[str, ...]
    about: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Result:
    """Result of an analysis: arrays, and single numbers and texts."""

    arrays: Mapping[str, Variable]
    numbers: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def write(self, root: zarr.Group, name: str) -> None:
        """Adds the result to an open store as the group `name`."""
        group = root.create_group(name, attributes={key: _plain(value) for key, value in self.numbers.items()})
        for key, each in self.arrays.items():
            zarr_store.write(group, key, _single(np.asarray(each.values)), list(each.dims), **dict(each.about))

    @staticmethod
    def read(group: zarr.Group) -> Result:
        """A stored result."""
        arrays = {}
        for key, stored in group.arrays():
            values = zarr_store.texts(stored) if stored.dtype.kind in "TUO" else zarr_store.read(stored)
            arrays[key] = Variable(values, tuple(map(str, stored.metadata.dimension_names or ())), dict(stored.attrs))
        return Result(arrays, dict(group.attrs))

    def to_xarray(self, conditions: Sequence[str], time: np.ndarray) -> xarray.Dataset:
        """The result as a dataset with coordinates; `conditions` [C] and `time` [M] are those of the test."""
        package = errors.package("xarray", "notebook", "analyse")
        labels = {"condition": np.array(self.numbers.get("names", conditions)), "time": np.asarray(time)}
        labels |= {dim: np.array(self.numbers[name]) for dim, name in (("kind", "kinds"), ("class", "classes")) if name in self.numbers}
        if "region" in self and self.arrays["region"].dims == ("region",):
            labels |= dict.fromkeys(("pre", "post", "silenced"), self["region"])
        sizes = {dim: np.shape(each.values)[axis] for each in self.arrays.values() for axis, dim in enumerate(each.dims)}
        coordinates = {dim: (dim, values) for dim, values in labels.items() if sizes.get(dim) == len(values) and dim not in self.arrays}
        arrays = {name: (each.dims, each.values, dict(each.about)) for name, each in self.arrays.items()}
        return package.Dataset(arrays, coordinates, dict(self.numbers))

    def __getitem__(self, name: str) -> Any:
        """The values of an array."""
        return self.arrays[name].values

    def __contains__(self, name: object) -> bool:
        """Whether there is an array of that name."""
        return name in self.arrays


def _single(values: np.ndarray) -> np.ndarray:
    """Numbers of double precision in single precision, but for times, which are few."""
    return values.astype(np.float32) if values.dtype == np.float64 and values.ndim > 1 else values


def _plain(value: Any) -> Any:
    """A number of NumPy as one of Python, NaN as None, which JSON has no number for."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not np.isfinite(value) else value
