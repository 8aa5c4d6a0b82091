"""ONNX's own backend node tests as a model repository, and what plain ONNX Runtime makes of each.

Which cases the gateway must serve is a rule, not a list of names: those that plain ONNX Runtime passes and whose
inputs and outputs are all tensors of types that the Open Inference Protocol has.
"""

import ctypes
import functools
import warnings
from dataclasses import dataclass

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, numpy_helper
from onnx.backend.test.case import node

# ONNX's element types that the protocol has a name for, with what numpy makes of them.
TYPES = {
    TensorProto.BOOL: ("BOOL", np.bool_),
    TensorProto.UINT8: ("UINT8", np.uint8),
    TensorProto.UINT16: ("UINT16", np.uint16),
    TensorProto.UINT32: ("UINT32", np.uint32),
    TensorProto.UINT64: ("UINT64", np.uint64),
    TensorProto.INT8: ("INT8", np.int8),
    TensorProto.INT16: ("INT16", np.int16),
    TensorProto.INT32: ("INT32", np.int32),
    TensorProto.INT64: ("INT64", np.int64),
    TensorProto.FLOAT16: ("FP16", np.float16),
    TensorProto.BFLOAT16: ("BF16", ml_dtypes.bfloat16),
    TensorProto.FLOAT: ("FP32", np.float32),
    TensorProto.DOUBLE: ("FP64", np.float64),
    TensorProto.STRING: ("BYTES", np.object_),
}
DTYPES = dict(TYPES.values())


@dataclass(frozen=True)
class Tensor:
    name: str
    datatype: str
    array: np.ndarray


@dataclass(frozen=True)
class Case:
    name: str
    model: bytes
    # The names of inputs and outputs that the protocol cannot carry. Where there are any, `inputs` and `outputs`
    # are empty.
    uncarried: list[str]
    inputs: list[Tensor]
    outputs: list[Tensor]
    rtol: float
    atol: float

    def compare(self, name, array, expected):
        """What is wrong with one answered output; None when nothing is."""
        if array.dtype != expected.dtype or array.shape != expected.shape:
            return f"{name} is {array.dtype} {array.shape}, not {expected.dtype} {expected.shape}"
        if expected.dtype == np.object_:
            return None if (array == expected).all() else f"{name} differs"
        if expected.dtype == ml_dtypes.bfloat16:
            array, expected = array.astype(np.float32), expected.astype(np.float32)
        try:
            np.testing.assert_allclose(array, expected, rtol=self.rtol, atol=self.atol)
        except AssertionError as difference:
            return f"{name}: {' '.join(str(difference).split())[:200]}"
        return None


@functools.cache
def cases():
    """Every case of the package `onnx`: about 1,900 of version 1.23."""
    np.random.seed(0)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # the cases overflow and divide by zero on purpose
        return [read(case) for case in node.collect_testcases()]


def read(case):
    graph = case.model.graph
    uncarried = [value.name for value in [*graph.input, *graph.output] if not is_carried(value.type)]
    inputs, outputs = [], []
    if not uncarried:
        [(given, expected)] = case.data_sets
        inputs = [tensor(value, data) for value, data in zip(graph.input, given, strict=True)]
        outputs = [tensor(value, data) for value, data in zip(graph.output, expected, strict=True)]
    model = case.model.SerializeToString()
    return Case(case.name, model, uncarried, inputs, outputs, case.rtol, case.atol)


def is_carried(kind):
    return kind.WhichOneof("value") == "tensor_type" and kind.tensor_type.elem_type in TYPES


def tensor(value, data):
    datatype, dtype = TYPES[value.type.tensor_type.elem_type]
    if isinstance(data, TensorProto):
        data = numpy_helper.to_array(data)
    array = np.asarray(data, dtype if datatype == "BYTES" else None)
    array = texts(array, lambda text: text if isinstance(text, bytes) else str(text).encode())
    assert array.dtype == dtype, f"{value.name} is declared as {datatype}, its data is {array.dtype}"
    return Tensor(value.name, datatype, array)


# === Plain ONNX Runtime


def plain(case):
    """What plain ONNX Runtime makes of a case: "passes", "differs" or "unloadable"; "loads" where the case cannot
    be asked over the protocol."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(case.model, options, providers=["CPUExecutionProvider"])
    except Exception:  # it has many classes of its own, and raises Python's as well
        return "unloadable"
    if case.uncarried:
        return "loads"
    try:
        answered = run(session, case)
    except Exception:
        return "differs"
    pairs = zip(answered, case.outputs, strict=True)
    faults = [case.compare(tensor.name, array, tensor.array) for array, tensor in pairs]
    return "differs" if any(faults) else "passes"


def run(session, case):
    names = [tensor.name for tensor in case.outputs]
    if all(tensor.datatype != "BF16" for tensor in [*case.inputs, *case.outputs]):
        feed = {tensor.name: texts(tensor.array, bytes.decode) for tensor in case.inputs}
        return [texts(np.asarray(array), str.encode) for array in session.run(names, feed)]
    # numpy has no such type: its bits go in and come out. These values take no strings, and no case needs both.
    feed = {tensor.name: to_value(tensor) for tensor in case.inputs}
    values = session.run_with_ort_values(names, feed)
    return [from_value(value) for value in values]


def to_value(tensor):
    array = np.asarray(tensor.array, order="C")
    if tensor.datatype == "BF16":
        return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(array.view(np.uint16), TensorProto.BFLOAT16)
    return onnxruntime.OrtValue.ortvalue_from_numpy(array)


def from_value(value):
    if value.element_type() != TensorProto.BFLOAT16:
        return value.numpy()
    raw = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    return np.frombuffer(raw, ml_dtypes.bfloat16).reshape(value.shape())


def texts(array, convert):
    """`array`, with its elements converted when they are texts."""
    if array.dtype != np.object_:
        return array
    return objects([convert(element) for element in array.ravel()], array.shape)


def objects(elements, shape):
    array = np.empty(len(elements), np.object_)
    array[:] = elements
    return array.reshape(shape)


# === The repository


def write_repository(directory, chosen):
    """Each case as version 1 of a model of its name."""
    for case in chosen:
        version = directory / case.name / "1"
        version.mkdir(parents=True)
        (version / "model.onnx").write_bytes(case.model)
