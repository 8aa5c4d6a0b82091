//! The rows that were learnt from, in a file: so that learning goes on after a restart.
//!
//! The file is a line of text that says what it is, and frames: each the length of what follows, its checksum, and the
//! bytes. The first frame says of what the rows are and when learning began; each further one is a deflated chunk. A save
//! writes only new chunks; one that was cut short by a crash is found by its checksum, and those before it count.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufReader, ErrorKind, Read as _, Seek, SeekFrom, Write},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use flate2::{Compression, read::DeflateDecoder, write::DeflateEncoder};

use super::{Chunk, MOST_BYTES, MOST_ROWS};
use crate::monitor::{
    ProfileBuilder,
    leb128::{put, take},
};

/// The first line of the file, with the number of the format.
const HEAD: &[u8] = b"tidegate monitor learning 1\n";
/// More bytes than these in a frame are none of ours: deflated they are fewer than in memory.
const MAX_FRAME: u64 = 2 * MOST_BYTES as u64;

/// The file of one learning.
#[derive(Debug)]
pub(in crate::monitor) struct LearningFile {
    path: PathBuf,
    identity: u64,
    /// Its good bytes; 0: there is no file of this learning.
    length: u64,
    /// The chunks that it has.
    chunks: usize,
}

/// What was found.
pub(super) enum Found {
    Nothing,
    /// Rows of another model or with other columns.
    OfAnother,
    Saved(Saved),
}

/// What was saved.
pub(super) struct Saved {
    /// When learning began.
    pub(super) began: Duration,
    pub(super) chunks: Vec<Chunk>,
    /// Why those behind the chunks could not be read.
    pub(super) damage: Option<io::Error>,
}

impl LearningFile {
    /// The file at `path`, of what has this identity.
    pub(super) fn new(path: PathBuf, identity: u64) -> Self {
        Self { path, identity, length: 0, chunks: 0 }
    }

    /// Reads what was saved, to be gone on from.
    ///
    /// # Errors
    /// When there is a file, and it is none of these or unreadable. The next save writes over it.
    pub(super) fn read(&mut self) -> io::Result<Found> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(error) => return Err(error),
        };
        let mut reader = BufReader::new(file);
        let mut head = [0; HEAD.len()];
        reader.read_exact(&mut head)?;
        if head != HEAD {
            return Err(io::Error::new(ErrorKind::InvalidData, "it has none, or those of a later format"));
        }
        let header = read_frame(&mut reader)?.ok_or(ErrorKind::UnexpectedEof)?;
        let mut fields = header.as_slice();
        let (identity, began) = (take(&mut fields)?, Duration::from_millis(take(&mut fields)?));
        if identity != self.identity {
            return Ok(Found::OfAnother);
        }
        self.length = (HEAD.len() + FRAME_HEAD + header.len()) as u64;
        let mut saved = Saved { began, chunks: Vec::new(), damage: None };
        saved.damage = self.read_chunks(&mut reader, &mut saved.chunks).err();
        self.chunks = saved.chunks.len();
        Ok(Found::Saved(saved))
    }

    /// Reads chunks to the end of the file, or to the first that is damaged.
    fn read_chunks(&mut self, reader: &mut impl io::Read, chunks: &mut Vec<Chunk>) -> io::Result<()> {
        let (mut rows, mut bytes) = (0_usize, 0_usize);
        while let Some(frame) = read_frame(reader)? {
            let chunk = decode(&frame)?;
            (rows, bytes) = (rows.saturating_add(chunk.rows), bytes.saturating_add(chunk.bytes));
            if rows > MOST_ROWS || bytes > MOST_BYTES {
                return Err(io::Error::new(ErrorKind::InvalidData, "more than may be learnt from"));
            }
            chunks.push(chunk);
            self.length += (FRAME_HEAD + frame.len()) as u64;
        }
        Ok(())
    }

    /// Writes those of all chunks that the file has not; all of them, when it is gone.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn append(&mut self, began: Duration, chunks: &[Arc<Chunk>]) -> io::Result<()> {
        if self.chunks == chunks.len() {
            return Ok(());
        }
        let mut file = match self.open()? {
            Some(file) => file,
            None => self.create(began)?,
        };
        for chunk in &chunks[self.chunks..] {
            let frame = frame(&encode(chunk)?);
            file.write_all(&frame)?;
            self.length += frame.len() as u64;
            self.chunks += 1;
        }
        Ok(())
    }

    /// The file, at the end of its good bytes; `None` when it is not there, or lacks some of them.
    fn open(&self) -> io::Result<Option<File>> {
        if self.length == 0 {
            return Ok(None);
        }
        let mut file = match OpenOptions::new().write(true).open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if file.metadata()?.len() < self.length {
            return Ok(None);
        }
        // What a write that failed left behind them is no good.
        file.set_len(self.length)?;
        file.seek(SeekFrom::End(0))?;
        Ok(Some(file))
    }

    fn create(&mut self, began: Duration) -> io::Result<File> {
        (self.length, self.chunks) = (0, 0);
        self.path.parent().map_or(Ok(()), fs::create_dir_all)?;
        let mut header = Vec::new();
        put(&mut header, self.identity)?;
        put(&mut header, u64::try_from(began.as_millis()).unwrap_or(u64::MAX))?;
        let start = [HEAD, &frame(&header)].concat();
        let mut file = File::create(&self.path)?;
        file.write_all(&start)?;
        self.length = start.len() as u64;
        Ok(file)
    }

    /// Removes the file: what it was for is done.
    pub(super) fn remove(&mut self) {
        (self.length, self.chunks) = (0, 0);
        if let Err(error) = fs::remove_file(&self.path)
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(path = %self.path.display(), %error, "saved rows to learn from are not removed");
        }
    }
}

/// The bytes of a frame before its content.
const FRAME_HEAD: usize = 2 * size_of::<u64>();

fn frame(content: &[u8]) -> Vec<u8> {
    let (length, checksum) = (content.len() as u64, twox_hash::XxHash3_64::oneshot(content));
    [&length.to_le_bytes(), &checksum.to_le_bytes(), content].concat()
}

/// The content of the next frame; `None` at the end.
fn read_frame(reader: &mut impl io::Read) -> io::Result<Option<Vec<u8>>> {
    let mut head = Vec::new();
    reader.take(FRAME_HEAD as u64).read_to_end(&mut head)?;
    if head.is_empty() {
        return Ok(None);
    }
    let (Some((length, rest)), damaged) = (head.split_first_chunk(), || io::Error::from(ErrorKind::InvalidData)) else {
        return Err(ErrorKind::UnexpectedEof.into());
    };
    let checksum = rest.first_chunk().ok_or(ErrorKind::UnexpectedEof)?;
    let length = u64::from_le_bytes(*length);
    if length > MAX_FRAME {
        return Err(damaged());
    }
    let mut content = Vec::new();
    reader.take(length).read_to_end(&mut content)?;
    if (content.len() as u64) < length {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    let is_whole = twox_hash::XxHash3_64::oneshot(&content) == u64::from_le_bytes(*checksum);
    if is_whole { Ok(Some(content)) } else { Err(damaged()) }
}

fn encode(chunk: &Chunk) -> io::Result<Vec<u8>> {
    let mut writer = DeflateEncoder::new(Vec::new(), Compression::fast());
    put(&mut writer, chunk.rows as u64)?;
    put(&mut writer, chunk.bytes as u64)?;
    chunk.builder.encode(&mut writer)?;
    writer.finish()
}

pub(super) fn decode(frame: &[u8]) -> io::Result<Chunk> {
    let mut reader = DeflateDecoder::new(frame).take(MAX_FRAME);
    let mut number = || take(&mut reader).and_then(|number| usize::try_from(number).map_err(io::Error::other));
    let (rows, bytes) = (number()?, number()?);
    Ok(Chunk { builder: ProfileBuilder::decode(&mut reader)?, rows, bytes })
}
