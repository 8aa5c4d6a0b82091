//! Says of each ONNX file that is named, a line each on standard input, whether its rows are independent: a line of JSON
//! each. For the differential test in `tests/clients/test_independence.py`.

use std::{error::Error, fs, io};

use prost::Message;
use serde_json::json;
use tidegate::{
    independence::{BatchAxis, Verdict, prove},
    proto::onnx::ModelProto,
};

fn main() -> Result<(), Box<dyn Error>> {
    let axes = |axes: &[BatchAxis]| axes.iter().map(|axis| json!([axis.name, axis.axis])).collect::<Vec<_>>();
    for path in io::stdin().lines() {
        let verdict = prove(&ModelProto::decode(fs::read(path?)?.as_slice())?);
        let mut line = json!({ "outcome": verdict.name() });
        if let Verdict::Independent(proof) = &verdict {
            line["inputs"] = axes(&proof.inputs).into();
            line["outputs"] = axes(&proof.outputs).into();
            line["warnings"] = proof.warnings.clone().into();
        }
        if let Some(reason) = verdict.reason() {
            line["operator"] = reason.operator.clone().into();
            line["why"] = reason.to_string().into();
        }
        #[expect(clippy::print_stdout, reason = "it is what the program is for")]
        {
            println!("{line}");
        }
    }
    Ok(())
}
