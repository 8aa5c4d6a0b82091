//! The forms of files behind one face: the columns of a part, then its rows one by one.

use std::{
    collections::HashMap,
    fs::File,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use parquet::{
    errors::ParquetError,
    file::reader::{FileReader, SerializedFileReader},
    record::reader::RowIter,
    schema::types::Type,
};

use super::{
    TableError,
    cell::{Cell, Elements},
    parquet_kind::Kind,
    parts,
    text::{self, Dialect, Format, TableOptions},
    value::Value,
};
use crate::domain::DataType;

/// Columns of lines of JSON are no more than this.
const MOST_KEYS: usize = 100_000;

/// A file of a table.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) path: PathBuf,
    pub(super) format: Format,
    pub(super) columns: Vec<Column>,
    pub(super) rows: u64,
}

#[derive(Debug)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) is_list: bool,
    /// As far as the schema or the first rows tell.
    pub(super) is_number: bool,
    /// What a directory says that the file is in.
    partition: Option<Partition>,
}

/// The value of a directory called `key=value`; `None` where it is missing.
#[derive(Debug, Clone)]
struct Partition(Option<String>);

impl Part {
    /// Finds out the form and the columns, and counts the rows.
    pub(super) fn open(path: &Path, options: TableOptions) -> Result<Self, TableError> {
        let format = text::format(path, options)?;
        let (mut columns, rows) = match format {
            Format::Csv(dialect) => csv_columns(path, dialect)?,
            Format::JsonLines => json_columns(path)?,
            Format::Parquet => parquet_columns(path)?,
        };
        for (name, value) in parts::partitions(path) {
            // A file that has the column itself knows better.
            if !columns.iter().any(|column| column.name == name) {
                let is_number = value.as_deref().is_some_and(|value| is_number(Cell::Text(value.as_bytes())));
                columns.push(Column { name, is_list: false, is_number, partition: Some(Partition(value)) });
            }
        }
        Ok(Self { path: path.into(), format, columns, rows })
    }

    pub(super) fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }
}

/// Whether a value that is not missing is a number.
fn is_number(cell: Cell<'_>) -> bool {
    Elements::new(DataType::Fp64).push(cell).is_ok()
}

fn csv_columns(path: &Path, dialect: Dialect) -> Result<(Vec<Column>, u64), TableError> {
    let refused = |source| TableError::Csv { path: path.into(), source };
    let mut reader = csv_reader(path, dialect)?;
    let headers = reader.headers().map_err(refused)?.clone();
    let column = |name: &str| Column { name: name.into(), is_list: false, is_number: true, partition: None };
    let mut columns: Vec<_> = headers.iter().map(column).collect();
    let (mut record, mut rows) = (csv::ByteRecord::new(), 0);
    while reader.read_byte_record(&mut record).map_err(refused)? {
        rows += 1;
        if rows <= 100 {
            let fields = columns.iter_mut().zip(&record);
            fields.for_each(|(column, field)| column.is_number &= is_number(of_csv(field, dialect)));
        }
    }
    Ok((columns, rows))
}

fn csv_reader(path: &Path, dialect: Dialect) -> Result<csv::Reader<Box<dyn Read>>, TableError> {
    Ok(csv::ReaderBuilder::new().delimiter(dialect.delimiter).from_reader(text::read(path)?))
}

fn of_csv(field: &[u8], dialect: Dialect) -> Cell<'_> {
    match field {
        [] => Cell::Missing,
        field if std::str::from_utf8(field).is_err() => {
            Cell::Other("a value that is not UTF-8 (convert the file, such as with: iconv -f latin1 -t utf-8)")
        }
        field if dialect.decimal_comma => Cell::Comma(field),
        field => Cell::Text(field),
    }
}

fn json_columns(path: &Path) -> Result<(Vec<Column>, u64), TableError> {
    let mut lines = JsonLines::open(path)?;
    let mut columns: Vec<Column> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut rows = 0;
    while let Some(object) = lines.next(path)? {
        rows += 1;
        for (name, value) in object {
            let at = *places.entry(name).or_insert_with_key(|name| {
                columns.push(Column { name: name.clone(), is_list: false, is_number: true, partition: None });
                columns.len() - 1
            });
            let column = &mut columns[at];
            column.is_list |= value.is_array();
            column.is_number &= value.is_number() || value.is_null();
        }
        if columns.len() > MOST_KEYS {
            let reason = format!("has more than {MOST_KEYS} different keys: they are no columns");
            return Err(TableError::Files { path: path.into(), reason });
        }
    }
    Ok((columns, rows))
}

fn parquet_columns(path: &Path) -> Result<(Vec<Column>, u64), TableError> {
    let reader = parquet_reader(path)?;
    let metadata = reader.metadata().file_metadata();
    let column = |field: &Arc<Type>| {
        let kind = Kind::of(field);
        let (is_list, is_number) = (kind.is_list(), kind == Kind::Number);
        Column { name: field.name().to_owned(), is_list, is_number, partition: None }
    };
    let columns = metadata.schema().get_fields().iter().map(column).collect();
    Ok((columns, u64::try_from(metadata.num_rows()).unwrap_or(0)))
}

fn parquet_reader(path: &Path) -> Result<SerializedFileReader<File>, TableError> {
    let file = File::open(path).map_err(|source| TableError::Read { path: path.into(), source })?;
    SerializedFileReader::new(file).map_err(|source| TableError::Parquet { path: path.into(), source })
}

/// Lines of JSON, empty ones left out.
struct JsonLines {
    reader: BufReader<Box<dyn Read>>,
    text: Vec<u8>,
    line: u64,
}

impl JsonLines {
    fn open(path: &Path) -> Result<Self, TableError> {
        Ok(Self { reader: BufReader::new(text::read(path)?), text: Vec::new(), line: 0 })
    }

    fn next(&mut self, path: &Path) -> Result<Option<serde_json::Map<String, serde_json::Value>>, TableError> {
        loop {
            self.text.clear();
            let read = self.reader.read_until(b'\n', &mut self.text);
            if read.map_err(|source| TableError::Read { path: path.into(), source })? == 0 {
                return Ok(None);
            }
            self.line += 1;
            if !self.text.trim_ascii().is_empty() {
                let object = serde_json::from_slice(&self.text);
                return object.map(Some).map_err(|error| {
                    let (path, fault) = (path.into(), error.to_string());
                    TableError::Json { path, line: self.line, fault }
                });
            }
        }
    }
}

/// Where the values of a wanted column are.
enum Place {
    /// In the row, at this place.
    Row(usize),
    /// In the name of a directory.
    Directory(Option<String>),
}

/// The rows of a file, one after the other.
pub(super) struct Source {
    rows: Rows,
    places: Vec<Place>,
    wanted: Arc<[String]>,
}

enum Rows {
    Csv {
        reader: csv::Reader<Box<dyn Read>>,
        record: csv::ByteRecord,
        dialect: Dialect,
    },
    /// The wanted values of a line.
    JsonLines {
        lines: JsonLines,
        row: Vec<Value>,
    },
    Parquet {
        rows: RowIter<'static>,
        kinds: Vec<Kind>,
        row: Vec<Value>,
    },
    /// As many rows, of which the file has no wanted column.
    Empty(u64),
}

impl Source {
    /// Opens a file for the wanted columns, all of which it must have.
    pub(super) fn open(part: &Part, wanted: &Arc<[String]>) -> Result<Self, TableError> {
        let path = &part.path;
        let mut places = places(part, wanted)?;
        let rows = match part.format {
            Format::Csv(dialect) => {
                Rows::Csv { reader: csv_reader(path, dialect)?, record: csv::ByteRecord::new(), dialect }
            }
            Format::JsonLines => {
                let at = |(at, place): (usize, &mut Place)| match place {
                    Place::Row(row) => *row = at,
                    Place::Directory(_) => {}
                };
                places.iter_mut().enumerate().for_each(at);
                Rows::JsonLines { lines: JsonLines::open(path)?, row: Vec::new() }
            }
            Format::Parquet => {
                let refused = |source| TableError::Parquet { path: path.clone(), source };
                let reader = parquet_reader(path)?;
                let projection = projection(reader.metadata().file_metadata().schema(), wanted).map_err(refused)?;
                if projection.get_fields().is_empty() {
                    return Ok(Self { rows: Rows::Empty(part.rows), places, wanted: Arc::clone(wanted) });
                }
                let fields = projection.get_fields();
                let kinds: Vec<_> = fields.iter().map(|field| Kind::of(field)).collect();
                for (field, kind) in fields.iter().zip(&kinds) {
                    if let Kind::Unusable(fault) = kind {
                        let (path, column) = (path.clone(), field.name().to_owned());
                        return Err(TableError::Column { path, column, fault: (*fault).to_owned() });
                    }
                }
                for (place, name) in places.iter_mut().zip(&**wanted) {
                    if let Place::Row(row) = place {
                        *row = fields.iter().position(|field| field.name() == name).unwrap_or(usize::MAX);
                    }
                }
                let rows = RowIter::from_file_into(Box::new(reader)).project(Some(projection)).map_err(refused)?;
                Rows::Parquet { rows, kinds, row: Vec::new() }
            }
        };
        Ok(Self { rows, places, wanted: Arc::clone(wanted) })
    }

    /// Reads the next row; false when there is none.
    pub(super) fn advance(&mut self, path: &Path) -> Result<bool, TableError> {
        match &mut self.rows {
            Rows::Empty(left) => {
                let is_row = *left > 0;
                *left = left.saturating_sub(1);
                Ok(is_row)
            }
            Rows::Csv { reader, record, .. } => {
                reader.read_byte_record(record).map_err(|source| TableError::Csv { path: path.into(), source })
            }
            Rows::JsonLines { lines, row } => {
                let Some(object) = lines.next(path)? else { return Ok(false) };
                row.clear();
                let values =
                    self.wanted.iter().map(|name| object.get(name).cloned().map_or(Value::Missing, Value::of_json));
                row.extend(values);
                Ok(true)
            }
            Rows::Parquet { rows, kinds, row } => {
                let next = rows.next().transpose();
                let next = next.map_err(|source| TableError::Parquet { path: path.into(), source })?;
                let Some(next) = next else { return Ok(false) };
                let fields = next.into_columns().into_iter().zip(kinds);
                row.clear();
                row.extend(fields.map(|((_, field), kind)| Value::of_parquet(field, kind)));
                Ok(true)
            }
        }
    }

    /// The value of a wanted column in the row read last.
    pub(super) fn cell(&self, column: usize) -> Cell<'_> {
        match (&self.places[column], &self.rows) {
            (Place::Directory(value), _) => value.as_ref().map_or(Cell::Missing, |value| Cell::Text(value.as_bytes())),
            (Place::Row(at), Rows::Csv { record, dialect, .. }) => {
                record.get(*at).map_or(Cell::Missing, |field| of_csv(field, *dialect))
            }
            (Place::Row(at), Rows::JsonLines { row, .. } | Rows::Parquet { row, .. }) => {
                row.get(*at).map_or(Cell::Missing, Value::cell)
            }
            (Place::Row(_), Rows::Empty(_)) => Cell::Missing,
        }
    }
}

/// Where each wanted column is in a file that has it once.
fn places(part: &Part, wanted: &[String]) -> Result<Vec<Place>, TableError> {
    let place = |name: &String| {
        let mut all = part.columns.iter().enumerate().filter(|(_, column)| column.name == *name);
        let first = all.next();
        if let (Some((first, _)), Some((second, _))) = (first, all.next()) {
            let (path, column) = (part.path.clone(), name.clone());
            return Err(TableError::DuplicateColumn { path, column, first: first + 1, second: second + 1 });
        }
        // The caller has checked that all are there; a column beyond the end reads as missing.
        Ok(first.map_or(Place::Row(usize::MAX), |(at, column)| {
            column.partition.clone().map_or(Place::Row(at), |Partition(value)| Place::Directory(value))
        }))
    };
    wanted.iter().map(place).collect()
}

/// The schema with the wanted columns only, so that no other column is read.
fn projection(schema: &Type, wanted: &[String]) -> Result<Type, ParquetError> {
    let fields = schema.get_fields().iter().filter(|field| wanted.iter().any(|name| name == field.name()));
    Type::group_type_builder(schema.name()).with_fields(fields.map(Arc::clone).collect()).build()
}
