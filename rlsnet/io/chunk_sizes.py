"""Bytes that a compressed chunk of an array takes when it is decoded, by what its first bytes say, for a check before it is decoded."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from rlsnet.errors import UserError
from rlsnet.io import memory
from rlsnet.io.formatting import byte_size

DEFLATE_RATIO = 1032  # the highest that DEFLATE, of gzip and zlib, reaches
ZSTD_BLOCK = 2**17  # bytes, the most that a compressed block of Zstandard holds
SLACK = 2**18  # bytes by which a size may be too large that is not exact


def check(content: bytes | memoryview, kind: str, declared: int | None, where: object) -> None:
    """Raises UserError if a chunk decodes to more bytes than its array says, or than fit in the free memory.

    Args:
      content: of the chunk, as it is stored.
      kind: zstd, blosc, gzip or zlib; of other codecs only the stored size is compared.
      declared: bytes of a chunk, by the shape and type of the array; None: not known, as of texts.
      where: the chunk, for the message.
    """
    most = max(memory.UNCHECKED, memory.free_memory()) if declared is None else declared + declared // 64 + SLACK
    decoded = len(content)
    if kind == "zstd":
        decoded = max(decoded, _zstd_size(content))
    elif kind == "blosc":
        decoded = max(decoded, int.from_bytes(content[4:8], "little"))
    elif (
        kind in ("gzip", "zlib")
        and len(content) * DEFLATE_RATIO > max(memory.UNCHECKED, most)
        and (declared is None or len(content) * DEFLATE_RATIO > memory.free_memory())
    ):
        decoded = max(decoded, _inflated_size(content, most))
    if declared is None:
        memory.check_fits(decoded, where)
    elif decoded > most:
        raise UserError(
            f"{where}: the file is damaged: a chunk decodes to {byte_size(decoded)} or more, where the array has chunks of"
            f" {byte_size(declared)}; restore it from a copy or make it anew."
        )


def _inflated_size(content: bytes | memoryview, most: int) -> int:
    """Bytes that a gzip or zlib stream decodes to, up to a little more than `most`."""
    decoder, found = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32), 0
    try:
        while content and found <= most and not decoder.eof:
            found += len(decoder.decompress(content, 2**24))
            content = decoder.unconsumed_tail
    except zlib.error:  # the codec says later what is wrong
        pass
    return found


def _zstd_size(content: bytes | memoryview) -> int:
    """Bytes that a Zstandard frame decodes to: those that it says, or the most that its blocks may hold; 0 for anything else."""
    if content[:4] != b"\x28\xb5\x2f\xfd" or len(content) < 6:
        return 0
    descriptor = content[4]
    single, sizes = descriptor >> 5 & 1, (0, 2, 4, 8)
    start = 6 - single + (0, 1, 2, 4)[descriptor & 3]  # after the window and the dictionary
    length = sizes[descriptor >> 6] or single
    if length:
        return int.from_bytes(content[start : start + length], "little") + (256 if length == 2 else 0)
    window = (1 << (10 + (content[5] >> 3))) // 8 * (8 + (content[5] & 7))
    total, at, last = 0, start, False
    while not last and at + 3 <= len(content):
        block = int.from_bytes(content[at : at + 3], "little")
        last, kind, size = bool(block & 1), block >> 1 & 3, block >> 3
        total += min(ZSTD_BLOCK, window) if kind == 2 else size
        at += 3 + (1 if kind == 1 else size)
    return total


def shape_of_chunks(values: Mapping[str, Any]) -> list[int] | None:
    """Shape of the chunks by the metadata of a Zarr array; None where it is not known."""
    try:
        return list(values["chunks"] if values.get("zarr_format") == 2 else values["chunk_grid"]["configuration"]["chunk_shape"])
    except (KeyError, TypeError):
        return None


def of_metadata(values: Mapping[str, Any]) -> tuple[str, int | None]:
    """(codec, bytes of a chunk) by the metadata of a Zarr array; "" and None where they are not known."""
    kind = ""
    try:
        if values.get("zarr_format") == 2:
            kind, dtype = values["compressor"]["id"], values["dtype"]
        else:
            names = [each["name"] for each in values["codecs"] if each["name"] != "crc32c"]
            kind, dtype = names[-1], values["data_type"]
        size, shape = np.dtype(dtype), shape_of_chunks(values)
        known = size.kind != "O" and kind != "sharding_indexed"
        return str(kind), math.prod(shape) * size.itemsize if shape is not None and known else None
    except (KeyError, IndexError, TypeError, ValueError):
        return str(kind), None
