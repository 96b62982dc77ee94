"""What the preflight makes of a network."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from compiling import CASES, CROPS, GRAPH, worst

from deploy import graph as graph_module
from deploy.graph import Layer, read_graph, without_rescaling
from deploy.preflight import preflight
from edge_app.errors import ModelError
from edge_app.manifest import find_model


def test_the_graph_knows_its_layers_and_its_rescaling():
    assert [layer.operator for layer in GRAPH.body()][:2] == ["CONV_2D", "CONV_2D"]
    assert GRAPH.layers[GRAPH.outputs["mood"]].output == (1, 3)
    assert GRAPH.scale == pytest.approx([1 / 127.5] * 3)
    assert GRAPH.offset == pytest.approx([-1] * 3)
    assert GRAPH.macs == 16 * 16 * 8 * 27 + 8 * 8 * 16 * 72 + 64 * 4


def test_without_rescaling_starts_with_the_first_convolution(tmp_path):
    path = tmp_path / "cut.tflite"
    path.write_bytes(without_rescaling(GRAPH.path))
    cut = read_graph(path)
    assert (cut.rescaling, len(cut.layers)) == (0, len(GRAPH.layers) - 2)
    with pytest.raises(ModelError, match="nothing to cut"):
        without_rescaling(path)


@pytest.mark.parametrize("content", [b"", b"text", b"\0\0\0\0TFL3" + b"\xff" * 64])
def test_what_is_no_tflite_is_refused(tmp_path, content):
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="flatbuffer"):
        read_graph(path)


def test_a_plain_network_passes_the_preflight():
    verdicts = preflight(GRAPH, "hailo8", CROPS)
    assert worst(verdicts) == "ok"
    assert all(verdict.source for verdict in verdicts)


def test_an_int8_file_is_refused_by_the_preflight():
    verdicts = preflight(read_graph(CASES / "two_heads.tflite"), "hailo8", CROPS)
    assert any(verdict.state == "refused" and "float32" in verdict.text for verdict in verdicts)


def test_the_bundled_models_preflight_warns_of_nothing():
    manifest = find_model("emotions")
    shape = manifest.artifact("float32").input
    crops = np.random.default_rng(0).integers(0, 256, (1088, shape.height, shape.width, shape.channels), np.uint8)
    verdicts = preflight(read_graph(manifest.artifact("float32").path), "hailo8", crops)
    assert worst(verdicts) == "ok"


def layer(index, operator, inputs=((1, 8, 8, 4),), output=(1, 8, 8, 4), feeds=None, activation="NONE", parameters=0):
    feeds = (index - 1,) if feeds is None else feeds
    return Layer(index, operator, activation, inputs, output, f"n{index}", parameters, 0, feeds)


def judged(*layers: Layer, **changes) -> dict[str, str]:
    """State of every verdict by what it is about."""
    outputs = {"mood": len(layers) - 1}
    made = replace(GRAPH, layers=layers, outputs=outputs, rescaling=0, **changes)
    return {verdict.what.strip(): verdict.state for verdict in preflight(made, "hailo8", CROPS)}


def test_what_the_preflight_refuses_and_warns_of():
    gap = layer(1, "MEAN", output=(1, 4))
    dense = layer(2, "FULLY_CONNECTED", ((1, 4),), (1, 3))
    good = judged(layer(0, "CONV_2D"), gap, dense)
    assert set(good.values()) == {"ok"}
    for strange, state in [
        (layer(0, "CONV_2D", activation="TANH"), "warning"),
        (layer(0, "TRANSPOSE_CONV"), "refused"),
        (layer(0, "SOFTMAX"), "refused"),
        (layer(0, "HARD_SWISH"), "warning"),
        (layer(0, "MEAN", output=(1, 8, 8, 1)), "refused"),
    ]:
        assert judged(strange, gap, dense)[f"0 {strange.operator}"] == state
    assert judged(layer(0, "CONV_2D"), gap, dense)["output mood"] == "ok"
    assert judged(layer(0, "CONV_2D"))["output mood"] == "refused"
    assert judged(layer(0, "CONV_2D"), gap, dense, layer(3, "SOFTMAX", ((1, 3),), (1, 3)))["3 SOFTMAX"] == "ok"


@pytest.mark.parametrize(
    ("arch", "operator", "fits"),
    [
        ("hailo8", "CONV_2D", 25.6),
        ("hailo8l", "CONV_2D", 11.7),
        ("hailo8", "DEPTHWISE_CONV_2D", 13.0),
        ("hailo8l", "DEPTHWISE_CONV_2D", 5.4),
    ],
)
def test_size_is_judged_by_the_zoo_s_nets_of_its_kind(arch, operator, fits):
    for millions, state in ((fits, "ok"), (fits + 0.1, "warning")):
        made = layer(0, operator, parameters=round(millions * 1e6))
        (verdict,) = [
            one
            for one in preflight(replace(GRAPH, layers=(made,), outputs={"mood": 0}, rescaling=0), arch, CROPS)
            if "size" in one.what
        ]
        assert verdict.state == state and ("plain" in verdict.text) is (state == "ok" and operator == "CONV_2D")


def test_the_size_of_a_net_with_squeeze_and_excite_is_not_known():
    gate = (layer(0, "CONV_2D"), layer(1, "MEAN", output=(1, 4)), layer(2, "LOGISTIC"), layer(3, "MUL", feeds=(0, 2)))
    made = replace(GRAPH, layers=gate, outputs={"mood": 3}, rescaling=0)
    (verdict,) = [one for one in preflight(made, "hailo8", CROPS) if "size" in one.what]
    assert verdict.state == "warning" and "not known" in verdict.text


def test_a_batch_of_two_is_refused():
    made = replace(GRAPH, input_shape=(2, 32, 32, 3))
    assert worst([v for v in preflight(made, "hailo8", CROPS) if v.what == "input"]) == "refused"


def test_products_of_two_maps_are_told_apart():
    def says(feeds, sigmoid_of):
        layers = (
            layer(0, "CONV_2D"),
            layer(1, "CONV_2D"),
            layer(2, "LOGISTIC", feeds=(sigmoid_of,)),
            layer(3, "MUL", ((1, 8, 8, 4),) * 2, feeds=feeds),
        )
        made = replace(GRAPH, layers=layers, outputs={"mood": 3}, rescaling=0)
        (verdict,) = (v for v in preflight(made, "hailo8", CROPS) if v.what == "  3 MUL")
        assert verdict.state == "warning"
        return verdict.text.split(":")[0]

    assert says((1, 2), 1) == "swish as x * sigmoid(x)"
    assert says((1, 2), 0) == "squeeze-and-excite"
    assert says((0, 1), 1) == "a product of two maps"


@pytest.mark.parametrize(
    ("chain", "scale", "offset"),
    [
        ([("DIV", 127.5), ("SUB", 1.0)], 1 / 127.5, -1.0),
        ([("SUB", 127.5), ("DIV", 127.5)], 1 / 127.5, -1.0),
        ([("ADD", -128.0), ("MUL", 0.5)], 0.5, -64.0),
    ],
)
def test_every_kind_of_rescaling_is_understood(monkeypatch, chain, scale, offset):
    ops = [SimpleNamespace(inputs=[0, place], name=name) for place, (name, _) in enumerate(chain)]
    part = SimpleNamespace(operators=ops, inputs=[0], tensors=[SimpleNamespace(shape=[1, 8, 8, 1])])
    monkeypatch.setattr(graph_module, "_operator", lambda _, op: op.name)
    monkeypatch.setattr(graph_module, "_constant", lambda _, place: np.float32([chain[place][1]]))
    found = graph_module._rescaling(SimpleNamespace(subgraphs=[part]))
    assert found == ((pytest.approx(scale),), (pytest.approx(offset),), 2)


def test_a_depthwise_convolution_costs_its_window_for_every_value():
    assert graph_module._depthwise((1, 4, 4, 8), [(1, 3, 3, 8)]) == 4 * 4 * 8 * 9
    assert graph_module._conv((1, 4, 4, 8), [(8, 3, 3, 5)]) == 4 * 4 * 8 * 9 * 5
