"""The live picture and its results over HTTP: for a browser, for OBS, for other programs.

`/` is a page (`/?label` the words alone, on nothing), `/stream.mjpg` the picture, `/snapshot.jpg` the newest one, `/events` each
result as a server-sent event (WHATWG HTML, 9.2), the same line as in results.jsonl.
"""

from __future__ import annotations

import base64
import hmac
import ipaddress
import json
import logging
import re
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import TCPServer, ThreadingMixIn
from urllib.parse import urlsplit

import cv2

from ..errors import OutputError, SettingsError
from ..result_line import result_line
from ..types import Result

log = logging.getLogger(__name__)

_VIEWERS = 16  # requests that are answered at the same time
_PATIENCE_S = 10.0  # for a viewer that takes nothing, or asks nothing
_FIRST_S = 5.0  # that a snapshot waits for the first picture
_QUALITY = 85  # of the JPEGs, 0 to 100
_PAGE = Path(__file__).with_name("web.html")
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",  # no other site shows the picture
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; connect-src 'self'; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'",
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
        return self

    @property
    def url(self) -> str:
        """Where the page is, once entered."""
        host, port = self._server.server_address[:2]
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
        self._number, self._open = 0, True
        self._jpeg: tuple[Result | None, bytes] = None, b""

    def put(self, result: Result) -> None:
        with self._change:
            self._result = result
            self._number += 1
            self._change.notify_all()

    def close(self) -> None:
        with self._change:
            self._open = False
            self._change.notify_all()

    def first(self, seconds: float) -> Result | None:
        """The newest; waits for it where there is none yet. None when none comes."""
        with self._change:
            self._change.wait_for(lambda: self._number or not self._open, seconds)
            return self._result

    def __iter__(self) -> Iterator[Result]:
        """Results until `close`; those that came while the last one was sent are left out."""
        seen = 0
        while True:
            with self._change:
                self._change.wait_for(lambda: self._number > seen or not self._open)
                if not self._open:
                    return
                seen, result = self._number, self._result
            yield result

    def jpeg(self, result: Result) -> bytes:
        """Its picture, encoded once for all who look."""
        with self._encoding:
            if self._jpeg[0] is not result:
                image = result.frame.image if result.picture is None else result.picture
                bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
                self._jpeg = result, cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()
            return self._jpeg[1]


class _Server(ThreadingMixIn, TCPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, host: str, port: int, newest: _Newest, page: bytes, password: str) -> None:
        self.newest, self.page, self.password = newest, page, password
        self.room = threading.BoundedSemaphore(_VIEWERS)
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """A viewer that went away is no error of the run."""
        log.debug("viewer %s", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _PATIENCE_S
    server_version, sys_version = "calmcam", ""

    def do_GET(self) -> None:
        answers = {
            "/": self._page,
            "/stream.mjpg": self._stream,
            "/snapshot.jpg": self._snapshot,
            "/events": self._events,
        }
        if not self._may_look():
            return
        answer = answers.get(self.path.partition("?")[0])
        if answer is None:
            return self.send_error(HTTPStatus.NOT_FOUND, explain=f"There is {', '.join(answers)}.")
        if not self.server.room.acquire(blocking=False):
            return self.send_error(HTTPStatus.SERVICE_UNAVAILABLE, "too many viewers")
        try:
            answer()
        finally:
            self.server.room.release()

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
        self._begin("text/html; charset=utf-8", len(self.server.page))
        self.wfile.write(self.server.page)

    def _snapshot(self) -> None:
        result = self.server.newest.first(_FIRST_S)
        if result is None:
            return self.send_error(HTTPStatus.SERVICE_UNAVAILABLE, "no picture yet")
        jpeg = self.server.newest.jpeg(result)
        self._begin("image/jpeg", len(jpeg))
        self.wfile.write(jpeg)

    def _stream(self) -> None:
        self._begin("multipart/x-mixed-replace; boundary=frame")
        for result in self.server.newest:
            jpeg = self.server.newest.jpeg(result)
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            self.wfile.write(head.encode() + jpeg + b"\r\n")

    def _events(self) -> None:
        self._begin("text/event-stream")
        for result in self.server.newest:
            self.wfile.write(f"data: {json.dumps(result_line(result))}\n\n".encode())

    def _begin(self, kind: str, length: int | None = None) -> None:
        self.send_response(HTTPStatus.OK)
        for name, value in {"Content-Type": kind, **_HEADERS}.items():
            self.send_header(name, value)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

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
