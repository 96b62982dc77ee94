"""Addresses of cameras and brokers, which may hold secrets: what of them may be said."""

from __future__ import annotations

import re

from .errors import SourceError

_HOST = re.compile(r"(\[[\w:.%]+\]|[\w.-]*)(:\d+)?")


def without_secrets(text: str) -> str:
    """`text`, but of an address in it only scheme, host and port: cameras take secrets in every other part."""
    before, mark, rest = text.partition("://")
    if not mark:
        return text
    try:
        host = public_host(text)
    except SourceError:
        host = ""
    if host == before:  # it says none that is surely one
        return f"{before}://..."
    return f"{before}://{host}" + ("" if rest == host else "/...")


def public_host(address: str) -> str:
    """Host and port of an address, its scheme where it has none, a file's name; SourceError for what is no address."""
    scheme, mark, rest = address.partition("://")
    if not mark:
        return address.rpartition("/")[2].rpartition("@")[2]
    first = re.split(r"[/?#;]", rest)[0]
    host = first.rpartition("@")[2]
    if "@" in first and "@" in rest[len(first) :]:  # which one ends the password?
        return scheme
    if not _HOST.fullmatch(host):  # the password holds one of these letters
        host = re.split(r"[/?#;]", rest.rpartition("@")[2])[0]
    if not _HOST.fullmatch(host):
        raise SourceError("expected an address such as rtsp://host/path, got one that is none")
    return host or scheme
