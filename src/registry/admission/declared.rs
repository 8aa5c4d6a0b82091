//! Whether a model is what its `config.pbtxt` declares.

use crate::{
    config::{DeclaredTensor, TritonModel},
    domain::{Dim, Signature, TensorSpec},
    engine::{Model, OnnxModel, Reshape},
};

/// Everything in which the model differs from the declaration.
pub(super) fn faults(declared: &TritonModel, signature: &Signature) -> Vec<String> {
    let with_rows = declared.max_batch_size > 0;
    let inputs = declared.inputs.iter().filter_map(|tensor| fault("input", tensor, &signature.inputs, with_rows));
    let outputs = declared.outputs.iter().filter_map(|tensor| fault("output", tensor, &signature.outputs, with_rows));
    inputs.chain(outputs).map(|fault| format!("config.pbtxt: {fault}")).collect()
}

/// Gives clients the shapes that the declaration has for them, where it is true of the model.
pub(super) fn reshape(declared: &TritonModel, model: &mut OnnxModel) {
    if !faults(declared, model.signature()).is_empty() {
        return;
    }
    let rows = || (declared.max_batch_size > 0).then_some(-1);
    let reshapes = |tensors: &[DeclaredTensor]| -> Vec<Reshape> {
        let of = |tensor: &DeclaredTensor| {
            let client = rows().into_iter().chain(tensor.client_dims.as_ref()?.iter().copied()).collect();
            let own = rows().into_iter().chain(tensor.dims.iter().copied()).collect();
            Some(Reshape { name: tensor.name.clone(), client, own })
        };
        tensors.iter().filter_map(of).collect()
    };
    model.reshape(&reshapes(&declared.inputs), &reshapes(&declared.outputs));
}

fn fault(role: &str, declared: &DeclaredTensor, specs: &[TensorSpec], with_rows: bool) -> Option<String> {
    let DeclaredTensor { name, datatype, dims, .. } = declared;
    let Some(spec) = specs.iter().find(|spec| spec.name == *name) else {
        let known: Vec<_> = specs.iter().map(|spec| format!("'{}'", spec.name)).collect();
        return Some(format!("the model has no {role} '{name}': it has {}", known.join(", ")));
    };
    if let Some(datatype) = datatype.filter(|datatype| *datatype != spec.datatype) {
        return Some(format!("{role} '{name}' is declared {datatype}, the model has {}", spec.datatype));
    }
    let has = spec.wire_shape();
    if with_rows && spec.shape.first() != Some(&Dim::Any) {
        return Some(format!(
            "{role} '{name}' has shape {has:?}, whose first dimension is not free: max_batch_size must be 0"
        ));
    }
    let own = &has[usize::from(with_rows)..];
    // What either leaves free is not in conflict.
    let agrees = |(declared, own): (&i64, &i64)| *declared == -1 || *own == -1 || declared == own;
    if dims.len() == own.len() && dims.iter().zip(own).all(agrees) {
        return None;
    }
    let rows = if with_rows { " beside the rows" } else { "" };
    Some(format!("{role} '{name}' is declared with dims {dims:?}, the model has {own:?}{rows}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::DataType;

    fn spec(name: &str, shape: &[Dim]) -> TensorSpec {
        TensorSpec { name: name.into(), datatype: DataType::Fp32, shape: shape.into(), optional: false }
    }

    fn of(max_batch_size: u32, name: &str, datatype: DataType, dims: &[i64]) -> String {
        let signature = Signature {
            inputs: vec![spec("x", &[Dim::Any, Dim::Fixed(3), Dim::Any])],
            outputs: vec![spec("y", &[Dim::Fixed(1)])],
        };
        let tensor =
            DeclaredTensor { name: name.into(), datatype: Some(datatype), dims: dims.into(), client_dims: None };
        let (inputs, outputs) = if name == "y" { (vec![], vec![tensor]) } else { (vec![tensor], vec![]) };
        faults(&TritonModel { max_batch_size, inputs, outputs, ..TritonModel::default() }, &signature).join("; ")
    }

    #[test]
    fn dims_lack_the_rows_only_when_there_are_rows() {
        for (max_batch_size, dims) in
            [(8, &[3, 5][..]), (8, &[3, -1]), (8, &[-1, -1]), (0, &[-1, 3, 5]), (0, &[4, 3, -1])]
        {
            assert_eq!(of(max_batch_size, "x", DataType::Fp32, dims), "", "{dims:?}");
        }
    }

    #[test]
    fn difference_is_told_with_both_sides() {
        let cases = [
            (
                of(8, "x", DataType::Fp32, &[4, 5]),
                "input 'x' is declared with dims [4, 5], the model has [3, -1] beside",
            ),
            (of(0, "x", DataType::Fp32, &[3, 5]), "dims [3, 5], the model has [-1, 3, -1]"),
            (of(8, "x", DataType::Int8, &[3, 5]), "is declared INT8, the model has FP32"),
            (of(8, "z", DataType::Fp32, &[3]), "no input 'z': it has 'x'"),
            (of(8, "y", DataType::Fp32, &[]), "max_batch_size must be 0"),
        ];
        for (fault, words) in cases {
            assert!(fault.contains(words), "{fault}");
        }
    }
}
