//! Tests of reading tables.

use std::{io::Write, sync::Arc};

use parquet::{
    basic::{ConvertedType, LogicalType, Repetition, TimeUnit, Type as Physical},
    data_type::{DataType as ParquetType, FixedLenByteArray, FixedLenByteArrayType, Int32Type, Int96, Int96Type},
    schema::types::{Type, TypePtr},
};
use parquet::{
    data_type::{BoolType, ByteArray, ByteArrayType, DoubleType, Int64Type},
    file::writer::SerializedFileWriter,
    schema::parser::parse_message_type,
};
use tempfile::NamedTempFile;

use super::*;
use crate::domain::{DataType, Shape, Tensor};

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
    let batches = read_all(&[file.path().into()], inputs, rows)?;
    assert!(batches.iter().all(|batch| batch.inputs.iter().all(|input| input.shape().rows() == batch.rows)));
    Ok(batches.into_iter().map(|batch| batch.inputs).collect())
}

fn read_all(paths: &[PathBuf], inputs: &[TensorSpec], rows: usize) -> Result<Vec<Batch>, String> {
    let table = Table::open_all(paths, TableOptions::default()).map_err(|error| error.to_string())?;
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
fn fixed_first_dimension_sets_the_rows_of_a_batch_and_all_rows_are_used() {
    let text = spec("s", DataType::Bytes, &[Dim::Fixed(4)]);
    let file = csv("x,s\n1,a\n2,b\n3,c\n4,d\n5,e\n6,f\n");
    let table = Table::open(file.path()).unwrap();
    let signature = signature(&[spec("x", DataType::Fp32, &[Dim::Fixed(4), Dim::Fixed(1)]), text]);
    let mut batches = table.batches(&signature, &ColumnNames::default(), 10).unwrap();
    let first = batches.next().unwrap().unwrap();
    assert_eq!((first.rows, floats(&first.inputs[0])), (4, vec![1.0, 2.0, 3.0, 4.0]));
    assert_eq!(batches.notes(), [""; 0]);
    let last = batches.next().unwrap().unwrap();
    assert_eq!((last.rows, floats(&last.inputs[0])), (2, vec![5.0, 6.0, 5.0, 6.0]));
    assert_eq!(floats(&last.own_rows(&last.inputs[0])), [5.0, 6.0]);
    assert_eq!(last.own_rows(&last.inputs[1]).to_raw().as_ref(), b"\x01\0\0\0e\x01\0\0\0f");
    // An output that has other rows is left as it is.
    let whole = Tensor::plain("y", DataType::Uint8, Shape::new(vec![1]).unwrap(), vec![7].into()).unwrap();
    assert_eq!(last.own_rows(&whole), whole);
    assert!(batches.next().is_none());
    assert_eq!(
        batches.notes(),
        [
            "the model takes 4 rows at a time: the last run was filled up with 2 repeated rows, whose outputs are left out"
        ]
    );
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
    assert_eq!(
        refusal("x,y,x\n1,2,3\n", &x(DataType::Fp32)),
        "FILE has the column 'x' twice: it is its columns 1 and 3"
    );
    assert_eq!(
        read(&csv("y,x,y\n1,2,3\n"), &x(DataType::Fp32), 1).map(|batches| floats(&batches[0][0])),
        Ok(vec![2.0])
    );
    assert_eq!(
        refusal("X,y\n1,2\n", &x(DataType::Fp32)),
        "FILE has no column 'x', which input 'x' needs: it has 'X', 'y'. Did you mean 'X'? Names must be the same in every letter"
    );
    let latin = NamedTempFile::new().unwrap();
    std::fs::write(latin.path(), b"x\nM\xfcnchen\n").unwrap();
    assert!(read(&latin, &x(DataType::Bytes), 1).unwrap_err().contains("a value that is not UTF-8"));
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

#[test]
fn matrix_without_names_is_told_how_to_name_its_columns() {
    let x = |columns| [spec("X", DataType::Fp32, &[ANY, Dim::Fixed(columns)])];
    assert_eq!(
        refusal("sepal length,width,species\n1,2,setosa\n", &x(2)),
        "FILE has no column 'X[0]' (nor 1 more), which input 'X' needs: it has 'sepal length', 'width', 'species'. Say which 2 \
         columns input 'X' has, in the order that the model was trained on (these are the numeric ones of the file, in its \
         order): --columns 'X=sepal length,width', or for good in model.toml:\n[columns]\nX = [\"sepal length\", \"width\"]"
    );
    let refused = refusal("a,b,target\n1,2,0\n", &x(2));
    assert!(refused.ends_with("--columns 'X=…', or for good in model.toml:\n[columns]\nX = [\"…\"]"), "{refused}");
    let header: Vec<_> = (0..3072).map(|at| format!("pixel{at}")).collect();
    let refused = refusal(&(header.join(",") + "\n"), &x(3072));
    assert!(
        refused.contains("'pixel11' and 3060 more. Input 'X' has 3072 columns: a column of lists named 'X'"),
        "{refused}"
    );
    assert!(refused.len() < 600, "{refused}");
}

#[test]
fn lines_of_json_are_rows_and_arrays_are_lists() {
    let file = csv(
        "{\"s\": \"red\", \"x\": 1, \"v\": [[1, 2], [3, null]]}\n\n{\"v\": [[5, 6], [7, 8]], \"s\": 1.0, \"id\": 7}\n",
    );
    let inputs = [
        spec("x", DataType::Fp64, &[ANY]),
        spec("s", DataType::Bytes, &[ANY]),
        spec("v", DataType::Fp32, &[ANY, Dim::Fixed(2), Dim::Fixed(2)]),
    ];
    assert_eq!(Table::open(file.path()).unwrap().columns(), ["s", "v", "x", "id"]);
    let batches = read(&file, &inputs, 5).unwrap();
    assert_eq!(batches[0][1].to_raw().as_ref(), b"\x03\0\0\0red\x03\0\0\x001.0");
    assert_eq!(batches[0][2].shape().dimensions(), [2, 2, 2]);
    let numbers = floats(&batches[0][2]);
    assert!(numbers[3].is_nan());
    assert_eq!(numbers[4..], [5.0, 6.0, 7.0, 8.0]);
    let refused = refusal("{\"x\": 1}\n{\"x\": }\n", &inputs[..1]);
    assert!(refused.starts_with("FILE, line 2: it is not an object of JSON: expected value"), "{refused}");
    assert_eq!(refusal("{\"x\": {}}\n", &inputs[..1]), "FILE, row 1, column 'x': an object is not a number");
}

#[test]
fn list_fills_an_input_that_it_fits() {
    let lists = |rows: &[&str], shape: &[Dim]| {
        let text = rows.iter().map(|row| format!("{{\"v\": {row}}}\n")).collect::<Vec<_>>().concat();
        let file = csv(&text);
        let read = read(&file, &[spec("v", DataType::Int64, shape)], 10);
        let read = read.map(|batches| batches[0][0].shape().dimensions().to_vec());
        read.map_err(|error| error.split_once("row ").map_or(error.clone(), |(_, fault)| fault.to_owned()))
    };
    let two = Dim::Fixed(2);
    assert_eq!(lists(&["[1, 2]", "[3, 4]"], &[ANY, two]), Ok(vec![2, 2]));
    assert_eq!(lists(&["[1, 2, 3]"], &[ANY, ANY]), Ok(vec![1, 3]), "as long as the list is");
    assert_eq!(lists(&["[1, 2, 3, 4]"], &[ANY, two, two]), Ok(vec![1, 2, 2]), "flat");
    assert_eq!(lists(&["[1, 2, 3, 4, 5, 6]"], &[ANY, ANY, two]), Ok(vec![1, 3, 2]));
    assert_eq!(lists(&["[[1, 2, 3]]"], &[ANY, ANY, ANY]), Ok(vec![1, 1, 3]));
    assert_eq!(lists(&["[[1, 2, 3]]"], &[Dim::Unranked]), Ok(vec![1, 1, 3]));
    let cases: [(&[&str], &[Dim], &str); 8] = [
        (
            &["[1, 2]", "[3]"],
            &[ANY, ANY],
            "2, column 'v': its list has the shape [1], those before have [2]: pad all to one length, as clients do in a request",
        ),
        (&["[1, 2, 3]"], &[ANY, two], "1, column 'v': its list has the shape [3], a row of the input has [2]"),
        (
            &["[1, 2, 3]"],
            &[ANY, two, ANY],
            "1, column 'v': its list has the shape [3], a row of the input has [2, any]",
        ),
        (
            &["[1, 2]"],
            &[ANY, ANY, ANY],
            "1, column 'v': its list has the shape [2], a row of the input has [any, any]: nest the list as the input is",
        ),
        (
            &["[[1, 2], [3]]"],
            &[ANY, ANY, ANY],
            "1, column 'v': the lists in its list are not alike: they have different lengths, or some are no lists",
        ),
        (&["[1, 2]", "null"], &[ANY, two], "2, column 'v': the list is missing, and a row cannot say so"),
        (&["[1, 2]", "3"], &[ANY, two], "2, column 'v': the value is no list, as others in the column are"),
        (
            &["[1, null]"],
            &[ANY, two],
            "1, column 'v': value 2 of the list: the value is missing, and INT64 cannot say so",
        ),
    ];
    for (rows, shape, message) in cases {
        assert_eq!(lists(rows, shape), Err(message.to_owned()));
    }
}

#[test]
fn parts_are_one_table_and_partitions_are_columns() {
    let root = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = root.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("date=2026-01-01/a.csv", "x\n1\n2\n");
    write("date=2026-01-02/a.csv", "y,x\n0,3\n");
    let inputs = [spec("x", DataType::Fp32, &[ANY]), spec("date", DataType::Bytes, &[ANY])];
    let batches = read_all(&[root.path().into()], &inputs, 2).unwrap();
    assert_eq!(batches.iter().map(|batch| floats(&batch.inputs[0])).collect::<Vec<_>>(), [vec![1.0, 2.0], vec![3.0]]);
    assert_eq!(batches[1].inputs[1].to_raw().as_ref(), b"\x0a\0\0\x002026-01-02");
    write("date=2026-01-03/a.csv", "z\n0\n");
    let refused = read_all(&[root.path().into()], &inputs, 2).unwrap_err();
    assert!(
        refused.contains("date=2026-01-03/a.csv has no column 'x', which input 'x' needs: it has 'z', 'date'"),
        "{refused}"
    );
    write("date=2026-01-03/a.csv", "x\n4\nbad\n");
    let refused = read_all(&[root.path().into()], &inputs, 2).unwrap_err();
    assert!(refused.contains("date=2026-01-03/a.csv, row 2, column 'x': 'bad' is not a number"), "{refused}");
}

#[test]
fn semicolons_and_decimal_commas_are_read_and_said() {
    let file = csv("x;s\n1,5;a,b\n-2,25;\n");
    let inputs = [spec("x", DataType::Fp32, &[ANY]), spec("s", DataType::Bytes, &[ANY])];
    let batches = read(&file, &inputs, 5).unwrap();
    assert_eq!(floats(&batches[0][0]), [1.5, -2.25]);
    assert_eq!(batches[0][1].to_raw().as_ref(), b"\x03\0\0\0a,b\0\0\0\0");
    let notes = Table::open(file.path()).unwrap().notes();
    assert!(notes[0].ends_with(": fields are separated by ';', decimals have a comma"), "{notes:?}");
}

#[test]
fn whole_numbers_with_a_point_as_texts_are_said() {
    let noted = |text: &str| {
        let file = csv(text);
        let table = Table::open(file.path()).unwrap();
        let signature = signature(&[spec("s", DataType::Bytes, &[ANY])]);
        let mut batches = table.batches(&signature, &ColumnNames::default(), 9).unwrap();
        batches.by_ref().for_each(|batch| drop(batch.unwrap()));
        batches.notes().concat()
    };
    for text in ["s\n1.0\n\n-2.0\n", "{\"s\": 1.0}\n{\"s\": null}\n"] {
        assert!(noted(text).starts_with("warning: 's': a text input has whole numbers with a point"), "{text}");
    }
    for text in ["s\n1.0\n2.5\n", "s\n1\n", "s\n.0\n", "s\n", "{\"s\": 1}\n"] {
        assert_eq!(noted(text), "", "{text}");
    }
}

/// A file of one required column.
fn column<T: ParquetType>(field: Type, values: &[T::T]) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    let schema = Type::group_type_builder("schema").with_fields(vec![TypePtr::new(field)]).build().unwrap();
    let mut writer = SerializedFileWriter::new(file.reopen().unwrap(), Arc::new(schema), Arc::default()).unwrap();
    let mut rows = writer.next_row_group().unwrap();
    let mut column = rows.next_column().unwrap().unwrap();
    column.typed::<T>().write_batch(values, None, None).unwrap();
    column.close().unwrap();
    rows.close().unwrap();
    writer.close().unwrap();
    file
}

fn field(physical: Physical) -> parquet::schema::types::PrimitiveTypeBuilder<'static> {
    Type::primitive_type_builder("x", physical).with_repetition(Repetition::REQUIRED)
}

#[test]
fn decimals_of_every_physical_form_are_numbers_and_texts() {
    let decimal = |physical, length, precision| {
        let field = field(physical).with_converted_type(ConvertedType::DECIMAL);
        field.with_length(length).with_precision(precision).with_scale(1).build().unwrap()
    };
    let bytes = |number: i64| number.to_be_bytes().to_vec();
    let files = [
        column::<Int32Type>(decimal(Physical::INT32, -1, 9), &[5, -15]),
        column::<Int64Type>(decimal(Physical::INT64, -1, 12), &[5, -15]),
        column::<ByteArrayType>(decimal(Physical::BYTE_ARRAY, -1, 12), &[vec![5].into(), vec![0xf1].into()]),
        column::<FixedLenByteArrayType>(
            decimal(Physical::FIXED_LEN_BYTE_ARRAY, 8, 12),
            &[5, -15].map(|number| FixedLenByteArray::from(bytes(number))),
        ),
    ];
    for file in files {
        let numbers = read(&file, &[spec("x", DataType::Fp32, &[ANY])], 5).unwrap();
        assert_eq!(floats(&numbers[0][0]), [0.5, -1.5]);
        let texts = read(&file, &[spec("x", DataType::Bytes, &[ANY])], 5).unwrap();
        assert_eq!(texts[0][0].to_raw().as_ref(), b"\x03\0\0\x000.5\x04\0\0\0-1.5");
    }
}

#[test]
fn types_that_fit_no_tensor_are_refused_alike_and_uuids_are_texts() {
    let stamp = |unit| Some(LogicalType::timestamp(true, unit));
    let logical = |physical, logical| field(physical).with_logical_type(logical).build().unwrap();
    let time = Some(LogicalType::time(true, TimeUnit::NANOS));
    let interval = field(Physical::FIXED_LEN_BYTE_ARRAY).with_converted_type(ConvertedType::INTERVAL).with_length(12);
    let twelve = FixedLenByteArray::from(vec![0; 12]);
    let files = [
        (column::<Int64Type>(logical(Physical::INT64, stamp(TimeUnit::MILLIS)), &[1]), "a timestamp"),
        (column::<Int64Type>(logical(Physical::INT64, stamp(TimeUnit::MICROS)), &[1]), "a timestamp"),
        (column::<Int64Type>(logical(Physical::INT64, stamp(TimeUnit::NANOS)), &[1]), "a timestamp"),
        (column::<Int96Type>(field(Physical::INT96).build().unwrap(), &[Int96::new()]), "a timestamp"),
        (column::<Int64Type>(logical(Physical::INT64, time), &[1]), "a time of day"),
        (column::<Int32Type>(logical(Physical::INT32, Some(LogicalType::Date)), &[1]), "a date"),
        (column::<FixedLenByteArrayType>(interval.build().unwrap(), &[twelve]), "an interval"),
    ];
    for (file, what) in files {
        for datatype in [DataType::Fp32, DataType::Int64, DataType::Bytes] {
            let refused = read(&file, &[spec("x", datatype, &[ANY])], 5).unwrap_err();
            let expected = format!(
                ", column 'x': it is {what}, which no tensor has: write it as the number or the text that clients send"
            );
            assert!(refused.ends_with(&expected), "{refused}");
        }
    }
    let uuid = field(Physical::FIXED_LEN_BYTE_ARRAY).with_logical_type(Some(LogicalType::Uuid)).with_length(16);
    let file = column::<FixedLenByteArrayType>(uuid.build().unwrap(), &[FixedLenByteArray::from(vec![0xab; 16])]);
    let texts = read(&file, &[spec("x", DataType::Bytes, &[ANY])], 5).unwrap();
    assert_eq!(&texts[0][0].to_raw()[4..], b"abababab-abab-abab-abab-abababababab");
    let half = field(Physical::FIXED_LEN_BYTE_ARRAY).with_logical_type(Some(LogicalType::Float16)).with_length(2);
    let file = column::<FixedLenByteArrayType>(half.build().unwrap(), &[FixedLenByteArray::from(vec![0x00, 0x3e])]);
    assert_eq!(floats(&read(&file, &[spec("x", DataType::Fp32, &[ANY])], 5).unwrap()[0][0]), [1.5]);
}

fn read_as_one(file: &NamedTempFile, name: &str) -> String {
    read(file, &[spec(name, DataType::Fp32, &[ANY])], 5).unwrap_err()
}

#[test]
fn nested_columns_of_parquet_are_lists_or_named() {
    let schema = "message schema {
        REQUIRED GROUP v (LIST) { REPEATED GROUP list { OPTIONAL FLOAT element; } }
        REPEATED INT32 bare;
        REQUIRED GROUP old (LIST) { REPEATED INT32 element; }
        REQUIRED GROUP s { REQUIRED INT32 a; }
        REQUIRED GROUP m (MAP) { REPEATED GROUP key_value { REQUIRED BYTE_ARRAY key (UTF8); OPTIONAL INT32 value; } } }";
    let file = NamedTempFile::new().unwrap();
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut writer = SerializedFileWriter::new(file.reopen().unwrap(), schema, Arc::default()).unwrap();
    let mut rows = writer.next_row_group().unwrap();
    let mut next = |values: &[f32], numbers: &[i32], definition: &[i16], repetition: &[i16]| {
        let mut column = rows.next_column().unwrap().unwrap();
        let levels = (Some(definition), Some(repetition));
        if values.is_empty() {
            column.typed::<Int32Type>().write_batch(numbers, levels.0, levels.1).unwrap();
        } else {
            column.typed::<parquet::data_type::FloatType>().write_batch(values, levels.0, levels.1).unwrap();
        }
        column.close().unwrap();
    };
    next(&[1.0, 2.0, 4.0], &[], &[2, 2, 1, 2], &[0, 1, 0, 1]);
    next(&[], &[1, 2, 3, 4], &[1; 4], &[0, 1, 0, 1]);
    next(&[], &[5, 6, 7, 8], &[1; 4], &[0, 1, 0, 1]);
    next(&[], &[9, 9], &[0; 2], &[0; 2]);
    let mut keys = rows.next_column().unwrap().unwrap();
    keys.typed::<ByteArrayType>().write_batch(&["a".into(), "b".into()], Some(&[1, 1]), Some(&[0, 0])).unwrap();
    keys.close().unwrap();
    let mut values = rows.next_column().unwrap().unwrap();
    values.typed::<Int32Type>().write_batch(&[1, 2], Some(&[2, 2]), Some(&[0, 0])).unwrap();
    values.close().unwrap();
    rows.close().unwrap();
    writer.close().unwrap();
    let read = |name: &str| read(&file, &[spec(name, DataType::Fp32, &[ANY, Dim::Fixed(2)])], 5);
    let numbers = floats(&read("v").unwrap()[0][0]);
    assert!(numbers[2].is_nan());
    assert_eq!((&numbers[..2], &numbers[3..]), (&[1.0, 2.0][..], &[4.0][..]));
    assert_eq!(floats(&read("bare").unwrap()[0][0]), [1.0, 2.0, 3.0, 4.0]);
    assert_eq!(floats(&read("old").unwrap()[0][0]), [5.0, 6.0, 7.0, 8.0]);
    let one = |name: &str| read_as_one(&file, name);
    assert!(one("s").contains("column 's': it is a struct, which no tensor is"), "{}", one("s"));
    assert!(one("m").contains("column 'm': it is a map, which no tensor is"), "{}", one("m"));
    assert!(one("v").contains("its list has the shape [2], a row of the input has []"), "{}", one("v"));
}
