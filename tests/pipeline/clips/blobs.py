"""Graphs whose outputs follow from blobs of light, and pictures of such a blob."""

import numpy as np

from tests.onnx_graphs import Graph

SIDE = 96  # px of the detector's square input
CROP = (192, 256)  # width and height of RTMPose's
# px of the detector's input: half the width of the box about a blob, whose height is twice as much
HALF = 12.0
CONFIDENCES = np.linspace(0.1, 1.2, 17).astype(np.float32)  # the network's; more than 1 is 1
SHIFTS = np.arange(17) - 8.0  # px of the crop, of each joint from the centroid


def centroid(graph, size, threshold):
    """(N, 1) x, y and sum of what is brighter in (N, 3, H, W); the first pixel's centre is at 0,
    0.
    """
    light = graph(
        "Relu", graph("Sub", graph("ReduceMean", "input", axes=[1], keepdims=0), threshold)
    )
    mass = graph("Max", graph("ReduceSum", light, np.array([1, 2]), keepdims=0), 1e-6)
    # (N, W), (N, H)
    sums = [graph("ReduceSum", light, np.array([axis]), keepdims=0) for axis in (1, 2)]
    moments = [graph("Mul", s, np.arange(n) * 1.0) for s, n in zip(sums, size, strict=True)]
    centres = [graph("ReduceSum", moment, np.array([1]), keepdims=0) for moment in moments]
    x, y = (graph("Unsqueeze", graph("Div", centre, mass), np.array([1])) for centre in centres)
    return x, y, graph("Unsqueeze", mass, np.array([1]))


def blob_detector(file, *, normalised=False):
    """Boxes and labels of a picture: one person about the blob, found twice, and another object."""
    graph = Graph()
    threshold = 1.0 if normalised else 180.0
    x, y, mass = centroid(graph, (SIDE, SIDE), threshold)
    # edges of a box are counted from the picture's corner
    centre = graph("Add", graph("Concat", x, y, axis=1), 0.5)
    half = np.array([[HALF, 2 * HALF]])
    score = graph("Clip", mass, 0.0, 0.9)
    corners = (graph("Sub", centre, half), graph("Add", centre, half), score)
    again = (graph("Sub", centre, half + 1), graph("Add", centre, half), graph("Mul", score, 0.5))
    other = (graph("Sub", centre, half), graph("Add", centre, half), graph("Mul", score, 1.1))
    rows = [graph("Concat", *row, axis=1) for row in (again, other, corners)]
    dets = graph("Unsqueeze", graph("Concat", *rows, axis=0), np.array([0]))
    labels = graph("Identity", np.array([[0, 7, 0]]))
    return graph.write(file, {"input": (1, 3, SIDE, SIDE)}, {"dets": dets, "labels": labels})


def blob_pose(file, batch="batch", bins=2):
    """Scores of every half pixel: joints about the blob of each crop."""
    graph = Graph()
    outputs = {}
    *blob, _ = centroid(graph, CROP, 0.5)
    for name, centre, n in zip(("simcc_x", "simcc_y"), blob, CROP, strict=True):
        # (N, 17, 1)
        at = graph("Unsqueeze", graph("Add", centre, SHIFTS[None]), np.array([2]))
        apart = graph("Abs", graph("Sub", np.arange(bins * n)[None, None] / bins, at))
        outputs[name] = graph("Sub", CONFIDENCES[None, :, None], graph("Mul", apart, 1e-3))
    return graph.write(file, {"input": (batch, 3, CROP[1], CROP[0])}, outputs)


def constant(file, outputs, shape=(1, 3, SIDE, SIDE)):
    graph = Graph()
    return graph.write(
        file, {"input": shape}, {name: graph.constant(value) for name, value in outputs.items()}
    )


def scene(size, centre, sigma=4.0):
    """(H, W, 3): a blob of light whose middle is at `centre`, px from the first pixel's centre."""
    y, x = np.indices(size[::-1])
    light = np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * sigma**2))
    return np.repeat((20 + 230 * light)[..., None].round().astype(np.uint8), 3, axis=2)
