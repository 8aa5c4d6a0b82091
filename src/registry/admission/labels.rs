//! Whether the names in `labels.txt` can be those of the model's classes.

use crate::{
    config::ModelConfig,
    domain::{Dim, Signature},
};

/// What an author should know: no output has as many classes as the file has names.
pub(super) fn note(config: &ModelConfig, signature: &Signature) -> Option<String> {
    let names = config.labels.all.as_ref()?.len();
    let classes = |shape: &[Dim]| match shape {
        [_, .., Dim::Fixed(classes)] if *classes > 1 => usize::try_from(*classes).ok(),
        _ => None,
    };
    let outputs = signature.outputs.iter().filter(|output| output.datatype.is_float());
    let sizes: Vec<_> = outputs.filter_map(|output| Some((&output.name, classes(&output.shape)?))).collect();
    let (output, size) = sizes.first()?;
    let fits = sizes.iter().any(|(_, size)| *size == names);
    (!fits).then(|| format!("warning: labels.txt has {names} names, and output '{output}' has {size} classes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{DataType, TensorSpec};

    #[test]
    fn names_that_are_not_as_many_as_the_classes_are_told() {
        let spec = |name: &str, datatype, shape: &[Dim]| TensorSpec {
            name: name.into(),
            datatype,
            shape: shape.into(),
            optional: false,
        };
        let signature = Signature {
            inputs: Vec::new(),
            outputs: vec![
                spec("label", DataType::Int64, &[Dim::Any]),
                spec("score", DataType::Fp32, &[Dim::Any, Dim::Fixed(2)]),
            ],
        };
        let said = |names: &[&str]| {
            let mut config = ModelConfig::default();
            config.labels.all = Some(names.iter().map(|name| (*name).into()).collect());
            note(&config, &signature)
        };
        assert_eq!(said(&["a", "b"]), None);
        assert_eq!(
            said(&["a", "b", "c"]).unwrap(),
            "warning: labels.txt has 3 names, and output 'score' has 2 classes"
        );
        assert_eq!(note(&ModelConfig::default(), &signature), None);
    }
}
