//! Are the gateway's answers right? Speed counts only then.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use prost::Message;
use serde_json::Value;
use tidegate::proto::inference::{ModelInferResponse, grpc_inference_service_client::GrpcInferenceServiceClient};

use crate::{
    models::{BenchModel, MODELS},
    plain,
    requests::{self, BINARY_HEADER, Protocol},
};

#[derive(clap::Args)]
pub struct Args {
    /// The gateway's HTTP address.
    #[arg(long)]
    http: String,
    /// The gateway's gRPC address.
    #[arg(long)]
    grpc: String,
    /// The repository that it serves.
    #[arg(long)]
    models: PathBuf,
    /// Where the answers go, as `MODEL.PROTOCOL`.
    #[arg(long)]
    out: PathBuf,
}

/// Asks each request once.
pub fn check(args: &Args) -> Result<()> {
    fs::create_dir_all(&args.out)?;
    let environment = plain::environment()?;
    for model in &MODELS {
        let expected = plain::first_floats(&environment, &args.models, model)?;
        for protocol in Protocol::ALL {
            let answer = ask(args, model, protocol).and_then(|(body, floats)| {
                compare(&floats, &expected)?;
                Ok(body)
            });
            let body = answer.with_context(|| format!("{} over {}", model.name, protocol.name()))?;
            fs::write(args.out.join(format!("{}.{}", model.name, protocol.name())), body)?;
        }
    }
    println!("{} answers are right", MODELS.len() * Protocol::ALL.len());
    Ok(())
}

fn compare(found: &[f32], expected: &[f32]) -> Result<()> {
    let is_close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-5 + 1e-4 * b.abs();
    let is_right = found.len() == expected.len() && found.iter().zip(expected).all(is_close);
    ensure!(is_right, "the answer is {found:?}, plain ONNX Runtime says {expected:?}");
    Ok(())
}

/// The body of the answer, and its first FP32 output.
fn ask(args: &Args, model: &BenchModel, protocol: Protocol) -> Result<(Vec<u8>, Vec<f32>)> {
    match protocol {
        Protocol::Grpc => ask_grpc(args, model),
        Protocol::Json => {
            let (body, _) = post(args, model, requests::json(model)?, None)?;
            let answer: Value = serde_json::from_slice(&body)?;
            let output = first_fp32(&answer)?;
            let floats = serde_json::from_value(output["data"].clone())?;
            Ok((body, floats))
        }
        Protocol::Binary => {
            let (request, length) = requests::binary(model);
            let (body, length) = post(args, model, request, Some(length))?;
            let (head, tail) = body.split_at(length.context("the answer has no binary part")?);
            let answer: Value = serde_json::from_slice(head)?;
            let floats = floats_of(fp32_place(&answer, tail)?);
            Ok((body, floats))
        }
    }
}

fn ask_grpc(args: &Args, model: &BenchModel) -> Result<(Vec<u8>, Vec<f32>)> {
    let address = format!("http://{}", args.grpc);
    let request = requests::grpc(model);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer: ModelInferResponse = runtime.block_on(async {
        let mut client = GrpcInferenceServiceClient::connect(address).await?;
        anyhow::Ok(client.model_infer(request).await?.into_inner())
    })?;
    let place = answer.outputs.iter().position(|output| output.datatype == "FP32").context("no FP32 output")?;
    let raw: &Bytes = answer.raw_output_contents.get(place).context("the output has no bytes")?;
    Ok((answer.encode_to_vec(), floats_of(raw)))
}

/// The body of the answer, and the length of its JSON when it has a binary part.
fn post(args: &Args, model: &BenchModel, body: Vec<u8>, length: Option<usize>) -> Result<(Vec<u8>, Option<usize>)> {
    let mut request = ureq::post(format!("http://{}/v2/models/{}/infer", args.http, model.name));
    if let Some(length) = length {
        request = request.header(BINARY_HEADER, length.to_string());
    }
    let mut answer = request.send(body)?;
    let length = answer.headers().get(BINARY_HEADER).map(|value| value.to_str()).transpose()?;
    let length = length.map(str::parse).transpose()?;
    Ok((answer.body_mut().read_to_vec()?, length))
}

fn first_fp32(answer: &Value) -> Result<&Value> {
    let outputs = answer["outputs"].as_array().context("the answer has no outputs")?;
    outputs.iter().find(|output| output["datatype"] == "FP32").context("no FP32 output")
}

/// The bytes of the first FP32 output behind the JSON.
fn fp32_place<'a>(answer: &Value, mut tail: &'a [u8]) -> Result<&'a [u8]> {
    for output in answer["outputs"].as_array().context("the answer has no outputs")? {
        let size = output["parameters"]["binary_data_size"].as_u64().context("an output is not binary")?;
        let (bytes, rest) = tail.split_at_checked(usize::try_from(size)?).context("the answer is too short")?;
        if output["datatype"] == "FP32" {
            return Ok(bytes);
        }
        tail = rest;
    }
    bail!("no FP32 output")
}

fn floats_of(raw: &[u8]) -> Vec<f32> {
    raw.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}
