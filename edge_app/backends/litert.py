"""TFLite models on the CPU with LiteRT (XNNPACK), or with an installed tflite-runtime."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from .. import tflite
from ..errors import BackendError, ModelError
from ..manifest import Artifact

try:
    from ai_edge_litert.interpreter import Interpreter
except ModuleNotFoundError:
    from tflite_runtime.interpreter import Interpreter


class Backend:
    """One interpreter, for any threads in turn.

    Rows run one by one: batching gains nothing on a CPU and fixes the batch size (measured).
    """

    device = "cpu"

    def __init__(self, artifact: Artifact, *, threads: int = 1):
        """Load the artifact's file; ModelError when LiteRT cannot, or when its tensors are not the manifest's."""
        self._path, self._mutex = artifact.path, threading.Lock()
        tflite.check(self._path)
        with tflite.quiet("LiteRT"), _errors(self._path, ModelError):
            self._interpreter: Interpreter | None = _interpreter(self._path, threads)
            signature = self._signature()
            self._interpreter.allocate_tensors()
        self._input, self._outputs = self._match(artifact, signature)

    def infer(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        """Outputs (N, ...) float32 by tensor name for rows `batch` (N, H, W, C) of the artifact's dtype; N may be 0.

        BackendError when the rows do not fit, when LiteRT fails, and after `close`.
        """
        index, shape, dtype = self._input["index"], tuple(self._input["shape"][1:].tolist()), self._input["dtype"]
        if batch.shape[1:] != shape or batch.dtype != dtype:
            came = f"{batch.shape[1:]} {batch.dtype}"
            raise BackendError(f"{self._path.name}: expected rows {shape} {np.dtype(dtype)}, got {came}")
        results = {
            name: np.empty((len(batch), *detail["shape"][1:]), np.float32) for name, detail in self._outputs.items()
        }
        with self._mutex, _errors(self._path, BackendError):
            if self._interpreter is None:
                raise BackendError(
                    f"{self._path.name}: the backend was closed and cannot infer any more; make a new one"
                )
            for row in range(len(batch)):
                self._interpreter.set_tensor(index, batch[row : row + 1])
                self._interpreter.invoke()
                for name, detail in self._outputs.items():
                    results[name][row] = dequantised(self._interpreter.get_tensor(detail["index"])[0], detail)
        return results

    def close(self) -> None:
        with self._mutex:
            self._interpreter = None

    def _signature(self) -> str:
        names = list(self._interpreter.get_signature_list())
        if len(names) != 1:
            raise ModelError(f"{self._path}: expected one signature, got {len(names)}; export the model again")
        return names[0]

    def _match(self, artifact: Artifact, signature: str) -> tuple[dict, dict[str, dict]]:
        """Tensor details of the input and, by signature name, of the outputs; ModelError where the manifest differs."""
        runner = self._interpreter.get_signature_runner(signature)
        inputs, outputs = list(runner.get_input_details().values()), runner.get_output_details()
        spec = artifact.input
        expected = (1, spec.height, spec.width, spec.channels)
        if len(inputs) != 1 or tuple(inputs[0]["shape"]) != expected or inputs[0]["dtype"] != np.dtype(spec.dtype):
            came = [(tuple(int(n) for n in item["shape"]), np.dtype(item["dtype"]).name) for item in inputs]
            raise ModelError(f"{self._path}: manifest says one input {expected} {spec.dtype}, the file has {came}")
        missing = sorted(set(artifact.outputs.values()) - set(outputs))
        if missing:
            raise ModelError(f"{self._path}: manifest names outputs {missing}, the file has {sorted(outputs)}")
        return inputs[0], {name: outputs[name] for name in artifact.outputs.values()}


def bare(artifact: Artifact, *, threads: int) -> Callable[[int], None]:
    """An interpreter with nothing around it, the benchmark's floor: runs that many rows of zeros."""
    with tflite.quiet("LiteRT"):
        interpreter = _interpreter(artifact.path, threads)
        interpreter.allocate_tensors()
    (given,), outputs = interpreter.get_input_details(), interpreter.get_output_details()
    row = np.zeros(given["shape"], given["dtype"])

    def invoke(rows: int) -> None:
        for _ in range(rows):
            interpreter.set_tensor(given["index"], row)
            interpreter.invoke()
            for output in outputs:
                interpreter.get_tensor(output["index"])

    return invoke


def _interpreter(path: Path, threads: int) -> Interpreter:
    """LiteRT takes no name that is not UTF-8, as folders from a Korean Windows may have; those it gets by content."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return Interpreter(model_content=path.read_bytes(), num_threads=threads)
    return Interpreter(str(path), num_threads=threads)


def dequantised(values: np.ndarray, detail: dict) -> np.ndarray:
    """Real numbers float32 of a tensor with LiteRT's `quantization` (scale, zero point); floats pass through."""
    if np.issubdtype(values.dtype, np.floating):
        return values.astype(np.float32, copy=False)
    scale, zero = detail["quantization"]
    return (values.astype(np.float32) - zero) * np.float32(scale)


@contextlib.contextmanager
def _errors(path: Path, ours: type[Exception]) -> Iterator[None]:
    try:
        yield
    except (ValueError, RuntimeError, OSError) as error:
        raise ours(f"{path.name}: LiteRT: {' '.join(str(error).split()) or type(error).__name__}") from error
