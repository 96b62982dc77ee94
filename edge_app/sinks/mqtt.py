"""Tells an MQTT broker (3.1.1, OASIS) who is there and what they show; no picture. Home Assistant finds it by itself.

Below the address' prefix: `available` (online, offline), `faces` (how many) and `expression` (of the largest face; "none"
without one) are kept by the broker; `events` tells of a face that is new, changes its expression, or has gone.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import platform
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from paho.mqtt import client as paho

from .. import __version__
from ..errors import OutputError, SettingsError
from ..labels import UNSURE
from ..result_line import result_line
from ..types import Result

log = logging.getLogger(__name__)

NONE = "none"  # the expression when nobody is there
GONE_S = 1.0  # after which a face that is not seen has gone
_CONNECT_S = 5.0
_AGAIN_S = 15  # longest pause between two tries to reach a broker that was lost
_GOODBYE_S = 2.0
_KEEPALIVE_S = 30  # the broker calls a run offline that was silent for one and a half times as long
_DISCOVERY = "homeassistant/sensor/{node}/{sensor}/config"  # home-assistant.io/integrations/mqtt


class Sink:
    """Publishes to `address`, mqtt[s]://[user[:password]@]host[:port][/prefix]; the prefix is "calmcam" if none is given.

    `labels` are what the model can say; while the source is lost, as `waits` tells, the run counts as offline.
    SettingsError for what is no such address; OutputError, when entered, for a broker that lets nobody in, or is not
    there: a `patient` sink asks again and again instead, as all do for one that is lost later. The run never waits.
    """

    name = "mqtt"

    def __init__(
        self, address: str, *, labels: Sequence[str] = (), waits: Callable[[], bool] = bool, patient: bool = False
    ) -> None:
        self._waits, self._patient, self._blind = waits, patient, False
        self._at = _place(address)
        self._sensors = {topic: json.dumps(about) for topic, about in _sensors(self._at.prefix, labels)}

    def __enter__(self) -> Sink:
        at = self._at
        self._when: dict[str, Any] = {}
        self._there, self._state = _There(), {"faces": "0", "expression": NONE}
        self._answered, self._why_not, self._told, self._refused = threading.Event(), "", "", False
        self._telling = threading.Lock()  # the state is told by the run and, at each connection, by paho's thread
        self._client = client = paho.Client(paho.CallbackAPIVersion.VERSION2, _client_id(at.prefix))
        client.connect_timeout = _CONNECT_S
        client.reconnect_delay_set(1, _AGAIN_S)
        client.username_pw_set(at.user, at.password)
        client.will_set(f"{at.prefix}/available", "offline", retain=True)
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        if at.tls:
            client.tls_set()
        try:
            client.connect(at.host, at.port, _KEEPALIVE_S)
        except (OSError, UnicodeError) as error:
            if not self._patient or isinstance(error, UnicodeError):
                raise self._not_there(str(error)) from error
            client.connect_async(at.host, at.port, _KEEPALIVE_S)
            self._go_on(str(error))
            client.loop_start()
            return self
        client.loop_start()
        self._answered.wait(_CONNECT_S)
        if not client.is_connected():
            why = self._why_not or f"it said nothing within {_CONNECT_S:g} s"
            if self._patient and not self._refused:
                self._go_on(why)
                return self
            client.disconnect()
            client.loop_stop()
            raise self._not_there(why)
        return self

    def write(self, result: Result) -> None:
        """Tell what has changed."""
        line = result_line(result)
        self._when = {name: line[name] for name in ("t", "time", "source") if name in line}
        self._see(True)
        self._change(line["faces"], time.monotonic())

    def idle(self) -> None:
        """A camera that was lost sees nothing, not nobody."""
        self._see(not self._waits())

    def __exit__(self, *exc: object) -> None:
        self._change([], math.inf)
        with suppress(RuntimeError, ValueError):  # the broker is gone, or was just now
            self._publish("available", "offline", retain=True).wait_for_publish(_GOODBYE_S)
        there = self._client.is_connected()
        self._client.disconnect()
        if there:
            self._client.loop_stop()  # else its thread may be asking for the broker; it ends by itself

    def _see(self, sees: bool) -> None:
        if self._blind == sees:
            with self._telling:
                self._blind = not sees
                self._publish_available()

    def _change(self, faces: list[dict[str, Any]], now: float) -> None:
        for event in self._there.seen(faces, now):
            self._publish("events", json.dumps({**event, **self._when}, ensure_ascii=False))
        state = {"faces": str(len(self._there)), "expression": self._there.main()}
        if state != self._state:
            with self._telling:
                self._state = state
                self._publish_state()

    def _publish_available(self) -> None:
        self._publish("available", "offline" if self._blind else "online", retain=True)

    def _publish_state(self) -> None:
        for topic, value in self._state.items():
            self._publish(topic, value, retain=True)

    def _publish(self, topic: str, value: str, *, retain: bool = False) -> paho.MQTTMessageInfo:
        return self._client.publish(
            f"{self._at.prefix}/{topic}", value.encode("utf-8", "backslashreplace"), retain=retain
        )

    def _on_connect(self, client: paho.Client, data: object, flags: object, code: Any, properties: object) -> None:
        if code.is_failure:
            self._refused = True
            self._lost(str(code))
            return
        for topic, about in self._sensors.items():
            client.publish(topic, about, retain=True)
        with self._telling:
            self._publish_available()
            self._publish_state()
        (log.warning if self._told else log.info)("mqtt %s: connected", self._at.host)
        self._told = ""
        self._answered.set()

    def _on_disconnect(self, client: paho.Client, data: object, flags: object, code: Any, properties: object) -> None:
        if code.is_failure:
            why = "it hung up" if code == "Unspecified error" else str(code)
            self._lost(why if self._answered.is_set() else "it hung up; with TLS it is mqtts://")

    def _lost(self, why: str) -> None:
        """At first `__enter__` says why, later the log says so, once for each loss and whenever the reason changes."""
        if not self._answered.is_set():
            self._why_not = why
            self._answered.set()
        elif not (self._why_not and not self._patient):  # else `__enter__` gives up just now
            self._go_on(why)

    def _go_on(self, why: str) -> None:
        self._answered.set()
        if why != self._told:
            self._told = why
            log.warning("mqtt %s: not there (%s); asking again", self._at.host, why)

    def _not_there(self, why: str) -> OutputError:
        own = "where it made its certificate itself, let the environment variable SSL_CERT_FILE name that"
        do = own if "CERTIFICATE_VERIFY" in why else "look at address, user and password"
        where = f"--mqtt {self._at.host}:{self._at.port}"
        return OutputError(f"{where}: expected an MQTT broker that lets us in, got none ({why}); {do}")


@dataclass(frozen=True, slots=True)
class _Place:
    host: str
    port: int
    prefix: str
    user: str | None
    password: str | None
    tls: bool


def _place(address: str) -> _Place:
    """The parts of an address; its password is in no message."""
    try:
        parts = urlsplit(address)
        port, host = parts.port, parts.hostname
    except ValueError:
        port = host = None
        parts = urlsplit("")
    prefix = unquote(parts.path).strip("/") or "calmcam"
    odd = parts.query or parts.fragment or re.search(r"[+#\0]", prefix) or "@" in parts.path
    if parts.scheme not in ("mqtt", "mqtts") or not host or odd:
        raise SettingsError(
            "--mqtt: expected mqtt://[USER[:PASSWORD]@]HOST[:PORT][/PREFIX], or mqtts:// with TLS, got something else; "
            "in user and password write %23 for # and so on, or ${NAME} for an environment variable"
        )
    user, password = (unquote(part) if part is not None else None for part in (parts.username, parts.password))
    tls = parts.scheme == "mqtts"
    return _Place(host, port or (8883 if tls else 1883), prefix, user, password, tls)


def _client_id(prefix: str) -> str:
    """The same at each connection: the broker then ends a former one that it has not missed yet, and tells its will
    before the new one says "online". At most 23 letters, which every broker takes (MQTT 3.1.1, 3.1.3.1)."""
    return f"calmcam{hashlib.sha256(f'{platform.node()}/{prefix}'.encode()).hexdigest()[:16]}"


def _sensors(prefix: str, labels: Sequence[str]) -> Iterator[tuple[str, dict[str, object]]]:
    """What Home Assistant is told, by topic: two sensors of one device."""
    node = "calmcam_" + re.sub(r"[^A-Za-z0-9]", lambda letter: f"_{ord(letter[0]):x}_", prefix)
    kinds = {
        "expression": {"device_class": "enum", "options": [*labels, UNSURE, NONE], "icon": "mdi:emoticon-outline"},
        "faces": {"state_class": "measurement", "icon": "mdi:face-recognition"},
    }
    for sensor, kind in kinds.items():
        yield (
            _DISCOVERY.format(node=node, sensor=sensor),
            {
                "name": sensor.capitalize(),
                "unique_id": f"{node}_{sensor}",
                "state_topic": f"{prefix}/{sensor}",
                "availability_topic": f"{prefix}/available",
                "device": {"identifiers": [node], "name": prefix, "sw_version": __version__},
                "origin": {"name": "calmcam", "sw_version": __version__},
                **kind,
            },
        )


class _There:
    """The faces that are there, by track; one that is not seen for `GONE_S` has gone."""

    def __init__(self) -> None:
        self._faces: dict[int, tuple[float, dict[str, Any]]] = {}

    def __len__(self) -> int:
        return len(self._faces)

    def seen(self, faces: list[dict[str, Any]], now: float) -> Iterator[dict[str, Any]]:
        """What changed by `faces`, as in a line of results.jsonl, at `now` seconds: events."""
        for face in faces:
            _, before = self._faces.get(face["track_id"], (now, None))
            self._faces[face["track_id"]] = now, face
            if before is None or _name(before) != _name(face):
                yield {"type": "update" if before else "new", "before": before, "after": face}
        for track, (last, face) in tuple(self._faces.items()):
            if now - last > GONE_S:
                del self._faces[track]
                yield {"type": "end", "before": face, "after": None}

    def main(self) -> str:
        """What the largest face shows."""
        faces = [face for _, face in self._faces.values()]
        return _name(max(faces, key=_area)) if faces else NONE


def _name(face: dict[str, Any]) -> str:
    return face["expression"]["name"]


def _area(face: dict[str, Any]) -> float:
    box = face["box"]
    return (box["x2"] - box["x1"]) * (box["y2"] - box["y1"])
