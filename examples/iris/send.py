#!/usr/bin/env python3
"""Sends the rows of a CSV file to the model `iris`, 50 a request, as often as is said: python3 send.py reference.csv 4"""

import csv
import json
import sys
import urllib.request

URL = "http://127.0.0.1:8000/v2/models/iris/infer"


def main():
    name, times = sys.argv[1], int(sys.argv[2])
    with open(name, newline="", encoding="utf-8") as file:
        rows = [[float(value) for value in row] for row in list(csv.reader(file))[1:]]
    versions = {}
    for _ in range(times):
        for start in range(0, len(rows), 50):
            part = rows[start : start + 50]
            tensor = {"name": "X", "datatype": "FP32", "shape": [len(part), 4], "data": part}
            body = json.dumps({"inputs": [tensor]}).encode()
            request = urllib.request.Request(URL, body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=30) as answer:
                version = json.load(answer)["model_version"]
            versions[version] = versions.get(version, 0) + len(part)
    print(", ".join(f"{count} rows answered by version {version}" for version, count in sorted(versions.items())))


if __name__ == "__main__":
    main()
