//! The bench models, always the same bytes: `tiny`, a small tree ensemble; `mlp`, three layers;
//! `cnn`, about a GFLOP of convolutions; and `big`, 90 MB of weights for the memory bench.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::Result;

use crate::onnx::{Attribute, Graph, Node, Tensor, Value};

/// Numbers that look random and are always the same.
pub struct Numbers(u64);

impl Numbers {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The generator `SplitMix64`.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From -1 to 1.
    pub fn unit(&mut self) -> f32 {
        let bits = (self.next() >> 40) as u32;
        bits as f32 / (1 << 23) as f32 - 1.0
    }

    #[expect(clippy::cast_possible_wrap, reason = "smaller than the bound, which is positive")]
    fn below(&mut self, bound: i64) -> i64 {
        (self.next() % bound.unsigned_abs()) as i64
    }
}

/// A model by its name.
#[derive(Debug, Clone, Copy)]
pub struct BenchModel {
    pub name: &'static str,
    /// The shape of one row of its input `x`.
    pub row: &'static [i64],
}

/// The models of the end-to-end bench.
pub const MODELS: [BenchModel; 3] = [
    BenchModel { name: "tiny", row: &[30] },
    BenchModel { name: "mlp", row: &[784] },
    BenchModel { name: "cnn", row: &[3, 128, 128] },
];

/// Side of the square weights of `big`: 4,750² FP32 are 90 MB.
pub const BIG_SIDE: i64 = 4_750;

impl BenchModel {
    /// One row of input values.
    pub fn values(&self) -> Vec<f32> {
        let count: i64 = self.row.iter().product();
        let mut numbers = Numbers::new(7);
        (0..count).map(|_| numbers.unit()).collect()
    }
}

/// Writes a repository `models`, and `reference.csv`, the data of `tiny`'s profile.
pub fn write(directory: &Path, big: bool) -> Result<()> {
    for (name, file) in [("tiny", tiny()), ("mlp", mlp()), ("cnn", cnn())] {
        write_version(&directory.join("models").join(name), &file)?;
    }
    fs::write(directory.join("reference.csv"), reference())?;
    if big {
        write_version(&directory.join("big/big"), &big_model())?;
    }
    Ok(())
}

fn write_version(model: &Path, file: &[u8]) -> Result<()> {
    let version = model.join("1");
    fs::create_dir_all(&version)?;
    fs::write(version.join("model.onnx"), file)?;
    Ok(())
}

/// 2,000 rows as the requests draw them.
fn reference() -> String {
    let mut numbers = Numbers::new(11);
    let mut text = (0..30).map(|column| format!("x[{column}]")).collect::<Vec<_>>().join(",");
    for _ in 0..2_000 {
        for column in 0..30 {
            let separator = if column == 0 { "\n" } else { "," };
            let _ = write!(text, "{separator}{}", numbers.unit());
        }
    }
    text + "\n"
}

/// Gradient boosting as scikit-learn's converter writes it: 100 full trees of depth 5 on 30 floats.
fn tiny() -> Vec<u8> {
    const TREES: i64 = 100;
    const DEPTH: u32 = 5;
    let splits = 2_i64.pow(DEPTH) - 1;
    let nodes = 2 * splits + 1;
    let mut numbers = Numbers::new(1);
    let (mut trees, mut ids, mut features, mut thresholds, mut modes) = (vec![], vec![], vec![], vec![], vec![]);
    let (mut yes, mut no) = (vec![], vec![]);
    let (mut leaf_trees, mut leaf_nodes, mut leaf_weights) = (vec![], vec![], vec![]);
    for tree in 0..TREES {
        for node in 0..nodes {
            let is_split = node < splits;
            trees.push(tree);
            ids.push(node);
            features.push(if is_split { numbers.below(30) } else { 0 });
            thresholds.push(if is_split { numbers.unit() } else { 0.0 });
            modes.push(if is_split { "BRANCH_LEQ" } else { "LEAF" });
            yes.push(if is_split { 2 * node + 1 } else { 0 });
            no.push(if is_split { 2 * node + 2 } else { 0 });
            if !is_split {
                leaf_trees.push(tree);
                leaf_nodes.push(node);
                leaf_weights.push(numbers.unit() / 5.0);
            }
        }
    }
    let attributes = vec![
        Attribute::ints("nodes_treeids", trees),
        Attribute::ints("nodes_nodeids", ids),
        Attribute::ints("nodes_featureids", features),
        Attribute::floats("nodes_values", thresholds),
        Attribute::strings("nodes_modes", &modes),
        Attribute::ints("nodes_truenodeids", yes),
        Attribute::ints("nodes_falsenodeids", no),
        Attribute::ints("class_treeids", leaf_trees),
        Attribute::ints("class_nodeids", leaf_nodes),
        Attribute::ints("class_ids", vec![0; leaf_weights.len()]),
        Attribute::floats("class_weights", leaf_weights),
        Attribute::ints("classlabels_int64s", vec![0, 1]),
        Attribute::floats("base_values", vec![0.1]),
        Attribute::string("post_transform", "LOGISTIC"),
    ];
    let ensemble = Node::new("TreeEnsembleClassifier", &["x"], "label", attributes).classical(&["probabilities"]);
    Graph {
        name: Some("tiny".into()),
        node: vec![ensemble],
        initializer: vec![],
        input: vec![Value::floats("x", &[30])],
        output: vec![Value::integers("label", &[]), Value::floats("probabilities", &[2])],
    }
    .file()
}

/// Layers one after the other.
struct Layers {
    numbers: Numbers,
    nodes: Vec<Node>,
    weights: Vec<Tensor>,
    /// The output of the last layer.
    last: String,
}

impl Layers {
    fn new(seed: u64) -> Self {
        Self { numbers: Numbers::new(seed), nodes: vec![], weights: vec![], last: "x".into() }
    }

    /// Weights that keep the size of what goes through them.
    fn weights(&mut self, dims: &[i64], inputs: i64) -> String {
        let name = format!("w{}", self.weights.len());
        let scale = (6.0 / inputs as f32).sqrt();
        let count: i64 = dims.iter().product();
        let numbers = &mut self.numbers;
        self.weights.push(Tensor::weights(&name, dims, (0..count).map(|_| numbers.unit() * scale)));
        name
    }

    fn node(&mut self, operator: &str, weights: &[&str], attributes: Vec<Attribute>) {
        let output = format!("t{}", self.nodes.len());
        let inputs: Vec<&str> = std::iter::once(self.last.as_str()).chain(weights.iter().copied()).collect();
        self.nodes.push(Node::new(operator, &inputs, &output, attributes));
        self.last = output;
    }

    fn dense(&mut self, inputs: i64, outputs: i64) {
        let weights = self.weights(&[inputs, outputs], inputs);
        let bias = self.weights(&[outputs], 1_000);
        self.node("Gemm", &[&weights, &bias], vec![]);
    }

    /// A 3×3 convolution and a `Relu`.
    fn convolution(&mut self, inputs: i64, outputs: i64, stride: i64) {
        let weights = self.weights(&[outputs, inputs, 3, 3], 9 * inputs);
        let bias = self.weights(&[outputs], 1_000);
        let attributes = vec![
            Attribute::ints("kernel_shape", vec![3, 3]),
            Attribute::ints("strides", vec![stride, stride]),
            Attribute::ints("pads", vec![1, 1, 1, 1]),
        ];
        self.node("Conv", &[&weights, &bias], attributes);
        self.node("Relu", &[], vec![]);
    }

    /// The model, whose last layer gives `outputs` values called `y`.
    fn model(mut self, name: &str, row: &[i64], outputs: i64) -> Vec<u8> {
        if let Some(last) = self.nodes.pop() {
            self.nodes.push(last.renamed("y"));
        }
        Graph {
            name: Some(name.into()),
            node: self.nodes,
            initializer: self.weights,
            input: vec![Value::floats("x", row)],
            output: vec![Value::floats("y", &[outputs])],
        }
        .file()
    }
}

fn mlp() -> Vec<u8> {
    let mut layers = Layers::new(2);
    layers.dense(784, 512);
    layers.node("Relu", &[], vec![]);
    layers.dense(512, 256);
    layers.node("Relu", &[], vec![]);
    layers.dense(256, 10);
    layers.node("Softmax", &[], vec![Attribute::int("axis", -1)]);
    layers.model("mlp", &[784], 10)
}

fn cnn() -> Vec<u8> {
    let mut layers = Layers::new(3);
    layers.convolution(3, 32, 2);
    layers.convolution(32, 64, 1);
    layers.convolution(64, 128, 2);
    layers.convolution(128, 128, 1);
    layers.convolution(128, 256, 2);
    layers.convolution(256, 256, 1);
    layers.node("GlobalAveragePool", &[], vec![]);
    layers.node("Flatten", &[], vec![]);
    layers.dense(256, 10);
    layers.node("Softmax", &[], vec![Attribute::int("axis", -1)]);
    layers.model("cnn", &[3, 128, 128], 10)
}

fn big_model() -> Vec<u8> {
    let mut layers = Layers::new(4);
    layers.dense(BIG_SIDE, BIG_SIDE);
    layers.model("big", &[BIG_SIDE], BIG_SIDE)
}
