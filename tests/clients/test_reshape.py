"""Triton's `reshape`: its clients send and get the shapes of config.pbtxt, and the model has others."""

import numpy as np
import onnx
import pytest
import tritonclient.grpc
import tritonclient.http
from onnx import TensorProto, helper

from conftest import ANY_PORT, running

CONFIG = """
max_batch_size: %d
input [ { name: "x" data_type: TYPE_FP32 dims: [ %s ] reshape { shape: [ %s ] } } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ %s ] reshape { shape: [ %s ] } } ]
"""


def add(repository, name, shape, config):
    """A model `y = -x` of this shape, and its configuration."""
    value = lambda tensor: helper.make_tensor_value_info(tensor, TensorProto.FLOAT, shape)  # noqa: E731
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "g", [value("x")], [value("y")])
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    (repository / name / "1").mkdir(parents=True)
    onnx.save(model, repository / name / "1" / "model.onnx")
    (repository / name / "config.pbtxt").write_text(CONFIG % config)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    root = tmp_path_factory.mktemp("reshape")
    add(root / "models", "image", [1, 3, 2], (0, "3, 2", "1, 3, 2", "6", "1, 3, 2"))
    add(root / "models", "scalar", ["n"], (8, "1", "", "1", ""))
    with running(root / "run", *ANY_PORT, models=root / "models") as gateway:
        yield gateway


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize(("model", "sent", "got"), [("image", (3, 2), (6,)), ("scalar", (4, 1), (4, 1))])
def test_clients_of_triton_need_no_change(gateway, protocol, model, sent, got):
    module = {"http": tritonclient.http, "grpc": tritonclient.grpc}[protocol]
    client = module.InferenceServerClient(getattr(gateway, protocol))
    values = np.arange(np.prod(sent), dtype=np.float32).reshape(sent)
    tensor = module.InferInput("x", list(sent), "FP32")
    tensor.set_data_from_numpy(values)
    answer = client.infer(model, [tensor]).as_numpy("y")
    assert answer.shape == got
    np.testing.assert_array_equal(answer, -values.reshape(got))
