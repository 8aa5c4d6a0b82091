"""Models that mix rows while they look harmless: none may be proven independent.

`python tests/clients/mixing.py` writes them to tests/data/mixing, where the unit tests read them too.
"""

from pathlib import Path

import onnx
import onnx.parser

DIRECTORY = Path(__file__).resolve().parents[2] / "tests/data/mixing"

N = "s = Shape(x) i0 = Constant <value_ints = [0]> () n = Gather(s, i0)"
COUNT = f"{N} f = Cast <to = 1> (n)"
ALL = "m = ReduceMax <keepdims = 0> (x)"

# By name: the nodes that make `out`; then the inputs, the type of the output, what stands behind the graph.
X, IMAGES, TEXTS = "float[N,4] x", "float[N,2,4,4] x", "string[N] x"
GRAPHS = {
    # Over all rows.
    "dynamic_quantisation": ("q, d, z = DynamicQuantizeLinear(x) out = DequantizeLinear(q, d, z)", X),
    "maximum_of_all": (f"{ALL} out = Div(x, m)", X),
    "condition_of_all": (f"{ALL} o = Constant <value_float = 0.5> () c = Less(o, m) y = Neg(x) out = Where(c, x, y)", X),
    "scale_of_all": (
        f"a = Abs(x) m = ReduceMax <keepdims = 0> (a) o = Constant <value_float = 1.0> () d = Add(m, o) q = QuantizeLinear(x, d) "
        "out = DequantizeLinear(q, d)",
        X,
    ),
    "training_mode": (
        "g = Constant <value_floats = [1.0, 1.0, 1.0, 1.0]> () z = Constant <value_floats = [0.0, 0.0, 0.0, 0.0]> () "
        "out, a, b = BatchNormalization <training_mode = 1> (x, g, z, z, g)",
        X,
    ),
    "softmax_of_columns": ("out = Softmax <axis = 0> (x)", X),
    "norm_of_columns": ("out = LpNormalization <axis = 0> (x)", X),
    "mean_and_variance": ("out = MeanVarianceNormalization <axes = [0, 2, 3]> (x)", IMAGES),
    "largest_of_columns": ("k = Constant <value_ints = [1]> () v, p = TopK <axis = 0> (x, k) out = Sub(x, v)", X),
    "running_sum": ("a = Constant <value_int = 0> () out = CumSum(x, a)", X),
    "places_of_elements": ("out = NonZero(x)", X, "int64"),
    "equal_elements": ("out = Unique(x)", X),
    "places_through_all": ("v, out = MaxPool <kernel_shape = [2, 2]> (x)", IMAGES, "int64"),
    "rows_squared": (
        "t = Transpose(x) p = MatMul(x, t) a = Constant <value_ints = [1]> () out = ReduceSum(p, a)",
        X,
    ),
    "attention_of_rows": ("t = Transpose(x) p = MatMul(x, t) w = Softmax(p) out = MatMul(w, x)", X),
    "einsum_of_rows": (
        'p = Einsum <equation = "ij,kj->ik"> (x, x) a = Constant <value_ints = [1]> () out = ReduceSum(p, a)',
        X,
    ),
    "mean_loss": (
        "l = ArgMax <axis = 1, keepdims = 0> (x) m = SoftmaxCrossEntropyLoss(x, l) out = Sub(x, m)",
        X,
    ),
    # In another shape.
    "reshape_for_transpose": ("a = Constant <value_ints = [4, -1]> () r = Reshape(x, a) out = Transpose(r)", X),
    "transpose_and_reduce": (
        "t = Transpose(x) a = Constant <value_ints = [1]> () m = ReduceMax(t, a) b = Transpose(m) out = Sub(x, b)",
        X,
    ),
    "filter_along_rows": (
        "t = Transpose(x) a = Constant <value_ints = [0]> () u = Unsqueeze(t, a) "
        "b = Constant <value_ints = [4, 1, 3]> () o = Reshape(w4, b) c = Conv <group = 4, pads = [1, 1]> (u, o) "
        "q = Squeeze(c, a) out = Transpose(q)",
        X,
        "float",
        "<float[12] w4 = {1,1,1, 1,1,1, 1,1,1, 1,1,1}>",
    ),
    "channels_of_rows": (
        "a = Constant <value_ints = [1, -1, 4]> () r = Reshape(x, a) t = Transpose <perm = [0, 2, 1]> (r) "
        "g = Constant <value_floats = [1.0, 1.0, 1.0, 1.0]> () i = InstanceNormalization(t, g, g) "
        "u = Transpose <perm = [0, 2, 1]> (i) b = Constant <value_ints = [-1, 4]> () out = Reshape(u, b)",
        X,
    ),
    "steps_of_rows": (
        "a = Constant <value_ints = [1]> () u = Unsqueeze(x, a) y, out = LSTM <hidden_size = 1> (u, w, r)",
        X,
        "float",
        "<float[1,4,4] w = {1,0,0,0, 0,1,0,0, 0,0,1,0, 0,0,0,1}, float[1,4,1] r = {1,1,1,1}>",
    ),
    "grids_of_all": (
        "a = Constant <value_ints = [1, -1, 4, 4]> () i = Reshape(x, a) b = Constant <value_ints = [1, -1, 3, 2]> () "
        "j = Reshape(grid, b) y = GridSample(i, j) c = Constant <value_ints = [1]> () m = ReduceMean <keepdims = 0> (y, c) "
        "d = Constant <value_ints = [-1, 9]> () out = Reshape(m, d)",
        f"{IMAGES}, float[N,3,3,2] grid",
    ),
    "flattened_from_the_back": (
        "f = Flatten <axis = -2> (x) g = Softmax(f) a = Constant <value_ints = [-1, 4]> () out = Reshape(g, a)",
        X,
    ),
    "all_axes_squeezed": ("out = Squeeze(x)", X),
    "rows_doubled": ("out = Concat <axis = 0> (x, x)", X),
    # Of one row for another.
    "first_row_for_all": (
        "a = Constant <value_ints = [0]> () b = Constant <value_ints = [1]> () f = Slice(x, a, b, a) s = Shape(x) "
        "e = Expand(f, s) out = Sub(x, e)",
        X,
    ),
    "last_row_for_all": ("a = Constant <value_int = -1> () l = Gather(x, a) out = Sub(x, l)", X),
    "rows_backwards": (
        "a = Constant <value_ints = [-1]> () b = Constant <value_ints = [-9223372036854775807]> () "
        "z = Constant <value_ints = [0]> () out = Slice(x, a, b, z, a)",
        X,
    ),
    "rows_but_the_last": (
        "a = Constant <value_ints = [0]> () b = Constant <value_ints = [-1]> () f = Slice(x, a, b, a) "
        "p = Constant <value_ints = [1, 0, 0, 0]> () g = Pad(f, p) out = Sub(x, g)",
        X,
    ),
    "row_that_rows_name": (
        "a = ArgMax <axis = 1, keepdims = 0> (x) z = Constant <value_int = 0> () i = Mul(a, z) out = Gather(x, i)",
        X,
    ),
    "written_to_first_row": (
        "a = ArgMax <axis = 1> (x) z = Constant <value_int = 0> () i = Mul(a, z) b = Constant <value_ints = [1]> () "
        "m = ReduceMax(x, b) out = ScatterElements <axis = 0> (x, i, m)",
        X,
    ),
    "regions_of_any_image": (
        "a = ArgMax <axis = 1, keepdims = 0> (rois) z = Constant <value_int = 0> () p = Mul(a, z) r = Sigmoid(rois) "
        "out = RoiAlign <output_height = 2, output_width = 2> (x, r, p)",
        f"{IMAGES}, float[N,4] rois",
    ),
    "reversed_along_rows": (
        f"{N} a = Constant <value_ints = [4]> () l = Expand(n, a) out = ReverseSequence <time_axis = 0, batch_axis = 1> (x, l)",
        X,
    ),
    # By the number of rows.
    "divided_by_count": (f"{COUNT} out = Div(x, f)", X),
    "odd_count": (f"{N} t = Constant <value_ints = [2]> () o = Mod(n, t) f = Cast <to = 1> (o) out = Add(x, f)", X),
    "count_expanded": (f"{COUNT} e = Expand(f, s) out = Div(x, e)", X),
    "count_tiled": (
        f"{COUNT} a = Constant <value_ints = [1, 1]> () r = Reshape(f, a) e = Tile(r, s) out = Div(x, e)",
        X,
    ),
    "count_of_range": (
        f"{N} z = Constant <value_int = 0> () o = Constant <value_int = 1> () a = Squeeze(n) r = Range(z, a, o) t = Shape(r) "
        "g = Gather(t, i0) f = Cast <to = 1> (g) out = Div(x, f)",
        X,
    ),
    "count_in_sequence": (
        f"{N} q = SequenceConstruct(s) c = ConcatFromSequence <axis = 0> (q) g = Gather(c, i0) f = Cast <to = 1> (g) "
        "out = Div(x, f)",
        X,
    ),
    "count_scanned": (
        f"{N} c = Scan <num_scan_inputs = 1, body = b (int64 e) => (int64 o) {{ o = Identity(e) }}> (s) g = Gather(c, i0) "
        "f = Cast <to = 1> (g) out = Div(x, f)",
        X,
    ),
    "count_of_ones": (
        "s = Shape(x) o = ConstantOfShape <value = float[1] {1.0}> (s) m = ReduceSum <keepdims = 0> (o) out = Div(x, m)",
        X,
    ),
    "count_chooses": (
        f"{N} o = Constant <value_ints = [1]> () c = Equal(n, o) out = If (c) <then_branch = t () => (float[N,4] a) "
        "{ a = Neg(x) }, else_branch = e () => (float[N,4] b) { b = Identity(x) }>",
        X,
    ),
    "rows_cut_by_count": (
        f"{N} t = Constant <value_ints = [2]> () o = Mod(n, t) e = Constant <value_ints = [1]> () k = Add(o, e) "
        "l = Constant <value_ints = [-1]> () a = Concat <axis = 0> (n, k, l) r = Reshape(x, a) h = ReduceSum <keepdims = 0> (r, t) "
        "out = ReduceMax(h, e)",
        X,
    ),
    "steps_by_count": (
        f"{N} z = Constant <value_int = 0> () o = Constant <value_int = 1> () a = Squeeze(n) r = Range(z, a, o) t = Shape(r) "
        "e = Constant <value_ints = [4]> () b = Constant <value_ints = [1]> () c = Slice(x, i0, e, b, t) out = ReduceSum(c, b)",
        X,
    ),
    "padded_by_count": (
        f"{N} t = Constant <value_ints = [0, 0, 0]> () a = Concat <axis = 0> (t, n) p = Pad(x, a) "
        "b = Constant <value_ints = [1]> () out = ReduceMean(p, b)",
        X,
    ),
    "depth_by_count": (
        f"{N} a = ArgMax <axis = 1, keepdims = 0> (x) e = Constant <value_ints = [4]> () d = Add(n, e) "
        "v = Constant <value_floats = [0.0, 1.0]> () out = OneHot(a, d, v)",
        X,
    ),
    "window_by_count": (
        f"{N} a = Constant <value_ints = [2, 4]> () l = Constant <value_ints = [4]> () b = Concat <axis = 0> (n, l) "
        "c = CenterCropPad(x, a) t = CenterCropPad(c, b) out = Sub(x, t)",
        X,
    ),
    # In graphs and functions.
    "rounds_of_a_row": (
        'out = Loop <body = b (int64 i, bool c, float[N,4] v) => (bool d, float[N,4] w) { d = Identity(c) w = Neg(v) }> '
        '(trips, "", x)',
        f"{X}, int64[N] trips",
    ),
    "branch_of_a_row": (
        "out = If (c) <then_branch = t () => (float[N,4] a) { a = Neg(x) }, "
        "else_branch = e () => (float[N,4] b) { b = Identity(x) }>",
        f"{X}, bool[N] c",
    ),
    "branch_of_all": (
        f"{ALL} o = Constant <value_float = 0.5> () c = Less(m, o) out = If (c) <then_branch = t () => (float[N,4] a) "
        "{ a = Neg(x) }, else_branch = e () => (float[N,4] b) { b = Identity(x) }>",
        X,
    ),
    "branch_takes_all": (
        f"{ALL} o = Constant <value = bool {{1}}> () out = If (o) <then_branch = t () => (float[N,4] a) {{ a = Sub(x, m) }}, "
        "else_branch = e () => (float[N,4] b) { b = Identity(x) }>",
        X,
    ),
    "rounds_over_rows": (
        "t = Constant <value_int = 2> () z = Constant <value_ints = [0]> () "
        "out = Loop <body = b (int64 i, bool c, float[N,4] v) => (bool d, float[N,4] w) "
        '{ d = Identity(c) m = ReduceMax(v, z) w = Sub(v, m) }> (t, "", x)',
        X,
    ),
    "carried_to_the_next_row": (
        "z = Constant <value_floats = [0.0, 0.0, 0.0, 0.0]> () "
        "l, out = Scan <num_scan_inputs = 1, body = b (float[4] v, float[4] e) => (float[4] w, float[4] o) "
        "{ w = Add(v, e) o = Identity(w) }> (z, x)",
        X,
    ),
    "graph_of_a_row_takes_all": (
        "out = Scan <num_scan_inputs = 1, body = b (float[4] e) => (float[4] o) "
        "{ m = ReduceMax <keepdims = 0> (x) o = Sub(e, m) }> (x)",
        X,
    ),
    "function_over_all": (
        "out = own.Relu(x)",
        X,
        "float",
        '<domain: "own", opset_import: ["" : 18]> Relu (y) => (z) { x = ReduceMax <keepdims = 0> (y) z = Sub(y, x) }',
    ),
    "function_of_functions": (
        "out = own.Outer(x)",
        X,
        "float",
        '<domain: "own", opset_import: ["" : 18, "own" : 1]> Outer (x) => (out) { out = own.Inner <along = 0> (x) } '
        '<domain: "own", opset_import: ["" : 18]> Inner <along> (x) => (out) { out = Softmax <axis: int = @along> (x) }',
    ),
    # Texts.
    "parts_of_texts": ("out, counts = StringSplit(x)", TEXTS, "string"),
    "words_of_texts": (
        'out = com.microsoft.Tokenizer <mark = 0, mincharnum = 1, pad_value = "#", separators = [" "]> (x)',
        TEXTS,
        "string",
    ),
    "words_left_out": ('out = StringNormalizer <stopwords = ["bad"], locale = "C"> (x)', TEXTS, "string"),
}


def model(nodes, inputs, kind="float", behind=""):
    initialisers, functions = (behind, "") if behind.startswith("<float") else ("", behind)
    heading = '<ir_version: 9, opset_import: ["" : 20, "com.microsoft" : 1, "own" : 1]>'
    text = f"{heading} rows ({inputs}) => ({kind} out) {initialisers} {{ {nodes} }} {functions}"
    made = onnx.parser.parse_model(text)
    for output in made.graph.output:
        output.type.tensor_type.ClearField("shape")
    return made


def models():
    return {name: model(*graph).SerializeToString() for name, graph in GRAPHS.items()}


if __name__ == "__main__":
    DIRECTORY.mkdir(exist_ok=True)
    for name, serialised in models().items():
        (DIRECTORY / f"{name}.onnx").write_bytes(serialised)
