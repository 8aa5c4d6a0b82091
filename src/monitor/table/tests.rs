//! Tests of reading tables.

use std::{io::Write, sync::Arc};

use parquet::{
    data_type::{BoolType, ByteArray, ByteArrayType, DoubleType, Int64Type},
    file::writer::SerializedFileWriter,
    schema::parser::parse_message_type,
};
use tempfile::NamedTempFile;

use super::*;
use crate::domain::DataType;

fn csv(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn spec(name: &str, datatype: DataType, shape: &[Dim]) -> TensorSpec {
    TensorSpec { name: name.into(), datatype, shape: shape.to_vec(), optional: false }
}

fn signature(inputs: &[TensorSpec]) -> Signature {
    Signature { inputs: inputs.to_vec(), outputs: vec![] }
}

fn read(file: &NamedTempFile, inputs: &[TensorSpec], rows: usize) -> Result<Vec<Vec<Tensor>>, String> {
    let table = Table::open(file.path()).map_err(|error| error.to_string())?;
    let names = ColumnNames::from([("ab".into(), vec!["a".into(), "b".into()])]);
    let batches = table.batches(&signature(inputs), &names, rows).map_err(|error| error.to_string())?;
    batches.collect::<Result<_, _>>().map_err(|error| error.to_string())
}

/// The error, without the path of the temporary file.
fn refusal(text: &str, inputs: &[TensorSpec]) -> String {
    let file = csv(text);
    read(&file, inputs, 10).unwrap_err().replace(&file.path().display().to_string(), "FILE")
}

fn floats(tensor: &Tensor) -> Vec<f32> {
    tensor.to_raw().chunks(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

const ANY: Dim = Dim::Any;

#[test]
fn csv_rows_become_batches_of_input_tensors() {
    let file = csv("b,s,x,a,m[0],m[1]\n2,red,True,1,5,6\n4,,0,3,7,8\n,blue,1,5.5,9,10\n");
    let inputs = [
        spec("ab", DataType::Fp32, &[ANY, Dim::Fixed(2)]),
        spec("s", DataType::Bytes, &[ANY, Dim::Fixed(1)]),
        spec("x", DataType::Bool, &[ANY]),
        spec("m", DataType::Uint8, &[ANY, ANY]),
    ];
    let batches = read(&file, &inputs, 2).unwrap();
    assert_eq!(batches.iter().map(|batch| batch[0].shape().rows()).collect::<Vec<_>>(), [2, 1]);
    assert_eq!(floats(&batches[0][0]), [1.0, 2.0, 3.0, 4.0]);
    assert!(floats(&batches[1][0])[1].is_nan());
    assert_eq!(batches[0][1].to_raw().as_ref(), b"\x03\0\0\0red\0\0\0\0");
    assert_eq!((batches[0][2].to_raw().as_ref(), batches[0][2].shape().dimensions()), (&[1, 0][..], &[2][..]));
    assert_eq!((batches[0][3].to_raw().as_ref(), batches[0][3].shape().dimensions()), (&[5, 6, 7, 8][..], &[2, 2][..]));
    assert_eq!(Table::open(file.path()).unwrap().row_count(), 3);
}

#[test]
fn fixed_first_dimension_sets_the_rows_of_a_batch() {
    let batches =
        read(&csv("x\n1\n2\n3\n"), &[spec("x", DataType::Fp32, &[Dim::Fixed(2), Dim::Fixed(1)])], 10).unwrap();
    assert_eq!(batches.len(), 1);
    assert_eq!(floats(&batches[0][0]), [1.0, 2.0]);
}

#[test]
fn optional_input_may_be_absent_but_not_in_part() {
    let optional = |mut spec: TensorSpec| {
        spec.optional = true;
        spec
    };
    let x = spec("x", DataType::Fp32, &[ANY]);
    let ab = optional(spec("ab", DataType::Fp32, &[ANY, Dim::Fixed(2)]));
    assert_eq!(read(&csv("x\n1\n"), &[x.clone(), ab.clone()], 1).unwrap()[0].len(), 1);
    assert_eq!(refusal("x,a\n1,1\n", &[x, ab]), "FILE has no column 'b', which input 'ab' needs: it has 'x', 'a'");
}

#[test]
fn table_that_does_not_fit_is_refused_with_the_place() {
    let x = |datatype| [spec("x", datatype, &[ANY])];
    assert_eq!(refusal("x,y\n1,a\nz,b\n", &x(DataType::Fp32)), "FILE, row 2, column 'x': 'z' is not a number");
    assert_eq!(
        refusal("x,y\n1,a\n,b\n", &x(DataType::Int32)),
        "FILE, row 2, column 'x': the value is missing, and INT32 cannot say so"
    );
    assert_eq!(refusal("y\n1\n", &x(DataType::Fp32)), "FILE has no column 'x', which input 'x' needs: it has 'y'");
    assert_eq!(
        refusal("", &x(DataType::Fp32)),
        "FILE has no column 'x', which input 'x' needs: it has no columns at all"
    );
    assert_eq!(refusal("x,x\n1,2\n", &x(DataType::Fp32)), "FILE has the column 'x' twice");
    assert!(refusal("x,y\n1,2\n1\n", &x(DataType::Fp32)).contains("line: 3"), "ragged rows name the line");
    assert!(Table::open(Path::new("/nowhere/x.csv")).unwrap_err().to_string().contains("/nowhere/x.csv"));
}

#[test]
fn input_that_has_no_rows_is_refused() {
    let cases = [
        (spec("x", DataType::Fp32, &[]), "input 'x' cannot be filled from rows of a table: it is a scalar"),
        (spec("x", DataType::Fp32, &[ANY, ANY, ANY]), "dimensions of any size after the first"),
        (spec("x", DataType::Fp32, &[ANY, ANY]), "the number of its columns is not known"),
    ];
    for (spec, message) in cases {
        let refused = refusal("x\n1\n", &[spec]);
        assert!(refused.contains(message), "{refused}");
    }
    let clash = [spec("x", DataType::Fp32, &[Dim::Fixed(1)]), spec("y", DataType::Fp32, &[Dim::Fixed(2)])];
    assert!(refusal("x,y\n1,1\n", &clash).contains("it takes 2 rows at a time, input 'x' takes 1"));
}

/// Two row groups of two rows each; `n` is null in the first row.
fn parquet_file() -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    let schema =
        "message schema { REQUIRED BOOLEAN flag; OPTIONAL DOUBLE n; REQUIRED BYTE_ARRAY s (UTF8); REQUIRED INT64 i; }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut writer = SerializedFileWriter::new(file.reopen().unwrap(), schema, Arc::default()).unwrap();
    for group in 0..2_i64 {
        let mut rows = writer.next_row_group().unwrap();
        let mut column = rows.next_column().unwrap().unwrap();
        column.typed::<BoolType>().write_batch(&[true, false], None, None).unwrap();
        column.close().unwrap();
        let mut column = rows.next_column().unwrap().unwrap();
        let levels = [i16::from(group > 0), 1];
        let values: Vec<f64> = if group > 0 { vec![1.5, 2.5] } else { vec![0.5] };
        column.typed::<DoubleType>().write_batch(&values, Some(&levels), None).unwrap();
        column.close().unwrap();
        let mut column = rows.next_column().unwrap().unwrap();
        let texts = [ByteArray::from("€"), ByteArray::from("")];
        column.typed::<ByteArrayType>().write_batch(&texts, None, None).unwrap();
        column.close().unwrap();
        let mut column = rows.next_column().unwrap().unwrap();
        column.typed::<Int64Type>().write_batch(&[group, -1], None, None).unwrap();
        column.close().unwrap();
        rows.close().unwrap();
    }
    writer.close().unwrap();
    file
}

#[test]
fn parquet_rows_become_the_same_tensors() {
    // In another order than the file's, and not all of its columns.
    let inputs =
        [spec("i", DataType::Int16, &[ANY]), spec("s", DataType::Bytes, &[ANY]), spec("n", DataType::Fp32, &[ANY])];
    let file = parquet_file();
    assert_eq!(Table::open(file.path()).unwrap().row_count(), 4);
    let batches = read(&file, &inputs, 3).unwrap();
    assert_eq!(batches.iter().map(|batch| batch[0].shape().rows()).collect::<Vec<_>>(), [3, 1]);
    assert_eq!(batches[0][0].to_raw().as_ref(), [0, 0, 0xff, 0xff, 1, 0]);
    assert_eq!(batches[0][1].to_raw().as_ref(), b"\x03\0\0\0\xe2\x82\xac\0\0\0\0\x03\0\0\0\xe2\x82\xac");
    let numbers = floats(&batches[0][2]);
    assert!(numbers[0].is_nan());
    assert_eq!(numbers[1..], [0.5, 1.5]);
}

#[test]
fn broken_parquet_is_refused() {
    assert!(
        refusal("PAR1 but nothing else", &[spec("x", DataType::Fp32, &[ANY])])
            .starts_with("FILE is not a readable Parquet file")
    );
}
