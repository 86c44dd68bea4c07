"""Chains of layers written as ONNX graphs, node by node: quick, and without tracing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

OPSET = 18
IR_VERSION = 10


@dataclass(frozen=True)
class Node:
    """One ONNX operator: what comes before it is its first input, `weights` are the others."""

    operator: str
    weights: Sequence[torch.Tensor] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)


def nodes_of(layers: Iterable[nn.Module]) -> list[Node]:
    """The nodes that compute what these layers compute in evaluation mode; raises TypeError for an unknown layer."""
    return [node for layer in layers for node in _nodes_of_layer(layer)]


def _nodes_of_layer(layer: nn.Module) -> list[Node]:
    match layer:
        case nn.Sequential():
            return nodes_of(layer)
        case nn.Linear():
            return [Node("Gemm", _weights(layer), {"transB": 1})]
        case nn.Conv2d() | nn.ConvTranspose2d():
            operator = "ConvTranspose" if isinstance(layer, nn.ConvTranspose2d) else "Conv"
            places = {"strides": list(layer.stride), "pads": [int(size) for size in layer.padding] * 2}
            return [Node(operator, _weights(layer), {"kernel_shape": list(layer.kernel_size), **places})]
        case nn.Flatten():
            return [Node("Flatten", attributes={"axis": layer.start_dim})]
        case nn.Unflatten():
            return [Node("Reshape", (torch.tensor([0, *layer.unflattened_size]),))]  # 0: as many as there are
        case nn.SiLU():
            return [Node("SiLU")]
        case nn.BatchNorm2d():
            moments = [moment for moment in (layer.running_mean, layer.running_var) if moment is not None]
            return [Node("BatchNormalization", [*_weights(layer), *moments], {"epsilon": layer.eps})]
        case nn.ReLU() | nn.Sigmoid() | nn.Tanh():
            return [Node(type(layer).__name__.replace("ReLU", "Relu"))]
    raise TypeError(f"no ONNX operator is known for {type(layer).__name__}")


def _weights(layer: nn.Linear | nn.Conv2d | nn.ConvTranspose2d | nn.BatchNorm2d) -> list[torch.Tensor]:
    return [layer.weight] if layer.bias is None else [layer.weight, layer.bias]


@dataclass(frozen=True)
class Stage:
    """Nodes one after the other, whose end is an output [rows, *shape] of the graph."""

    output: str
    shape: Sequence[int]
    nodes: Sequence[Node]


def write_graph(
    stages: Sequence[Stage],
    path: Path,
    *,
    shape: Sequence[int],
    source: str = "input",
    appended: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Write a float32 graph from the input `source` [rows, *shape] through all stages, one after the other.

    `appended`: tables [numbers, width] by the name of an int64 input [rows] each, which picks the row of its table that
    is appended to the source.
    """
    import onnx
    from onnx import helper

    nodes, weights, place = [], [], source
    for name, table in (appended or {}).items():
        start, place = place, f"{source}_and_{name}"
        nodes += _appending(name, start, place)
        weights += _constants(Node("Gather", [table]), name)
    for stage in stages:
        for index, node in enumerate(stage.nodes):
            start, place = place, stage.output if index == len(stage.nodes) - 1 else f"{stage.output}_{index}"
            nodes += _operators(node, start, place)
            weights += _constants(node, place)
    inputs = [_value(source, shape), *(_numbers(name) for name in appended or {})]
    outputs = [_value(stage.output, stage.shape) for stage in stages]
    graph = helper.make_graph(nodes, path.stem, inputs, outputs, weights)
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION, producer_name="weightworks")
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def _operators(node: Node, start: str, end: str) -> list[Any]:
    from onnx import helper

    if node.operator == "SiLU":  # an operator of its own only since opset 24
        gate = f"{end}_gate"
        return [helper.make_node("Sigmoid", [start], [gate]), helper.make_node("Mul", [start, gate], [end])]
    names = [f"{end}_weight_{number}" for number in range(len(node.weights))]
    return [helper.make_node(node.operator, [start, *names], [end], **node.attributes)]


def _appending(name: str, start: str, end: str) -> list[Any]:
    from onnx import helper

    row = f"{name}_row"
    return [
        helper.make_node("Gather", [f"{name}_weight_0", name], [row]),
        helper.make_node("Concat", [start, row], [end], axis=1),
    ]


def _constants(node: Node, end: str) -> list[Any]:
    from onnx import numpy_helper

    arrays = [weight.detach().cpu().contiguous().numpy() for weight in node.weights]
    return [numpy_helper.from_array(array, f"{end}_weight_{number}") for number, array in enumerate(arrays)]


def _value(name: str, shape: Sequence[int]) -> Any:
    from onnx import TensorProto, helper

    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", *shape])


def _numbers(name: str) -> Any:
    from onnx import TensorProto, helper

    return helper.make_tensor_value_info(name, TensorProto.INT64, ["rows"])
