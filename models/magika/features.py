#!/usr/bin/env python3
"""Turns files into an OIP v2 infer request for the magika model, as magika 1.0.3 itself reads them.

    python3 models/magika/features.py FILE [FILE ...]

Prints the JSON for `POST /v2/models/magika/infer`, one row per file. Standard library only.
"""

import json
import os
import sys

BLOCK = 4096  # bytes looked at, at each end of the file
TOKENS = 1024  # kept of each block
PADDING = 256  # the token that no byte has
SHORTEST = 8  # with fewer bytes to look at, magika answers without the model


def features(path):
    """The 2,048 tokens of the file: its first 1,024 bytes, then its last; None if there is too little of it."""
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        length = min(BLOCK, size)
        file.seek(0)
        beginning = file.read(length).lstrip()[:TOKENS]
        file.seek(size - length)
        end = file.read(length).rstrip()[-TOKENS:]
    if len(beginning) < SHORTEST:
        return None
    return list(beginning) + padding(beginning) + padding(end) + list(end)


def padding(content):
    return [PADDING] * (TOKENS - len(content))


def main():
    rows = []
    for path in sys.argv[1:]:
        try:
            row = features(path)
        except OSError as error:
            sys.exit("features: {}: {}".format(path, error.strerror))
        if row is None:
            sys.exit("features: {}: too short for the model (fewer than {} bytes)".format(path, SHORTEST))
        rows += row
    if not rows:
        sys.exit("usage: features.py FILE [FILE ...]")
    shape = [len(rows) // (2 * TOKENS), 2 * TOKENS]
    print(json.dumps({"inputs": [{"name": "bytes", "shape": shape, "datatype": "INT32", "data": rows}]}))


if __name__ == "__main__":
    main()
