//! The two file formats behind one face: the next row, and its cells.

use std::{
    fs::File,
    io::{ErrorKind, Read},
    path::Path,
    sync::Arc,
};

use parquet::{
    errors::ParquetError,
    file::reader::{FileReader, SerializedFileReader},
    record::{Field, reader::RowIter},
    schema::types::Type,
};

use super::{TableError, cell::Cell};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Csv,
    Parquet,
}

impl Format {
    /// The format of a file, by its first bytes: the name may say anything.
    pub(super) fn of(path: &Path) -> Result<Self, TableError> {
        let read = |source| TableError::Read { path: path.into(), source };
        let mut magic = [0; 4];
        match File::open(path).map_err(read)?.read_exact(&mut magic) {
            Ok(()) if &magic == b"PAR1" => Ok(Self::Parquet),
            Ok(()) => Ok(Self::Csv),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(Self::Csv),
            Err(error) => Err(read(error)),
        }
    }
}

/// The names of the columns, and the number of rows.
pub(super) fn inspect(path: &Path, format: Format) -> Result<(Vec<String>, u64), TableError> {
    match format {
        Format::Csv => {
            let refused = |source| TableError::Csv { path: path.into(), source };
            let mut reader = csv::Reader::from_path(path).map_err(refused)?;
            let columns = reader.headers().map_err(refused)?.iter().map(String::from).collect();
            let (mut record, mut rows) = (csv::ByteRecord::new(), 0);
            while reader.read_byte_record(&mut record).map_err(refused)? {
                rows += 1;
            }
            Ok((columns, rows))
        }
        Format::Parquet => {
            let reader = parquet_reader(path)?;
            let metadata = reader.metadata().file_metadata();
            let columns = metadata.schema().get_fields().iter().map(|field| field.name().to_owned()).collect();
            Ok((columns, u64::try_from(metadata.num_rows()).unwrap_or(0)))
        }
    }
}

fn parquet_reader(path: &Path) -> Result<SerializedFileReader<File>, TableError> {
    let file = File::open(path).map_err(|source| TableError::Read { path: path.into(), source })?;
    SerializedFileReader::new(file).map_err(|source| TableError::Parquet { path: path.into(), source })
}

/// The rows of a file, one after the other.
pub(super) enum Source {
    Csv {
        reader: csv::Reader<File>,
        record: csv::ByteRecord,
        /// Where in a record the wanted columns are.
        places: Vec<usize>,
    },
    Parquet {
        rows: RowIter<'static>,
        row: Vec<(String, Field)>,
        /// Where in a row the wanted columns are.
        places: Vec<usize>,
    },
}

impl Source {
    /// Opens a file for the wanted columns, all of which it must have.
    pub(super) fn open(path: &Path, format: Format, wanted: &[String]) -> Result<Self, TableError> {
        match format {
            Format::Csv => {
                let refused = |source| TableError::Csv { path: path.into(), source };
                let mut reader = csv::Reader::from_path(path).map_err(refused)?;
                let header: Vec<_> = reader.headers().map_err(refused)?.iter().map(String::from).collect();
                Ok(Self::Csv { reader, record: csv::ByteRecord::new(), places: places(wanted, &header) })
            }
            Format::Parquet => {
                let refused = |source| TableError::Parquet { path: path.into(), source };
                let reader = parquet_reader(path)?;
                let projection = projection(reader.metadata().file_metadata().schema(), wanted).map_err(refused)?;
                let names: Vec<_> = projection.get_fields().iter().map(|field| field.name().to_owned()).collect();
                let rows = RowIter::from_file_into(Box::new(reader)).project(Some(projection)).map_err(refused)?;
                Ok(Self::Parquet { rows, row: Vec::new(), places: places(wanted, &names) })
            }
        }
    }

    /// Reads the next row; false when there is none.
    pub(super) fn advance(&mut self, path: &Path) -> Result<bool, TableError> {
        match self {
            Self::Csv { reader, record, .. } => {
                reader.read_byte_record(record).map_err(|source| TableError::Csv { path: path.into(), source })
            }
            Self::Parquet { rows, row, .. } => {
                let next = rows.next().transpose();
                let next = next.map_err(|source| TableError::Parquet { path: path.into(), source })?;
                Ok(next.map(|next| *row = next.into_columns()).is_some())
            }
        }
    }

    /// The value of a wanted column in the row read last.
    pub(super) fn cell(&self, column: usize) -> Cell<'_> {
        match self {
            Self::Csv { record, places, .. } => match record.get(places[column]) {
                None | Some([]) => Cell::Missing,
                Some(text) => Cell::Text(text),
            },
            Self::Parquet { row, places, .. } => row.get(places[column]).map_or(Cell::Missing, |(_, field)| of(field)),
        }
    }
}

/// Where each wanted name is among `names`.
fn places(wanted: &[String], names: &[String]) -> Vec<usize> {
    // The caller has checked that all are there; a column beyond the end reads as missing.
    wanted.iter().map(|name| names.iter().position(|known| known == name).unwrap_or(usize::MAX)).collect()
}

/// The schema with the wanted columns only, so that no other column is read.
fn projection(schema: &Type, wanted: &[String]) -> Result<Type, ParquetError> {
    let fields = schema.get_fields().iter().filter(|field| wanted.iter().any(|name| name == field.name()));
    Type::group_type_builder(schema.name()).with_fields(fields.map(Arc::clone).collect()).build()
}

fn of(field: &Field) -> Cell<'_> {
    match field {
        Field::Null => Cell::Missing,
        Field::Bool(flag) => Cell::Bool(*flag),
        Field::Byte(number) => Cell::Whole((*number).into()),
        Field::Short(number) => Cell::Whole((*number).into()),
        Field::Int(number) => Cell::Whole((*number).into()),
        Field::Long(number) => Cell::Whole((*number).into()),
        Field::UByte(number) => Cell::Whole((*number).into()),
        Field::UShort(number) => Cell::Whole((*number).into()),
        Field::UInt(number) => Cell::Whole((*number).into()),
        Field::ULong(number) => Cell::Whole((*number).into()),
        Field::Float16(number) => Cell::Float(number.to_f64()),
        Field::Float(number) => Cell::Float((*number).into()),
        Field::Double(number) => Cell::Float(*number),
        Field::Str(text) => Cell::Text(text.as_bytes()),
        Field::Bytes(bytes) => Cell::Text(bytes.data()),
        Field::Decimal(_) => Cell::Other("decimal"),
        Field::Date(_) => Cell::Other("date"),
        Field::TimeMillis(_) | Field::TimeMicros(_) => Cell::Other("time of day"),
        Field::TimestampMillis(_) | Field::TimestampMicros(_) => Cell::Other("timestamp"),
        Field::Group(_) | Field::ListInternal(_) | Field::MapInternal(_) => Cell::Other("nested value"),
    }
}
