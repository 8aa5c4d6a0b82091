//! Numbers in as many groups of seven bits as they need, lowest first (LEB128).

use std::io::{self, Read, Write};

/// Writes a number.
pub(super) fn put(writer: &mut impl Write, mut number: u64) -> io::Result<()> {
    loop {
        let byte = (number & 0x7f) as u8;
        number >>= 7;
        writer.write_all(&[if number == 0 { byte } else { byte | 0x80 }])?;
        if number == 0 {
            return Ok(());
        }
    }
}

/// Reads a number.
pub(super) fn take(reader: &mut impl Read) -> io::Result<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let mut byte = [0];
        reader.read_exact(&mut byte)?;
        number |= u64::from(byte[0] & 0x7f) << shift;
        if byte[0] & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(io::ErrorKind::InvalidData.into())
}
