"""What is checked before an engine sees a file, and where its chatter goes."""

from __future__ import annotations

import logging
import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from edge_app import tflite
from edge_app.errors import ModelError
from edge_app.signals import Stopped

CASES = Path(__file__).parent / "cases"


def test_a_tflite_file_passes():
    tflite.check(CASES / "two_heads.tflite")


def test_other_files_do_not(tmp_path):
    with pytest.raises(ModelError, match="expected a TFLite model, got a file that starts with"):
        tflite.check(CASES / "astronaut.jpg")
    with pytest.raises(ModelError, match="No such file"):
        tflite.check(tmp_path / "absent.tflite")
    with pytest.raises(ModelError, match="Is a directory"):
        tflite.check(tmp_path)


def test_chatter_goes_to_the_log(capfd, caplog):
    caplog.set_level(logging.DEBUG, logger="edge_app.tflite")
    with tflite.quiet("an engine") as said:
        os.write(2, b"INFO: tensor 1\nINFO: ")
        assert said() == "INFO: tensor 1\nINFO: "
        os.write(2, b"tensor 2\n")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"
    assert caplog.messages == ["an engine: INFO: tensor 1", "an engine: INFO: tensor 2"]


def test_the_terminal_comes_back_after_a_failure(capfd):
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(RuntimeError), tflite.quiet("an engine"):
        raise RuntimeError
    os.write(2, b"heard")
    assert capfd.readouterr().err == "heard"
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("call", range(1, 4))
def test_the_terminal_comes_back_after_a_signal_that_is_heard_as_a_call_returns(capfd, monkeypatch, call):
    calls, dup2 = [], os.dup2

    def signalled(*args):
        dup2(*args)
        calls.append(args)
        if len(calls) == call:
            raise Stopped(signal.SIGTERM)

    monkeypatch.setattr(os, "dup2", signalled)
    for _ in range(2):  # each block has two: there and back
        with suppress(Stopped), tflite.quiet("an engine"):
            os.write(2, b"chatter")
        os.write(2, b"heard")
    assert len(calls) == 4 and capfd.readouterr().err == "heardheard"


def test_a_program_without_stderr_works():
    saved = os.dup(2)
    os.close(2)
    try:
        with tflite.quiet("an engine"):
            reached = True
    finally:
        os.dup2(saved, 2)
        os.close(saved)
    assert reached
