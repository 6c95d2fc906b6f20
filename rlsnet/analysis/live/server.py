"""Web server of the live page, for this computer alone: a secret in the address, GET and HEAD only, and no file behind any address."""

from __future__ import annotations

import hmac
import http.server
import ipaddress
import platform
import secrets
import select
import socket
import socketserver
import sys
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

from rlsnet.analysis.live import page
from rlsnet.analysis.live.feed import Feed, as_json
from rlsnet.analysis.live.state import Reader
from rlsnet.errors import UserError, first_line

MOST_STREAMS = 12  # pages that are kept up to date at a time
MOST_CONNECTIONS = 48  # at a time, of all kinds
MOST_QUERY = 500  # characters after the question mark of an address
STILL_SECONDS = 15  # without a change, after which a sign of life is sent
SLOW_SECONDS = 20  # that a client may take to ask or to read
HEADERS = {
    "Content-Security-Policy": page.policy("'self'", "'self'", "connect-src 'self'; frame-ancestors 'none'"),
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
# what a page asks for, by path: the key of the query, and the answer
QUESTIONS: dict[str, tuple[str, Callable[[Reader, str], Any]]] = {
    "/unit": ("number", lambda reader, value: reader.unit(whole(value))),
    "/units": ("search", lambda reader, value: reader.units(value)),
    "/map": ("condition", lambda reader, value: reader.heat_map(whole(value))),
}


def whole(value: str) -> int:
    """A whole number from an address; raises UserError if it is none."""
    if not (value.isascii() and value.isdecimal() and len(value) < 10):
        raise UserError("expected a whole number.")
    return int(value)


def is_loopback(host: str) -> bool:
    """Whether an address to listen at is reached from this computer alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """Server of the page of one run.

    feed: state of the run.
    files: (kind, content) of the fixed parts of the page, by path.
    token: the secret in the address, and in the cookie.
    port: number of the port.
    """

    daemon_threads = True
    request_queue_size = 32

    def __init__(self, reader: Reader, host: str, port: int):
        self.host = "127.0.0.1" if host == "localhost" else host
        self.address_family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        try:
            super().__init__((self.host, port), Handler)
        except OSError as error:
            hint = "expected a port that is free, or no port=, for any that is" if port else "expected an address of this computer"
            raise UserError(f"host={host} port={port}: cannot be listened at ({error.strerror or error}); {hint}.") from error
        self.feed, self.files = Feed(reader), page.files(reader.run)
        self.token = secrets.token_urlsafe(32)
        self._once: str | None = None  # a token that opens the page a single time
        self.streams = threading.BoundedSemaphore(MOST_STREAMS)
        self._connections = threading.BoundedSemaphore(MOST_CONNECTIONS)

    def server_bind(self) -> None:
        """Binds the port, without the search for the name of this computer that HTTPServer does."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.port = self.host, int(self.server_address[1])

    @property
    def cookie(self) -> str:
        """Name of the cookie; browsers do not keep those of different ports apart."""
        return f"rlsnet-live-{self.port}"

    @property
    def address(self) -> str:
        """What a user opens in a browser."""
        return self._address(self.token)

    def address_for_once(self) -> str:
        """An address that opens the page a single time: other users of this computer may see it among the arguments of the browser."""
        self._once = secrets.token_urlsafe(32)
        return self._address(self._once)

    def _address(self, token: str) -> str:
        host = platform.node() if self.host in ("0.0.0.0", "::") else f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/?token={token}"

    def knows(self, token: str) -> bool:
        """Whether a token opens the page."""
        if hmac.compare_digest(token.encode("utf-8", "replace"), self.token.encode()):
            return True
        if self._once is None or not hmac.compare_digest(token.encode("utf-8", "replace"), self._once.encode()):
            return False
        self._once = None
        return True

    def is_own(self, host: str) -> bool:
        """Whether a header Host names this server: if not, another site has made its own name point here (DNS rebinding)."""
        name, colon, port = host.rpartition(":")
        if not colon or port != str(self.port):
            return False
        if is_loopback(self.host):
            return name in ("127.0.0.1", "localhost", "[::1]", self.host, f"[{self.host}]")
        return name in ("localhost", self.host, platform.node(), socket.getfqdn()) or _is_number(name)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answers in a thread of its own, unless there are too many."""
        if self._connections.acquire(blocking=False):
            super().process_request(request, client_address)
            return
        request.settimeout(1)
        try:
            request.sendall(b"HTTP/1.0 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
        except OSError:
            pass
        self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answers one request."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._connections.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Prints the traceback of a fault; a client that has gone is none."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    def serve(self) -> None:
        """Serves until `shutdown`, or until the user ends it."""
        self.feed.start()
        try:
            self.serve_forever(poll_interval=0.2)
        finally:
            self.feed.stop()
            self.server_close()


def _is_number(name: str) -> bool:
    """Whether a host is an address in numbers, which nobody can make to point elsewhere."""
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


class Handler(http.server.BaseHTTPRequestHandler):
    """Answer to one request."""

    server: Server
    server_version, sys_version = "rlsnet", ""
    timeout = SLOW_SECONDS

    def do_GET(self) -> None:
        """Answers, after a check of who asks."""
        path, _, query = self.path.partition("?")
        if (refusal := self._refusal(path, query)) is not None:
            self._send(*refusal)
        elif path == "/events":
            self._stream()
        elif path == "/saved.html":
            more = {"Content-Disposition": f'attachment; filename="{page.SAVED}"'}
            self._ask(lambda reader: page.saved(reader).encode(), "text/html; charset=utf-8", more)
        elif path in QUESTIONS:
            self._question(path, query)
        else:
            kind, content = self.server.files[path]
            self._send(200, content, kind, self._new_cookie() if path == "/" else {})

    do_HEAD = do_GET

    def _other_method(self) -> None:
        self._send(405, "expected GET.", more={"Allow": "GET, HEAD"})

    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_TRACE = do_CONNECT = _other_method

    def _refusal(self, path: str, query: str) -> tuple[int, str] | None:
        """Status and text for a request that is not answered; None for one that is."""
        hosts, origins = (self.headers.get_all(name) or [] for name in ("Host", "Origin"))
        if len(hosts) != 1 or not self.server.is_own(hosts[0]):
            return (
                403,
                f"The address names another computer or port; expected 127.0.0.1:{self.server.port} or localhost:{self.server.port}.",
            )
        if any(origin != f"http://{hosts[0]}" for origin in origins):
            return 403, "Another site may not ask for this page."
        if not self._is_known(path, query):
            return 403, "The address lacks the token, or has that of an earlier start; open the address that rlsnet live has printed."
        if path not in self.server.files and path not in (*QUESTIONS, "/events", "/saved.html"):
            return 404, "There is no such page."
        return (414, "The address is too long.") if len(query) > MOST_QUERY else None

    def _is_known(self, path: str, query: str) -> bool:
        """Whether the request has the token: the address of the page itself, or the cookie."""
        given = [value for each in self.headers.get_all("Cookie") or [] for value in _values(each, self.server.cookie)]
        if path == "/" and query.startswith("token="):
            given.append(query.removeprefix("token="))
        return any(map(self.server.knows, given))

    def _new_cookie(self) -> dict[str, str]:
        """The header that lets the page be loaded again without the token in its address."""
        return {"Set-Cookie": f"{self.server.cookie}={self.server.token}; Path=/; HttpOnly; SameSite=Strict"}

    def _question(self, path: str, query: str) -> None:
        """Answers what a page asks for."""
        key, answer = QUESTIONS[path]
        try:
            value = parse_qs(query, keep_blank_values=True, max_num_fields=4)[key][0]
        except (KeyError, ValueError):
            self._send(400, f"expected {path}?{key}=.")
        else:
            self._ask(lambda reader: as_json(answer(reader, value)), "application/json")

    def _ask(self, question: Callable[[Reader], bytes], kind: str, more: dict[str, str] | None = None) -> None:
        """Answers with what the files of the run tell, or with why they do not."""
        try:
            content = self.server.feed.ask(question)
        except UserError as error:
            self._send(404, str(error))
        except Exception as error:  # damage of a kind that was not foreseen does not end the view
            self._send(500, f"This could not be read from the files of the run ({first_line(error)}).")
        else:
            self._send(200, content, kind, more)

    def _send(self, status: int, content: str | bytes, kind: str = "text/plain; charset=utf-8", more: dict[str, str] | None = None) -> None:
        """Sends a complete answer."""
        content = content.encode() if isinstance(content, str) else content
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **(more or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def end_headers(self) -> None:
        """Ends the headers with those that each answer has."""
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def _stream(self) -> None:
        """Sends what changes until the client goes (server-sent events); at most MOST_STREAMS at a time."""
        if not self.server.streams.acquire(blocking=False):
            self._send(503, f"{MOST_STREAMS} pages are open already; close one of them.")
            return
        feed = self.server.feed
        feed.look(1)
        try:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            if self.command != "HEAD":
                self._events(feed)
        finally:
            feed.look(-1)
            self.server.streams.release()

    def _events(self, feed: Feed) -> None:
        """Sends the parts of the state that have changed, each time some have."""
        since, waited = 0, 0
        while not feed.ended:
            since, parts = feed.changed(since, 1)
            waited = 0 if parts else waited + 1
            if self._has_gone():
                return
            if parts:
                content = ", ".join(f'"{name}": {each}' for name, each in parts.items())
                self.wfile.write(f"data: {{{content}}}\n\n".encode())
            elif waited % STILL_SECONDS == 0:
                self.wfile.write(b": no change\n\n")

    def _has_gone(self) -> bool:
        """Whether the client has closed the connection; after its request it sends nothing else."""
        return bool(select.select([self.connection], [], [], 0)[0])

    def log_message(self, format: str, *arguments: Any) -> None:
        """Prints nothing for each request."""


def _values(cookies: str, name: str) -> list[str]:
    """Values of the cookies with a name in a header."""
    pairs = (each.strip().partition("=") for each in cookies.split(";"))
    return [value for found, _, value in pairs if found == name]
