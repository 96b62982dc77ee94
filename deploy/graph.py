"""A TFLite file as a list of layers, read from its flatbuffer; and the same file without its input rescaling."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edge_app.errors import ModelError

_OPERATORS = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
_ACTIVATIONS = {value: name for name, value in vars(schema.ActivationFunctionType).items() if isinstance(value, int)}
_TYPES = {value: name for name, value in vars(schema.TensorType).items() if isinstance(value, int)}
_RESCALING = ("MUL", "DIV", "ADD", "SUB")
_TFL3 = b"TFL3"


@dataclass(frozen=True, slots=True)
class Layer:
    """One operator of the graph."""

    index: int
    operator: str  # as in the TFLite schema, "CONV_2D"
    activation: str  # fused: "NONE", "RELU", "RELU6", ...
    inputs: tuple[tuple[int, ...], ...]  # shapes of what flows in, constants excluded
    output: tuple[int, ...]  # shape
    name: str  # of the output tensor: what the parser calls the node
    parameters: int  # weights and biases
    macs: int  # multiply-accumulates for one picture
    from_layers: tuple[int, ...]  # indices of the layers that feed it; -1 is the input


@dataclass(frozen=True, slots=True)
class Graph:
    """What a compiler sees of a TFLite file."""

    path: Path
    layers: tuple[Layer, ...]
    input_shape: tuple[int, ...]  # (1, H, W, C)
    input_type: str  # "FLOAT32", "UINT8", ...
    outputs: dict[str, int]  # signature name -> index of the layer that makes it
    scale: tuple[float, ...]  # per channel, of the rescaling at the input: value = pixel * scale + offset
    offset: tuple[float, ...]
    rescaling: int  # how many layers at the start do nothing but that

    @property
    def parameters(self) -> int:
        return sum(layer.parameters for layer in self.layers)

    @property
    def macs(self) -> int:
        return sum(layer.macs for layer in self.layers)

    def body(self) -> Iterator[Layer]:
        """The layers behind the rescaling."""
        return iter(self.layers[self.rescaling :])


def read_graph(path: Path) -> Graph:
    """The graph of a TFLite file; ModelError when it is none."""
    model = _read(path)
    part = model.subgraphs[0]
    made = {int(output): index for index, op in enumerate(part.operators) for output in op.outputs}
    layers = tuple(_layer(model, index, made) for index in range(len(part.operators)))
    outputs = {
        entry.name.decode(): made.get(entry.tensorIndex, -1)
        for signature in model.signatureDefs or []
        for entry in signature.outputs
    }
    entry = part.tensors[part.inputs[0]]
    scale, offset, count = _rescaling(model)
    shape = tuple(int(n) for n in entry.shape)
    return Graph(path, layers, shape, _TYPES[entry.type], outputs, scale, offset, count)


def without_rescaling(path: Path) -> bytes:
    """The same TFLite file with its input rescaling cut off: the model script's `normalization` takes its place.

    Raises ModelError when the file does not start with a rescaling.
    """
    model = _read(path)
    part = model.subgraphs[0]
    _, _, count = _rescaling(model)
    if not count:
        raise ModelError(f"{path}: expected a rescaling at the input, found none; nothing to cut")
    start = int(part.operators[count - 1].outputs[0])
    before = int(part.inputs[0])
    part.operators = part.operators[count:]
    part.inputs = [start]
    part.tensors[start].name = part.tensors[before].name
    part.tensors[before].name = b"unused"
    for signature in model.signatureDefs or []:
        for entry in signature.inputs:
            entry.tensorIndex = start
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), _TFL3)
    return bytes(builder.Output())


def _read(path: Path) -> schema.ModelT:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}); expected a .tflite file") from error
    if content[4:8] != _TFL3:
        raise ModelError(f"{path}: expected a TFLite flatbuffer, got something else; export the model again")
    try:
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    except (ValueError, TypeError, IndexError, AttributeError, struct.error) as error:
        raise ModelError(f"{path}: the flatbuffer is damaged ({error}); export the model again") from error
    if not model.subgraphs:
        raise ModelError(f"{path}: the flatbuffer holds no graph; export the model again")
    return model


def _constant(model: schema.ModelT, index: int) -> np.ndarray | None:
    """The values float32 of a constant tensor, or None when it flows."""
    tensor = model.subgraphs[0].tensors[index]
    data = model.buffers[tensor.buffer].data
    if data is None or not len(data) or _TYPES[tensor.type] != "FLOAT32":
        return None
    return np.frombuffer(bytes(data), np.float32)


def _is_constant(model: schema.ModelT, index: int) -> bool:
    data = model.buffers[model.subgraphs[0].tensors[index].buffer].data
    return data is not None and len(data) > 0


def _operator(model: schema.ModelT, op: schema.OperatorT) -> str:
    code = model.operatorCodes[op.opcodeIndex]
    return _OPERATORS[max(code.builtinCode, code.deprecatedBuiltinCode)]


def _layer(model: schema.ModelT, index: int, made: dict[int, int]) -> Layer:
    part = model.subgraphs[0]
    op = part.operators[index]
    used = [int(i) for i in op.inputs if i >= 0]
    flowing = [i for i in used if not _is_constant(model, i)]
    constants = [part.tensors[i] for i in used if _is_constant(model, i)]
    operator = _operator(model, op)
    output = part.tensors[op.outputs[0]]
    shape = tuple(int(n) for n in output.shape)
    weights = [tuple(int(n) for n in tensor.shape) for tensor in constants]
    return Layer(
        index=index,
        operator=operator,
        activation=_ACTIVATIONS.get(getattr(op.builtinOptions, "fusedActivationFunction", 0), "NONE"),
        inputs=tuple(tuple(int(n) for n in part.tensors[i].shape) for i in flowing),
        output=shape,
        name=output.name.decode(),
        parameters=sum(prod(w) for w in weights) if operator in _WEIGHTED else 0,
        macs=_WEIGHTED.get(operator, lambda *_: 0)(shape, weights),
        from_layers=tuple(made.get(i, -1) for i in flowing),
    )


def _conv(shape: tuple[int, ...], weights: list[tuple[int, ...]]) -> int:
    """(out, kh, kw, in): every output value costs kh * kw * in."""
    return prod(shape) * prod(weights[0][1:]) if weights else 0


def _depthwise(shape: tuple[int, ...], weights: list[tuple[int, ...]]) -> int:
    """(1, kh, kw, out): every output value costs kh * kw."""
    return prod(shape) * prod(weights[0][1:3]) if weights else 0


_WEIGHTED = {"CONV_2D": _conv, "FULLY_CONNECTED": _conv, "DEPTHWISE_CONV_2D": _depthwise}


def _rescaling(model: schema.ModelT) -> tuple[tuple[float, ...], tuple[float, ...], int]:
    """Scale and offset per channel of the MUL/DIV/ADD/SUB chain at the input, and its length."""
    part = model.subgraphs[0]
    channels = int(part.tensors[part.inputs[0]].shape[-1])
    scale, offset, count = np.ones(channels), np.zeros(channels), 0
    for op in part.operators:
        name = _operator(model, op)
        value = _constant(model, int(op.inputs[1])) if name in _RESCALING and len(op.inputs) == 2 else None
        if value is None or len(value) not in (1, channels):
            break
        count += 1
        if name in ("MUL", "DIV"):
            factor = value if name == "MUL" else 1 / value
            scale, offset = scale * factor, offset * factor
        else:
            offset = offset + (value if name == "ADD" else -value)
    return tuple(map(float, scale)), tuple(map(float, offset)), count
