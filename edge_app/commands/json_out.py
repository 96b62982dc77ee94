"""JSON on stdout."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from ..files import takes_utf8


def echo_json(value: Any, **how: Any) -> None:
    """Print it as `json.dumps` does with `how`; letters that the terminal does not take are escaped."""
    click.echo(json.dumps(value, ensure_ascii=not takes_utf8(sys.stdout), **how))
