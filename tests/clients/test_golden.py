"""Every golden request of models/, replayed over HTTP/JSON against the very version it belongs to."""

import numpy as np
import pytest

from conftest import golden_files

GOLDEN = list(golden_files())


def test_there_are_golden_requests():
    assert GOLDEN, "no models/*/*/golden/*.json"


@pytest.mark.parametrize(("model", "version", "golden"), GOLDEN)
def test_the_answer_is_the_golden_one(gateway, model, version, golden):
    status, answer = gateway.infer(model, golden["request"], version)

    assert status == 200, answer
    expected = golden["response"]
    assert answer["model_name"] == model
    assert answer["model_version"] == version
    assert [output["name"] for output in answer["outputs"]] == [output["name"] for output in expected["outputs"]]
    for output, wanted in zip(answer["outputs"], expected["outputs"]):
        assert output["datatype"] == wanted["datatype"], output["name"]
        assert output["shape"] == wanted["shape"], output["name"]
        assert_close(output, wanted, golden["rtol"], golden["atol"])


def assert_close(output, wanted, rtol, atol):
    name, data = output["name"], output["data"]
    if wanted["datatype"].startswith(("FP", "BF")):
        np.testing.assert_allclose(np.ravel(data), np.ravel(wanted["data"]), rtol=rtol, atol=atol, err_msg=name)
    else:
        assert data == wanted["data"], name
