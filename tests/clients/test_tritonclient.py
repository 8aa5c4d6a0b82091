"""Triton's own Python client against the gateway, over every way it has of sending tensors.

The same tests run three times: HTTP with JSON tensors, HTTP with binary tensors (the client's default), and gRPC.
"""

import asyncio
import importlib.util
import json
import queue
import struct
import threading
import urllib.request
import uuid
import zlib

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from conftest import ROOT, golden_files

OUTPUTS = {"car_loan": ["label", "probabilities"], "magika": ["target_label"]}
ANSWER_WITHIN = 60  # seconds


class Http:
    """`tritonclient.http`, with `binary_data` on or off throughout."""

    codes = {"bad request": "400", "not found": "404"}

    def __init__(self, gateway, binary):
        self.binary = binary
        self.client = tritonclient.http.InferenceServerClient(gateway.http, concurrency=16)

    def input(self, name, array):
        tensor = tritonclient.http.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        return tensor.set_data_from_numpy(array, binary_data=self.binary)

    def output(self, name):
        return tritonclient.http.InferRequestedOutput(name, binary_data=self.binary)

    def wanted(self, model, outputs):
        # Without requested outputs, this client asks for all of them in binary. JSON must be asked for by name.
        names = OUTPUTS.get(model) if outputs is None and not self.binary else outputs
        return names and [self.output(name) for name in names]

    def infer(self, model, inputs, outputs=None, **options):
        tensors = [self.input(name, array) for name, array in inputs.items()]
        return self.client.infer(model, tensors, outputs=self.wanted(model, outputs), **options)

    def start(self, model, inputs, **options):
        """Sends a request; the function that it answers with waits for the result."""
        tensors = [self.input(name, array) for name, array in inputs.items()]
        sent = self.client.async_infer(model, tensors, outputs=self.wanted(model, None), **options)
        return lambda: sent.get_result(timeout=ANSWER_WITHIN)

    def server_metadata(self):
        return self.client.get_server_metadata()

    def model_metadata(self, model, **options):
        return self.client.get_model_metadata(model, **options)

    def model_config(self, model):
        return self.client.get_model_config(model)

    def described(self, result):
        """The answer without its tensors: (model_name, model_version, id, output names)."""
        answer = result.get_response()
        names = [output["name"] for output in answer["outputs"]]
        return answer["model_name"], answer["model_version"], answer.get("id", ""), names


class Grpc:
    """`tritonclient.grpc`."""

    codes = {"bad request": "StatusCode.INVALID_ARGUMENT", "not found": "StatusCode.NOT_FOUND"}

    def __init__(self, gateway):
        self.client = tritonclient.grpc.InferenceServerClient(gateway.grpc)

    def input(self, name, array):
        tensor = tritonclient.grpc.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        return tensor.set_data_from_numpy(array)

    def wanted(self, outputs):
        return outputs and [tritonclient.grpc.InferRequestedOutput(name) for name in outputs]

    def infer(self, model, inputs, outputs=None, **options):
        tensors = [self.input(name, array) for name, array in inputs.items()]
        return self.client.infer(model, tensors, outputs=self.wanted(outputs), **options)

    def start(self, model, inputs, **options):
        arrived = queue.Queue()
        tensors = [self.input(name, array) for name, array in inputs.items()]
        self.client.async_infer(model, tensors, lambda result, error: arrived.put((result, error)), **options)

        def wait():
            result, error = arrived.get(timeout=ANSWER_WITHIN)
            if error is not None:
                raise error
            return result

        return wait

    def server_metadata(self):
        return self.client.get_server_metadata(as_json=True)

    def model_metadata(self, model, **options):
        metadata = self.client.get_model_metadata(model, as_json=True, **options)
        for tensor in metadata["inputs"] + metadata["outputs"]:
            tensor["shape"] = [int(size) for size in tensor["shape"]]  # JSON of protobuf writes int64 as text
        return metadata

    def model_config(self, model):
        return self.client.get_model_config(model, as_json=True)["config"]

    def described(self, result):
        answer = result.get_response()
        return answer.model_name, answer.model_version, answer.id, [output.name for output in answer.outputs]


@pytest.fixture(params=["http-json", "http-binary", "grpc"])
def triton(request, gateway):
    if request.param == "grpc":
        triton = Grpc(gateway)
    else:
        triton = Http(gateway, binary=request.param == "http-binary")
    yield triton
    triton.client.close()


# === The car_loan model


def text(*values):
    return np.array([[value.encode()] for value in values], dtype=np.object_)


def customers(count):
    """`count` customers, no two alike."""
    row = np.arange(count).reshape(count, 1)
    salaries = ["0 - 20K €", "20K - 40K €", "40K - 60K €", "60K+ €"]
    return {
        "car_value": 12_000.0 + 317.0 * row,
        "salary_range": text(*(salaries[i % 4] for i in range(count))),
        "debt_to_income_ratio": 0.3 + 0.4 * row / max(count, 1),
        "loan_length": 6.0 + row % 17,
        "repaid_loan_on_prev_car": text(*(["True", "False"][i % 3 == 0] for i in range(count))),
        "size_of_downpayment": text(*(f"{i % 5 * 10}%" for i in range(count))),
        "driver_tenure": 0.01 + 6.9 * row / max(count, 1),
    }


def only(inputs, row):
    return {name: array[row : row + 1] for name, array in inputs.items()}


def from_golden(request):
    """The input tensors of a golden request as numpy arrays."""
    types = {"FP64": np.float64, "BYTES": np.object_, "INT32": np.int32}
    arrays = {}
    for tensor in request["inputs"]:
        data = [value.encode() if isinstance(value, str) else value for value in tensor["data"]]
        arrays[tensor["name"]] = np.array(data, dtype=types[tensor["datatype"]]).reshape(tensor["shape"])
    return arrays


# === The magika model


def pixels():
    """A small PNG, put together by hand: the signature, IHDR, IDAT, IEND."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    side = 64
    lines = b"".join(b"\0" + bytes((x * y) % 251 for x in range(side) for _ in "rgb") for y in range(side))
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    )


PYTHON = '''\
"""Counts the words of a text."""

import collections
import sys


def count(lines):
    words = collections.Counter()
    for line in lines:
        words.update(line.lower().split())
    return words


if __name__ == "__main__":
    for word, times in count(sys.stdin).most_common(10):
        print(f"{times:6} {word}")
'''

HTML = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Tide tables of the week</title>
<link rel="stylesheet" href="/css/tides.css">
<style>
  body { font-family: sans-serif; margin: 2em auto; max-width: 40em; }
  td { padding: 0.2em 1em; text-align: right; }
</style>
<script>
  document.addEventListener("DOMContentLoaded", function () {
    document.getElementById("today").classList.add("current");
  });
</script>
</head>
<body>
<div class="header"><h1>Tide tables</h1><p>All times are <b>local</b>.</p></div>
<table>
<tr><th>Day</th><th>High</th><th>Low</th></tr>
<tr id="today"><td>Monday</td><td>06:12</td><td>12:31</td></tr>
<tr><td>Tuesday</td><td>07:01</td><td>13:20</td></tr>
</table>
<p>See also <a href="https://example.org/moon.html">the moon</a>.</p>
<img src="/img/harbour.jpg" alt="The harbour at low water" width="400">
</body>
</html>
"""

JSON = json.dumps({"tides": [{"day": day, "high": [day * 0.5, day * 0.7]} for day in range(30)]}, indent=2)

FILES = {"python": PYTHON.encode(), "png": pixels(), "json": JSON.encode(), "html": HTML.encode()}


@pytest.fixture(scope="session")
def tokens(tmp_path_factory):
    """The tokens of each of FILES, as models/magika/features.py reads them."""
    path = ROOT / "models/magika/features.py"
    specification = importlib.util.spec_from_file_location("features", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    directory = tmp_path_factory.mktemp("files")
    rows = {}
    for kind, content in FILES.items():
        (directory / kind).write_bytes(content)
        rows[kind] = np.array([module.features(directory / kind)], dtype=np.int32)
    return rows


@pytest.fixture(scope="session")
def labels():
    return (ROOT / "models/magika/labels.txt").read_text().split()


# === Health and metadata


def test_server_is_live_and_ready(triton):
    assert triton.client.is_server_live()
    assert triton.client.is_server_ready()


def test_server_metadata(triton):
    metadata = triton.server_metadata()
    assert metadata["name"] == "tidegate"
    assert metadata["version"]


@pytest.mark.parametrize("model", OUTPUTS)
def test_models_are_ready(triton, model):
    assert triton.client.is_model_ready(model)
    assert triton.client.is_model_ready(model, model_version="1")


@pytest.mark.parametrize(("model", "version"), [("no_such_model", ""), ("car_loan", "99")])
def test_what_does_not_exist_is_not_ready(triton, model, version):
    assert not triton.client.is_model_ready(model, model_version=version)


def test_metadata_of_car_loan(triton):
    metadata = triton.model_metadata("car_loan")
    assert metadata["name"] == "car_loan"
    assert metadata["versions"] == ["1", "2"]
    assert metadata["platform"] == "onnxruntime_onnx"
    inputs = {tensor["name"]: (tensor["datatype"], tensor["shape"]) for tensor in metadata["inputs"]}
    assert inputs == {
        "car_value": ("FP64", [-1, 1]),
        "salary_range": ("BYTES", [-1, 1]),
        "debt_to_income_ratio": ("FP64", [-1, 1]),
        "loan_length": ("FP64", [-1, 1]),
        "repaid_loan_on_prev_car": ("BYTES", [-1, 1]),
        "size_of_downpayment": ("BYTES", [-1, 1]),
        "driver_tenure": ("FP64", [-1, 1]),
    }
    outputs = {tensor["name"]: (tensor["datatype"], tensor["shape"]) for tensor in metadata["outputs"]}
    assert outputs == {"label": ("INT64", [-1]), "probabilities": ("FP32", [-1, 2])}


def test_metadata_of_one_version_of_magika(triton, labels):
    metadata = triton.model_metadata("magika", model_version="1")
    assert metadata["name"] == "magika"
    assert metadata["inputs"] == [{"name": "bytes", "datatype": "INT32", "shape": [-1, 2048]}]
    assert metadata["outputs"] == [{"name": "target_label", "datatype": "FP32", "shape": [-1, len(labels)]}]


def test_configuration_of_a_model_that_has_no_config_pbtxt(triton):
    config = triton.model_config("car_loan")
    assert (config["name"], config["backend"], config["max_batch_size"]) == ("car_loan", "onnxruntime", 64)
    assert {tensor["name"]: tensor["data_type"] for tensor in config["input"]}["salary_range"] == "TYPE_STRING"
    assert [[int(size) for size in tensor["dims"]] for tensor in config["input"]] == [[1]] * 7


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_configuration_that_triton_wrote(fresh_gateway, models_copy, protocol):
    (models_copy / "car_loan/model.toml").unlink()
    pbtxt = '''
        name: "car_loan" platform: "onnxruntime_onnx" max_batch_size: 16
        input [ { name: "car_value" data_type: TYPE_FP64 dims: [ 1 ] } ]
        instance_group [ { count: 3 kind: KIND_CPU } ]
        dynamic_batching { preferred_batch_size: [ 4, 8 ] max_queue_delay_microseconds: 200 }
        parameters { key: "owner" value { string_value: "risk" } }
    '''
    (models_copy / "car_loan/config.pbtxt").write_text(pbtxt)
    gateway = fresh_gateway(models_copy)
    triton = Grpc(gateway) if protocol == "grpc" else Http(gateway, binary=False)
    config = triton.model_config("car_loan")
    assert config["max_batch_size"] == 16
    assert config["instance_group"][0]["count"] == 3
    assert config["dynamic_batching"]["preferred_batch_size"] == [4, 8]
    assert int(config["dynamic_batching"]["max_queue_delay_microseconds"]) == 200
    assert config["parameters"]["owner"]["string_value"] == "risk"


# === Inference


@pytest.mark.parametrize(("model", "version", "golden"), list(golden_files()))
def test_golden_answers_of_a_pinned_version(triton, model, version, golden):
    result = triton.infer(model, from_golden(golden["request"]), model_version=version)

    name, ran, _, _ = triton.described(result)
    assert (name, ran) == (model, version)
    for wanted in golden["response"]["outputs"]:
        array = result.as_numpy(wanted["name"])
        assert np_to_triton_dtype(array.dtype) == wanted["datatype"]
        expected = np.reshape(wanted["data"], wanted["shape"])
        np.testing.assert_allclose(array, expected, rtol=golden["rtol"], atol=golden["atol"])


def test_a_batch_answers_as_its_rows_do(triton):
    inputs = customers(5)
    batch = triton.infer("car_loan", inputs)
    assert batch.as_numpy("label").shape == (5,)
    assert batch.as_numpy("probabilities").shape == (5, 2)
    for row in range(5):
        single = triton.infer("car_loan", only(inputs, row))
        for output in OUTPUTS["car_loan"]:
            np.testing.assert_allclose(single.as_numpy(output)[0], batch.as_numpy(output)[row], rtol=1e-5)


@pytest.mark.parametrize("kind", FILES)
def test_magika_tells_the_type_of_a_file(triton, tokens, labels, kind):
    result = triton.infer("magika", {"bytes": tokens[kind]})
    probabilities = result.as_numpy("target_label")
    assert probabilities.shape == (1, len(labels))
    assert probabilities.dtype == np.float32
    assert probabilities.sum() == pytest.approx(1, abs=1e-3)
    assert labels[probabilities[0].argmax()] == kind


def test_magika_tells_the_types_of_many_files_at_once(triton, tokens, labels):
    result = triton.infer("magika", {"bytes": np.concatenate(list(tokens.values()))})
    winners = result.as_numpy("target_label").argmax(axis=1)
    assert [labels[winner] for winner in winners] == list(tokens)


@pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_http_compresses_both_ways(gateway, tokens, binary, coding):
    http = Http(gateway, binary)
    inputs = {"bytes": np.concatenate(list(tokens.values()))}
    plain = http.infer("magika", inputs).as_numpy("target_label")

    compressed = http.infer(
        "magika", inputs, request_compression_algorithm=coding, response_compression_algorithm=coding
    )

    assert compressed.get_response()["model_name"] == "magika"
    np.testing.assert_array_equal(compressed.as_numpy("target_label"), plain)
    http.client.close()


@pytest.mark.parametrize("kind", FILES)
def test_raw_binary_request_is_the_bytes_of_the_one_input(gateway, tokens, labels, kind):
    request = urllib.request.Request(
        f"http://{gateway.http}/v2/models/magika/infer",
        tokens[kind].tobytes(),
        {"Inference-Header-Content-Length": "0"},
    )
    with urllib.request.urlopen(request) as answer:
        body = answer.read()
        length = int(answer.headers["Inference-Header-Content-Length"])

    (output,) = json.loads(body[:length])["outputs"]
    assert output["parameters"] == {"binary_data_size": len(body) - length}
    probabilities = np.frombuffer(body[length:], np.float32)
    assert output["shape"] == [1, len(labels)]
    assert labels[probabilities.argmax()] == kind


def test_timeout_and_priority_are_taken(triton):
    options = {"timeout": 60_000_000, "priority": 1}
    assert triton.infer("car_loan", customers(1), **options).as_numpy("label").shape == (1,)


def test_only_the_requested_outputs_are_answered(triton):
    result = triton.infer("car_loan", customers(2), outputs=["probabilities"])
    assert triton.described(result)[3] == ["probabilities"]
    assert result.as_numpy("probabilities").shape == (2, 2)
    assert result.as_numpy("label") is None


def test_requested_outputs_come_in_the_order_of_the_request(triton):
    result = triton.infer("car_loan", customers(2), outputs=["probabilities", "label"])
    assert triton.described(result)[3] == ["probabilities", "label"]


def test_the_request_id_is_echoed(triton):
    result = triton.infer("car_loan", customers(1), request_id="order-4711/ä")
    assert triton.described(result)[2] == "order-4711/ä"


def test_a_request_without_an_id_gets_one(triton):
    first, second = (triton.described(triton.infer("car_loan", customers(1)))[2] for _ in range(2))
    assert uuid.UUID(first).version == 7
    assert first != second


def test_a_pinned_version_is_the_one_that_runs(triton):
    answers = {}
    for version in ("1", "2"):
        result = triton.infer("car_loan", customers(3), model_version=version)
        assert triton.described(result)[1] == version
        answers[version] = result.as_numpy("probabilities")
    assert not np.allclose(answers["1"], answers["2"], atol=1e-3)


def test_without_a_version_the_stable_one_runs(triton):
    assert triton.described(triton.infer("car_loan", customers(1)))[1] == "2"


def test_over_grpc_a_label_may_stand_for_the_version(fresh_gateway):
    gateway = fresh_gateway()
    assert gateway.cli("label", "car_loan", "simple", "--version", "1").returncode == 0
    triton = Grpc(gateway)
    result = triton.infer("car_loan", customers(1), model_version="simple")
    assert triton.described(result)[1] == "1"
    triton.client.close()


def test_a_missing_number_is_treated_as_the_model_was_trained(triton):
    inputs = customers(1)
    inputs["car_value"][0, 0] = np.nan
    probabilities = triton.infer("car_loan", inputs).as_numpy("probabilities")
    assert np.isfinite(probabilities).all()


def test_no_rows_give_no_rows(triton):
    result = triton.infer("car_loan", {name: array[:0] for name, array in customers(1).items()})
    assert result.as_numpy("probabilities").shape == (0, 2)


# === Refusals


def refused(triton, kind, model, inputs, **options):
    """Sends what must be refused; answers with the message."""
    with pytest.raises(InferenceServerException) as refusal:
        triton.infer(model, inputs, **options)
    assert refusal.value.status() == triton.codes[kind], refusal.value
    assert triton.client.is_server_ready()
    return refusal.value.message()


def test_unknown_model(triton):
    assert "no_such_model" in refused(triton, "not found", "no_such_model", customers(1))


def test_unknown_version(triton):
    message = refused(triton, "not found", "car_loan", customers(1), model_version="99")
    assert "car_loan" in message and "99" in message


def test_version_that_is_no_number(triton):
    # Over gRPC the version's field takes a label as well, so there it is one that nobody has set.
    kind = "not found" if isinstance(triton, Grpc) else "bad request"
    message = refused(triton, kind, "car_loan", customers(1), model_version="newest")
    assert "newest" in message


def test_metadata_of_an_unknown_model(triton):
    with pytest.raises(InferenceServerException) as refusal:
        triton.model_metadata("no_such_model")
    assert refusal.value.status() == triton.codes["not found"]
    assert "no_such_model" in refusal.value.message()


def test_wrong_shape(triton, tokens):
    message = refused(triton, "bad request", "magika", {"bytes": tokens["python"][:, :100]})
    assert "bytes" in message and "2048" in message and "100" in message


def test_wrong_number_of_dimensions(triton, tokens):
    message = refused(triton, "bad request", "magika", {"bytes": tokens["python"][0]})
    assert "bytes" in message and "2048" in message


def test_batches_of_different_length(triton):
    inputs = customers(3) | {"loan_length": np.array([[12.0]])}
    refused(triton, "bad request", "car_loan", inputs)


def test_wrong_data_type(triton, tokens):
    message = refused(triton, "bad request", "magika", {"bytes": tokens["python"].astype(np.float32)})
    assert "bytes" in message and "INT32" in message and "FP32" in message


def test_missing_input(triton):
    inputs = customers(1)
    del inputs["driver_tenure"]
    assert "driver_tenure" in refused(triton, "bad request", "car_loan", inputs)


def test_unknown_input(triton):
    inputs = customers(1) | {"shoe_size": np.array([[43.0]])}
    assert "shoe_size" in refused(triton, "bad request", "car_loan", inputs)


def test_unknown_output(triton):
    assert "score" in refused(triton, "bad request", "car_loan", customers(1), outputs=["score"])


# === Asynchronous and concurrent


def test_async_infer(triton, tokens, labels):
    loan = triton.start("car_loan", customers(2), request_id="loan")
    file = triton.start("magika", {"bytes": tokens["html"]}, request_id="file")
    assert triton.described(loan())[2] == "loan"
    result = file()
    assert triton.described(result)[2] == "file"
    assert labels[result.as_numpy("target_label")[0].argmax()] == "html"


def test_async_infer_that_is_refused(triton):
    wait = triton.start("car_loan", {"car_value": np.array([[1.0]])})
    with pytest.raises(InferenceServerException) as refusal:
        wait()
    assert refusal.value.status() == triton.codes["bad request"]


def test_200_concurrent_requests_each_get_their_own_answer(triton):
    inputs = customers(200)
    expected = triton.infer("car_loan", inputs).as_numpy("probabilities")
    assert len(np.unique(expected[:, 0])) > 20, "the rows must differ, or an answer to another row would go unseen"

    pending = [triton.start("car_loan", only(inputs, row), request_id=f"row-{row}") for row in range(200)]
    results = [wait() for wait in pending]

    assert [triton.described(result)[2] for result in results] == [f"row-{row}" for row in range(200)]
    answered = np.concatenate([result.as_numpy("probabilities") for result in results])
    np.testing.assert_allclose(answered, expected, rtol=1e-5)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_200_requests_in_flight_at_once(gateway, protocol):
    """With the asyncio clients: `async_infer` of the HTTP client waits 10 ms after each request that it sends."""
    inputs = customers(200)
    expected = Grpc(gateway).infer("car_loan", inputs).as_numpy("probabilities")
    tensors = Grpc(gateway) if protocol == "grpc" else Http(gateway, binary=True)

    async def ask_all():
        if protocol == "grpc":
            client = tritonclient.grpc.aio.InferenceServerClient(gateway.grpc)
        else:
            client = tritonclient.http.aio.InferenceServerClient(gateway.http, conn_limit=200)
        async with client:
            return await asyncio.gather(*(ask(client, row) for row in range(200)))

    async def ask(client, row):
        single = [tensors.input(name, array) for name, array in only(inputs, row).items()]
        result = await client.infer("car_loan", single, request_id=f"row-{row}")
        assert tensors.described(result)[2] == f"row-{row}"
        return result.as_numpy("probabilities")[0]

    answered = asyncio.run(asyncio.wait_for(ask_all(), ANSWER_WITHIN))
    np.testing.assert_allclose(answered, expected, rtol=1e-5)


def test_200_requests_from_many_threads(gateway):
    """One client per thread, as `tritonclient.http` wants it; both protocols and both models at the same time."""
    expected = Grpc(gateway).infer("car_loan", customers(25)).as_numpy("probabilities")
    faults = queue.Queue()

    def work(triton):
        try:
            for row in range(25):
                answer = triton.infer("car_loan", only(customers(25), row))
                np.testing.assert_allclose(answer.as_numpy("probabilities")[0], expected[row], rtol=1e-5)
        except Exception as fault:
            faults.put(fault)

    clients = [lambda: Grpc(gateway), lambda: Http(gateway, True)] * 4
    threads = [threading.Thread(target=lambda make=make: work(make())) for make in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(ANSWER_WITHIN)
        assert not thread.is_alive()
    assert list(faults.queue) == []
