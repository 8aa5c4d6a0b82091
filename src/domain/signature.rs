//! What a model version takes and gives, and the check of a request against it.

use std::fmt;

use super::{DataType, OutputRequest, Places, Shape, Tensor};

/// One dimension of a declared shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dim {
    Fixed(u64),
    /// Any size, written `-1` on the wire.
    Any,
    /// Any number of dimensions of any size: the model declares no shape. Stands alone in a shape;
    /// the wire has no word for it but `-1`.
    Unranked,
}

impl Dim {
    #[must_use]
    pub fn to_wire(self) -> i64 {
        match self {
            Self::Fixed(size) => i64::try_from(size).unwrap_or(i64::MAX),
            Self::Any | Self::Unranked => -1,
        }
    }

    fn admits(self, size: i64) -> bool {
        match self {
            Self::Fixed(fixed) => u64::try_from(size) == Ok(fixed),
            Self::Any | Self::Unranked => true,
        }
    }
}

/// A declared input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    pub name: String,
    pub datatype: DataType,
    pub shape: Vec<Dim>,
    /// An input that the model has a default for (an ONNX initializer of the same name).
    pub optional: bool,
}

impl TensorSpec {
    /// The shape as the wire has it: `-1` for a dimension of any size.
    #[must_use]
    pub fn wire_shape(&self) -> Vec<i64> {
        self.shape.iter().map(|dim| dim.to_wire()).collect()
    }

    fn admits(&self, shape: &Shape) -> bool {
        let dimensions = shape.dimensions();
        if self.shape == [Dim::Unranked] {
            return true;
        }
        dimensions.len() == self.shape.len()
            && self.shape.iter().zip(dimensions).all(|(declared, &size)| declared.admits(size))
    }
}

/// Why a request does not fit a model. The messages are fit for a client; they name the
/// tensor and what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestFault {
    #[error("input '{name}' is unknown: the model takes {}", quoted(known))]
    UnknownInput { name: String, known: Vec<String> },
    #[error("input '{0}' is given twice")]
    DuplicateInput(String),
    #[error("input '{name}' is missing: the model takes {}", quoted(known))]
    MissingInput { name: String, known: Vec<String> },
    #[error("input '{name}' has datatype {got}, expected {expected}")]
    DataType { name: String, expected: DataType, got: DataType },
    #[error("input '{name}' has shape {got}, expected {}{}", Dims(expected), any_size(expected))]
    Shape { name: String, expected: Vec<Dim>, got: Shape },
    #[error("output '{name}' is unknown: the model gives {}", quoted(known))]
    UnknownOutput { name: String, known: Vec<String> },
    #[error("output '{0}' is asked for twice")]
    DuplicateOutput(String),
}

/// The inputs and outputs of a model version, in its own order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    pub inputs: Vec<TensorSpec>,
    pub outputs: Vec<TensorSpec>,
}

impl Signature {
    #[must_use]
    pub fn input(&self, name: &str) -> Option<&TensorSpec> {
        self.inputs.iter().find(|spec| spec.name == name)
    }

    #[must_use]
    pub fn output(&self, name: &str) -> Option<&TensorSpec> {
        self.outputs.iter().find(|spec| spec.name == name)
    }

    /// Checks the inputs and the requested outputs of a request. Returns the places of the
    /// requested outputs in [`Signature::outputs`]; of all, when none is named.
    ///
    /// # Errors
    /// The first fault found, in the order of the request.
    pub fn check(&self, inputs: &[Tensor], outputs: &[OutputRequest]) -> Result<Places, RequestFault> {
        for (index, input) in inputs.iter().enumerate() {
            self.check_input(index, input)?;
            if inputs[..index].iter().any(|earlier| earlier.name() == input.name()) {
                return Err(RequestFault::DuplicateInput(input.name().into()));
            }
        }
        let missing =
            self.inputs.iter().find(|spec| !spec.optional && inputs.iter().all(|input| input.name() != spec.name));
        if let Some(spec) = missing {
            return Err(RequestFault::MissingInput { name: spec.name.clone(), known: names(&self.inputs) });
        }
        if outputs.is_empty() {
            return Ok((0..self.outputs.len()).collect());
        }
        let mut places = Places::with_capacity(outputs.len());
        for OutputRequest { name, .. } in outputs {
            let place = self
                .outputs
                .iter()
                .position(|spec| spec.name == *name)
                .ok_or_else(|| RequestFault::UnknownOutput { name: shown(name), known: names(&self.outputs) })?;
            if places.contains(&place) {
                return Err(RequestFault::DuplicateOutput(name.clone()));
            }
            places.push(place);
        }
        Ok(places)
    }

    /// The place of the input of this name; `likely` is looked at first, since most clients send
    /// inputs in the model's order.
    #[must_use]
    pub fn input_place(&self, likely: usize, name: &str) -> Option<usize> {
        if self.inputs.get(likely).is_some_and(|spec| spec.name == name) {
            return Some(likely);
        }
        self.inputs.iter().position(|spec| spec.name == name)
    }

    /// How the inputs differ in their number of rows, where they do: of those that are declared with any number of rows as their
    /// first dimension. A model may well take such inputs: this is for the words of a run that failed.
    #[must_use]
    pub fn unequal_rows(&self, inputs: &[Tensor]) -> Option<String> {
        let mut groups: Vec<(i64, Vec<&str>)> = Vec::new();
        for input in inputs
            .iter()
            .filter(|input| self.input(input.name()).is_some_and(|spec| spec.shape.first() == Some(&Dim::Any)))
        {
            let Some(&rows) = input.shape().dimensions().first() else { continue };
            match groups.iter_mut().find(|(other, _)| *other == rows) {
                Some((_, names)) => names.push(input.name()),
                None => groups.push((rows, vec![input.name()])),
            }
        }
        let shown = |(place, (rows, names)): (usize, &(i64, Vec<&str>))| {
            let more = match names.len() {
                0..=2 => String::new(),
                count => format!(" and {} more", count - 2),
            };
            let listed: Vec<_> = names.iter().take(2).map(|name| format!("'{name}'")).collect();
            let verb = if names.len() == 1 { "has" } else { "have" };
            let unit = if place == 0 { if *rows == 1 { " row" } else { " rows" } } else { "" };
            format!("{}{more} {verb} {rows}{unit}", listed.join(", "))
        };
        let told: Vec<_> = groups.iter().enumerate().map(shown).take(4).collect();
        (groups.len() > 1).then(|| format!("the inputs differ in their number of rows ({})", told.join(", ")))
    }

    fn check_input(&self, index: usize, input: &Tensor) -> Result<(), RequestFault> {
        let Some(spec) = self.input_place(index, input.name()).map(|place| &self.inputs[place]) else {
            return Err(RequestFault::UnknownInput { name: shown(input.name()), known: names(&self.inputs) });
        };
        if input.datatype() != spec.datatype {
            return Err(RequestFault::DataType {
                name: spec.name.clone(),
                expected: spec.datatype,
                got: input.datatype(),
            });
        }
        if !spec.admits(input.shape()) {
            let (name, expected, got) = (spec.name.clone(), spec.shape.clone(), input.shape().clone());
            return Err(RequestFault::Shape { name, expected, got });
        }
        Ok(())
    }
}

/// What -1 stands for, where there is one.
fn any_size(expected: &[Dim]) -> &'static str {
    if expected.contains(&Dim::Any) { " (-1: any size)" } else { "" }
}

struct Dims<'a>(&'a [Dim]);

impl fmt::Display for Dims<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|dim| dim.to_wire())).finish()
    }
}

fn names(specs: &[TensorSpec]) -> Vec<String> {
    specs.iter().map(|spec| spec.name.clone()).collect()
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ")
}

/// A client's text as it may be repeated to it: bounded.
fn shown(text: &str) -> String {
    text.chars().take(128).collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn signature() -> Signature {
        let spec = |name: &str, optional| TensorSpec {
            name: name.into(),
            datatype: DataType::Fp32,
            shape: vec![Dim::Any, Dim::Fixed(2)],
            optional,
        };
        Signature { inputs: vec![spec("x", false), spec("bias", true)], outputs: vec![spec("y", false)] }
    }

    fn tensor(name: &str, datatype: DataType, dimensions: &[i64]) -> Tensor {
        let shape = Shape::new(dimensions.to_vec()).unwrap();
        let bytes = Bytes::from(vec![0; shape.elements() * datatype.size().unwrap()]);
        Tensor::plain(name, datatype, shape, bytes).unwrap()
    }

    #[test]
    fn fitting_request_passes_with_or_without_the_optional_input() {
        let x = tensor("x", DataType::Fp32, &[3, 2]);
        let bias = tensor("bias", DataType::Fp32, &[1, 2]);
        signature().check(std::slice::from_ref(&x), &[]).unwrap();
        signature().check(&[bias, x], &[OutputRequest::plain("y")]).unwrap();
    }

    #[test]
    fn input_without_a_declared_shape_takes_every_shape() {
        let mut signature = signature();
        signature.inputs[0].shape = vec![Dim::Unranked];
        for dimensions in [&[][..], &[0], &[5], &[1, 2, 3, 4]] {
            signature.check(&[tensor("x", DataType::Fp32, dimensions)], &[]).unwrap();
        }
        assert_eq!(signature.inputs[0].wire_shape(), [-1]);
    }

    #[test]
    fn scalar_input_takes_scalars_only() {
        let mut signature = signature();
        signature.inputs[0].shape = vec![];
        signature.check(&[tensor("x", DataType::Fp32, &[])], &[]).unwrap();
        signature.check(&[tensor("x", DataType::Fp32, &[1])], &[]).unwrap_err();
    }

    #[test]
    fn inputs_of_unequal_rows_are_named() {
        let spec = |name: &str| TensorSpec {
            name: name.into(),
            datatype: DataType::Fp32,
            shape: vec![Dim::Any, Dim::Fixed(1)],
            optional: false,
        };
        let signature = Signature { inputs: ["a", "b", "c", "d", "e"].map(spec).into(), outputs: vec![] };
        let rows = |rows: &[i64]| {
            let names = ["a", "b", "c", "d", "e"];
            let inputs: Vec<_> =
                names.iter().zip(rows).map(|(name, rows)| tensor(name, DataType::Fp32, &[*rows, 1])).collect();
            signature.unequal_rows(&inputs)
        };
        let words = |words: &str| Some(format!("the inputs differ in their number of rows ({words})"));
        assert_eq!(rows(&[3, 3, 3]), None);
        assert_eq!(rows(&[3, 2]), words("'a' has 3 rows, 'b' has 2"));
        assert_eq!(rows(&[1, 2]), words("'a' has 1 row, 'b' has 2"));
        assert_eq!(rows(&[3, 3, 3, 2, 3]), words("'a', 'b' and 2 more have 3 rows, 'd' has 2"));
        let fixed = Signature {
            inputs: vec![TensorSpec { shape: vec![Dim::Fixed(3)], ..spec("a") }, spec("b")],
            outputs: vec![],
        };
        let inputs = [tensor("a", DataType::Fp32, &[3]), tensor("b", DataType::Fp32, &[2, 1])];
        assert_eq!(fixed.unequal_rows(&inputs), None, "which is not a number of rows");
    }

    #[test]
    fn each_fault_names_the_tensor_and_what_was_expected() {
        let x = || tensor("x", DataType::Fp32, &[1, 2]);
        let cases: [(Vec<Tensor>, Vec<&str>, &str); 7] = [
            (vec![], vec![], "input 'x' is missing: the model takes 'x', 'bias'"),
            (vec![tensor("z", DataType::Fp32, &[1, 2])], vec![], "input 'z' is unknown: the model takes 'x', 'bias'"),
            (vec![x(), x()], vec![], "input 'x' is given twice"),
            (vec![tensor("x", DataType::Int32, &[1, 2])], vec![], "input 'x' has datatype INT32, expected FP32"),
            (
                vec![tensor("x", DataType::Fp32, &[1, 3])],
                vec![],
                "input 'x' has shape [1, 3], expected [-1, 2] (-1: any size)",
            ),
            (vec![x()], vec!["w"], "output 'w' is unknown: the model gives 'y'"),
            (vec![x()], vec!["y", "y"], "output 'y' is asked for twice"),
        ];
        for (inputs, outputs, message) in cases {
            let outputs: Vec<_> = outputs.into_iter().map(OutputRequest::plain).collect();
            assert_eq!(signature().check(&inputs, &outputs).unwrap_err().to_string(), message);
        }
    }
}
