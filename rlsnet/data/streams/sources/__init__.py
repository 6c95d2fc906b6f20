"""Sources of a running experiment, each in a module, and the choice of one by its text."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path

from rlsnet.data.streams.messages import Source
from rlsnet.errors import UserError, did_you_mean

KINDS: Mapping[str, tuple[str, str]] = {  # scheme: module here, and its class, which takes the text and the position
    "oe": ("open_ephys", "OpenEphysSource"),
    "redis": ("redis_streams", "RedisSource"),
    "lsl": ("lab_streaming_layer", "LabStreamingLayerSource"),
}
EXPECTED = "a folder, a stream.zarr, oe://HOST:PORT (Open Ephys), redis://HOST:PORT/STREAM (Redis) or lsl:NAME (Lab Streaming Layer)"


def opened(source: str, position: str = "") -> Source:
    """The source that a text names, connected if it is a program.

    Args:
      source: a folder that grows, or an address; the modules here say what they take.
      position: of the source when it was last read, from which it goes on; "": from its start.

    Raises:
      UserError: no such folder, an address that cannot be right, or a package that is missing.
    """
    scheme, colon, _ = source.partition(":")
    if colon and scheme in KINDS:
        module, name = KINDS[scheme]
        return getattr(importlib.import_module(f"{__name__}.{module}"), name)(source, position)
    path = Path(source).expanduser()
    if path.is_dir():
        return _folder(path, position)
    if "://" in source:
        raise UserError(f"{source}: {scheme} is no known kind of source; expected {EXPECTED}.{did_you_mean(scheme, KINDS)}")
    raise UserError(f"{source}: {'is a file' if path.exists() else 'no such folder'}; expected {EXPECTED}.")


def _folder(path: Path, position: str) -> Source:
    """The source of a folder that grows; raises UserError for a Zarr store, which grows in another way."""
    from rlsnet.data.streams.sources.folder import FolderSource

    if (path / "zarr.json").exists():
        raise UserError(f"{path}: is a Zarr store; expected {EXPECTED}.")
    return FolderSource(path, position)
