"""ONNX graphs whose outputs are known functions of their inputs, written node by node."""

from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper


class Graph:
    """`graph("Add", "image", 0.5)` adds a node and names its output; numbers and arrays become
    constants.
    """

    def __init__(self):
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def __call__(self, operator, *inputs, **attributes):
        names = [value if isinstance(value, str) else self.constant(value) for value in inputs]
        output = f"v{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, names, [output], **attributes))
        return output

    def constant(self, value):
        array = np.asarray(value)
        array = array.astype(np.float32) if array.dtype == np.float64 else array
        self._constants.append(numpy_helper.from_array(array, f"c{len(self._constants)}"))
        return str(self._constants[-1].name)

    def write(
        self,
        file,
        inputs,
        outputs,
        kind=TensorProto.FLOAT,
    ):
        """A graph with these inputs (name -> shape) of one kind, and outputs (name -> value of the
        graph).
        """
        nodes = [
            *self._nodes,
            *(helper.make_node("Identity", [value], [name]) for name, value in outputs.items()),
        ]
        given = [helper.make_tensor_value_info(name, kind, shape) for name, shape in inputs.items()]
        kinds = {name: TensorProto.INT64 if name == "labels" else kind for name in outputs}
        made = [helper.make_tensor_value_info(name, kinds[name], None) for name in outputs]
        graph = helper.make_graph(nodes, "graph", given, made, self._constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        file.write_bytes(model.SerializeToString())
        return file
