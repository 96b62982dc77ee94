"""The live picture and its results over HTTP: for a browser, for OBS, for other programs.

`/` is a page (`/?picture` the picture alone, `/?label` the word alone, on nothing, `/?label=teasing` only that one),
`/stream.mjpg` the picture, `/snapshot.jpg` the newest one, `/events` each result as a server-sent event (WHATWG HTML,
9.2), the same line as in results.jsonl.
"""

from __future__ import annotations

import base64
import getpass
import hmac
import ipaddress
import json
import logging
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import TCPServer, ThreadingMixIn
from urllib.parse import urlsplit

import cv2

from ..drawing.text import FONT
from ..errors import OutputError, SettingsError
from ..result_line import result_line
from ..types import Result

log = logging.getLogger(__name__)

_VIEWERS = 64  # connections at the same time; a browser takes up to six
_PATIENCE_S = 10.0  # for a viewer that takes nothing, or asks nothing
_FRESH_S = 5.0  # a picture that is older is none; a viewer who waits so long hears that the run is alive
_UNSENT = 128 * 1024  # bytes that wait for a slow viewer: more, and it would see the past
_QUALITY = 85  # of the JPEGs, 0 to 100
_PAGE = Path(__file__).with_name("web.html")
_FONT = Path(__file__).parents[1] / "drawing" / FONT
_STALE = 0.3  # of its light is left to a picture that is no longer live
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",  # no other site shows the picture
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; connect-src 'self'; "
    "font-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'",
}


class Sink:
    """Serves `result.picture` (or the bare frame) and the result at `address`, "[HOST:]PORT"; port 0 takes a free one.

    Without a host only this computer can look. Elsewhere a `password` is needed, with any user name: SettingsError
    where there is none, and for what is no address. OutputError, when entered, for an address that cannot be had.
    The run never waits for a viewer: each gets the newest result, and a picture is encoded once, when somebody looks.
    `words` are what labels are called on the page; `tell` is told where it is.
    """

    name = "web"

    def __init__(
        self,
        address: str = "8080",
        *,
        password: str = "",
        words: Mapping[str, str] | None = None,
        tell: Callable[[str], None] = log.info,
    ) -> None:
        self._host, self._port = _place(address)
        self._password = password
        if not password and not _is_own(self._host):
            raise SettingsError(
                f"--web {address}: everyone who reaches that address would see the camera; expected a password in the "
                "environment variable CALMCAM_WEB_PASSWORD. Set it, or leave the host out and look through ssh -L"
            )
        self._words, self._tell = dict(words or {}), tell

    def __enter__(self) -> Sink:
        self._newest = _Newest()
        words = json.dumps(self._words, ensure_ascii=False).replace("</", "<\\/")
        page = _PAGE.read_text(encoding="utf-8").replace("$words", words)
        try:
            self._server = _Server(self._host, self._port, self._newest, page.encode(), self._password)
        except OSError as error:
            where = f"--web {self._host}:{self._port}"
            raise OutputError(f"{where}: cannot be had ({error.strerror}); name another port or host") from error
        threading.Thread(target=self._server.serve_forever, args=(0.1,), name="web", daemon=True).start()
        self._tell(f"picture at {self.url}")
        here = os.environ.get("SSH_CONNECTION", "").split()[2:3]  # client, its port, server, its port
        if here and _is_own(self._host):
            port = self._server.server_address[1]
            way = f"ssh -L {port}:localhost:{port} {getpass.getuser()}@{here[0]}"
            self._tell(f"from where you sit: {way}, then http://localhost:{port}/ there")
        return self

    @property
    def url(self) -> str:
        """Where the page is, once entered; of every address of this computer one that others can use."""
        host, port = self._server.server_address[:2]
        if ipaddress.ip_address(host.partition("%")[0]).is_unspecified:
            host = f"{socket.gethostname()}.local"
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/"

    def write(self, result: Result) -> None:
        """Make `result` the newest."""
        self._newest.put(result)

    def __exit__(self, *exc: object) -> None:
        self._newest.close()
        self._server.shutdown()
        self._server.server_close()


class _Newest:
    """The newest result, for any number of threads that wait for one newer than they have."""

    def __init__(self) -> None:
        self._change, self._encoding = threading.Condition(), threading.Lock()
        self._result: Result | None = None
        self._number, self._came, self._open = 0, -_FRESH_S, True
        self._jpeg: tuple[Result | None, bool, bytes] = None, False, b""

    def put(self, result: Result) -> None:
        with self._change:
            self._result, self._came = result, time.monotonic()
            self._number += 1
            self._change.notify_all()

    def close(self) -> None:
        with self._change:
            self._open = False
            self._change.notify_all()

    def fresh(self) -> Result | None:
        """One that is no older than `_FRESH_S`, waited for as long; None when none comes."""
        with self._change:
            self._change.wait_for(lambda: self._is_fresh() or not self._open, _FRESH_S)
            return self._result if self._is_fresh() else None

    def __iter__(self) -> Iterator[Result | None]:
        """Results until `close`, the newest each time; None where none came for `_FRESH_S`, at the beginning at once."""
        with self._change:
            seen = 0 if self._is_fresh() else self._number
        if seen:
            yield None
        while True:
            with self._change:
                self._change.wait_for(lambda: self._number > seen or not self._open, _FRESH_S)
                if not self._open:
                    return
                result = self._result if self._number > seen else None
                seen = self._number
            yield result

    @property
    def last(self) -> Result | None:
        """The newest, however old it is."""
        return self._result

    def jpeg(self, result: Result, *, stale: bool = False) -> bytes:
        """Its picture, encoded once for all who look; grey and dark when it is `stale`."""
        with self._encoding:
            if self._jpeg[0] is not result or self._jpeg[1] != stale:
                image = result.frame.image if result.picture is None else result.picture
                if stale:
                    shown = cv2.convertScaleAbs(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), alpha=_STALE)
                else:
                    shown = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
                jpeg = cv2.imencode(".jpg", shown, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()
                self._jpeg = result, stale, jpeg
            return self._jpeg[2]

    def _is_fresh(self) -> bool:
        return time.monotonic() - self._came < _FRESH_S


class _Server(ThreadingMixIn, TCPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, host: str, port: int, newest: _Newest, page: bytes, password: str) -> None:
        self.newest, self.page, self.password = newest, page, password
        self.room = threading.BoundedSemaphore(_VIEWERS)
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _Handler)

    def process_request(self, request: socket.socket, client_address: object) -> None:
        """A thread for each connection, as long as there are few: each holds a file descriptor, which the run needs too."""
        if self.room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            log.debug("viewer %s: too many", client_address)
            self.shutdown_request(request)

    def process_request_thread(self, request: socket.socket, client_address: object) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.room.release()

    def handle_error(self, request: object, client_address: object) -> None:
        """A viewer that went away is no error of the run."""
        log.debug("viewer %s", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"  # a page that asks for each picture keeps its connection
    timeout = _PATIENCE_S
    server_version, sys_version = "calmcam", ""
    disable_nagle_algorithm = True

    def setup(self) -> None:
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _UNSENT)
        super().setup()

    def handle_one_request(self) -> None:
        """A request that is not whole after `_PATIENCE_S` ends, however steadily its letters drip."""
        self._late = threading.Timer(_PATIENCE_S, self._hang_up)
        self._late.daemon = True
        self._late.start()
        try:
            super().handle_one_request()
        finally:
            self._late.cancel()

    def parse_request(self) -> bool:
        whole = super().parse_request()
        self._late.cancel()
        return whole

    def _hang_up(self) -> None:
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def do_GET(self) -> None:
        answers = {
            "/": self._page,
            "/font.ttf": self._font,
            "/stream.mjpg": self._stream,
            "/snapshot.jpg": self._snapshot,
            "/events": self._events,
        }
        if not self._may_look():
            return
        answer = answers.get(self.path.partition("?")[0])
        if answer is None:
            self.send_error(HTTPStatus.NOT_FOUND, explain=f"There is {', '.join(answers)}.")
        else:
            answer()

    do_HEAD = do_GET

    def _may_look(self) -> bool:
        if self.server.password:
            _, _, login = self.headers.get("Authorization", "").partition("Basic ")
            if _is_login(login, self.server.password):
                return True
            self.send_response(HTTPStatus.UNAUTHORIZED)
            self.send_header("WWW-Authenticate", 'Basic realm="calmcam", charset="UTF-8"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return False
        if _names_us(self.headers.get("Host", "localhost")):
            return True
        self.send_error(HTTPStatus.MISDIRECTED_REQUEST, explain="Ask by localhost or by a number.")
        return False

    def _page(self) -> None:
        if self._begin("text/html; charset=utf-8", len(self.server.page)):
            self.wfile.write(self.server.page)

    def _font(self) -> None:
        font = _FONT.read_bytes()
        if self._begin("font/ttf", len(font), {"Cache-Control": "max-age=86400"}):
            self.wfile.write(font)

    def _snapshot(self) -> None:
        result = self.server.newest.fresh()
        if result is None:
            return self.send_error(HTTPStatus.SERVICE_UNAVAILABLE, f"no picture for {_FRESH_S:g} s")
        jpeg = self.server.newest.jpeg(result)
        if self._begin("image/jpeg", len(jpeg)):
            self.wfile.write(jpeg)

    def _stream(self) -> None:
        if not self._begin("multipart/x-mixed-replace; boundary=frame"):
            return
        self.wfile.write(b"--frame\r\n")
        for result in self.server.newest:
            last = result or self.server.newest.last
            if last is None:
                continue
            jpeg = self.server.newest.jpeg(last, stale=result is None)
            head = f"Content-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            # Browsers show a picture when the next one begins.
            self.wfile.write(head.encode() + jpeg + b"\r\n--frame\r\n")

    def _events(self) -> None:
        if not self._begin("text/event-stream"):
            return
        for result in self.server.newest:
            self.wfile.write(b":\n\n" if result is None else f"data: {json.dumps(result_line(result))}\n\n".encode())

    def _begin(self, kind: str, length: int | None = None, more: Mapping[str, str] | None = None) -> bool:
        """Answer up to the body; whether one was asked for."""
        self.send_response(HTTPStatus.OK)
        ends = {"Connection": "close"} if length is None else {"Content-Length": str(length)}
        for name, value in {"Content-Type": kind, **_HEADERS, **ends, **(more or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        return self.command != "HEAD"

    def log_message(self, form: str, *values: object) -> None:
        log.debug("%s %s", self.client_address[0], form % values)


def _place(address: str) -> tuple[str, int]:
    """Numeric host and port of "[HOST:]PORT"."""
    found = re.fullmatch(r"(?:(?:\[([0-9a-fA-F:.%\w]+)\]|([^:\[\]]+)):)?(\d{1,5})", address.strip())
    if not found or int(found[3]) > 65535:
        raise SettingsError(
            f"--web {address}: expected a port or HOST:PORT, port 0 to 65535, such as 8080 or 0.0.0.0:8080"
        )
    host = found[1] or found[2] or "127.0.0.1"
    try:
        return socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0], int(found[3])
    except (OSError, UnicodeError) as error:
        raise SettingsError(f"--web {address}: {host} is no address of this computer ({error})") from error


def _is_own(host: str) -> bool:
    return ipaddress.ip_address(host.partition("%")[0]).is_loopback


def _names_us(host: str) -> bool:
    """Whether a request's Host is a number or localhost: a site that calls itself by our number has a name of its own."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or bool(ipaddress.ip_address(name))
    except ValueError:
        return False


def _is_login(login: str, password: str) -> bool:
    try:
        given = base64.b64decode(login, validate=True).partition(b":")[2]
    except ValueError:
        return False
    return hmac.compare_digest(given, password.encode())
