//! What a rollout compares of an answer: the class that it predicts and its score, of its first row.

use std::cmp::Ordering;

use twox_hash::XxHash3_64;

use crate::{
    domain::{DataType, Dim, Elements, Signature, Tensor, TensorSpec},
    rollout::cell,
};

/// Where the class and the score of an answer are found: in outputs of the stable version, by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reading {
    class: Option<Class>,
    score: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Class {
    /// A whole number in this output.
    Label(String),
    /// The place of the highest number in a row of this output.
    Highest(String),
    /// A row of this output, by its hash: a label that is a text, or whole numbers.
    Row(String),
}

impl Reading {
    /// The class is the first output of whole numbers with one in a row, otherwise the place of the highest
    /// number of the first float output with several in a row. A model without numbers has the first row of its first output for
    /// a class. The score is in the first float output.
    #[must_use]
    pub fn of(signature: &Signature) -> Self {
        let floats = || signature.outputs.iter().filter(|spec| spec.datatype.is_float());
        let label = signature.outputs.iter().find(|spec| is_whole(spec.datatype) && is_narrow(spec));
        let highest = || floats().find(|spec| !is_narrow(spec)).map(|spec| Class::Highest(spec.name.clone()));
        let text = || signature.outputs.iter().find(|spec| spec.datatype == DataType::Bytes && is_narrow(spec));
        let row = || {
            let is_other = floats().next().is_none();
            let any = || signature.outputs.first().filter(|_| is_other);
            text().or_else(any).map(|spec| Class::Row(spec.name.clone()))
        };
        let class = label.map(|spec| Class::Label(spec.name.clone())).or_else(highest).or_else(row);
        Self { class, score: floats().next().map(|spec| spec.name.clone()) }
    }

    /// The output that the score is in.
    #[must_use]
    pub fn score_output(&self) -> Option<&str> {
        self.score.as_deref()
    }

    /// False: the model predicts no class.
    #[must_use]
    pub fn has_class(&self) -> bool {
        self.class.is_some()
    }

    /// The class of the first row; `None` when the answer has none.
    #[must_use]
    pub fn class(&self, outputs: &[Tensor]) -> Option<u64> {
        match self.class.as_ref()? {
            Class::Label(name) => label(find(outputs, name)?),
            Class::Highest(name) => highest(find(outputs, name)?).map(|(place, _)| place as u64),
            Class::Row(name) => first_row(find(outputs, name)?),
        }
    }

    /// The score of the first row: its only number, the second of two (the probability of the positive
    /// class), the highest of more.
    #[must_use]
    pub fn score(&self, outputs: &[Tensor]) -> Option<f64> {
        let tensor = find(outputs, self.score.as_ref()?)?;
        match width(tensor) {
            0 => None,
            1 => number(tensor, 0),
            2 => number(tensor, 1),
            _ => highest(tensor).map(|(_, score)| score),
        }
    }
}

/// The column of a float output that [`Reading::score`] reads, where it is always the same.
#[must_use]
pub fn score_column(spec: &TensorSpec) -> Option<usize> {
    match spec.shape.as_slice() {
        [] | [_] | [_, Dim::Fixed(1)] => Some(0),
        [_, Dim::Fixed(2)] => Some(1),
        _ => None,
    }
}

fn is_whole(datatype: DataType) -> bool {
    datatype.size().is_some() && !datatype.is_float()
}

fn is_narrow(spec: &TensorSpec) -> bool {
    matches!(spec.shape.as_slice(), [] | [Dim::Any | Dim::Fixed(_)] | [_, Dim::Fixed(1)])
}

fn find<'a>(outputs: &'a [Tensor], name: &str) -> Option<&'a Tensor> {
    outputs.iter().find(|tensor| tensor.name() == name)
}

/// Elements in a row.
fn width(tensor: &Tensor) -> usize {
    tensor.shape().elements().checked_div(tensor.shape().rows()).unwrap_or(0)
}

fn highest(tensor: &Tensor) -> Option<(usize, f64)> {
    let numbers = (0..width(tensor)).filter_map(|place| number(tensor, place).map(|number| (place, number)));
    // What is not a number is below all others; among equals the first.
    let key = |number: f64| if number.is_nan() { f64::NEG_INFINITY } else { number };
    numbers.reduce(|best, one| if key(one.1).total_cmp(&key(best.1)) == Ordering::Greater { one } else { best })
}

/// The hash of the first row; never that of negative labels.
fn first_row(tensor: &Tensor) -> Option<u64> {
    let width = width(tensor);
    if width == 0 {
        return None;
    }
    let hash = match tensor.elements() {
        Elements::Plain { datatype, bytes } => XxHash3_64::oneshot(bytes.get(..width * datatype.size()?)?),
        Elements::Text(elements) if width == 1 => XxHash3_64::oneshot(elements.first()?),
        Elements::Text(elements) => {
            let lengths = |element: &bytes::Bytes| (element.len() as u64).to_le_bytes();
            let row: Vec<u8> = elements
                .get(..width)?
                .iter()
                .flat_map(|element| lengths(element).into_iter().chain(element.iter().copied()))
                .collect();
            XxHash3_64::oneshot(&row)
        }
    };
    Some(hash.min(cell::NEGATIVE - 1))
}

fn label(tensor: &Tensor) -> Option<u64> {
    let Elements::Plain { datatype, bytes } = tensor.elements() else { return None };
    let size = datatype.size()?;
    let element = bytes.get(..size)?;
    let mut wide = [0; 8];
    wide[..size].copy_from_slice(element);
    let is_signed = matches!(datatype, DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64);
    // A negative label (an outlier is -1) is a class of its own: beyond those that have a bin each.
    if is_signed && element.last().is_some_and(|last| last & 0x80 != 0) {
        Some(cell::NEGATIVE)
    } else {
        Some(u64::from_le_bytes(wide))
    }
}

/// The bytes of the element at a place.
fn at<const SIZE: usize>(bytes: &[u8], place: usize) -> Option<[u8; SIZE]> {
    bytes.as_chunks::<SIZE>().0.get(place).copied()
}

/// The number at a place of a float tensor.
fn number(tensor: &Tensor, place: usize) -> Option<f64> {
    let Elements::Plain { datatype, bytes } = tensor.elements() else { return None };
    match datatype {
        DataType::Fp64 => at(bytes, place).map(f64::from_le_bytes),
        DataType::Fp32 => at(bytes, place).map(|bytes| f64::from(f32::from_le_bytes(bytes))),
        DataType::Fp16 => at(bytes, place).map(|bytes| f64::from(half::f16::from_le_bytes(bytes))),
        DataType::Bf16 => at(bytes, place).map(|bytes| f64::from(half::bf16::from_le_bytes(bytes))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Shape;

    fn spec(name: &str, datatype: DataType, shape: &[Dim]) -> TensorSpec {
        TensorSpec { name: name.into(), datatype, shape: shape.into(), optional: false }
    }

    fn reading(outputs: Vec<TensorSpec>) -> Reading {
        Reading::of(&Signature { inputs: vec![], outputs })
    }

    fn floats(name: &str, dimensions: &[i64], values: &[f32]) -> Tensor {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Tensor::plain(name, DataType::Fp32, Shape::new(dimensions.to_vec()).unwrap(), bytes.into()).unwrap()
    }

    fn labels(values: &[i64]) -> Tensor {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let shape = Shape::new(vec![i64::try_from(values.len()).unwrap()]).unwrap();
        Tensor::plain("label", DataType::Int64, shape, bytes.into()).unwrap()
    }

    #[test]
    fn classifier_of_two_classes_has_its_label_and_the_positive_probability() {
        let two = [Dim::Any, Dim::Fixed(2)];
        let label = spec("label", DataType::Int64, &[Dim::Any]);
        let reading = reading(vec![label, spec("p", DataType::Fp32, &two)]);
        let outputs = [labels(&[1, 0]), floats("p", &[2, 2], &[0.25, 0.75, 0.9, 0.1])];
        assert_eq!((reading.class(&outputs), reading.score(&outputs)), (Some(1), Some(0.75)));
        assert_eq!(reading.score_output(), Some("p"));
        assert_eq!(score_column(&spec("p", DataType::Fp32, &two)), Some(1));
        assert_eq!(reading.class(&[labels(&[-1])]), Some(u64::MAX));
    }

    #[test]
    fn probabilities_alone_predict_the_highest() {
        let reading = reading(vec![spec("p", DataType::Fp32, &[Dim::Any, Dim::Any])]);
        let outputs = [floats("p", &[1, 4], &[0.1, f32::NAN, 0.6, 0.3])];
        assert_eq!(reading.class(&outputs), Some(2));
        assert!((reading.score(&outputs).unwrap() - 0.6).abs() < 1e-6);
        assert_eq!((reading.class(&[]), reading.score(&[floats("p", &[0, 4], &[])])), (None, None));
    }

    #[test]
    fn regression_has_a_score_and_no_class() {
        let reading = reading(vec![spec("y", DataType::Fp32, &[Dim::Any, Dim::Fixed(1)])]);
        assert!(!reading.has_class());
        assert_eq!(reading.score(&[floats("y", &[2, 1], &[7.5, 1.0])]), Some(7.5));
    }

    fn texts(dimensions: &[i64], values: &[&'static str]) -> Tensor {
        let values = values.iter().map(|value| bytes::Bytes::from_static(value.as_bytes())).collect();
        Tensor::text("s", Shape::new(dimensions.to_vec()).unwrap(), values).unwrap()
    }

    #[test]
    fn text_is_a_class_and_no_score() {
        let narrow = reading(vec![spec("s", DataType::Bytes, &[Dim::Any])]);
        let class = |values: &[&'static str]| narrow.class(&[texts(&[values.len().try_into().unwrap()], values)]);
        assert_eq!((class(&["cat", "dog"]), class(&[])), (class(&["cat"]), None));
        assert_ne!(class(&["cat"]), class(&["dog"]));
        assert_eq!(narrow.score_output(), None);
        let wide = reading(vec![spec("s", DataType::Bytes, &[Dim::Any, Dim::Fixed(2)])]);
        let class = |values: &[&'static str]| wide.class(&[texts(&[1, 2], values)]);
        assert_ne!(class(&["ab", "c"]), class(&["a", "bc"]));
    }

    #[test]
    fn text_label_beside_a_lone_score_is_the_class() {
        let outputs =
            vec![spec("p", DataType::Fp32, &[Dim::Any, Dim::Fixed(1)]), spec("s", DataType::Bytes, &[Dim::Any])];
        let reading = reading(outputs);
        assert!(reading.has_class() && reading.score_output() == Some("p"));
        assert_eq!(reading.class(&[floats("p", &[1, 1], &[1.0])]), None);
    }
}
