from __future__ import annotations

import base64
import json
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPResponse, RemoteDisconnected
from pathlib import Path

import cv2
import numpy as np
import pytest
from patience import PATIENCE
from small_model import write_model

from edge_app.drawing.words import KOREAN
from edge_app.errors import OutputError, SettingsError
from edge_app.result_line import result_line
from edge_app.sinks import web
from edge_app.types import NO_FACES, Frame, Result, Status

ROOT = Path(__file__).parent.parent
PASSWORD = "lamp:ö 3"


def result(index: int) -> Result:
    image = np.full((48, 64, 3), (200, 40 + index, 40), np.uint8)
    return Result(Frame(image, index, index * 40_000_000, "cam0"), NO_FACES, {}, Status(30.0, 20.0, 0, "cpu"))


@pytest.fixture
def sink():
    with web.Sink("0") as sink:
        yield sink


def connected(url: str) -> HTTPConnection:
    host, port = re.fullmatch(r"http://(\S+):(\d+)/", url).groups()
    own = "127.0.0.1" if host.endswith(".local") else host.strip("[]")
    return HTTPConnection(own, int(port), timeout=20 * PATIENCE)


@contextmanager
def asked(url: str, path: str, **headers: str) -> Iterator[HTTPResponse]:
    with closing(connected(url)) as connection:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        if response.headers.get("Content-Type", "").startswith("multipart"):
            assert response.readline() == b"--frame\r\n"
        yield response


def status(url: str, path: str = "/snapshot.jpg", **headers: str) -> int:
    with asked(url, path, **headers) as response:
        return response.status


def login(password: str, user: str = "me") -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def part(stream: HTTPResponse) -> np.ndarray:
    """The next picture of a stream, RGB."""
    assert stream.readline() == b"Content-Type: image/jpeg\r\n"
    length = int(stream.readline().removeprefix(b"Content-Length: "))
    assert stream.readline() == b"\r\n"
    jpeg = stream.read(length)
    assert stream.readline() == b"\r\n" and stream.readline() == b"--frame\r\n", "else a browser waits for it"
    return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB)


def test_the_newest_picture(sink):
    for index in (0, 60):
        sink.write(result(index))
    with asked(sink.url, "/snapshot.jpg") as response:
        picture = cv2.imdecode(np.frombuffer(response.read(), np.uint8), cv2.IMREAD_COLOR_RGB)
    assert response.headers["Content-Type"] == "image/jpeg" and response.headers["Cache-Control"] == "no-store"
    assert picture.shape == (48, 64, 3) and np.abs(picture.mean((0, 1)) - (200, 100, 40)).max() < 4


@pytest.mark.parametrize("path", ["/", "/font.ttf", "/snapshot.jpg", "/stream.mjpg", "/events"])
def test_the_head_alone_is_given_where_it_is_asked_for(sink, path):
    """As curl -I does; HTTPConnection would leave a body for the next answer."""
    sink.write(result(0))
    with asked(sink.url, path) as response:
        kind = response.headers["Content-Type"]
    with socket.create_connection(sink._server.server_address) as viewer:
        viewer.settimeout(20 * PATIENCE)
        viewer.sendall(f"HEAD {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        head = b""
        while more := viewer.recv(65536):
            head += more
            assert b"\r\n\r\n" not in head[:-4], "a body follows"
    assert head.startswith(b"HTTP/1.1 200 ") and f"Content-Type: {kind}\r\n".encode() in head


def test_what_was_drawn_is_shown(sink):
    bare = result(0)
    drawn = np.full((24, 32, 3), (10, 20, 230), np.uint8)
    sink.write(Result(bare.frame, bare.faces, {}, bare.status, drawn))
    with asked(sink.url, "/snapshot.jpg") as response:
        picture = cv2.imdecode(np.frombuffer(response.read(), np.uint8), cv2.IMREAD_COLOR_RGB)
    assert np.abs(picture.mean((0, 1)) - (10, 20, 230)).max() < 4


def test_the_first_picture_is_waited_for(sink):
    later = threading.Timer(0.2, sink.write, [result(0)])
    later.start()
    assert status(sink.url) == 200
    later.join()


def test_no_picture_in_time(monkeypatch):
    monkeypatch.setattr(web, "_FRESH_S", 0.05)
    with web.Sink("0") as sink:
        assert status(sink.url) == 503
        sink.write(result(0))
        deadline = time.monotonic() + 20 * PATIENCE
        while (code := status(sink.url)) == 200 and time.monotonic() < deadline:
            pass
        assert code == 503, "one of long ago is none"


def test_a_connection_serves_many_snapshots(sink):
    sink.write(result(0))
    used = set()
    with closing(connected(sink.url)) as connection:
        for _ in range(3):
            connection.request("GET", "/snapshot.jpg")
            connection.getresponse().read()
            used.add(connection.sock.getsockname())
    assert len(used) == 1


def test_a_stream_of_pictures_each_encoded_once(sink, monkeypatch):
    encoded = []
    encode = cv2.imencode
    monkeypatch.setattr(web.cv2, "imencode", lambda *given: encoded.append(1) or encode(*given))
    sink.write(result(0))
    with asked(sink.url, "/stream.mjpg") as one, asked(sink.url, "/stream.mjpg") as two:
        for index in (0, 30, 60):
            if index:
                sink.write(result(index))
            for stream in (one, two):
                assert abs(part(stream)[..., 1].mean() - 40 - index) < 4
    assert one.headers["Content-Type"] == "multipart/x-mixed-replace; boundary=frame"
    assert len(encoded) == 3


def test_a_picture_that_is_no_longer_live_is_dark(monkeypatch):
    monkeypatch.setattr(web, "_FRESH_S", 0.2)
    with web.Sink("0") as sink:
        sink.write(result(100))
        with asked(sink.url, "/stream.mjpg") as stream:
            live, stale = part(stream), part(stream)
            sink.write(result(90))
            again = part(stream)
            while again.mean() < 0.5 * live.mean():  # dark ones came first
                again = part(stream)
    assert stale.mean() < 0.4 * live.mean() and abs(again.mean() - live.mean()) < 20


def test_who_comes_late_is_not_shown_the_past_as_now(monkeypatch):
    monkeypatch.setattr(web, "_FRESH_S", 0.1)
    with web.Sink("0") as sink:
        sink.write(result(200))
        assert not threading.Event().wait(0.15)
        with asked(sink.url, "/stream.mjpg") as stream, asked(sink.url, "/events") as events:
            assert part(stream).mean() < 100 and events.fp.readline() == b":\n"


def test_the_page_brings_its_hangul(sink):
    with asked(sink.url, "/font.ttf") as response:
        assert response.headers["Content-Type"] == "font/ttf" and len(response.read()) > 100_000


def test_nobody_looks_and_nothing_is_encoded(sink, monkeypatch):
    monkeypatch.setattr(web.cv2, "imencode", lambda *given: pytest.fail("encoded"))
    for index in range(50):
        sink.write(result(index))


def test_events_are_the_lines_of_the_results(sink):
    sink.write(result(0))
    with asked(sink.url, "/events") as stream:
        for index in range(3):
            if index:
                sink.write(result(index))
            assert json.loads(stream.readline().removeprefix(b"data: ")) == result_line(result(index))
            assert stream.readline() == b"\n"
    assert stream.headers["Content-Type"] == "text/event-stream"


def noise(index: int) -> Result:
    image = np.random.default_rng(index).integers(0, 256, (720, 1280, 3), np.uint8)
    return Result(Frame(image, index, 0, "cam0"), NO_FACES, {}, Status(30.0, 20.0, 0, "cpu"))


def test_a_viewer_that_takes_nothing_holds_nobody_and_does_not_see_the_past(sink):
    """A picture is 1.3 MB, more than all buffers between the two take of what is not read."""
    with closing(socket.socket()) as idle:
        idle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        idle.connect(("127.0.0.1", int(sink.url.rpartition(":")[2].strip("/"))))
        idle.sendall(b"GET /stream.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert idle.recv(9) == b"HTTP/1.1 "
        for index in range(5):
            sink.write(noise(index))
            with asked(sink.url, "/snapshot.jpg") as response:  # of the result that was just written
                assert len(response.read()) > 500_000
        sink.write(result(9))
        idle.settimeout(20 * PATIENCE)
        seen = b""
        while seen.count(b"--frame\r\n") < 3:
            seen += idle.recv(1 << 20)
    lengths = [int(found) for found in re.findall(rb"Content-Length: (\d+)", seen)]
    assert lengths[0] > 500_000 > lengths[1], "after the picture that was stuck the newest one comes"


def test_a_page_with_the_words_of_the_language():
    with web.Sink("0", words={"happy": "행복", "x": "</script>"}) as sink, asked(sink.url, "/?label") as response:
        page = response.read().decode()
    words = json.loads(re.search(r"words = (\{.*?\}), image", page)[1])
    assert words == {"happy": "행복", "x": "</script>"} and page.count("</script>") == 1
    assert (
        "Tell the people who are seen" in page and "default-src 'none'" in response.headers["Content-Security-Policy"]
    )


VIEWER = """
const [, page, search, ...events] = process.argv
const image = {}, text = {textContent: ""}, script = /<script>([^]*)<\\/script>/.exec(page)[1]
let source
const body = {classList: {toggle() {}, add() {}, remove() {}}}
const document = {querySelector: (name) => (name === "img" ? image : text), body}
class EventSource { constructor() { source = this } }
new Function("document", "location", "EventSource", "setTimeout", "clearTimeout", script)(
  document, {search}, EventSource, () => 0, () => 0)
console.log(JSON.stringify(events.map((data) => (source.onmessage({data}), text.textContent))))
"""


def face(name: str, side: int = 50, *, unsure: bool = False) -> dict:
    box = {"x1": 0, "y1": 0, "x2": side, "y2": side}
    return {"track_id": 1, "box": box, "expression": {"name": name, "confidence": 0.8}, "unsure": unsure}


@pytest.mark.skipif(not shutil.which("node"), reason="needs node")
@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("label", ["약올림 아님", "약올림", "약올림 아님", "", ""]),
        ("label=", ["약올림 아님", "약올림", "약올림 아님", "", ""]),
        ("label=teasing", ["", "약올림", "약올림", "", ""]),
        ("label=%EC%95%BD%EC%98%AC%EB%A6%BC", ["", "약올림", "약올림", "", ""]),
        ("label=Non+teasing", ["약올림 아님", "", "약올림 아님", "", ""]),
        ("label=%3Cimg%3E", ["", "", "", "", ""]),
    ],
)
def test_the_page_shows_the_word_alone_or_one_word_only(query, shown):
    both = [face("non_teasing", 90), face("teasing")]
    seen = [[face("non_teasing")], [face("teasing")], both, [face("teasing", unsure=True)], []]
    with web.Sink("0", words=KOREAN) as sink, asked(sink.url, f"/?{query}") as response:
        page = response.read().decode()
    lines = [json.dumps({"faces": faces}) for faces in seen]
    done = subprocess.run(["node", "-e", VIEWER, page, f"?{query}", *lines], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == shown


def test_an_unknown_page_names_the_known(sink):
    with asked(sink.url, "/admin") as response:
        assert response.status == 404 and "/stream.mjpg, /snapshot.jpg" in response.read().decode()


@pytest.mark.parametrize(
    ("host", "code"),
    [("127.0.0.1:1", 200), ("localhost:8080", 200), ("[::1]:80", 200), ("evil.example", 421), ("[::1", 421), ("", 421)],
)
def test_a_site_that_calls_itself_by_our_number_sees_nothing(sink, host, code):
    """DNS rebinding: a page of evil.example, whose name was made to mean 127.0.0.1 meanwhile."""
    sink.write(result(0))
    assert status(sink.url, Host=host) == code


@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        (login(PASSWORD), 200),
        (login(PASSWORD, "anybody"), 200),
        (login(PASSWORD + "x"), 401),
        (login(""), 401),
        ("Basic %%%", 401),
        ("Bearer x", 401),
        (None, 401),
    ],
)
@pytest.mark.parametrize("path", ["/", "/snapshot.jpg", "/stream.mjpg", "/events", "/else"])
def test_a_password_is_asked_for_everything(authorization, code, path):
    headers = {"Authorization": authorization} if authorization else {}
    with web.Sink("0", password=PASSWORD) as sink:
        sink.write(result(0))
        assert status(sink.url, path, **headers) == (404 if code == 200 and path == "/else" else code)


def test_elsewhere_only_with_a_password():
    with pytest.raises(SettingsError, match="CALMCAM_WEB_PASSWORD"):
        web.Sink("0.0.0.0:0")
    with web.Sink("0.0.0.0:0", password=PASSWORD) as sink:
        sink.write(result(0))
        assert status(sink.url, Authorization=login(PASSWORD), Host="pi.local") == 200


@pytest.mark.parametrize(
    "address", ["", "x", "80:", ":80", "1:2:3", "70000", "a b:80", "-1", "[::1", "no.such.invalid:80"]
)
def test_what_is_no_address(address):
    with pytest.raises(SettingsError, match="--web"):
        web.Sink(address)


@pytest.mark.parametrize("address", ["[::1]:0", "localhost:0", "127.0.0.1:0", " 0 "])
def test_this_computer_by_each_of_its_names(address):
    try:
        with web.Sink(address) as sink:
            sink.write(result(0))
            assert status(sink.url) == 200
    except OutputError as error:
        assert address == "[::1]:0", error
        pytest.skip(f"no IPv6 here: {error}")


def test_a_port_that_is_taken(sink):
    port = sink.url.rpartition(":")[2].strip("/")
    with pytest.raises(OutputError, match=rf"127.0.0.1:{port}: cannot be had .*name another port"), web.Sink(port):
        pass


def test_no_more_connections_than_there_is_room_for_not_even_silent_ones(sink):
    sink._server.room = threading.BoundedSemaphore(2)
    sink.write(result(0))
    port = int(sink.url.rpartition(":")[2].strip("/"))
    with asked(sink.url, "/stream.mjpg") as stream, socket.create_connection(("127.0.0.1", port), 5):
        part(stream)
        with pytest.raises((RemoteDisconnected, ConnectionResetError)):
            status(sink.url)
        sink.write(result(1))
        part(stream)
    deadline = time.monotonic() + 20 * PATIENCE
    while time.monotonic() < deadline:
        with suppress(RemoteDisconnected, ConnectionResetError):
            assert status(sink.url) == 200
            break
    else:
        pytest.fail("their room is not given back")


@pytest.mark.parametrize("path", ["/events", "/stream.mjpg"])
def test_viewers_that_left_give_their_room_back_though_no_picture_comes(path, monkeypatch):
    monkeypatch.setattr(web, "_FRESH_S", 0.02)
    with web.Sink("0") as sink:
        room = sink._server.room = threading.BoundedSemaphore(1)
        sink.write(result(0))
        with asked(sink.url, path):
            assert not room.acquire(blocking=False)
        assert room.acquire(timeout=20 * PATIENCE)
        room.release()


def test_over_ssh_it_says_how_to_look(monkeypatch):
    monkeypatch.setenv("SSH_CONNECTION", "10.0.0.2 50000 10.0.0.7 22")
    said = []
    with web.Sink("0", tell=said.append) as sink:
        port = sink._server.server_address[1]
    assert said[0] == f"picture at http://127.0.0.1:{port}/"
    assert f"ssh -L {port}:localhost:{port} " in said[1] and "@10.0.0.7" in said[1]
    with web.Sink("0.0.0.0:0", password="x", tell=said.append) as sink:
        assert sink.url == f"http://{socket.gethostname()}.local:{sink._server.server_address[1]}/"
    assert len(said) == 3


def test_the_end_is_the_end_for_viewers_and_the_port_is_free_again():
    with web.Sink("0") as sink:
        url = sink.url
        sink.write(result(0))
        host, port = "127.0.0.1", int(url.rpartition(":")[2].strip("/"))
        stream = HTTPConnection(host, port, timeout=20 * PATIENCE)
        stream.request("GET", "/stream.mjpg")
        response = stream.getresponse()
        assert response.readline() == b"--frame\r\n"
        part(response)
    assert response.read() == b""
    stream.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, port), 5)
    with web.Sink(str(port)):
        pass


def test_what_is_no_request_disturbs_nobody(sink):
    sink.write(result(0))
    for garbage in (b"\x16\x03\x01\x02\x00\x01", b"GET\r\n\r\n", b"POST / HTTP/1.0\r\n\r\n", b"GET /" + b"a" * 70000):
        with socket.create_connection(("127.0.0.1", int(sink.url.rpartition(":")[2].strip("/"))), 5) as raw:
            raw.sendall(garbage)
    assert status(sink.url) == 200


def test_live_shows_itself(tmp_path):
    model = str(write_model(tmp_path / "model"))
    command = [sys.executable, "-m", "edge_app", "live", "--model", model, "--source", "synthetic", "--no-show"]
    command += ["--web", "0", "--labels", "ko"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        try:
            url = next(line for line in process.stderr if line.startswith("picture at ")).split()[-1]
            with asked(url, "/stream.mjpg") as stream:
                assert part(stream).shape == (720, 1280, 3) and part(stream).shape == (720, 1280, 3)
            with asked(url, "/events") as stream:
                line = json.loads(stream.readline().removeprefix(b"data: "))
            with asked(url, "/") as page:
                assert "행복" in page.read().decode()
            process.terminate()
            _, said = process.communicate(timeout=20 * PATIENCE)
        finally:
            process.kill()
    assert line["source"] == "synthetic" and process.returncode == 143
    assert "Traceback" not in said and "frames in" in said


@pytest.mark.parametrize("begun", [b"", b"GET / HTTP/1.1\r\nHost: localhost\r\nX: "])
def test_a_request_that_drips_holds_no_place(monkeypatch, begun):
    monkeypatch.setattr(web, "_PATIENCE_S", 0.5)
    with web.Sink("0") as sink:
        room = sink._server.room = threading.BoundedSemaphore(1)
        port = int(sink.url.rpartition(":")[2].strip("/"))
        with socket.create_connection(("127.0.0.1", port), 5) as dripping:
            dripping.sendall(begun)
            deadline = time.monotonic() + 20 * PATIENCE
            while room._value:  # to try it would take it away
                assert time.monotonic() < deadline
                time.sleep(0.01)
            while not room.acquire(timeout=0.05):
                assert time.monotonic() < deadline
                with suppress(ConnectionError):
                    dripping.sendall(b"G")
        room.release()
