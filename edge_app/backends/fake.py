"""A backend without a network that fails at a given call. It drives the tests."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..errors import DeviceLost


class Backend:
    """Answers every row with zeros; `infer` fails at call number `fail_at` (from 1)."""

    device = "fake"

    def __init__(self, outputs: Mapping[str, tuple[int, ...]], *, fail_at: int | None = None):
        self.calls = 0
        self._outputs, self._fail_at = outputs, fail_at

    def infer(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        """Zeros (N, ...) float32 by tensor name for `batch` (N, H, W, C); DeviceLost at call `fail_at`."""
        self.calls += 1
        if self.calls == self._fail_at:
            raise DeviceLost(f"fake: device lost at call {self.calls}, as it was told")
        return {name: np.zeros((len(batch), *shape), np.float32) for name, shape in self._outputs.items()}

    def close(self) -> None:
        """Nothing to let go of."""
