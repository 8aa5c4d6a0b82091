//! The monitor on the real car-loan model and data, through the real API, against numbers that
//! NumPy and SciPy gave for the same rows.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use serde_json::{Value, json};
use tidegate::proto::{
    admin::{GetDriftSelfTestRequest, admin_service_client::AdminServiceClient},
    inference::{
        InferTensorContents, ModelInferRequest, grpc_inference_service_client::GrpcInferenceServiceClient,
        model_infer_request::InferInputTensor,
    },
};
use tonic::Code;

use crate::{
    harness::{Gateway, Repository, sample},
    onnx,
};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const NUMBERS: [&str; 4] = ["car_value", "debt_to_income_ratio", "loan_length", "driver_tenure"];
const TEXTS: [&str; 3] = ["salary_range", "repaid_loan_on_prev_car", "size_of_downpayment"];

/// The car-loan model of the repository, version 1 only.
fn car_loan() -> Repository {
    let repository = Repository::new();
    let from = Path::new(ROOT).join("models/car_loan/1");
    let read = |name: &str| fs::read(from.join(name)).unwrap();
    repository.add_files(
        "car_loan",
        1,
        &[("model.onnx", &read("model.onnx")), ("profile.json", &read("profile.json"))],
    );
    repository
}

type Row = BTreeMap<String, String>;

/// Rows of the later data, as `python3 scripts/fetch.py data` puts them here.
fn later_rows(from: usize, count: usize) -> Vec<Row> {
    let path = Path::new(ROOT).join(".artifacts/data/synthetic_car_loan_analysis.csv");
    let mut reader = csv::Reader::from_path(&path)
        .unwrap_or_else(|error| panic!("{}: {error}: run `python3 scripts/fetch.py data`", path.display()));
    reader.deserialize::<Row>().skip(from).take(count).map(Result::unwrap).collect()
}

fn request(rows: &[Row]) -> ModelInferRequest {
    let shape = vec![i64::try_from(rows.len()).unwrap(), 1];
    let numbers = NUMBERS.map(|name| {
        let fp64_contents = rows.iter().map(|row| row[name].parse().unwrap()).collect();
        (name, "FP64", InferTensorContents { fp64_contents, ..InferTensorContents::default() })
    });
    let texts = TEXTS.map(|name| {
        let bytes_contents = rows.iter().map(|row| row[name].clone().into()).collect();
        (name, "BYTES", InferTensorContents { bytes_contents, ..InferTensorContents::default() })
    });
    let inputs = numbers.into_iter().chain(texts).map(|(name, datatype, contents)| InferInputTensor {
        name: name.into(),
        datatype: datatype.into(),
        shape: shape.clone(),
        contents: Some(contents),
        ..InferInputTensor::default()
    });
    ModelInferRequest { model_name: "car_loan".into(), inputs: inputs.collect(), ..ModelInferRequest::default() }
}

async fn send(gateway: &Gateway, rows: &[Row]) {
    let mut client = GrpcInferenceServiceClient::connect(format!("http://{}", gateway.addresses.grpc)).await.unwrap();
    for rows in rows.chunks(250) {
        client.model_infer(request(rows)).await.unwrap();
    }
}

fn drift(gateway: &Gateway) -> Value {
    let (status, report) = gateway.admin("GET", "/admin/v1/models/car_loan/drift", None);
    assert_eq!(status, 200, "{report}");
    report
}

fn feature<'a>(report: &'a Value, name: &str) -> &'a Value {
    report["features"].as_array().unwrap().iter().find(|feature| feature["feature"] == name).unwrap()
}

fn live(feature: &Value) -> BTreeMap<String, u64> {
    let bins = feature["bins"].as_array().unwrap().iter();
    bins.map(|bin| (bin["bin"].as_str().unwrap().to_owned(), bin["live"].as_u64().unwrap())).collect()
}

/// Counts of the deciles, what is outside the reference's range folded into the outer ones.
fn deciles(feature: &Value) -> Vec<u64> {
    let counts = live(feature);
    let mut deciles: Vec<u64> = (0..).map_while(|bin: u32| counts.get(&bin.to_string()).copied()).collect();
    deciles[0] += counts["below"];
    *deciles.last_mut().unwrap() += counts["above"];
    deciles
}

fn measure(feature: &Value, name: &str) -> f64 {
    feature["measures"][name].as_f64().unwrap_or_else(|| panic!("{name} of {feature}"))
}

/// Rows 25,000 to 29,999 of the later data. The expected numbers: NumPy and SciPy on the same rows.
#[tokio::test(flavor = "multi_thread")]
async fn drifted_chunk_gives_exactly_the_counts_and_scores_of_independent_tools() {
    let repository = car_loan();
    let gateway = Gateway::start(&repository);
    send(&gateway, &later_rows(25_000, 5_000)).await;
    let report = tokio::task::block_in_place(|| drift(&gateway));
    assert_eq!((&report["rows"], &report["state"]), (&json!(5000), &json!("drift")));
    let truth: [(&str, &[u64], f64, f64, f64, &str); 4] = [
        (
            "car_value",
            &[0, 9, 35, 101, 267, 417, 673, 1026, 1151, 1321],
            1.837_450_023_541_106_6,
            0.466_580_605_508_347_9,
            0.420_997_426_160_445_9,
            "drift",
        ),
        (
            "loan_length",
            &[189, 838, 343, 280, 479, 353, 558, 866, 1094],
            0.315_135_103_707_330_8,
            0.232_701_852_318_216_63,
            0.196_105_638_597_142_42,
            "drift",
        ),
        (
            "debt_to_income_ratio",
            &[524, 483, 466, 530, 487, 484, 529, 489, 519, 489],
            0.001_906_506_356_212_895_6,
            0.018_559_588_422_907_083,
            0.015_452_346_046_737_177,
            "ok",
        ),
        (
            "driver_tenure",
            &[493, 511, 521, 501, 468, 509, 517, 484, 497, 499],
            0.000_916_136_658_601_612_8,
            0.012_865_747_143_022_71,
            0.010_711_730_992_691_572,
            "ok",
        ),
    ];
    for (name, counts, psi, jensen_shannon, hellinger, state) in truth {
        let feature = feature(&report, name);
        assert_eq!(deciles(feature), counts, "{name}");
        for (measure_name, expected) in [("psi", psi), ("jensen_shannon", jensen_shannon), ("hellinger", hellinger)] {
            let got = measure(feature, measure_name);
            assert!((got - expected).abs() < 1e-9, "{name} {measure_name}: {got}, expected {expected}");
        }
        assert_eq!(feature["state"], state, "{name}");
    }
    let salary = feature(&report, "salary_range");
    let counts = live(salary);
    assert_eq!((counts["0 - 20K €"], counts["60K+ €"], counts["unseen"]), (2218, 48, 0));
    assert!((measure(salary, "psi") - 0.223_986_178_109_007_7).abs() < 1e-9);
    assert!((measure(salary, "chi_square") - 455.622_093_695_251_46).abs() < 1e-6);
}

#[tokio::test(flavor = "multi_thread")]
async fn clean_chunk_raises_no_alarm() {
    let repository = car_loan();
    let gateway = Gateway::start(&repository);
    send(&gateway, &later_rows(5_000, 5_000)).await;
    let report = tokio::task::block_in_place(|| drift(&gateway));
    assert_eq!(report["state"], "ok", "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answered_row_is_on_the_metrics_once() {
    let repository = car_loan();
    let gateway = Gateway::start(&repository);
    let before = tokio::task::block_in_place(|| gateway.metrics());
    let bin = |text: &str, bin: &str| {
        sample(text, "tidegate_feature_bin_total", &[("version", "1"), ("feature", "car_value"), ("bin", bin)])
    };
    for name in ["0", "9", "below", "above", "missing", "nonfinite"] {
        assert_eq!(bin(&before, name), Some(0.0), "every bin is there from the start: {name}");
    }
    let mut rows = later_rows(25_000, 300);
    for (index, value) in ["NaN", "inf", "-1", "1e9"].into_iter().enumerate() {
        rows[index].insert("car_value".into(), value.into());
    }
    rows[4].insert("salary_range".into(), "never seen".into());
    rows[5].insert("salary_range".into(), String::new());
    send(&gateway, &rows).await;
    let text = tokio::task::block_in_place(|| gateway.metrics());
    for (name, expected) in [("missing", 1.0), ("nonfinite", 1.0), ("below", 1.0), ("above", 1.0)] {
        assert_eq!(bin(&text, name), Some(expected), "{name}");
    }
    let of = |name: &str, feature: &str| sample(&text, name, &[("version", "1"), ("feature", feature)]);
    assert_eq!(of("tidegate_feature_observations_total", "car_value"), Some(300.0));
    assert_eq!(of("tidegate_feature_missing_total", "car_value"), Some(1.0));
    assert_eq!(of("tidegate_feature_out_of_range_total", "car_value"), Some(2.0));
    assert_eq!(of("tidegate_feature_unseen_category_total", "salary_range"), Some(1.0));
    assert_eq!(of("tidegate_feature_observations_total", "repaid"), Some(300.0), "outputs are counted like inputs");
    let all: f64 = text
        .lines()
        .filter(|line| line.starts_with("tidegate_feature_bin_total{") && line.contains("feature=\"car_value\""))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum();
    assert_eq!(all, 300.0, "each row is in exactly one bin");
    assert_eq!(sample(&text, "tidegate_monitor_dropped_total", &[]), Some(0.0));
    // Distances are those of the last look: one comes every second.
    let psi = [("feature", "car_value"), ("measure", "psi"), ("window", "5m")];
    let found = tokio::task::block_in_place(|| {
        gateway.wait("a look at the rows", || gateway.metric("tidegate_drift_score", &psi))
    });
    assert!(found > 0.2, "{found}");
}

#[test]
fn drift_report_has_the_keys_of_the_contract() {
    let repository = car_loan();
    let gateway = Gateway::start(&repository);
    let report = drift(&gateway);
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let has = |value: &Value, names: &[&str]| {
        let keys = keys(value);
        let lacking: Vec<_> = names.iter().filter(|name| !keys.contains(&(**name).to_owned())).collect();
        assert!(lacking.is_empty(), "{lacking:?} of {keys:?}");
    };
    has(&report, &["model", "version", "window", "rows", "state", "features"]);
    let feature = feature(&report, "car_value");
    let names = ["tensor", "feature", "kind", "rows", "missing", "state", "threshold", "measures", "bins"];
    has(feature, &names);
    let measures = [
        "psi",
        "psi_corrected",
        "jensen_shannon",
        "hellinger",
        "kolmogorov_smirnov",
        "wasserstein",
        "chi_square",
        "p_value",
        "total_variation",
        "cramers_v",
        "l_infinity",
    ];
    has(&feature["measures"], &measures);
    has(&feature["bins"][0], &["bin", "reference", "live"]);
    let (_, unmonitored) = gateway.admin("GET", "/admin/v1/models/none/drift", None);
    assert!(unmonitored["error"].as_str().unwrap().contains("none"));
}

#[tokio::test(flavor = "multi_thread")]
async fn self_test_says_the_same_over_both_protocols() {
    let repository = car_loan();
    let gateway = Gateway::start(&repository);
    let (status, rest) = tokio::task::block_in_place(|| {
        gateway.admin("GET", "/admin/v1/models/car_loan/drift/self-test?version=1&window=5m", None)
    });
    assert_eq!((status, &rest["rows"], &rest["false_drifts"]), (200, &json!(200), &json!(0)), "{rest}");
    assert_eq!((&rest["window"], &rest["model"]), (&json!("5m"), &json!("car_loan")));
    assert_eq!((&rest["miscounted"], &rest["live_rows"]), (&json!(0), &json!(0)));
    let mut admin = AdminServiceClient::connect(format!("http://{}", gateway.addresses.admin)).await.unwrap();
    let asked = GetDriftSelfTestRequest { model: "car_loan".into(), version: 0, window: "5m".into() };
    let grpc = admin.get_drift_self_test(asked.clone()).await.unwrap().into_inner();
    assert_eq!((rest["alpha"].as_f64(), rest["chance_rate"].as_f64()), (Some(grpc.alpha), Some(grpc.chance_rate)));
    assert_eq!(rest["features"].as_array().unwrap().len(), grpc.features.len());
    let shift = feature(&rest, "car_value")["shifts"][1].clone();
    let found = grpc.features.iter().find(|feature| feature.feature == "car_value").unwrap().shifts[1];
    assert_eq!(shift, json!({"power": found.power, "psi": found.psi, "sigma": found.sigma, "found": found.found}));
    let refused = admin.get_drift_self_test(GetDriftSelfTestRequest { window: "90d".into(), ..asked }).await;
    assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
}

#[test]
fn version_without_a_profile_is_served_and_says_so() {
    let repository = Repository::new();
    repository.add("m", 1, &onnx::add(1));
    let gateway = Gateway::start(&repository);
    assert_eq!(gateway.run_add("/v2/models/m/infer", 0.0).0, 200);
    for place in ["drift", "drift/self-test"] {
        let (status, answer) = gateway.admin("GET", &format!("/admin/v1/models/m/{place}"), None);
        assert!(status == 404 && answer["error"].as_str().unwrap().contains("profile.json"), "{answer}");
    }
}

/// `tidegate profile` makes the committed profile again: inputs exactly, outputs as near as
/// another processor's arithmetic allows.
#[test]
fn profile_command_makes_the_committed_profile() {
    let out = tempfile::tempdir().unwrap();
    let file = out.path().join("profile.json");
    let status = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .current_dir(ROOT)
        .args(["profile", "models/car_loan/1", "--data", ".artifacts/data/synthetic_car_loan_reference.csv", "--out"])
        .arg(&file)
        .status()
        .unwrap();
    assert!(status.success());
    let read = |path: &Path| serde_json::from_slice::<Value>(&fs::read(path).unwrap()).unwrap();
    let committed = read(&Path::new(ROOT).join("models/car_loan/1/profile.json"));
    let made = read(&file);
    let features = |profile: &Value| profile["features"].as_array().unwrap().clone();
    assert_eq!((features(&made).len(), &made["rows"]), (features(&committed).len(), &json!(50_000)));
    for (made, committed) in features(&made).iter().zip(&features(&committed)) {
        if committed["role"] == "input" {
            assert_eq!(made, committed, "run `make profiles`");
        } else {
            assert!(is_near(made, committed), "run `make profiles`: {made} for {committed}");
        }
    }
}

/// The rows of a CSV file as Parquet, typed as pandas would type them.
fn write_parquet(rows: &[Row], path: &Path) {
    use parquet::{
        data_type::{BoolType, ByteArray, ByteArrayType, DoubleType},
        file::writer::SerializedFileWriter,
        schema::parser::parse_message_type,
    };
    let numbers = NUMBERS.map(|name| format!("REQUIRED DOUBLE {name};")).concat();
    let texts = "REQUIRED BYTE_ARRAY salary_range (UTF8); REQUIRED BYTE_ARRAY size_of_downpayment (UTF8);";
    let schema = format!("message schema {{ {numbers} {texts} REQUIRED BOOLEAN repaid_loan_on_prev_car; }}");
    let schema = parse_message_type(&schema).unwrap().into();
    let mut writer =
        SerializedFileWriter::new(fs::File::create(path).unwrap(), schema, std::sync::Arc::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    for name in NUMBERS {
        let values: Vec<f64> = rows.iter().map(|row| row[name].parse().unwrap()).collect();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<DoubleType>().write_batch(&values, None, None).unwrap();
        column.close().unwrap();
    }
    for name in ["salary_range", "size_of_downpayment"] {
        let values: Vec<_> = rows.iter().map(|row| ByteArray::from(row[name].as_str())).collect();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&values, None, None).unwrap();
        column.close().unwrap();
    }
    let values: Vec<_> = rows.iter().map(|row| row["repaid_loan_on_prev_car"] == "True").collect();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<BoolType>().write_batch(&values, None, None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
}

#[test]
fn profile_from_parquet_equals_the_one_from_csv() {
    let directory = tempfile::tempdir().unwrap();
    let rows = later_rows(0, 2_000);
    let (parquet, csv) = (directory.path().join("rows.parquet"), directory.path().join("rows.csv"));
    write_parquet(&rows, &parquet);
    let mut writer = csv::Writer::from_path(&csv).unwrap();
    writer.write_record(rows[0].keys()).unwrap();
    for row in &rows {
        writer.write_record(row.values()).unwrap();
    }
    writer.flush().unwrap();
    let profile = |data: &Path| {
        let out = data.with_extension("json");
        let status = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .current_dir(ROOT)
            .args(["profile", "models/car_loan/1", "--data"])
            .arg(data)
            .arg("--out")
            .arg(&out)
            .status()
            .unwrap();
        assert!(status.success());
        fs::read_to_string(out).unwrap()
    };
    let made = profile(&parquet);
    assert!(made.contains("\"True\"") && made == profile(&csv));
}

#[test]
fn profile_command_refuses_data_without_rows_and_keeps_the_old_profile() {
    let repository = car_loan();
    let version = repository.version("car_loan", 1);
    let before = fs::read(version.join("profile.json")).unwrap();
    let data = repository.path().join("empty.csv");
    fs::write(&data, format!("{},{}\n", NUMBERS.join(","), TEXTS.join(","))).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .current_dir(ROOT)
        .arg("profile")
        .arg(&version)
        .arg("--data")
        .arg(&data)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("no rows"));
    assert_eq!(fs::read(version.join("profile.json")).unwrap(), before);
}

/// Equal but for rounding: counts within 10 rows, other numbers within 1e-4.
fn is_near(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Object(left), Value::Object(right)) => {
            left.keys().eq(right.keys()) && left.values().zip(right.values()).all(|(left, right)| is_near(left, right))
        }
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| is_near(left, right))
        }
        (Value::Number(left), Value::Number(right)) if left.is_u64() && right.is_u64() => {
            left.as_u64().unwrap().abs_diff(right.as_u64().unwrap()) <= 10
        }
        (Value::Number(left), Value::Number(right)) => (left.as_f64().unwrap() - right.as_f64().unwrap()).abs() <= 1e-4,
        _ => left == right,
    }
}
