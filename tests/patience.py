"""How many times longer than on a real machine tests wait: CALMCAM_TEST_PATIENCE=60 under emulation."""

from __future__ import annotations

import os

PATIENCE = float(os.environ.get("CALMCAM_TEST_PATIENCE", 1))
