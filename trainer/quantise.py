"""A trained Keras model to TFLite files: float32, float16, dynamic range and full integer int8.

Beside `norm.py` the only file of the trainer that uses TensorFlow itself. Jacob et al. 2018 (arXiv 1712.05877) describes
the integer scheme: int8 weights per channel, int8 activations per tensor, int32 biases.
"""

from __future__ import annotations

import contextlib
import csv
import io
import tempfile
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from edge_app.backends.litert import Interpreter
from edge_app.errors import ModelError, SettingsError, unknown
from edge_app.manifest import Artifact, Head, Input, sha256
from edge_app.tflite import quiet

from .recipe import VARIANTS

SIGNATURE = "serving_default"


def load_keras(path: Path) -> keras.Model:
    """A trained model; ModelError when the file is missing or not a Keras model."""
    if not path.is_file():
        raise ModelError(
            f"{path}: missing; expected the best.keras of a training run; train first, or name another RUN"
        )
    try:
        return keras.saving.load_model(path, compile=False)
    except (ValueError, OSError, TypeError, KeyError, zipfile.BadZipFile) as error:
        raise ModelError(f"{path}: Keras cannot load it ({' '.join(str(error).split())}); train again") from error


class Converter:
    """One model, written once as a SavedModel with batch 1, converted to any variant; use it as a context.

    `keras.Model.export` with a fixed batch keeps the graph in one XNNPACK partition, and names the outputs by head;
    `tf.saved_model.save` of a Keras model gives a file that answers NaN (measured).
    """

    def __init__(self, model: keras.Model, representative: np.ndarray) -> None:
        """`representative` (N, H, W, C) uint8 crops calibrate int8."""
        self._model, self._representative = model, with_full_range(representative)
        self._folder = tempfile.TemporaryDirectory(prefix="calmcam-export-")

    def __enter__(self) -> Converter:
        _, *shape = self._model.input_shape
        signature = [keras.InputSpec(shape=(1, *shape), dtype="float32")]
        with quiet("Keras"):
            self._model.export(self._folder.name, format="tf_saved_model", verbose=False, input_signature=signature)
        return self

    def __exit__(self, *exc: object) -> None:
        self._folder.cleanup()

    def convert(self, variant: str, *, keep_float: Sequence[str] = ()) -> bytes:
        """The TFLite file of a variant; `keep_float` names int8 operators that stay in float, by output tensor."""
        if variant not in VARIANTS:
            raise SettingsError(f"export.variants: {unknown('variant', variant, VARIANTS)}")
        with quiet("TensorFlow"):
            converter = tf.lite.TFLiteConverter.from_saved_model(self._folder.name, signature_keys=[SIGNATURE])
            if variant != "float32":
                converter.optimizations = [tf.lite.Optimize.DEFAULT]
            if variant == "float16":
                converter.target_spec.supported_types = [tf.float16]
            if variant == "int8":
                self._integer(converter)
                if keep_float:
                    return self._selective(converter, keep_float)
            return converter.convert()

    def blame(self) -> list[tuple[str, float]]:
        """Int8 operators by output tensor and their error, worst first: root mean square error in quantisation steps.

        A rounding that does no harm gives about 0.29 (Jacob et al. 2018); above 0.7 an operator is worth a look.
        """
        with quiet("TensorFlow"), _old_interpreter():
            converter = tf.lite.TFLiteConverter.from_saved_model(self._folder.name, signature_keys=[SIGNATURE])
            self._integer(converter)
            debugger = self._debugger(converter, ())
            debugger.run()
        errors = {
            row["tensor_name"]: float(np.sqrt(np.mean(row["mean_squared_error"])) / row["scale"])
            for row in _table(debugger)
        }
        return sorted(errors.items(), key=lambda item: -item[1])

    def _integer(self, converter: tf.lite.TFLiteConverter) -> None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.representative_dataset = self._crops
        converter.inference_input_type = tf.uint8
        converter.inference_output_type = tf.int8

    def _selective(self, converter: tf.lite.TFLiteConverter, keep_float: Sequence[str]) -> bytes:
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8, tf.lite.OpsSet.TFLITE_BUILTINS]
        with _old_interpreter():
            return self._debugger(converter, keep_float).get_nondebug_quantized_model()

    def _debugger(
        self, converter: tf.lite.TFLiteConverter, keep_float: Sequence[str]
    ) -> tf.lite.experimental.QuantizationDebugger:
        options = tf.lite.experimental.QuantizationDebugOptions(denylisted_nodes=list(keep_float))
        return tf.lite.experimental.QuantizationDebugger(
            converter=converter, debug_dataset=self._crops, debug_options=options
        )

    def _crops(self) -> Iterator[list[np.ndarray]]:
        for crop in self._representative:
            yield [crop[None].astype(np.float32)]


def typical(model: keras.Model, crops: np.ndarray, most: float = 2.0) -> np.ndarray:
    """Those of the crops (N, H, W, C) uint8 whose largest feature is at most `most` times the median one.

    The representative crops set int8's ranges: one picture that drives the network far beyond the others leaves them few
    steps (measured on EfficientNetV2-B0: one of 512 at 18 times the median costs 4 to 5 % of the answers).
    """
    features = keras.Model(model.input, model.get_layer("pool").input)
    batches = (crops[start : start + 64].astype(np.float32) for start in range(0, len(crops), 64))
    peaks = np.concatenate([np.abs(np.asarray(features.predict_on_batch(one))).max(axis=(1, 2, 3)) for one in batches])
    return crops[peaks <= most * np.median(peaks)]


def with_full_range(crops: np.ndarray) -> np.ndarray:
    """Crops (N, h, w, c) uint8 in which one pixel is 0 and one 255, so that raw pixels are the integer input itself.

    Where none is, the crop with the widest range is stretched to it.
    """
    if not len(crops) or (crops.min() == 0 and crops.max() == 255):
        return crops
    low, high = crops.min(axis=(1, 2, 3)), crops.max(axis=(1, 2, 3))
    row = int((high.astype(int) - low).argmax())
    span = max(1, int(high[row]) - int(low[row]))
    out = crops.copy()
    out[row] = np.rint((crops[row].astype(np.float32) - low[row]) * 255 / span).astype(np.uint8)
    return out


def describe(path: Path, colour: str, heads: Sequence[Head]) -> Artifact:
    """What a manifest says about a TFLite file; ModelError unless its signature names one output per head."""
    with quiet("LiteRT"):
        interpreter = Interpreter(model_path=str(path))
        signatures = interpreter.get_signature_list()
        runner = interpreter.get_signature_runner(next(iter(signatures)))
    (taken,), found = runner.get_input_details().values(), set(runner.get_output_details())
    expected = {head.name for head in heads}
    if found != expected:
        raise ModelError(f"{path}: expected outputs named {sorted(expected)}, the converter made {sorted(found)}")
    _, height, width, _ = (int(size) for size in taken["shape"])
    spec = Input(height, width, colour, np.dtype(taken["dtype"]).name, *host_work(taken))
    names = {head.name: head.name for head in heads}
    return Artifact(path, sha256(path), path.stat().st_size, spec, names, "logits")


def host_work(taken: dict) -> tuple[float, float]:
    """Scale and offset that the host applies to raw pixels for an input tensor; (1, 0): as they are."""
    if np.issubdtype(taken["dtype"], np.floating):
        return 1.0, 0.0
    scale, zero = taken["quantization"]
    exact = abs(scale - 1) < 1e-6
    return (1.0 if exact else 1 / float(scale)), float(zero)


@contextlib.contextmanager
def _old_interpreter() -> Iterator[None]:
    """The quantisation debugger warns that the interpreter which it uses itself has moved to another package."""
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message=r"\s*Warning: tf\.lite\.Interpreter is deprecated", category=UserWarning
        )
        yield


def _table(debugger: tf.lite.experimental.QuantizationDebugger) -> list[dict]:
    """Rows of the debugger's statistics, which it writes as CSV only."""
    text = io.StringIO()
    debugger.layer_statistics_dump(text)
    rows = csv.DictReader(io.StringIO(text.getvalue()))
    return [
        {
            "tensor_name": row["tensor_name"],
            "scale": float(row["scale"]),
            "mean_squared_error": float(row["mean_squared_error"]),
        }
        for row in rows
        if float(row["scale"]) > 0
    ]
