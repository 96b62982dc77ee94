"""What is compiled in the tests: a small network, its crops, and the double of the compiler."""

from pathlib import Path

import numpy as np

from deploy.graph import read_graph
from deploy.preflight import OK, REFUSED, WARNING

CASES = Path(__file__).parent / "cases"
DOUBLES = Path(__file__).parent / "doubles"
GRAPH = read_graph(CASES / "two_heads_float32.tflite")
CROPS = np.random.default_rng(1).integers(0, 256, (1088, 32, 32, 3), np.uint8)


def worst(verdicts) -> str:
    return max((verdict.state for verdict in verdicts), key=(OK, WARNING, REFUSED).index, default=OK)
