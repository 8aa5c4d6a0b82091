"""Connections that grow old under load: the clients that people have notice nothing, over both protocols."""

import http.client
import json
import threading
import time

import grpc
import numpy as np
import pytest
import tritonclient.http
from tritonclient.grpc import service_pb2, service_pb2_grpc

from conftest import ANY_PORT, ROOT, running

CLIENTS = 8
AGE = 0.05  # seconds
LOAD = 40 * AGE
REQUEST = json.loads((ROOT / "models/car_loan/request.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def aging(tmp_path_factory):
    """A gateway whose connections live for a moment."""
    directory = tmp_path_factory.mktemp("aging")
    config = directory / "tidegate.toml"
    age = f'max_connection_age = "{AGE * 1000:.0f}ms"\nmax_connection_age_grace = "10s"\n'
    config.write_text(f"[server]\n{age}", encoding="utf-8")
    with running(directory / "gateway", *ANY_PORT, "--config", str(config)) as gateway:
        yield gateway


def under_load(make):
    """Many threads that each ask for a while, by a client that `make` makes: the faults, and how often each was answered."""
    faults, answered = [], []

    def client():
        ask, count = make(), 0
        until = time.monotonic() + LOAD
        while time.monotonic() < until:
            try:
                ask()
                count += 1
            except Exception as fault:  # whatever it is, it is one too many
                faults.append(repr(fault))
                return
        answered.append(count)

    threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return faults, answered


def test_no_request_of_pythons_own_http_client_fails(aging):
    connected = []

    def make():
        class Connection(http.client.HTTPConnection):
            def connect(self):
                connected.append(1)
                super().connect()

        connection = Connection(aging.http, timeout=30)

        def ask():
            connection.request("POST", "/v2/models/car_loan/infer", json.dumps(REQUEST))
            response = connection.getresponse()
            assert response.status == 200, response.read()
            response.read()

        return ask

    faults, answered = under_load(make)
    assert not faults and min(answered) > 0
    assert len(connected) > 2 * CLIENTS, "connections did not end"


def test_no_request_of_tritons_http_client_fails(aging):
    def make():
        client = tritonclient.http.InferenceServerClient(aging.http)
        inputs = []
        for tensor in REQUEST["inputs"]:
            array = np.array(tensor["data"], np.object_ if tensor["datatype"] == "BYTES" else np.float64)
            array = array.reshape(tensor["shape"])
            inputs.append(tritonclient.http.InferInput(tensor["name"], list(array.shape), tensor["datatype"]))
            inputs[-1].set_data_from_numpy(array)
        return lambda: client.infer("car_loan", inputs)

    faults, answered = under_load(make)
    assert not faults and min(answered) > 0


@pytest.mark.parametrize("is_shared", [True, False], ids=["one-channel", "channel-each"])
def test_no_request_over_grpc_fails(aging, is_shared):
    ready, channels = [], []

    def channel():
        channel = grpc.insecure_channel(aging.grpc, options=[("grpc.use_local_subchannel_pool", 1)])
        channels.append(channel)
        channel.subscribe(lambda state: ready.append(1) if state == grpc.ChannelConnectivity.READY else None)
        return channel

    shared = channel()
    message = service_pb2.ModelInferRequest(model_name="car_loan")
    for tensor in REQUEST["inputs"]:
        contents = {"BYTES": "bytes_contents", "FP64": "fp64_contents"}[tensor["datatype"]]
        values = np.array(tensor["data"]).ravel().tolist()
        values = [value.encode() for value in values] if tensor["datatype"] == "BYTES" else values
        head = {"name": tensor["name"], "datatype": tensor["datatype"], "shape": tensor["shape"]}
        message.inputs.add(**head, contents=service_pb2.InferTensorContents(**{contents: values}))

    def make():
        stub = service_pb2_grpc.GRPCInferenceServiceStub(shared if is_shared else channel())
        return lambda: stub.ModelInfer(message, timeout=30)

    faults, answered = under_load(make)
    assert not faults and min(answered) > 0
    assert len(ready) > 2 * (1 if is_shared else CLIENTS), "connections did not end"
    for channel in channels:
        channel.close()


def test_requests_that_are_sent_all_at_once_are_all_answered(aging):
    message = service_pb2.ModelMetadataRequest(name="car_loan")
    with grpc.insecure_channel(aging.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        until = time.monotonic() + LOAD
        while time.monotonic() < until:
            sent = [stub.ModelMetadata.future(message, timeout=30) for _ in range(50)]
            assert all(call.result().name == "car_loan" for call in sent)
