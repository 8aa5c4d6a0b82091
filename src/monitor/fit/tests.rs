//! What fits and what does not.

use super::*;
use crate::domain::Dim;
use crate::monitor::profile::Category;

fn signature() -> Signature {
    let spec = |name: &str, datatype, shape: &[Dim]| TensorSpec {
        name: name.into(),
        datatype,
        shape: shape.to_vec(),
        optional: false,
    };
    Signature {
        inputs: vec![
            spec("x", DataType::Fp32, &[Dim::Any, Dim::Fixed(2)]),
            spec("n", DataType::Int64, &[Dim::Any]),
            spec("s", DataType::Bytes, &[Dim::Any, Dim::Any]),
        ],
        outputs: vec![spec("y", DataType::Bool, &[Dim::Any, Dim::Fixed(1)])],
    }
}

fn feature(role: FeatureRole, tensor: &str, column: usize, category: Option<&str>) -> FeatureProfile {
    let distribution = match category {
        Some(value) => {
            let categories = vec![Category { value: value.into(), count: 1 }];
            Distribution::Categorical { categories, other: 0, rare: None, buckets: None }
        }
        None => Distribution::Numeric {
            min: 0.0,
            max: 1.0,
            mean: 0.0,
            std: 0.0,
            edges: vec![],
            counts: vec![1],
            fine: None,
        },
    };
    let feature = format!("{tensor}[{column}]");
    FeatureProfile {
        tensor: tensor.into(),
        column,
        feature,
        role,
        source: Source::Value,
        rows: 1,
        missing: 0,
        nonfinite: 0,
        precision: None,
        distribution,
    }
}

fn fit(features: Vec<FeatureProfile>) -> Vec<String> {
    Profile { format: Profile::FORMAT, rows: 1, learnt_from: None, features, components: None }.fit(&signature())
}

#[test]
fn fitting_profile_has_no_misfit() {
    use FeatureRole::{Input, Output};
    let features = vec![
        feature(Input, "x", 1, None),
        feature(Input, "n", 0, None),
        feature(Input, "s", 7, Some("anything")),
        feature(Output, "y", 0, Some("true")),
    ];
    assert_eq!(fit(features), Vec::<String>::new());
    assert!(fit(vec![feature(Input, "n", 0, Some("-3"))]).is_empty());
    for number in ["0.1", "3", "-2.5", "inf"] {
        assert!(fit(vec![feature(Input, "x", 0, Some(number))]).is_empty(), "{number}");
    }
    for other_spelling in ["3.0", "+3", "0.10000000149011612", "-0", "NaN", "1e2"] {
        assert_eq!(fit(vec![feature(Input, "x", 0, Some(other_spelling))]).len(), 1, "{other_spelling}");
    }
}

#[test]
fn unfit_profile_names_every_misfit() {
    use FeatureRole::{Input, Output};
    let misfits = fit(vec![
        feature(Input, "y", 0, None),
        feature(Input, "x", 2, None),
        feature(Input, "x", 0, Some("a")),
        feature(Input, "s", 0, None),
        feature(Input, "n", 0, Some("1.0")),
        feature(Output, "y", 0, Some("1")),
    ]);
    assert_eq!(
        misfits,
        [
            "input 'y' is unknown: the model has 'x', 'n', 's'",
            "feature 'x[2]' is column 2 of input 'x', which has 2 (counted from 0)",
            "feature 'x[0]' has the category 'a', which is no FP32 of input 'x'",
            "feature 's[0]' is numeric, but input 's' has datatype BYTES",
            "feature 'n[0]' has the category '1.0', which is no INT64 of input 'n'",
            "feature 'y[0]' has the category '1', which is no BOOL of output 'y'",
        ]
    );
}
