"""ONNX's own backend node tests, served: what plain ONNX Runtime passes must pass over every protocol.

What the protocol cannot carry must be refused at load, with words that name the tensor.
"""

import http.client
import json
import math
import struct
import urllib.request

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

import onnx_nodes
from conftest import ANY_PORT, running

PATIENCE = 30  # seconds for one answer
MEMORY_LIMIT = 400  # MB resident, of the gateway when it is ready


@pytest.fixture(scope="module")
def outcomes():
    """What plain ONNX Runtime makes of each case, by its name."""
    return {case.name: onnx_nodes.plain(case) for case in onnx_nodes.cases()}


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    """A gateway on all the cases."""
    directory = tmp_path_factory.mktemp("nodes")
    onnx_nodes.write_repository(directory / "models", onnx_nodes.cases())
    with running(directory / "gateway", *ANY_PORT, models=directory / "models") as gateway:
        gateway.resident_at_start = resident(gateway.pid)
        yield gateway


@pytest.fixture(scope="module")
def states(nodes):
    """The state and the reason of each version, by the name of its case."""
    with urllib.request.urlopen(f"http://{nodes.admin}/admin/v1/models", timeout=PATIENCE) as answer:
        models = json.load(answer)["models"]
    versions = {model["model"]: model["versions"] for model in models}
    return {name: (version["state"], version.get("reason") or "") for name, [version] in versions.items()}


def resident(pid):
    """The resident memory of a process, in MB."""
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        [line] = [line for line in status if line.startswith("VmRSS:")]
    return int(line.split()[1]) * 1024 / 1e6


# === Loading


def test_every_case_that_plain_onnx_runtime_loads_is_ready_or_says_which_tensor_it_is_that_cannot_be_carried(
    outcomes, states
):
    faults = []
    for case in onnx_nodes.cases():
        state, reason = states[case.name]
        if case.name.startswith("test_strnormalizer_export"):
            # Plain ONNX Runtime wants the locale en_US.UTF-8; here C.UTF-8 stands in for it.
            is_fine = state == "ready"
        elif outcomes[case.name] == "unloadable":
            is_fine = state == "failed" and reason
        elif case.uncarried:
            is_fine = state == "failed" and any(f"'{name}'" in reason for name in case.uncarried)
        else:
            is_fine = state == "ready" and not reason
        if not is_fine:
            faults.append(f"{case.name} (plain: {outcomes[case.name]}): {state} {reason}")
    assert not faults, listed(faults)


def test_a_repository_of_more_than_1310_models_fits_in_memory(nodes, states):
    assert sum(state == "ready" for state, _ in states.values()) >= 1310
    assert nodes.resident_at_start < MEMORY_LIMIT


# === Answering


class Grpc:
    """Raw messages: `tritonclient` has no name for BF16."""

    def __init__(self, gateway):
        self.channel = grpc.insecure_channel(gateway.grpc)
        self.stub = service_pb2_grpc.GRPCInferenceServiceStub(self.channel)

    def infer(self, case):
        message = service_pb2.ModelInferRequest(model_name=case.name)
        for tensor in case.inputs:
            message.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.array.shape)
            message.raw_input_contents.append(to_raw(tensor))
        answer = self.stub.ModelInfer(message, timeout=PATIENCE)
        raw = zip(answer.outputs, answer.raw_output_contents, strict=True)
        return {output.name: from_raw(output.datatype, tuple(output.shape), content) for output, content in raw}

    def close(self):
        self.channel.close()


class Http:
    def __init__(self, gateway):
        self.connection = http.client.HTTPConnection(gateway.http, timeout=PATIENCE)

    def post(self, case, document, tail=b"", headers=None):
        head = json.dumps(document, ensure_ascii=False).encode()  # NaN and Infinity as Python writes them
        lengths = {"Inference-Header-Content-Length": str(len(head))} if headers is None else headers
        try:
            self.connection.request("POST", f"/v2/models/{case.name}/infer", head + tail, lengths)
            response = self.connection.getresponse()
            body = response.read()
        except Exception:
            self.connection.close()  # the next request opens it again
            raise
        if response.status != 200:
            raise RuntimeError(f"{response.status} {body.decode(errors='replace')[:300]}")
        length = int(response.headers.get("Inference-Header-Content-Length", len(body)))
        return json.loads(body[:length]), body[length:]

    def close(self):
        self.connection.close()


class HttpBinary(Http):
    """The binary tensor data extension, both ways."""

    def infer(self, case):
        inputs, tail = [], b""
        for tensor in case.inputs:
            raw = to_raw(tensor)
            inputs.append(described(tensor) | {"parameters": {"binary_data_size": len(raw)}})
            tail += raw
        answer, rest = self.post(case, {"inputs": inputs, "parameters": {"binary_data_output": True}}, tail)
        arrays = {}
        for output in answer["outputs"]:
            size = output["parameters"]["binary_data_size"]
            raw, rest = rest[:size], rest[size:]
            arrays[output["name"]] = from_raw(output["datatype"], tuple(output["shape"]), raw)
        assert not rest
        return arrays


class HttpJson(Http):
    parameters = {}

    def infer(self, case):
        inputs = [described(tensor) | {"data": to_json(tensor)} for tensor in case.inputs]
        document = {"inputs": inputs, "parameters": self.parameters}
        answer, rest = self.post(case, document, headers={"Content-Type": "application/json"})
        assert not rest
        return {output["name"]: from_json(output) for output in answer["outputs"]}


class HttpJsonLiteral(HttpJson):
    """With answers that tell infinities from NaN."""

    parameters = {"nonfinite": "literal"}


def described(tensor):
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.array.shape)}


def to_raw(tensor):
    if tensor.datatype == "BYTES":
        return b"".join(struct.pack("<I", len(element)) + element for element in tensor.array.ravel())
    return np.ascontiguousarray(tensor.array).tobytes()


def from_raw(datatype, shape, raw):
    if datatype != "BYTES":
        return np.frombuffer(raw, onnx_nodes.DTYPES[datatype]).reshape(shape)
    elements = []
    while raw:
        (length,) = struct.unpack_from("<I", raw)
        elements.append(raw[4 : 4 + length])
        raw = raw[4 + length :]
    return onnx_nodes.objects(elements, shape)


def to_json(tensor):
    if tensor.datatype == "BYTES":
        return [element.decode() for element in tensor.array.ravel()]
    if tensor.datatype == "BF16":
        return tensor.array.astype(np.float32).ravel().tolist()
    return tensor.array.ravel().tolist()


def from_json(output):
    datatype, data = output["datatype"], output["data"]
    if datatype == "BYTES":
        return onnx_nodes.objects([element.encode() for element in data], output["shape"])
    data = [math.nan if element is None else element for element in data]  # null, unless literals are asked for
    return np.array(data, onnx_nodes.DTYPES[datatype]).reshape(output["shape"])


def without_infinities(array):
    """`array` as answers of strict JSON say it: what is not finite is null there, read as NaN here."""
    if array.dtype.kind != "f" and array.dtype != onnx_nodes.DTYPES["BF16"]:
        return array
    return np.where(np.isfinite(array), array, np.array(np.nan, array.dtype))


def fits_json(case):
    """The texts of JSON are UTF-8."""
    try:
        return all(to_json(tensor) is not None for tensor in [*case.inputs, *case.outputs])
    except UnicodeDecodeError:
        return False


PROTOCOLS = {"grpc": Grpc, "http-binary": HttpBinary, "http-json": HttpJson, "http-json-literal": HttpJsonLiteral}


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS.keys())
def test_what_plain_onnx_runtime_passes_passes(nodes, outcomes, protocol, request, capfd):
    is_json = issubclass(protocol, HttpJson)
    chosen = [case for case in onnx_nodes.cases() if outcomes[case.name] == "passes"]
    chosen = [case for case in chosen if not is_json or fits_json(case)]
    client = protocol(nodes)
    faults = {}
    for case in chosen:
        try:
            answer = client.infer(case)
            as_sent = without_infinities if protocol is HttpJson else lambda array: array
            differences = compare(case, answer, as_sent)
        except Exception as fault:
            differences = [str(fault)]
        if any(differences):
            faults[case.name] = "; ".join(filter(None, differences))
    client.close()

    with capfd.disabled():
        print(f"\n{request.node.callspec.id} {len(chosen) - len(faults)} of {len(chosen)}")
    assert len(chosen) >= 1350, "the choice has gone wrong: about 1,380 cases are expected"
    assert not faults, listed(f"{name}: {fault}" for name, fault in faults.items())


def compare(case, answer, as_sent):
    if list(answer) != [tensor.name for tensor in case.outputs]:
        return [f"the outputs are {list(answer)}"]
    return [case.compare(tensor.name, answer[tensor.name], as_sent(tensor.array)) for tensor in case.outputs]


def listed(faults):
    faults = list(faults)
    return f"{len(faults)}:\n" + "\n".join(faults)
