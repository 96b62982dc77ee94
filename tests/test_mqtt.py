from __future__ import annotations

import gc
import json
import queue
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from paho.mqtt import client as paho
from patience import PATIENCE
from small_model import LABELS, write_model

from edge_app.errors import OutputError, SettingsError
from edge_app.sinks import mqtt
from edge_app.types import NO_FACES, Decision, Faces, Frame, Result, Status

ROOT = Path(__file__).parent.parent
LONG = 20 * PATIENCE


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@contextmanager
def broker(folder: Path, port: int, anonymous: str = "true") -> Iterator[subprocess.Popen]:
    """A broker, as soon as it answers."""
    config = folder / "broker.yaml"
    config.write_text(
        f'listeners: {{default: {{type: tcp, bind: "127.0.0.1:{port}"}}}}\n'
        f"plugins: {{amqtt.plugins.authentication.AnonymousAuthPlugin: {{allow_anonymous: {anonymous}}}}}\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", "from amqtt.scripts.broker_script import main; main()"]
    with subprocess.Popen([*command, "-c", config], stderr=subprocess.PIPE, text=True) as process:
        try:
            said = []
            for line in process.stderr:
                said.append(line)
                if "bind to" in line:
                    break
            else:
                pytest.fail("".join(said))
            threading.Thread(target=process.stderr.read, daemon=True).start()  # it never waits for us
            yield process
        finally:
            process.kill()


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    port = free_port()
    with broker(tmp_path_factory.mktemp("broker"), port):
        yield port


@pytest.fixture
def heard(port):
    """What is published below "test", from now on."""
    with listening(port) as messages:
        yield messages


@contextmanager
def listening(port: int, topic: str = "#") -> Iterator[queue.Queue]:
    messages, ready = queue.Queue(), threading.Event()
    client = paho.Client(paho.CallbackAPIVersion.VERSION2)
    client.on_connect = lambda *_: client.subscribe(topic)
    client.on_subscribe = lambda *_: ready.set()
    client.on_message = lambda client, data, message: messages.put((message.topic, message.payload.decode()))
    client.connect("127.0.0.1", port)
    client.loop_start()
    assert ready.wait(LONG)
    try:
        yield messages
    finally:
        client.disconnect()
        client.loop_stop()


def until(messages: queue.Queue, topic: str, value: str) -> list[tuple[str, str]]:
    """All messages up to the first of `topic` that is `value`."""
    found = []
    while (topic, value) not in found:
        found.append(messages.get(timeout=LONG))
    return found


def result(index: int, *said: tuple[int, str, float], source: str = "cam0") -> Result:
    """Of a camera; `said`: track, expression, side of the box."""
    frame = Frame(np.zeros((48, 64, 3), np.uint8), index, index * 40_000_000, source, live=True)
    status = Status(30.0, 20.0, 0, "cpu")
    if not said:
        return Result(frame, NO_FACES, {}, status)
    decisions = tuple(Decision(name, 0.9, {name: 0.9}) for _, name, _ in said)
    boxes = np.array([[0, 0, side, side] for *_, side in said], np.float32)
    ids = np.array([track for track, *_ in said])
    return Result(frame, Faces(boxes, np.ones(len(said), np.float32), ids=ids, decisions=decisions), {}, status)


def test_who_is_there_and_what_they_show(port, heard, monkeypatch):
    monkeypatch.setattr(mqtt, "GONE_S", 0.0)  # not seen is gone
    with mqtt.Sink(f"mqtt://127.0.0.1:{port}/home/door", labels=LABELS) as sink:
        sink.write(result(0))
        sink.write(result(1, (1, "happy", 20)))
        sink.write(result(2, (1, "happy", 20)))
        sink.write(result(3, (1, "sad", 20), (2, "angry", 40)))
        sink.write(result(4, (1, "sad", 20)))
    found = until(heard, "home/door/available", "offline")
    told = [(topic.removeprefix("home/door/"), value) for topic, value in found if topic.startswith("home/door/")]
    events = [json.loads(value) for topic, value in told if topic == "events"]
    assert [(one["type"], one["t"], one["source"]) for one in events] == [
        ("new", 0.04, "cam0"),
        ("update", 0.12, "cam0"),
        ("new", 0.12, "cam0"),
        ("end", 0.16, "cam0"),
        ("end", 0.16, "cam0"),
    ]
    assert all(datetime.fromisoformat(one["time"]).tzinfo for one in events)
    names = [[one[when] and one[when]["expression"]["name"] for when in ("before", "after")] for one in events]
    assert names == [[None, "happy"], ["happy", "sad"], [None, "angry"], ["angry", None], ["sad", None]]
    states = [value for topic, value in told if topic == "expression"]
    assert states == ["none", "happy", "angry", "sad", "none"]
    assert [value for topic, value in told if topic == "faces"] == ["0", "1", "2", "1", "0"]
    assert [value for topic, value in told if topic == "available"] == ["online", "offline"]


def test_home_assistant_finds_two_sensors(port, heard):
    with mqtt.Sink(f"mqtt://127.0.0.1:{port}/Küche", labels=("happy", "sad")):
        found = dict(until(heard, "Küche/available", "online"))
    about = json.loads(found["homeassistant/sensor/calmcam_K_fc_che/expression/config"])
    assert about["state_topic"] == "Küche/expression" and about["availability_topic"] == "Küche/available"
    assert about["device_class"] == "enum" and about["options"] == ["happy", "sad", "unsure", "none"]
    assert about["device"]["identifiers"] == ["calmcam_K_fc_che"] and about["origin"]["name"] == "calmcam"
    faces = json.loads(found["homeassistant/sensor/calmcam_K_fc_che/faces/config"])
    assert faces["state_topic"] == "Küche/faces" and faces["unique_id"] != about["unique_id"]


def test_prefixes_of_any_language_are_devices_of_their_own():
    topics = [topic for prefix in ("거실", "주방", "a/b", "a_b", "a_2f_b") for topic, _ in mqtt._sensors(prefix, ())]
    assert len(set(topics)) == 10 and all(re.fullmatch(r"homeassistant/[\w/]+", topic, re.ASCII) for topic in topics)


def test_who_comes_later_is_told_the_state(port, heard):
    with mqtt.Sink(f"mqtt://127.0.0.1:{port}/later") as sink:
        sink.write(result(0, (1, "happy", 20)))
        until(heard, "later/expression", "happy")
        with listening(port, "later/#") as messages:
            expected = {"later/available": "online", "later/faces": "1", "later/expression": "happy"}
            found = {}
            while found != expected:  # this broker gives what it keeps of other topics as well
                topic, value = messages.get(timeout=LONG)
                if topic.startswith("later/"):
                    found[topic] = value


def test_a_face_that_is_missed_for_a_moment_has_not_gone():
    there = mqtt._There()
    face = {"track_id": 1, "box": {"x1": 0, "y1": 0, "x2": 9, "y2": 9}, "expression": {"name": "sad"}}
    story = [(0.0, [face]), (0.5, []), (0.9, [face]), (1.8, []), (1.95, [])]
    assert [[one["type"] for one in there.seen(faces, now)] for now, faces in story] == [["new"], [], [], [], ["end"]]
    assert len(there) == 0 and there.main() == "none"


def test_what_is_told_stands_while_no_picture_comes(port, heard, monkeypatch):
    """Nobody knows who is there then: a room is not called empty because its camera stutters."""
    monkeypatch.setattr(mqtt, "GONE_S", 0.0)
    with mqtt.Sink(f"mqtt://127.0.0.1:{port}/idle") as sink:
        sink.write(result(0, (1, "happy", 20)))
        for _ in range(3):
            sink.idle()
        assert len(sink._there) == 1
        sink.write(result(1))
        until(heard, "idle/expression", "none")


def test_a_broker_that_is_lost_and_comes_back(tmp_path, caplog):
    port = free_port()
    with broker(tmp_path, port) as first:
        with mqtt.Sink(f"mqtt://127.0.0.1:{port}/back") as sink:
            sink.write(result(0, (1, "happy", 20)))
            first.kill()
            first.wait()
            deadline = time.monotonic() + LONG
            while sink._client.is_connected() and time.monotonic() < deadline:
                time.sleep(0.01)
            for index in range(1, 200):
                sink.write(result(index, (1, "sad", 20)))
            with broker(tmp_path, port), listening(port, "back/#") as messages:
                until(messages, "back/expression", "sad")
                sink.write(result(200, (1, "happy", 20)))
                until(messages, "back/expression", "happy")
    assert "mqtt 127.0.0.1: not there (it hung up); asking again" in caplog.messages


def test_a_broker_that_is_gone_at_the_end(tmp_path):
    port = free_port()
    with broker(tmp_path, port) as process, mqtt.Sink(f"mqtt://127.0.0.1:{port}") as sink:
        process.kill()
        process.wait()
        sink.write(result(0, (1, "happy", 20)))
    assert not sink._client.is_connected()


def test_no_broker():
    port = free_port()
    with pytest.raises(OutputError, match=rf"--mqtt 127.0.0.1:{port}: expected an MQTT broker"):
        with mqtt.Sink(f"mqtt://me:secret@127.0.0.1:{port}"):
            pass


def test_a_broker_that_does_not_speak(monkeypatch):
    monkeypatch.setattr(mqtt, "_CONNECT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        with pytest.raises(OutputError, match="it said nothing within 0.2 s"):
            with mqtt.Sink(f"mqtt://127.0.0.1:{server.getsockname()[1]}"):
                pass


def test_a_port_that_hangs_up():
    with socket.create_server(("127.0.0.1", 0)) as server:
        hang_up = threading.Thread(target=lambda: server.accept()[0].close())
        hang_up.start()
        with pytest.raises(OutputError, match="it hung up; with TLS it is mqtts://"):
            with mqtt.Sink(f"mqtt://127.0.0.1:{server.getsockname()[1]}"):
                pass
        hang_up.join()


@pytest.mark.parametrize("host", ["a..b", "no.such.invalid"])
def test_a_host_that_nobody_knows(host):
    with pytest.raises(OutputError, match=rf"--mqtt {host}:1883: expected an MQTT broker"), mqtt.Sink(f"mqtt://{host}"):
        pass


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # paho leaves the socket open
def test_a_broker_without_tls(port, monkeypatch):
    monkeypatch.setattr(mqtt, "_CONNECT_S", 0.3)
    with pytest.raises(OutputError, match="expected an MQTT broker"), mqtt.Sink(f"mqtts://127.0.0.1:{port}"):
        pass
    gc.collect()


def test_who_is_let_in(tmp_path):
    """This broker asks for a user."""
    port = free_port()
    with broker(tmp_path, port, anonymous="false"):
        with (
            pytest.raises(OutputError, match="lets us in, got none .*ot authori"),
            mqtt.Sink(f"mqtt://127.0.0.1:{port}"),
        ):
            pass
        with mqtt.Sink(f"mqtt://me:a%23b@127.0.0.1:{port}"):
            pass


@pytest.mark.parametrize(
    "address",
    [
        "",
        "host",
        "http://host",
        "mqtt://",
        "mqtt://host:x",
        "mqtt://host/a+b",
        "mqtt://host/a#b",
        "mqtt://h/a%23",
        "mqtt://[::1",
        "mqtt://me:12/3@h/x",
    ],
)
def test_what_is_no_address(address):
    with pytest.raises(SettingsError, match="--mqtt: expected mqtt://") as error:
        mqtt.Sink(address.replace("//h", "//me:secret@h"))
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("address", "host", "port", "prefix", "user", "password"),
    [
        ("mqtt://pi", "pi", 1883, "calmcam", None, None),
        ("mqtts://pi/", "pi", 8883, "calmcam", None, None),
        ("mqtt://me:a%23b%40@[::1]:99/a/b/", "::1", 99, "a/b", "me", "a#b@"),
    ],
)
def test_an_address(address, host, port, prefix, user, password):
    at = mqtt._place(address)
    assert (at.host, at.port, at.prefix, at.user, at.password) == (host, port, prefix, user, password)
    assert at.tls == address.startswith("mqtts")


def test_live_tells_and_its_death_is_told(port, heard, tmp_path, monkeypatch):
    monkeypatch.setenv("MQTT_PASS", "pa:ss/wo@rd#")
    model = str(write_model(tmp_path / "model"))
    command = [sys.executable, "-m", "edge_app", "live", "--model", model, "--source", "synthetic", "--no-show"]
    command += ["--mqtt", f"mqtt://me:${{MQTT_PASS}}@127.0.0.1:{port}/live"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        found = until(heard, "live/faces", "1")
        process.kill()
        until(heard, "live/available", "offline")
    events = [json.loads(value) for topic, value in found if topic == "live/events"]
    assert events[0]["type"] == "new" and events[0]["source"] == "synthetic"


def test_a_camera_that_is_lost_sees_nothing_and_not_nobody(port, heard, monkeypatch):
    monkeypatch.setattr(mqtt, "GONE_S", 0.0)
    lost = False
    with mqtt.Sink(f"mqtt://127.0.0.1:{port}/blind", waits=lambda: lost) as sink:
        sink.write(result(0, (1, "happy", 20)))
        sink.idle()
        lost = True
        sink.idle()
        sink.idle()
        until(heard, "blind/available", "offline")
        lost = False
        sink.write(result(1))
        until(heard, "blind/available", "online")


def test_a_patient_run_waits_for_its_broker(tmp_path, caplog):
    port = free_port()
    with mqtt.Sink(f"mqtt://127.0.0.1:{port}/later", patient=True) as sink:
        assert "asking again" in caplog.text
        sink.write(result(0, (1, "happy", 20)))
        with broker(tmp_path, port), listening(port, "later/#") as messages:
            until(messages, "later/expression", "happy")


class Refusing(threading.Thread):
    """Takes connections on a port: hangs up on the first, refuses the login of the others (MQTT 3.1.1, 3.2)."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        self.start()

    def run(self) -> None:
        with suppress(OSError):
            self.server.accept()[0].close()
            while True:
                with self.server.accept()[0] as one:
                    one.recv(999)
                    one.sendall(bytes([0x20, 2, 0, 5]))


def test_a_patient_run_outlasts_a_broker_that_hangs_up_and_says_when_it_is_refused(caplog):
    refusing = Refusing()
    with mqtt.Sink(f"mqtt://127.0.0.1:{refusing.port}", patient=True) as sink:
        assert "it hung up" in caplog.text
        sink.write(result(0))
        deadline = time.monotonic() + LONG
        while "Not authorized" not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.02)
    refusing.server.shutdown(socket.SHUT_RDWR)
    refusing.join()
    refusing.server.close()
    assert caplog.text.count("Not authorized") == 1


def test_a_patient_run_does_not_wait_for_a_name_that_cannot_be():
    with pytest.raises(OutputError, match="expected an MQTT broker"), mqtt.Sink("mqtt://a..b", patient=True):
        pass


def test_a_run_that_comes_back_is_known_to_the_broker():
    """It then ends the former connection, which it has not missed yet, and tells its will before the new one's word."""
    one, again, other = (mqtt._client_id(prefix) for prefix in ("a/b", "a/b", "b"))
    assert one == again != other and len(one) <= 23
