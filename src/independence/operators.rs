//! The operators, and the rule for each.

use std::{collections::HashMap, sync::LazyLock};

use super::{axes, broadcast, control, filters, layout, learners, products, recurrent, rule::Rule, select};

/// What a rule may get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Tensors with rows, or the same for all.
    Plain,
    /// Shapes too, which may count the rows.
    Sizes,
    /// Anything, since it runs graphs or puts sequences together.
    Any,
    /// Nothing that could make it follow rows.
    Random,
}

type Entry = (&'static str, Kind, Rule, &'static [&'static str]);

const ONNX: &str = "";
const ML: &str = "ai.onnx.ml";
const MICROSOFT: &str = "com.microsoft";

/// Every operator with a rule, by its domain.
#[cfg(test)]
pub(super) fn names() -> Vec<(&'static str, &'static str)> {
    TABLE.iter().flat_map(|(domain, _, _, names)| names.iter().map(|name| (*domain, *name))).collect()
}

/// By domain and name.
type Rules = HashMap<(&'static str, &'static str), (Rule, Kind)>;

/// The rule for an operator.
pub(super) fn rule(domain: &str, name: &str) -> Option<(Rule, Kind)> {
    static RULES: LazyLock<Rules> = LazyLock::new(|| {
        let entries = TABLE
            .iter()
            .flat_map(|(domain, kind, rule, names)| names.iter().map(move |name| ((*domain, *name), (*rule, *kind))));
        entries.collect()
    });
    let domain = if domain == "ai.onnx" { ONNX } else { domain };
    RULES.get(&(domain, name)).copied()
}

#[rustfmt::skip]
static TABLE: &[Entry] = &[
    // Element by element of one tensor.
    (ONNX, Kind::Plain, broadcast::of_first, &[
        "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BitCast", "BitwiseNot", "Cast", "Ceil", "Celu", "Cos", "Cosh", "Elu",
        "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "IsInf", "IsNaN", "LeakyRelu", "Log", "Mish", "Neg",
        "Not", "Reciprocal", "RegexFullMatch", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh",
        "Softplus", "Softsign", "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu", "Affine", "ParametricSoftplus", "ScaledTanh",
    ]),
    (MICROSOFT, Kind::Plain, broadcast::of_first, &[
        "Gelu", "QuickGelu", "QLinearSigmoid", "QLinearLeakyRelu", "MurmurHash3", "IsInf",
    ]),
    (ML, Kind::Plain, broadcast::of_first, &["Binarizer", "CategoryMapper", "LabelEncoder"]),
    (ONNX, Kind::Plain, broadcast::like, &["CastLike"]),
    (ONNX, Kind::Any, broadcast::identity, &["Identity"]),
    (ONNX, Kind::Plain, broadcast::identity, &["Optional", "OptionalGetElement"]),
    (ONNX, Kind::Plain, broadcast::dropout, &["Dropout"]),
    (ONNX, Kind::Plain, select::clip, &["Clip"]),
    // Element by element of several tensors.
    (ONNX, Kind::Plain, broadcast::elementwise, &[
        "Add", "And", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Div", "Equal", "Greater", "GreaterOrEqual",
        "Less", "LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul", "Or", "PRelu", "Pow", "StringConcat", "Sub", "Sum",
        "Where", "Xor",
    ]),
    (MICROSOFT, Kind::Plain, broadcast::elementwise, &["BiasGelu", "FastGelu"]),
    (MICROSOFT, Kind::Plain, learners::quantised_pair, &["QLinearAdd", "QLinearMul"]),
    (MICROSOFT, Kind::Plain, learners::quantised_where, &["QLinearWhere"]),
    // Along some axes.
    (ONNX, Kind::Plain, axes::reduce, &[
        "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
        "ReduceSum", "ReduceSumSquare",
    ]),
    (ONNX, Kind::Plain, axes::arg, &["ArgMax", "ArgMin"]),
    (ONNX, Kind::Plain, axes::top_k, &["TopK"]),
    (ONNX, Kind::Plain, axes::cumulative, &["CumProd", "CumSum"]),
    (ONNX, Kind::Plain, axes::softmax, &["Hardmax", "LogSoftmax", "Softmax"]),
    (MICROSOFT, Kind::Plain, axes::quantised_softmax, &["QLinearSoftmax"]),
    (ONNX, Kind::Plain, axes::along_axis, &["LpNormalization"]),
    (ONNX, Kind::Plain, axes::mean_variance, &["MeanVarianceNormalization"]),
    (ONNX, Kind::Plain, axes::local_response, &["LRN"]),
    (ONNX, Kind::Plain, axes::batch_norm, &["BatchNormalization"]),
    (ONNX, Kind::Plain, axes::instance_norm, &["InstanceNormalization"]),
    (ONNX, Kind::Plain, axes::group_norm, &["GroupNormalization"]),
    (ONNX, Kind::Plain, axes::layer_norm, &["LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"]),
    (MICROSOFT, Kind::Plain, axes::skip_layer_norm, &["SkipLayerNormalization", "SkipSimplifiedLayerNormalization"]),
    (ONNX, Kind::Plain, axes::loss, &["NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"]),
    (ONNX, Kind::Plain, axes::one_hot, &["OneHot"]),
    (ONNX, Kind::Plain, axes::matrices, &["Det", "Trilu"]),
    (MICROSOFT, Kind::Plain, axes::matrices, &["Inverse", "Trilu"]),
    (ONNX, Kind::Plain, axes::fourier, &["DFT"]),
    (ONNX, Kind::Plain, axes::short_fourier, &["STFT"]),
    // Quantisation.
    (ONNX, Kind::Plain, axes::quantize, &["DequantizeLinear", "QuantizeLinear"]),
    (MICROSOFT, Kind::Plain, axes::quantize, &["DequantizeLinear", "QuantizeLinear"]),
    (ONNX, Kind::Plain, axes::one_scale, &["DynamicQuantizeLinear"]),
    (MICROSOFT, Kind::Plain, axes::one_scale, &["DynamicQuantizeLSTM", "DynamicQuantizeMatMul"]),
    // Products.
    (ONNX, Kind::Plain, products::matmul, &["MatMul"]),
    (ONNX, Kind::Plain, products::gemm, &["Gemm"]),
    (ONNX, Kind::Plain, products::einsum, &["Einsum"]),
    (ONNX, Kind::Plain, products::matmul_integer, &["MatMulInteger"]),
    (ONNX, Kind::Plain, products::qlinear_matmul, &["QLinearMatMul"]),
    (MICROSOFT, Kind::Plain, products::fused_matmul, &["FusedMatMul", "TransposeMatMul"]),
    (MICROSOFT, Kind::Plain, products::gemm, &["FusedGemm"]),
    (MICROSOFT, Kind::Plain, products::matmul_integer_to_float, &["MatMulIntegerToFloat"]),
    (MICROSOFT, Kind::Plain, products::qgemm, &["QGemm"]),
    (MICROSOFT, Kind::Plain, products::matmul_bits, &["MatMulBnb4", "MatMulNBits"]),
    (MICROSOFT, Kind::Plain, products::distances, &["CDist"]),
    // Images and signals.
    (ONNX, Kind::Plain, filters::conv, &["Conv"]),
    (ONNX, Kind::Plain, filters::conv_integer, &["ConvInteger"]),
    (ONNX, Kind::Plain, filters::qlinear_conv, &["QLinearConv"]),
    (MICROSOFT, Kind::Plain, filters::qlinear_conv, &["QLinearConv"]),
    (MICROSOFT, Kind::Plain, filters::fused_conv, &["FusedConv"]),
    (ONNX, Kind::Plain, filters::conv_transpose, &["ConvTranspose"]),
    (ONNX, Kind::Plain, filters::deform_conv, &["DeformConv"]),
    (ONNX, Kind::Plain, filters::pool, &["AveragePool", "LpPool", "MaxPool"]),
    (MICROSOFT, Kind::Plain, filters::pool, &["QLinearAveragePool"]),
    (ONNX, Kind::Plain, filters::global_pool, &["GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool"]),
    (MICROSOFT, Kind::Plain, filters::global_pool, &["QLinearGlobalAveragePool"]),
    (ONNX, Kind::Plain, filters::max_unpool, &["MaxUnpool"]),
    (ONNX, Kind::Sizes, filters::resize, &["Resize", "Upsample"]),
    (ONNX, Kind::Sizes, filters::affine_grid, &["AffineGrid"]),
    (ONNX, Kind::Plain, filters::grid_sample, &["GridSample"]),
    (MICROSOFT, Kind::Plain, filters::grid_sample, &["GridSample"]),
    (ONNX, Kind::Sizes, filters::columns_to_image, &["Col2Im"]),
    (ONNX, Kind::Plain, layout::within_first, &["DepthToSpace", "SpaceToDepth"]),
    // Sequences of steps.
    (ONNX, Kind::Plain, recurrent::recurrent, &["GRU", "LSTM", "RNN"]),
    (ONNX, Kind::Plain, recurrent::attention, &["Attention"]),
    (ONNX, Kind::Plain, recurrent::rotary, &["RotaryEmbedding"]),
    (MICROSOFT, Kind::Plain, recurrent::rotary, &["RotaryEmbedding"]),
    (MICROSOFT, Kind::Plain, recurrent::packed_attention, &["Attention"]),
    (MICROSOFT, Kind::Plain, recurrent::quantised_attention, &["QAttention"]),
    (MICROSOFT, Kind::Plain, recurrent::multi_head, &["MultiHeadAttention"]),
    (MICROSOFT, Kind::Plain, recurrent::embed, &["EmbedLayerNormalization"]),
    (MICROSOFT, Kind::Plain, recurrent::quantised_embed, &["QEmbedLayerNormalization"]),
    // Other shapes of the same elements.
    (ONNX, Kind::Sizes, layout::reshape, &["Reshape"]),
    (ONNX, Kind::Plain, layout::flatten, &["Flatten"]),
    (ONNX, Kind::Plain, layout::transpose, &["Transpose"]),
    (ONNX, Kind::Plain, layout::squeeze, &["Squeeze"]),
    (ONNX, Kind::Plain, layout::unsqueeze, &["Unsqueeze"]),
    (ONNX, Kind::Sizes, layout::expand, &["Expand"]),
    (ONNX, Kind::Sizes, layout::tile, &["Tile"]),
    (ONNX, Kind::Sizes, layout::constant_of_shape, &["ConstantOfShape"]),
    // Picking, cutting, joining, writing.
    (ONNX, Kind::Sizes, select::gather, &["Gather"]),
    (ONNX, Kind::Plain, select::gather_elements, &["GatherElements"]),
    (ONNX, Kind::Plain, select::gather_nd, &["GatherND"]),
    (ONNX, Kind::Plain, select::scatter_elements, &["Scatter", "ScatterElements"]),
    (ONNX, Kind::Plain, select::scatter_nd, &["ScatterND"]),
    (ONNX, Kind::Sizes, select::slice, &["Slice"]),
    (ONNX, Kind::Plain, select::concat, &["Concat"]),
    (ONNX, Kind::Sizes, select::split, &["Split"]),
    (ONNX, Kind::Sizes, select::pad, &["Pad"]),
    (MICROSOFT, Kind::Sizes, select::pad, &["Pad"]),
    (ONNX, Kind::Sizes, select::center, &["CenterCropPad"]),
    (ONNX, Kind::Plain, select::reverse_sequence, &["ReverseSequence"]),
    (ONNX, Kind::Plain, select::compress, &["Compress"]),
    (MICROSOFT, Kind::Plain, learners::quantised_concat, &["QLinearConcat"]),
    (ONNX, Kind::Sizes, select::shape, &["Shape"]),
    (ONNX, Kind::Sizes, select::size, &["Size"]),
    (ONNX, Kind::Sizes, select::range, &["Range"]),
    // Over all rows, or by chance.
    (ONNX, Kind::Plain, select::over_all, &["EyeLike", "MaxRoiPool", "NonMaxSuppression", "NonZero", "RoiAlign", "Unique"]),
    (MICROSOFT, Kind::Plain, select::over_all, &["CropAndResize", "IsAllFinite", "Unique"]),
    (ONNX, Kind::Random, select::random, &[
        "Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike",
    ]),
    (MICROSOFT, Kind::Random, select::random, &["BiasDropout", "BitmaskBiasDropout", "BitmaskDropout"]),
    (ONNX, Kind::Plain, axes::only_same, &["BlackmanWindow", "HammingWindow", "HannWindow", "MelWeightMatrix"]),
    // Graphs and sequences.
    (ONNX, Kind::Any, control::branch, &["If"]),
    (ONNX, Kind::Any, control::repeat, &["Loop"]),
    (ONNX, Kind::Any, control::scan, &["Scan"]),
    (ONNX, Kind::Any, learners::sequence, &[
        "ConcatFromSequence", "SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceInsert", "SequenceLength",
    ]),
    // Learners on matrices of samples, and texts.
    (ML, Kind::Plain, learners::classifier, &["LinearClassifier", "SVMClassifier", "TreeEnsembleClassifier"]),
    (ML, Kind::Plain, learners::regressor, &["LinearRegressor", "SVMRegressor", "TreeEnsemble", "TreeEnsembleRegressor"]),
    (ML, Kind::Plain, learners::by_columns, &["Imputer", "Normalizer", "Scaler"]),
    (ML, Kind::Plain, learners::features, &["FeatureVectorizer"]),
    (ML, Kind::Plain, learners::one_hot, &["OneHotEncoder"]),
    (ML, Kind::Plain, learners::extract, &["ArrayFeatureExtractor"]),
    (ML, Kind::Any, learners::zip_map, &["ZipMap"]),
    (ONNX, Kind::Plain, learners::normalise_text, &["StringNormalizer"]),
    (ONNX, Kind::Plain, learners::split_text, &["StringSplit"]),
    (ONNX, Kind::Plain, learners::ngrams, &["TfIdfVectorizer"]),
    (MICROSOFT, Kind::Plain, learners::tokenize, &["Tokenizer"]),
];
