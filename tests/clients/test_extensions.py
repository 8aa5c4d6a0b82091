"""Triton's extensions through Triton's own Python client: streams, statistics, index, settings, timeouts."""

import json
import queue
import urllib.error
import urllib.request

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

ANSWER_WITHIN = 60  # seconds


@pytest.fixture
def grpc(gateway):
    with tritonclient.grpc.InferenceServerClient(gateway.grpc) as client:
        yield client


@pytest.fixture
def http(gateway):
    with tritonclient.http.InferenceServerClient(gateway.http) as client:
        yield client


def tokens(rows=1, length=2048):
    tensor = tritonclient.grpc.InferInput("bytes", [rows, length], "INT32")
    return [tensor.set_data_from_numpy(np.zeros((rows, length), np.int32))]


class Stream:
    """A started stream; `next` waits for an answer: (result, error)."""

    def __init__(self, client, **options):
        self.answers = queue.Queue()
        self.client = client
        client.start_stream(lambda result, error: self.answers.put((result, error)), **options)

    def send(self, model, id, **options):
        self.client.async_stream_infer(model, tokens(), request_id=id, **options)

    def next(self):
        return self.answers.get(timeout=ANSWER_WITHIN)


# === Streams


def test_a_stream_answers_many_requests_in_their_order(grpc):
    stream = Stream(grpc)
    ids = [str(number) for number in range(300)]
    for id in ids:
        stream.send("magika", id)
    for id in ids:
        result, error = stream.next()
        assert error is None
        answer = result.get_response()
        assert (answer.id, answer.model_name) == (id, "magika")
        assert answer.parameters["triton_final_response"].bool_param
        assert result.as_numpy("target_label").shape[0] == 1
    grpc.stop_stream()


def test_an_error_in_a_stream_is_told_and_the_stream_goes_on(grpc):
    stream = Stream(grpc)
    stream.send("magika", "a")
    stream.send("no_such_model", "b")
    stream.send("magika", "c", enable_empty_final_response=True)
    (first, _), (none, error), (last, _) = stream.next(), stream.next(), stream.next()
    assert first.get_response().id == "a"
    assert none is None and "no_such_model" in error.message()
    assert last.get_response().id == "c"
    assert last.get_response().parameters["triton_final_response"].bool_param
    grpc.stop_stream()


def test_a_stream_that_wants_true_errors_ends_at_the_first(grpc):
    stream = Stream(grpc, headers={"triton_grpc_error": "true"})
    stream.send("no_such_model", "a")
    _, error = stream.next()
    assert error.status() == "StatusCode.NOT_FOUND"
    grpc.stop_stream()


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_a_stream_may_be_compressed(grpc, algorithm):
    stream = Stream(grpc, compression_algorithm=algorithm)
    stream.send("magika", "a")
    result, error = stream.next()
    assert error is None and result.as_numpy("target_label").shape[0] == 1
    grpc.stop_stream()


def test_closing_a_stream_with_requests_in_flight_leaves_the_gateway_well(grpc):
    stream = Stream(grpc)
    for number in range(50):
        stream.send("magika", str(number))
    grpc.stop_stream(cancel_requests=True)
    assert grpc.is_server_ready()


# === Statistics


def counts(statistics):
    """What perf_analyzer takes the difference of."""
    (stats,) = statistics["model_stats"]
    inference = stats["inference_stats"]
    # JSON of protobuf leaves out what is 0, and writes the other numbers as text.
    times = {name: (int(sum.get("count", 0)), int(sum.get("ns", 0))) for name, sum in inference.items()}
    return int(stats["inference_count"]), int(stats["execution_count"]), times


def test_statistics_grow_with_the_requests(grpc, http):
    def read():
        over_grpc = grpc.get_inference_statistics("magika", "1", as_json=True)
        over_http = http.get_inference_statistics("magika", "1")
        return counts(over_http), counts(over_grpc)

    grpc.infer("magika", tokens())
    before, _ = read()
    for _ in range(3):
        grpc.infer("magika", tokens(rows=2))
    after, over_grpc = read()
    assert after[0] - before[0] == 6
    assert 1 <= after[1] - before[1] <= 3
    for name in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
        assert after[2][name][0] - before[2][name][0] == 3, name
    assert after[2]["compute_infer"][1] > before[2]["compute_infer"][1]
    assert after[2]["success"] == over_grpc[2]["success"]


def test_statistics_of_all_models_and_of_none(grpc, http):
    for statistics in (http.get_inference_statistics(), grpc.get_inference_statistics(as_json=True)):
        assert {"car_loan", "magika"} <= {stats["name"] for stats in statistics["model_stats"]}
    with pytest.raises(InferenceServerException) as refusal:
        http.get_inference_statistics("no_such_model")
    assert refusal.value.status() == "404"


# === The repository


def test_repository_index(grpc, http):
    expected = {("car_loan", "1"), ("car_loan", "2"), ("magika", "1")}
    listed = grpc.get_model_repository_index(as_json=True)["models"]
    assert {(model["name"], model["version"]) for model in listed if model["state"] == "READY"} == expected
    listed = http.get_model_repository_index()
    assert {(model["name"], model["version"]) for model in listed if model["state"] == "READY"} == expected


def test_load_and_unload_are_for_the_admin_plane(gateway, grpc, http):
    for client in (grpc, http):
        with pytest.raises(InferenceServerException, match="admin plane"):
            client.load_model("magika")
        with pytest.raises(InferenceServerException, match="admin plane"):
            client.unload_model("magika")
    with tritonclient.http.InferenceServerClient(gateway.admin) as admin:
        admin.load_model("magika")
        with pytest.raises(InferenceServerException, match="in use by the release"):
            admin.unload_model("magika")


def test_shared_memory_says_what_to_use(grpc, http):
    for client in (grpc, http):
        with pytest.raises(InferenceServerException, match="send tensors in the request"):
            client.get_system_shared_memory_status()


# === Settings


def test_settings_are_read_and_not_changed(grpc, http):
    assert http.get_trace_settings()["trace_level"] == ["OFF"]
    assert http.get_trace_settings("magika")["trace_level"] == ["OFF"]
    assert grpc.get_trace_settings(as_json=True)["settings"]["trace_level"]["value"] == ["OFF"]
    assert http.get_log_settings()["log_info"] is True
    assert grpc.get_log_settings(as_json=True)["settings"]["log_info"]["bool_param"] is True
    for change in (
        lambda: http.update_log_settings({"log_info": False}),
        lambda: http.update_trace_settings(settings={"trace_rate": "1"}),
    ):
        with pytest.raises(InferenceServerException) as refusal:
            change()
        assert refusal.value.status() == "403"
    for change in (
        lambda: grpc.update_log_settings({"log_info": False}),
        lambda: grpc.update_trace_settings(settings={"trace_rate": "1"}),
    ):
        with pytest.raises(InferenceServerException) as refusal:
            change()
        assert refusal.value.status() == "StatusCode.PERMISSION_DENIED"


def test_the_admin_plane_changes_what_is_logged(fresh_gateway):
    gateway = fresh_gateway()

    def post(change):
        request = urllib.request.Request(f"http://{gateway.admin}/v2/logging", json.dumps(change).encode(), method="POST")
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def refused_request():
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(f"http://{gateway.http}/v2/models/no_such_model/infer", b"{", timeout=30)
        with tritonclient.grpc.InferenceServerClient(gateway.grpc) as client:
            with pytest.raises(InferenceServerException):
                client.infer("no_such_model", tokens())

    refused_request()
    assert "request refused" not in gateway.log()
    assert post({"log_verbose_level": 1})["log_verbose_level"] == 1
    refused_request()
    assert "request refused" in gateway.log()
    with tritonclient.http.InferenceServerClient(gateway.http) as client:
        assert client.get_log_settings()["log_verbose_level"] == 1
    with pytest.raises(urllib.error.HTTPError) as refusal:
        post({"log_file": "/tmp/log"})
    assert refusal.value.code == 400


# === Timeouts and priorities


def test_client_timeout_that_is_long_enough(grpc):
    result = grpc.infer("magika", tokens(), client_timeout=30, priority=1, timeout=30_000_000)
    assert result.as_numpy("target_label").shape[0] == 1


def test_client_timeout_that_has_passed(grpc):
    with pytest.raises(InferenceServerException) as refusal:
        grpc.infer("magika", tokens(), client_timeout=0.000001)
    assert refusal.value.status() == "StatusCode.DEADLINE_EXCEEDED"
    assert grpc.is_server_ready()


def test_timeout_that_is_no_duration(grpc):
    with pytest.raises(InferenceServerException, match="such as 250ms"):
        grpc.infer("magika", tokens(), headers={"tidegate-timeout": "soon"})
