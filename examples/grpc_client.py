"""One request over gRPC with Triton's client: pip install "tritonclient[grpc]"."""

import json
import pathlib

import numpy
import tritonclient.grpc as triton

TYPES = {"FP64": numpy.float64, "BYTES": numpy.object_}

example = pathlib.Path(__file__).parent.parent / "models/car_loan/1/golden/batch_of_4.json"
inputs = []
for tensor in json.loads(example.read_text(encoding="utf-8"))["request"]["inputs"]:
    data = numpy.array(tensor["data"], dtype=TYPES[tensor["datatype"]]).reshape(tensor["shape"])
    inputs.append(triton.InferInput(tensor["name"], tensor["shape"], tensor["datatype"]))
    inputs[-1].set_data_from_numpy(data)

client = triton.InferenceServerClient("127.0.0.1:8001")
result = client.infer("car_loan", inputs, request_id="example")
answer = result.get_response()
print(f"version {answer.model_version}, id {answer.id}")
for not_repaid, repaid in result.as_numpy("probabilities"):
    print(f"{not_repaid:.4f} not repaid, {repaid:.4f} repaid")
