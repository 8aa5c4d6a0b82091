"""Which models mix rows, seen by running them: rows alone against the same rows together, with plain ONNX Runtime."""

import numpy as np
import onnx
import onnxruntime

FLOATS = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}
WHOLE = {
    f"tensor({name})": np.dtype(name)
    for name in ("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8")
}
# What one other size may be, one after the other, until a run succeeds.
FREE = (6, 8, 4, 3, 1)
ROWS = 4


def session(model):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def rows(kind, shape, seed):
    """Rows that are unlike each other: ordinary, tiny, huge and zero, negative, not a number."""
    random = np.random.default_rng(seed)
    if kind in FLOATS:
        plain = random.normal(size=shape)
        scales = np.array([1.0, 1e-6, 1e3 if kind == "tensor(float16)" else 1e6, 0.0, -1.0])[(np.arange(shape[0]) + seed) % 5]
        values = plain * scales.reshape(-1, *[1] * (len(shape) - 1))
        if seed % 3 == 2:
            values[seed % shape[0]] = np.nan
        return values.astype(FLOATS[kind])
    if kind in WHOLE:
        return random.integers(0, 4, shape).astype(WHOLE[kind])
    if kind == "tensor(bool)":
        return random.integers(0, 2, shape).astype(bool)
    if kind == "tensor(string)":
        texts = np.array(["a", "a good day", "what a night it was, a good one", "", "bad", "Rome"], dtype=object)
        return texts[random.integers(0, len(texts), shape)]
    return None


def is_close(a, b):
    if a.shape != b.shape:
        return False
    if a.dtype.kind in "fc":
        a, b = a.astype(np.float64), b.astype(np.float64)
        # Other numbers of rows round in another way, of values as large as the largest of the row.
        finite = np.abs(a[np.isfinite(a)])
        scale = finite.max() if finite.size else 0.0
        return np.allclose(a, b, rtol=1e-3, atol=1e-3 * scale + 1e-5, equal_nan=True)
    return (a == b).all()


def flat(values):
    """Maps and sequences as arrays."""
    for value in values:
        if isinstance(value, list) and value and isinstance(value[0], dict):
            yield np.array([[row[key] for key in sorted(row)] for row in value])
        elif isinstance(value, list):
            yield from flat(value)
        else:
            yield np.asarray(value)


def mixes(model):
    """True where rows touch each other, False where none does, None where the model runs on no made-up rows.

    The rows of an output may lie along any axis, the same in all runs.
    """
    try:
        runner = session(model)
    except Exception:  # it has many classes of its own
        return None
    inputs = runner.get_inputs()
    seen, axes = None, {}
    for free in FREE:
        for seed in range(6):
            feed = {}
            for index, value in enumerate(inputs):
                shape = [ROWS, *[size if isinstance(size, int) and size > 0 else free for size in value.shape[1:]]]
                feed[value.name] = rows(value.type, shape, seed + 7 * index)
            if any(array is None for array in feed.values()):
                return None
            alone = []
            try:
                for row in range(ROWS):
                    alone.append(list(flat(runner.run(None, {name: array[row : row + 1] for name, array in feed.items()}))))
            except Exception:
                continue
            try:
                together = list(flat(runner.run(None, feed)))
            except Exception:
                return True  # what works alone fails with others
            seen = False
            for index, array in enumerate(together):
                for axis in list(axes.setdefault(index, list(range(array.ndim)))):
                    fits = array.ndim > axis and array.shape[axis] == ROWS
                    parts = [np.take(array, [row], axis) for row in range(ROWS)] if fits else []
                    if not parts or not all(is_close(part, alone[row][index]) for row, part in enumerate(parts)):
                        axes[index].remove(axis)
                if not axes[index]:
                    return True
        if seen is not None:
            return seen
    return None


def batched(case_model, arrays, batch):
    """A model of which the inputs in `batch` take any number of rows, and the others are constants."""
    model = onnx.ModelProto()
    model.CopyFrom(case_model)
    graph = model.graph
    kept = []
    for value, array in zip(list(graph.input), arrays, strict=True):
        if value.name in batch:
            kept.append(value)
            value.type.tensor_type.shape.dim[0].dim_param = "N"
        else:
            graph.initializer.append(onnx.numpy_helper.from_array(array, value.name))
    del graph.input[:]
    graph.input.extend(kept)
    for output in graph.output:
        output.type.tensor_type.ClearField("shape")
    return model
