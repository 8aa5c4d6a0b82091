"""A gateway whose monitor is asked about rows sent to it over gRPC."""

import json
import time
import urllib.request

import tritonclient.grpc

SETTLED_WITHIN = 20  # seconds until the monitor must have counted what was answered


class Monitored:
    """One model of a gateway, with `tritonclient.grpc` to send rows to its versions."""

    def __init__(self, gateway, data_set):
        self.data_set = data_set
        self._admin = f"http://{gateway.admin}/admin/v1/models/{data_set.name}"
        self._client = tritonclient.grpc.InferenceServerClient(gateway.grpc)

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        self._client.close()

    def wait_until_ready(self, versions):
        """Until every version is loaded: the gateway is ready once the stable ones are."""
        deadline = time.monotonic() + 60
        while True:
            states = {version["version"]: version["state"] for version in get(self._admin)["versions"]}
            if len(states) == versions and set(states.values()) == {"ready"}:
                return
            assert time.monotonic() < deadline, f"{self.data_set.name}: {states}"
            time.sleep(0.05)

    def send(self, version, start, rows, rows_per_request=1_000):
        """Sends `rows` rows from row `start` on, fewer where the set ends, and says how many."""
        end = min(start + rows, len(next(iter(self.data_set.rows.values()))))
        for at in range(start, end, rows_per_request):
            until = min(at + rows_per_request, end)
            inputs = [self._input(column, tensor[at:until]) for column, tensor in self.data_set.rows.items()]
            result = self._client.infer(self.data_set.name, inputs, model_version=str(version))
            assert result.get_response().model_version == str(version)
        return end - start

    def _input(self, column, array):
        datatype = self.data_set.columns[column]
        return tritonclient.grpc.InferInput(column, list(array.shape), datatype).set_data_from_numpy(array)

    def drift(self, version, rows):
        """What the monitor says of a version, once it has counted `rows` rows: counting comes after the answer."""
        deadline = time.monotonic() + SETTLED_WITHIN
        while (report := get(f"{self._admin}/drift?version={version}"))["rows"] < rows:
            assert time.monotonic() < deadline, f"{self.data_set.name} {version}: {report['rows']} of {rows} rows"
            time.sleep(0.001)
        assert report["rows"] == rows
        return report


def get(url):
    with urllib.request.urlopen(url, timeout=30) as answer:
        return json.load(answer)
