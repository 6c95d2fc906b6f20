"""Addresses of sources, such as oe://127.0.0.1:5557."""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Collection, Mapping
from urllib.parse import parse_qsl, unquote, urlsplit

from rlsnet.errors import UserError, did_you_mean


@dataclasses.dataclass(frozen=True)
class Address:
    """Parts of an address.

    text: as it was given, without a password.
    host, port: of the sender.
    path: its parts after the host, without empty ones.
    options: those after the question mark.
    username, password: if the address has them.
    """

    text: str
    host: str
    port: int
    path: tuple[str, ...]
    options: Mapping[str, str]
    username: str | None
    password: str | None


def options_of(query: str, known: Collection[str], text: str, expected: str) -> dict[str, str]:
    """Options name=value, separated by &; raises UserError for one that is unknown, given twice or without a value.

    Args:
      query: the text after the question mark.
      known: names of the options that exist.
      text: the address, for messages.
      expected: what would be right, for messages.
    """
    pairs = parse_qsl(query, keep_blank_values=True)
    names = [name for name, _ in pairs]
    for name, value in pairs:
        if name not in known:
            options = f"expected one of {', '.join(known)}" if known else "expected none"
            raise UserError(f"{text}: has no option {name}; {options}.{did_you_mean(name, known)}")
        if not value or names.count(name) > 1:
            raise UserError(f"{text}: option {name} is {'empty' if not value else 'given twice'}; expected {expected}.")
    return dict(pairs)


def parsed(text: str, port: int, known: Collection[str], expected: str) -> Address:
    """Parts of an address.

    Args:
      text: the address.
      port: of an address without one.
      known: names of the options that exist.
      expected: an address that would be right, for messages.

    Raises:
      UserError: no host, a host that does not exist, a port that is no number up to 65535, or an unknown option.
    """
    try:
        parts = urlsplit(text)
        host, given = parts.hostname, parts.port
    except ValueError as error:
        raise UserError(f"{text}: {_reason(error)}; expected {expected}.") from error
    shown = text if parts.password is None else text.replace(f":{parts.password}@", ":...@", 1)
    if not host or given == 0:
        raise UserError(f"{shown}: has {'no host' if not host else 'port 0'}; expected {expected}.")
    try:
        socket.getaddrinfo(host, given or port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise UserError(f"{shown}: the host {host} is not found; expected {expected}.") from error
    options = options_of(parts.query, known, shown, expected)
    path = tuple(unquote(each) for each in parts.path.split("/") if each)
    return Address(shown, host, given or port, path, options, parts.username, parts.password and unquote(parts.password))


def _reason(error: ValueError) -> str:
    """Why an address cannot be split, in words."""
    text = str(error)
    return "the port is no number from 1 to 65535" if "ort" in text else text
