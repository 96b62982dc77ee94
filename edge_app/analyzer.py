"""The Python interface: pictures in, faces and what they express out."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from .build import Analysis, camera_options, open_source, source_kind
from .decide import UNSURE
from .preprocess import fit
from .run import Stop, drain, run
from .settings import Settings
from .types import Decision, Frame, Result, Status


class Analyzer(AbstractContextManager):
    """A detector and a model, loaded once.

        with Analyzer(model="emotions", device="auto") as analyzer:
            for decision in analyzer(image).faces.decisions:
                print(decision.label, decision.confidence)

    Keywords are the settings of `edge_app.settings.Settings`; an unknown one is a SettingsError, as is a wrong value.
    """

    def __init__(self, **settings: Any) -> None:
        self.settings = Settings().merged(settings)
        self._analysis = Analysis(self.settings)

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Release detector and model."""
        self._analysis.close()

    @property
    def labels(self) -> tuple[str, ...]:
        """What a face can express, in the model's order."""
        return self._analysis.manifest.heads[0].labels

    def __call__(self, image: np.ndarray) -> Result:
        """The faces of one picture (H, W, 3) uint8 RGB, which stands alone; ValueError for another shape or dtype."""
        frame = Frame(np.ascontiguousarray(image), 0, 0, "picture")
        (_, faces), *_ = drain(self._analysis.stages(), [frame])
        return Result(frame, faces, {}, Status(0.0, 0.0, 0, faces.device))

    def classify(self, crops: Sequence[np.ndarray] | np.ndarray) -> list[Decision]:
        """What face crops express, each (h, w, 3) or (h, w) uint8 and cut as the model's manifest says."""
        if not len(crops):
            return []
        head, spec = self._analysis.manifest.heads[0], self._analysis.artifact.input
        ready = np.stack([fit(np.ascontiguousarray(crop), spec) for crop in crops])
        rows = self._analysis.classify.probabilities(ready)[head.name]
        return [_decision(dict(zip(head.labels, row.tolist(), strict=True)), head.unsure_below) for row in rows]

    def stream(self, source: str) -> Iterator[Result]:
        """Results of a file, folder, camera or network stream, one by one, with identities and steady decisions.

        Of a file every frame is read; of a camera or network stream the newest wins. Leaving the iteration ends it.
        """
        kind = source_kind(str(source))
        opened = open_source(str(source), **(camera_options(self.settings) if kind in ("camera", "picamera") else {}))
        handover, stop = _Handover(), Stop()
        with ThreadPoolExecutor(1, "analyzer-stream") as pool:
            running = pool.submit(run, opened, self._analysis.stages(), [handover], live=opened.live, stop=stop)
            running.add_done_callback(handover.close)
            try:
                yield from handover
            finally:
                stop()
                handover.close()
            running.result()  # raises what ended the run


class _Handover:
    """A sink whose results are iterated in another thread; it waits until each is taken."""

    name = ""

    def __init__(self) -> None:
        self._waiting: deque[Result] = deque()
        self._change = threading.Condition()
        self._open = True

    def __enter__(self) -> _Handover:
        return self

    def __exit__(self, *exc: object) -> None:
        return None

    def write(self, result: Result) -> None:
        """Hand one result over, once the one before was taken; without effect after `close`."""
        with self._change:
            self._change.wait_for(lambda: not self._waiting or not self._open)
            if self._open:
                self._waiting.append(result)
                self._change.notify_all()

    def __iter__(self) -> Iterator[Result]:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._waiting or not self._open)
                if not self._waiting:
                    return
                result = self._waiting.popleft()
                self._change.notify_all()
            yield result

    def close(self, _: object = None) -> None:
        """Nothing more is handed over; what waits can still be taken."""
        with self._change:
            self._open = False
            self._change.notify_all()


def _decision(probs: dict[str, float], unsure_below: float) -> Decision:
    label = max(probs, key=probs.__getitem__)
    if probs[label] < unsure_below:
        return Decision(UNSURE, probs[label], probs, True, "confidence")
    return Decision(label, probs[label], probs)
