"""What the Hailo compiler will make of a model, judged without the compiler.

Every verdict cites the section of the team's fact sheet on HailoRT 4.23 and the Dataflow Compiler 3.33 that it rests
on (drawn from the published sources, the model zoo 2.18 and its tables).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from .crops import JUDGING, divide
from .graph import Graph, Layer

OK, WARNING, REFUSED = "ok", "warning", "refused"
CALIBRATION_CROPS = 1024  # fewer, and the compiler lowers its optimisation level (fact sheet 3.4)
LOOKED_AT = 32  # calibration crops in which a face is looked for

# operator -> (state, what is known, section)
_OPERATORS = {
    "CONV_2D": (OK, "native", "4.1"),
    "DEPTHWISE_CONV_2D": (OK, "native", "4.1"),
    "FULLY_CONNECTED": (OK, "native", "4.1"),
    "ADD": (OK, "residual addition is native", "4.1"),
    "LOGISTIC": (OK, "sigmoid is native", "4.1"),
    "RELU": (OK, "native", "4.1"),
    "RELU6": (OK, "native", "4.1"),
    "MAX_POOL_2D": (OK, "in every ResNet of the zoo", "4.2"),
    "AVERAGE_POOL_2D": (OK, "in zoo classifiers", "4.2"),
    "PAD": (OK, "joins the convolution behind it, as in the zoo's MobileNets", "4.2"),
    "RESHAPE": (OK, "a change of view in front of a dense layer", "4.1"),
    "HARD_SWISH": (WARNING, "seen in zoo nets, support inferred from that", "4.1"),
    "GELU": (WARNING, "only fused patterns are said to be accepted", "4.1"),
}
_ACTIVATIONS = ("NONE", "RELU", "RELU6")
_EXCITE = "squeeze-and-excite: the whole map waits for its mean (zoo: 242 FPS against 1952 without)"

# Zoo nets whose speed does not change with the batch fit in one context (4.2). The largest of plain convolutions: resnet_v1_50
# (25.6 M parameters) on the Hailo-8, resnet_v1_18 (11.7 M) on the 8L; with depthwise ones efficientnet_lite4 (13.0 M), and
# lite1 (5.4 M; lite2 with 6.1 M does not fit). With squeeze-and-excite repghost_1_0x (4.1 M) fits neither. A small net may
# need several all the same, as face_landmarks_lite does: what the compiler says holds.
_ONE_CONTEXT = {"hailo8": {"plain": 25.6e6, "depthwise": 13.0e6}, "hailo8l": {"plain": 11.7e6, "depthwise": 5.4e6}}


@dataclass(frozen=True, slots=True)
class Verdict:
    """One judgement."""

    state: str  # "ok", "warning" or "refused"
    what: str  # layer, or part of the build
    text: str
    source: str  # section of the fact sheet


def preflight(
    graph: Graph, arch: str, calibration: np.ndarray | None = None, has_face: Callable[[np.ndarray], bool] | None = None
) -> list[Verdict]:
    """Judge every layer of a float32 `graph`, its input and outputs, its size on `arch` and its calibration crops.

    `has_face` finds faces in crops (H, W, C) uint8; without it nobody looks for any.
    """
    verdicts = [
        *_input(graph),
        *(_layer(graph, layer) for layer in graph.body()),
        *_outputs(graph),
        *_size(graph, arch),
    ]
    return [*verdicts, *check_calibration(graph, calibration, has_face)]


def _input(graph: Graph) -> Iterator[Verdict]:
    if graph.input_type != "FLOAT32":
        text = f"the parser takes float32 files only, this one takes {graph.input_type}; use the float32 variant"
        yield Verdict(REFUSED, "input", text, "3.2")
    if graph.input_shape[0] != 1 or min(graph.input_shape) < 1:
        yield Verdict(REFUSED, "input", f"expected one picture of fixed size, got {graph.input_shape}", "3.2")
    if graph.rescaling:
        text = f"{graph.rescaling} rescaling layers are cut off and become the script's normalization"
        yield Verdict(OK, "input", text, "4.1")
    else:
        yield Verdict(OK, "input", "no rescaling at the input: the chip takes pixels as they are", "3.4")


def _layer(graph: Graph, layer: Layer) -> Verdict:
    what = f"{layer.index:3d} {layer.operator}"
    gate = _gate(graph, layer)
    if gate:
        return Verdict(WARNING, what, *gate)
    if layer.operator == "SOFTMAX":
        return _softmax(graph, layer, what)
    if layer.operator == "MEAN":
        return _mean(graph, layer, what)
    if layer.activation not in _ACTIVATIONS:
        return Verdict(WARNING, what, f"activation {layer.activation} is not among the layers known to compile", "4.1")
    if layer.operator not in _OPERATORS:
        text = "not among the layers known to compile; cut the graph before it and finish on the host"
        return Verdict(REFUSED, what, text, "3.6")
    state, text, source = _OPERATORS[layer.operator]
    return Verdict(state, what, text, source)


def _gate(graph: Graph, layer: Layer) -> tuple[str, str] | None:
    """What is dear about a multiplication: swish, or the gate of squeeze-and-excite; None for other layers."""
    if layer.operator != "MUL" or len(layer.from_layers) != 2:
        return None
    sigmoids = [index for index in layer.from_layers if index >= 0 and graph.layers[index].operator == "LOGISTIC"]
    if not sigmoids:
        return "a product of two maps: buffers one of them", "4.1"
    if set(graph.layers[sigmoids[0]].from_layers) & set(layer.from_layers):
        return "swish as x * sigmoid(x): the parser must recognise it, wide ranges suffer in int8", "4.1"
    return _EXCITE, "4.1"


def _softmax(graph: Graph, layer: Layer, what: str) -> Verdict:
    last = not any(layer.index in other.from_layers for other in graph.layers)
    if last:
        return Verdict(OK, what, "at the end: on the chip, or on the host by logits_layer", "4.1")
    return Verdict(REFUSED, what, "softmax in the middle is in no published classifier; cut the graph before it", "4.1")


def _mean(graph: Graph, layer: Layer, what: str) -> Verdict:
    pooled = len(layer.inputs[0]) == 4 and layer.output[-1] == layer.inputs[0][-1]
    if pooled:
        return Verdict(OK, what, "global average pooling is native", "4.1")
    return Verdict(
        REFUSED, what, f"a mean from {layer.inputs[0]} to {layer.output} is no global average pooling", "4.1"
    )


def _outputs(graph: Graph) -> Iterator[Verdict]:
    for name, index in graph.outputs.items():
        shape = graph.layers[index].output
        state = OK if len(shape) == 2 else REFUSED
        yield Verdict(
            state,
            f"output {name}",
            f"{shape}, matched by name" if state == OK else f"expected (1, C), got {shape}",
            "4.1",
        )


def _size(graph: Graph, arch: str) -> Iterator[Verdict]:
    what, parameters = f"size on {arch}", graph.parameters
    text = f"{parameters / 1e6:.2f} M parameters, {graph.macs / 1e6:.0f} M multiply-accumulates"
    kind = "depthwise" if any(layer.operator == "DEPTHWISE_CONV_2D" for layer in graph.layers) else "plain"
    limit = _ONE_CONTEXT[arch][kind]
    if parameters > limit:
        yield Verdict(WARNING, what, f"{text}: likely several contexts, reloaded over PCIe per frame", "1.9, 4.2")
    elif any(_gate(graph, layer) == (_EXCITE, "4.1") for layer in graph.layers):
        known = "the zoo's with squeeze-and-excite need several from 4.1 M on"
        yield Verdict(WARNING, what, f"{text}: one context or several is not known, {known}", "4.2")
    else:
        yield Verdict(OK, what, f"{text}: below the largest {kind} zoo net in one context ({limit / 1e6:.1f} M)", "4.2")


def check_calibration(
    graph: Graph, crops: np.ndarray | None, has_face: Callable[[np.ndarray], bool] | None = None
) -> list[Verdict]:
    """Judge calibration crops (N, H, W, C): number, shape, dtype, range, variety, and whether they are faces."""
    what, expected = "calibration", graph.input_shape[1:]
    if crops is None:
        text = f"no crops given; at least {CALIBRATION_CROPS + JUDGING} are needed to compile and to judge"
        return [Verdict(WARNING, what, text, "3.3")]
    if crops.ndim != 4 or crops.shape[1:] != expected:
        return [
            Verdict(REFUSED, what, f"expected crops (N, {', '.join(map(str, expected))}), got {crops.shape}", "3.6")
        ]
    if crops.dtype != np.uint8:
        return [Verdict(REFUSED, what, f"expected raw pixels uint8, got {crops.dtype}", "3.3")]
    calibrating, judging = divide(crops)
    verdicts = [*_number(len(crops), len(calibrating), len(judging))]
    if not len(crops) or crops.max() <= 1 or np.ptp(crops) < 64:
        text = f"values span {np.ptp(crops) if len(crops) else 0} of 255: normalised already, or no pictures"
        verdicts.append(Verdict(REFUSED, what, text, "3.3"))
    distinct = len({crop.tobytes() for crop in crops})
    if distinct < 0.9 * len(crops):
        verdicts.append(Verdict(WARNING, what, f"only {distinct} of {len(crops)} crops differ", "3.3"))
    if has_face and not any(verdict.state == REFUSED for verdict in verdicts):
        verdicts += _faces(crops[calibrating[:LOOKED_AT]], has_face)
    text = f"{len(calibrating)} raw crops; {len(judging)} others judge the compiled network"
    return verdicts or [Verdict(OK, what, text, "3.3")]


def _number(given: int, calibrating: int, judging: int) -> Iterator[Verdict]:
    if calibrating < CALIBRATION_CROPS:
        text = (
            f"{given} crops, of which {judging} judge the compiled network: {calibrating} calibrate it, expected "
            f"{CALIBRATION_CROPS}, below which it can lose nearly all its accuracy; give more, or export the run again"
        )
        yield Verdict(REFUSED, "calibration", text, "3.4")
    elif judging < JUDGING:
        text = f"only {judging} pictures judge the compiled network, expected {JUDGING}; give more that differ"
        yield Verdict(WARNING, "calibration", text, "3.4")


def _faces(crops: np.ndarray, has_face: Callable[[np.ndarray], bool]) -> Iterator[Verdict]:
    found = sum(map(has_face, crops))
    if found < len(crops) / 2:
        text = f"a face is found in {found} of {len(crops)} crops looked at, expected most; give what export wrote"
        yield Verdict(WARNING, "calibration", f"{text} (calibration.npz), or faces that calmcam crop cut", "6")
