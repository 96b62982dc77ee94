"""A double of the Dataflow Compiler's Python API (fact sheet 3.2): runs the TFLite, records the calls and their order.

A test part: it never ships. `DFC_RECORD` names the file the calls are written to; `DFC_FAIL` a stage that raises,
`DFC_SAY` a line it logs while quantising, `DFC_COLLAPSE` makes the quantised emulation useless, `DFC_KILL` a stage in
which the process dies, `DFC_DRIFT` what the native emulation is off by. It notes whether TF32 was off when it was imported.
"""

import enum
import json
import os
import re
import signal
import sys
import tempfile
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

sys.path.insert(0, str(Path(__file__).parent.parent))
from make_hef import make_hef  # noqa: E402


_TF32 = os.environ.get("NVIDIA_TF32_OVERRIDE")


class InferenceContext(enum.Enum):
    SDK_NATIVE = "native"
    SDK_FP_OPTIMIZED = "fp_optimized"
    SDK_QUANTIZED = "quantized"


class ClientRunner:
    def __init__(self, hw_arch=None, har=None):
        assert hw_arch in ("hailo8", "hailo8r", "hailo8l"), hw_arch
        self.hw_arch, self.state, self._script = hw_arch, "UNINITIALIZED", ""
        self._note("ClientRunner", hw_arch, f"NVIDIA_TF32_OVERRIDE={_TF32}")

    def translate_tf_model(self, model_path, net_name, start_node_names=None, end_node_names=None, tensor_shapes=None):
        self._need("UNINITIALIZED", "translate_tf_model", Path(model_path).name)
        self._path, self._net = Path(model_path), net_name
        self._interpreter = Interpreter(str(model_path))
        self._runner = self._interpreter.get_signature_runner(next(iter(self._interpreter.get_signature_list())))
        self.state = "HAILO_MODEL"
        return {}, {}

    def load_model_script(self, path_or_text, append=False):
        self._note("load_model_script")
        self._script = self._script + path_or_text if append else path_or_text

    def optimize_full_precision(self, calib_data=None):
        self._need("HAILO_MODEL", "optimize_full_precision")
        self.state = "FP_OPTIMIZED_MODEL"

    def optimize(self, calib_data, data_type=None):
        self._need("FP_OPTIMIZED_MODEL", "optimize", str(calib_data.shape))
        if "DFC_SAY" in os.environ:
            print(os.environ["DFC_SAY"], flush=True)
        self.state = "QUANTIZED_MODEL"

    def compile(self):
        self._need("QUANTIZED_MODEL", "compile")
        self.state = "COMPILED_MODEL"
        with tempfile.TemporaryDirectory() as folder:
            hef = Path(folder) / "net.hef"
            make_hef(self._path, hef, arch=self.hw_arch, name=self._net, normalization=self._normalization())
            return hef.read_bytes()

    def save_har(self, path):
        self._note("save_har", Path(path).name)
        Path(path).write_text(self.state)

    def infer_context(self, context):
        return _Session(context)

    def infer(self, session, data, batch_size=None, data_count=None):
        self._note("infer", session.context.value)
        values = np.asarray(data, np.float32)
        if session.context is not InferenceContext.SDK_NATIVE:
            mean, deviation = np.float32(self._normalization())
            values = (values - mean) / deviation
        outputs = self._run(values)
        if session.context is InferenceContext.SDK_NATIVE:
            outputs = [output + np.float32(os.environ.get("DFC_DRIFT", 0)) for output in outputs]
        if session.context is InferenceContext.SDK_QUANTIZED and "DFC_COLLAPSE" in os.environ:
            outputs = [np.random.default_rng(0).normal(size=output.shape).astype(np.float32) for output in outputs]
        return outputs[0] if len(outputs) == 1 else outputs

    def _normalization(self):
        """Mean and deviation by channel, as the script says."""
        return [json.loads(text) for text in re.search(r"normalization\((\[.*?\]), (\[.*?\])\)", self._script).groups()]

    def get_hn_dict(self):
        return {"net_params": {"output_layers_order": [f"{self._net}/fc{n + 1}" for n in range(len(self._names()))]}}

    def _names(self):
        return sorted(self._runner.get_output_details(), reverse=True)  # the compiler's order is its own

    def _run(self, values):
        entry = next(iter(self._runner.get_input_details()))
        rows = [self._runner(**{entry: values[i : i + 1]}) for i in range(len(values))]
        return [np.concatenate([row[name] for row in rows])[:, None, None, :] for name in self._names()]

    def _need(self, state, call, *details):
        self._note(call, *details)
        if os.environ.get("DFC_KILL") == call:
            os.kill(os.getpid(), signal.SIGKILL)
        if os.environ.get("DFC_FAIL") == call:
            ops = "".join(f"UnsupportedPaddingError in op stack_{n}/conv2d: SAME_TENSORFLOW\n" for n in range(20))
            raise RuntimeError(
                f"double: {call} fails as it was told\n{ops}Please use these end node names: stack_0/add"
            )
        if self.state != state:
            raise RuntimeError(f"double: {call} in state {self.state}, needs {state}")

    def _note(self, *what):
        if "DFC_RECORD" in os.environ:
            with open(os.environ["DFC_RECORD"], "a", encoding="utf-8") as file:
                file.write(" ".join(what) + "\n")


class _Session:
    def __init__(self, context):
        self.context = context

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        return False
