"""Classification through Triton's own Python client: the highest elements of an output, with their labels."""

import queue

import numpy as np
import onnx
import pytest
import tritonclient.grpc
import tritonclient.http
from onnx import TensorProto, helper

from conftest import ANY_PORT, running

SCORES = np.array([[0.25, 3.5, -1.0, 2.0], [1.0, 1.0, 9.0, 0.0]], np.float32)
# Labels for three of the four classes.
LABELS = "cat\ndog\nowl\n"
LABELLED = [
    ["3.500000:1:dog", "2.000000:3", "0.250000:0:cat", "-1.000000:2:owl"],
    # Equals keep their order.
    ["9.000000:2:owl", "1.000000:0:cat", "1.000000:1:dog", "0.000000:3"],
]
UNLABELLED = [
    ["3.500000:1", "2.000000:3", "0.250000:0", "-1.000000:2"],
    ["9.000000:2", "1.000000:0", "1.000000:1", "0.000000:3"],
]
ANSWER_WITHIN = 60  # seconds


def classifier():
    """A model that gives back its input, twice."""
    nodes = [helper.make_node("Identity", ["x"], [name]) for name in ("scores", "copy")]
    value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 4])
    graph = helper.make_graph(nodes, "classifier", [value("x")], [value("scores"), value("copy")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


@pytest.fixture(scope="module")
def classifying(tmp_path_factory):
    """A gateway with the model `labelled`, which has a labels.txt, and `unlabelled`, which has none."""
    directory = tmp_path_factory.mktemp("classifying")
    for model in ("labelled", "unlabelled"):
        version = directory / "models" / model / "1"
        version.mkdir(parents=True)
        (version / "model.onnx").write_bytes(classifier())
    (directory / "models/labelled/labels.txt").write_text(LABELS)
    with running(directory, *ANY_PORT, models=directory / "models") as gateway:
        yield gateway


class Http:
    """`tritonclient.http`, with answers as JSON or binary."""

    def __init__(self, gateway, binary):
        self.binary = binary
        self.client = tritonclient.http.InferenceServerClient(gateway.http)

    def infer(self, model, rows, **classes):
        tensor = tritonclient.http.InferInput("x", list(rows.shape), "FP32").set_data_from_numpy(rows)
        outputs = [
            tritonclient.http.InferRequestedOutput(name, binary_data=self.binary, class_count=count)
            for name, count in classes.items()
        ]
        return self.client.infer(model, [tensor], outputs=outputs)


class Grpc:
    """`tritonclient.grpc`."""

    def __init__(self, gateway):
        self.client = tritonclient.grpc.InferenceServerClient(gateway.grpc)

    def asked(self, rows, classes):
        tensor = tritonclient.grpc.InferInput("x", list(rows.shape), "FP32").set_data_from_numpy(rows)
        outputs = [tritonclient.grpc.InferRequestedOutput(name, class_count=count) for name, count in classes.items()]
        return [tensor], outputs

    def infer(self, model, rows, **classes):
        inputs, outputs = self.asked(rows, classes)
        return self.client.infer(model, inputs, outputs=outputs)


class Stream(Grpc):
    """`tritonclient.grpc`, over a stream."""

    def infer(self, model, rows, **classes):
        inputs, outputs = self.asked(rows, classes)
        answers = queue.Queue()
        self.client.start_stream(lambda result, error: answers.put((result, error)))
        self.client.async_stream_infer(model, inputs, outputs=outputs)
        result, error = answers.get(timeout=ANSWER_WITHIN)
        self.client.stop_stream()
        assert error is None
        return result


@pytest.fixture(params=["http-json", "http-binary", "grpc", "stream"])
def triton(request, classifying):
    ways = {
        "http-json": lambda: Http(classifying, binary=False),
        "http-binary": lambda: Http(classifying, binary=True),
        "grpc": lambda: Grpc(classifying),
        "stream": lambda: Stream(classifying),
    }
    triton = ways[request.param]()
    yield triton
    triton.client.close()


def classes(result, output="scores"):
    """The classes of an output as text; over JSON the client gives them as such already."""
    text = lambda element: element.decode() if isinstance(element, bytes) else element
    return [[text(element) for element in row] for row in result.as_numpy(output)]


@pytest.mark.parametrize(("model", "expected"), [("labelled", LABELLED), ("unlabelled", UNLABELLED)])
@pytest.mark.parametrize("count", [1, 3, 4])
def test_the_highest_classes_of_each_row_come_first(triton, model, expected, count):
    result = triton.infer(model, SCORES, scores=count)
    assert classes(result) == [row[:count] for row in expected]


def test_there_are_no_more_classes_than_elements(triton):
    assert classes(triton.infer("labelled", SCORES, scores=9)) == LABELLED


def test_an_output_beside_it_keeps_its_values(triton):
    result = triton.infer("labelled", SCORES[:1], scores=2, copy=0)
    assert classes(result) == [LABELLED[0][:2]]
    np.testing.assert_array_equal(result.as_numpy("copy"), SCORES[:1])


def test_the_answer_says_that_classes_are_text(classifying):
    result = Grpc(classifying).infer("labelled", SCORES, scores=2).get_response()
    (output,) = result.outputs
    assert (output.name, output.datatype, list(output.shape)) == ("scores", "BYTES", [2, 2])
