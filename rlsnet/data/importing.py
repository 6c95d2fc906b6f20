"""Import of recordings: sources are found, read one at a time, and pooled into one recording.zarr."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from rlsnet.data import pooling, query, recordings, source_search, time_units, trial_average
from rlsnet.data.formats import hdf5, single_trials, table_files
from rlsnet.data.formats.registry import READERS, recognized_format
from rlsnet.data.import_options import Options, naming_preset
from rlsnet.data.session import PrecomputedRates, Session, with_sorted_spikes
from rlsnet.data.unit_selection import ImportSummary
from rlsnet.errors import UserError
from rlsnet.io import outputs


def import_sources(
    sources: Sequence[str | Path], out: str | Path, options: Options | None = None, log: Callable[[str], None] = print
) -> ImportSummary:
    """Writes one recording.zarr from recordings in any of the formats, reading one session at a time.

    Args:
      sources: files or folders, or patterns such as data/*.nwb.
      out: path of the new recording; an older recording there is replaced only with options.overwrite.
      options: which trials and units are used, and how spikes are averaged.
      log: function that receives one line about each source.

    Raises:
      UserError: a source, a setting or the path is wrong; nothing is written then.
    """
    options = options or Options()
    path = Path(out)
    with naming_preset(options), hdf5.following(options.external):
        return pooling.pool_sources(_read_sources(_checked_paths(sources, path, options), options), path, options, log)


def found_sources(sources: Sequence[str | Path], out: str | Path, options: Options) -> dict[Path, str]:
    """Format of each source of an import, by path; arguments and errors as for `import_sources`. Nothing is written."""
    with naming_preset(options), hdf5.following(options.external):
        return {path: _format_of(path, options) for path in _checked_paths(sources, Path(out), options)}


def _checked_paths(sources: Sequence[str | Path], path: Path, options: Options) -> dict[Path, Path | None]:
    """`source_search.source_paths` of an import to a path that may be written."""
    if options.window is not None and options.bin is not None:
        trial_average.bin_centres(options)  # raises before anything is read
    if path.suffix != ".zarr":
        raise UserError(f"{path}: the last path is the new recording; expected a name that ends in .zarr.")
    paths = source_search.source_paths(sources, path, options)
    made = partial(outputs.is_store, format=recordings.FORMAT)
    outputs.check_free(path, made, "a Zarr store that rlsnet import wrote", "import ", options.overwrite)
    return paths


def _format_of(path: Path, options: Options) -> str:
    """Name of the format of a source."""
    return options.format if options.format != "auto" else recognized_format(path)


def _read_sources(paths: Mapping[Path, Path | None], options: Options) -> Iterator[Session | PrecomputedRates]:
    """Contents of each source, read when it is needed; `paths` as `source_search.source_paths` returns them."""
    for path, folder in paths.items():
        name = _format_of(path, options)
        with table_files.found_in(folder):
            source = READERS[name].read(path, options)
        if options.region_column is not None and name != "nwb":
            query.require_column(options.region_column, source.units, f"region_column={options.region_column}", f"the units of {path}")
            source = dataclasses.replace(source, units={**source.units, "region": source.units[options.region_column]})
        if isinstance(source, Session):
            source = single_trials.within_trials(time_units.in_seconds(with_sorted_spikes(source), options), options)
        yield source
