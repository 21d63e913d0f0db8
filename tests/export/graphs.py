"""Small ONNX graphs, and functions to inspect them."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from cifar10.predictor import Predictor, PredictorOptions

CPU = PredictorOptions(device="cpu")


def answers(model: onnx.ModelProto | bytes, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    data = model if isinstance(model, bytes) else model.SerializeToString()
    return Predictor(data, CPU).predict(images)


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def what_runs(model: onnx.ModelProto, folder: Path) -> list[str]:
    """Return the operators of the graph after ONNX Runtime's optimisation for this processor."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return operators(onnx.load(folder / "optimized.onnx"))


def contract(model: onnx.ModelProto) -> list[tuple[str, int]]:
    return [
        (value.name, value.type.tensor_type.elem_type)
        for value in (*model.graph.input, *model.graph.output)
    ]


CONTRACT = [("image", TensorProto.UINT8), ("probabilities", TensorProto.FLOAT)]


def small_convolution(offset: float, *, normalised: str = "") -> onnx.ModelProto:
    """Return a graph of scaled pixels, one convolution, batch normalisation and a dense layer."""
    random = np.random.default_rng(0)
    value = helper.make_tensor_value_info
    constants = {
        "scale": np.float32(1 / 127.5),
        "offset": np.float32(offset),
        "filters": random.normal(0, 0.3, (4, 3, 3, 3)).astype(np.float32),
        "gamma": np.array([1, 2, 0.5, 3], np.float32),
        "beta": np.array([0, 0.1, -0.2, 0.3], np.float32),
        "mean": np.array([0.1, 0, 0.2, -0.1], np.float32),
        "variance": np.array([1, 2, 0.5, 4], np.float32),
        "factor": np.array([1, 2, 0.5, 3], np.float32).reshape(1, 4, 1, 1),
        "shift": np.array([0, 0.1, -0.2, 0.3], np.float32).reshape(1, 4, 1, 1),
        "dense": random.normal(0, 0.02, (4096, 10)).astype(np.float32),
    }
    normalise = {
        "": [],
        "BatchNormalization": [
            helper.make_node(
                "BatchNormalization", ["raw", "gamma", "beta", "mean", "variance"], ["filtered"],
                "norm",
            )
        ],
        "Mul": [
            helper.make_node("Mul", ["raw", "factor"], ["multiplied"], "multiply"),
            helper.make_node("Add", ["multiplied", "shift"], ["filtered"], "shift"),
        ],
    }[normalised]  # fmt: skip
    used = {name for node in normalise for name in node.input}
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["image"], ["cast"], "cast", to=TensorProto.FLOAT),
            helper.make_node("Mul", ["cast", "scale"], ["scaled"], "mul"),
            helper.make_node("Add", ["scaled", "offset"], ["moved"], "add"),
            helper.make_node("Transpose", ["moved"], ["nchw"], "transpose", perm=[0, 3, 1, 2]),
            helper.make_node(
                "Conv", ["nchw", "filters"], ["raw" if normalised else "filtered"], "conv",
                pads=[1, 1, 1, 1],
            ),
            *normalise,
            helper.make_node("Flatten", ["filtered"], ["flat"], "flatten"),
            helper.make_node("MatMul", ["flat", "dense"], ["logits"], "dense"),
            helper.make_node("Softmax", ["logits"], ["probabilities"], "softmax"),
        ],
        "small",
        [value("image", TensorProto.UINT8, ["batch", 32, 32, 3])],
        [value("probabilities", TensorProto.FLOAT, ["batch", 10])],
        [
            numpy_helper.from_array(np.asarray(array), name)
            for name, array in constants.items()
            if name in ("scale", "offset", "filters", "dense") or name in used
        ],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
