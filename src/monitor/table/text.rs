//! Files of text: decompressed, decoded to UTF-8, and the dialect of a CSV file.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Cursor, Read},
    path::Path,
};

use super::{
    TableError,
    cell::{is_decimal_comma, is_missing},
};

/// Bytes at the start of a file that its form is found out from.
const HEAD: usize = 64 * 1024;

/// How CSV files are written, where it is not to be found out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TableOptions {
    /// Between the fields of a line.
    pub delimiter: Option<u8>,
    /// Whether decimals of numbers have a comma rather than a point.
    pub decimal_comma: Option<bool>,
}

/// How a CSV file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dialect {
    pub(super) delimiter: u8,
    pub(super) decimal_comma: bool,
}

/// The form of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Csv(Dialect),
    JsonLines,
    Parquet,
}

/// A stream whose first bytes were looked at.
struct Peeked {
    head: Vec<u8>,
    rest: Box<dyn Read>,
}

impl Peeked {
    fn at(mut reader: impl Read + 'static) -> io::Result<Self> {
        let mut head = Vec::new();
        reader.by_ref().take(HEAD as u64).read_to_end(&mut head)?;
        Ok(Self { head, rest: Box::new(reader) })
    }

    fn whole(self) -> impl Read {
        Cursor::new(self.head).chain(self.rest)
    }
}

/// The form of a file, by its first bytes: the name may say anything.
pub(super) fn format(path: &Path, options: TableOptions) -> Result<Format, TableError> {
    let Some(text) = open(path)? else { return Ok(Format::Parquet) };
    if text.head.trim_ascii_start().first() == Some(&b'{') {
        return Ok(Format::JsonLines);
    }
    Ok(Format::Csv(dialect(path, &text.head, text.head.len() < HEAD, options)?))
}

/// The text of a file that is no Parquet file, as UTF-8.
pub(super) fn read(path: &Path) -> Result<Box<dyn Read>, TableError> {
    let text = open(path)?;
    Ok(text.map_or_else(|| Box::new(io::empty()) as Box<dyn Read>, |text| Box::new(text.whole())))
}

/// `None` is a Parquet file.
fn open(path: &Path) -> Result<Option<Peeked>, TableError> {
    let read = |source| TableError::Read { path: path.into(), source };
    let refused = |what| TableError::Format { path: path.into(), what };
    let file = File::open(path).map_err(read)?;
    let mut text = Peeked::at(file).map_err(read)?;
    if text.head.starts_with(b"PAR1") {
        return Ok(None);
    }
    if text.head.starts_with(&[0x1f, 0x8b]) {
        text = Peeked::at(flate2::read::MultiGzDecoder::new(text.whole())).map_err(read)?;
    } else if text.head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        let decoder = zstd::stream::read::Decoder::new(text.whole()).map_err(read)?;
        text = Peeked::at(decoder).map_err(read)?;
    }
    if text.head.starts_with(b"PAR1") {
        return Err(refused("a compressed Parquet file (decompress it: its columns are compressed anyway)"));
    }
    if let Some(what) = other_format(&text.head) {
        return Err(refused(what));
    }
    if text.head.starts_with(&[0xff, 0xfe]) || text.head.starts_with(&[0xfe, 0xff]) {
        let is_big = text.head[0] == 0xfe;
        text = Peeked::at(Utf16 { bytes: text.whole(), is_big, ready: VecDeque::new() }).map_err(read)?;
    }
    if text.head.starts_with(&[0xef, 0xbb, 0xbf]) {
        text.head.drain(..3);
    }
    if text.head.contains(&0) {
        return Err(refused("no text (it has zero bytes; UTF-16 needs a byte order mark)"));
    }
    Ok(Some(text))
}

/// What else people have, by its first bytes.
fn other_format(head: &[u8]) -> Option<&'static str> {
    const ZIP: &str = "a zip archive or a workbook";
    let known: [(&[u8], &str); 14] = [
        (b"ARROW1", "an Arrow (Feather) file"),
        (b"FEA1", "a Feather file"),
        (b"\xff\xff\xff\xff", "a stream of Arrow"),
        (b"\x93NUMPY", "a NumPy file"),
        (b"PK\x03\x04", ZIP),
        (b"PARE", "an encrypted Parquet file"),
        (b"ORC", "an ORC file"),
        (b"Obj\x01", "an Avro file"),
        (b"SQLite format 3\0", "an SQLite database"),
        (b"\x89HDF", "an HDF5 file"),
        (b"BZh", "compressed with bzip2 (gzip and Zstandard are read)"),
        (b"\xfd7zXZ", "compressed with xz (gzip and Zstandard are read)"),
        (b"\x80\x04\x95", "a pickle"),
        (b"\x80\x05\x95", "a pickle"),
    ];
    let found = known.into_iter().find(|(magic, _)| head.starts_with(magic)).map(|(_, what)| what);
    let start = head.trim_ascii_start();
    found.or_else(|| {
        let is_array =
            start.starts_with(b"[{") || (start.starts_with(b"[") && start[1..].trim_ascii_start().starts_with(b"{"));
        is_array
            .then_some("one JSON array (write an object a line: pandas' to_json with orient=\"records\", lines=True)")
    })
}

/// UTF-16 as UTF-8. What is no character becomes U+FFFD.
struct Utf16<R> {
    bytes: R,
    is_big: bool,
    ready: VecDeque<u8>,
}

impl<R: Read> Utf16<R> {
    fn unit(&mut self) -> io::Result<Option<u16>> {
        let mut pair = Vec::with_capacity(2);
        self.bytes.by_ref().take(2).read_to_end(&mut pair)?;
        Ok(match pair[..] {
            [one, two] => {
                Some(if self.is_big { u16::from_be_bytes([one, two]) } else { u16::from_le_bytes([one, two]) })
            }
            [_] => Some(0xfffd),
            _ => None,
        })
    }
}

impl<R: Read> Read for Utf16<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.ready.len() < buffer.len() {
            let Some(first) = self.unit()? else { break };
            let mut units = vec![first];
            if (0xd800..0xdc00).contains(&first) {
                units.extend(self.unit()?);
            }
            for character in char::decode_utf16(units) {
                let character = character.unwrap_or(char::REPLACEMENT_CHARACTER);
                self.ready.extend(character.encode_utf8(&mut [0; 4]).bytes());
            }
        }
        self.ready.read(buffer)
    }
}

/// What is between the fields and in the numbers of a CSV file.
fn dialect(path: &Path, head: &[u8], is_all: bool, options: TableOptions) -> Result<Dialect, TableError> {
    let delimiter = match options.delimiter {
        Some(delimiter) => delimiter,
        None => delimiter_of(head, is_all).ok_or_else(|| TableError::Files {
            path: path.into(),
            reason: "may have its fields separated by different characters: say which with --delimiter".into(),
        })?,
    };
    let has_comma = || delimiter != b',' && has_decimal_comma(head, is_all, delimiter);
    Ok(Dialect { delimiter, decimal_comma: options.decimal_comma.unwrap_or_else(has_comma) })
}

/// The whole records at the start of a file.
fn records(head: &[u8], is_all: bool, delimiter: u8) -> Vec<csv::ByteRecord> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).delimiter(delimiter).from_reader(head);
    let mut records: Vec<_> = reader.byte_records().map_while(Result::ok).take(200).collect();
    if !is_all && records.len() < 200 {
        records.pop();
    }
    records
}

/// The delimiter that splits the header and all lines into as many fields; a comma where nothing does. `None` where several
/// do, and none of them is the comma.
fn delimiter_of(head: &[u8], is_all: bool) -> Option<u8> {
    let fields = |delimiter| -> (usize, bool) {
        let records = records(head, is_all, delimiter);
        let first = records.first().map_or(0, csv::ByteRecord::len);
        (first, records.iter().all(|record| record.len() == first))
    };
    let splits = b",;\t|".map(|delimiter| (delimiter, fields(delimiter)));
    let in_header: Vec<_> = splits.iter().filter(|(_, (first, _))| *first > 1).collect();
    match in_header[..] {
        [] => Some(b','),
        [(only, _)] => Some(*only),
        _ => {
            let even: Vec<_> = in_header.iter().filter(|(_, (_, is_even))| *is_even).collect();
            match even[..] {
                [] => Some(b','),
                [(only, _)] => Some(*only),
                _ => even.iter().any(|(delimiter, _)| *delimiter == b',').then_some(b','),
            }
        }
    }
}

/// Whether numbers have a decimal comma: some have, of which one has not just three digits behind it (which may be thousands),
/// and none has a point.
fn has_decimal_comma(head: &[u8], is_all: bool, delimiter: u8) -> bool {
    let records = records(head, is_all, delimiter);
    let fields: Vec<_> = records.iter().skip(1).flatten().filter(|field| !is_missing(field)).collect();
    let has_point = |field: &&[u8]| {
        let text = std::str::from_utf8(field).unwrap_or_default().trim();
        text.contains('.') && text.parse::<f64>().is_ok()
    };
    let is_no_thousand = |field: &&[u8]| {
        is_decimal_comma(field)
            && field.trim_ascii().rsplit(|byte| *byte == b',').next().is_some_and(|end| end.len() != 3)
    };
    fields.iter().any(is_no_thousand) && !fields.iter().any(has_point)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn found(text: &str) -> Option<(char, bool)> {
        let dialect = dialect(Path::new("x"), text.as_bytes(), true, TableOptions::default()).ok()?;
        Some((dialect.delimiter.into(), dialect.decimal_comma))
    }

    #[test]
    fn dialect_is_found_out_where_only_one_fits() {
        assert_eq!(found(""), Some((',', false)));
        assert_eq!(found("a\n1\n"), Some((',', false)));
        assert_eq!(found("a,b\n1.5,x;y\n"), Some((',', false)));
        assert_eq!(found("a;b\n1,5;2\n3;4,25\n"), Some((';', true)));
        assert_eq!(found("a;b\n1,500;2\n"), Some((';', false)), "these may be thousands");
        assert_eq!(found("a;b\n1,5;2.5\n"), Some((';', false)), "both at once are no numbers");
        assert_eq!(found("a\tb\n1\t\"x,y\"\n"), Some(('\t', false)));
        assert_eq!(found("a|b\n1|2\n"), Some(('|', false)));
        assert_eq!(found("\"last, first\";b\nx;1\n"), Some((';', false)));
        assert_eq!(found("last, first;b\nx;1\n"), Some((';', false)), "the comma does not split all lines alike");
        assert_eq!(found("a;b|c\n1;2|3\n"), None, "two fit");
        assert_eq!(found("a,b;c\n1,2;3\n"), Some((',', false)), "the comma before others");
        let fixed = TableOptions { delimiter: Some(b'|'), decimal_comma: Some(true) };
        let said = dialect(Path::new("x"), b"a;b|c\n", true, fixed).unwrap();
        assert_eq!(said, Dialect { delimiter: b'|', decimal_comma: true });
    }

    fn read_back(bytes: &[u8]) -> Result<String, String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        let mut text = String::new();
        let reader = read(file.path()).map_err(|error| error.to_string())?;
        { reader }.read_to_string(&mut text).map_err(|error| error.to_string())?;
        Ok(text)
    }

    #[test]
    fn text_is_decoded_and_decompressed() {
        let text = "a;b\n€;😀\n";
        let little: Vec<u8> = [0xff, 0xfe].into_iter().chain(text.encode_utf16().flat_map(u16::to_le_bytes)).collect();
        let big: Vec<u8> = [0xfe, 0xff].into_iter().chain(text.encode_utf16().flat_map(u16::to_be_bytes)).collect();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&little).unwrap();
        let zstd = zstd::encode_all(text.as_bytes(), 1).unwrap();
        let marked = ["\u{feff}", text].concat();
        for bytes in [text.as_bytes(), marked.as_bytes(), &little, &big, &gzip.finish().unwrap(), &zstd] {
            assert_eq!(read_back(bytes).as_deref(), Ok(text));
        }
        let half: Vec<u8> = [0xff, 0xfe].into_iter().chain([0x41, 0x00, 0x00, 0xd8, 0x42, 0x00, 0x43]).collect();
        assert_eq!(read_back(&half).as_deref(), Ok("A\u{fffd}B\u{fffd}"));
    }

    #[test]
    fn other_forms_are_named() {
        let cases: [(&[u8], &str); 6] = [
            (b"ARROW1\0\0", "is an Arrow (Feather) file: Parquet, CSV and lines of JSON are read"),
            (b"\x93NUMPY\x01\0", "is a NumPy file: "),
            (b"PK\x03\x04", "is a zip archive or a workbook: "),
            (b"[ {\"a\": 1}]", "is one JSON array (write an object a line"),
            (b"a\0b\0", "is no text (it has zero bytes; UTF-16 needs a byte order mark): "),
            (b"BZh9", "is compressed with bzip2 (gzip and Zstandard are read): "),
        ];
        for (bytes, message) in cases {
            let refused = read_back(bytes).unwrap_err();
            assert!(refused.contains(message), "{refused}");
        }
    }
}
