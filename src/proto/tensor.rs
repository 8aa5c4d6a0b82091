//! ONNX's `TensorProto`, read without the elements of large tensors: a model of 2 GB must not take its size again to be
//! looked at.

use ::bytes::{Buf, BufMut};
use prost::{
    DecodeError, Message,
    encoding::{
        DecodeContext, WireType, bytes, decode_varint, double, encode_varint, float, int32, int64, message, skip_field,
        string, uint64,
    },
};

use super::onnx::StringStringEntryProto;

/// Elements of one field that take more bytes in the file are left out.
pub const LARGEST_FIELD: u64 = 16 << 10;

/// A tensor: its type and shape, and its elements where they are few.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct TensorProto {
    pub dims: Vec<i64>,
    pub data_type: Option<i32>,
    pub float_data: Vec<f32>,
    pub int32_data: Vec<i32>,
    pub string_data: Vec<Vec<u8>>,
    pub int64_data: Vec<i64>,
    pub name: Option<String>,
    pub raw_data: Option<Vec<u8>>,
    pub double_data: Vec<f64>,
    pub uint64_data: Vec<u64>,
    pub external_data: Vec<StringStringEntryProto>,
    pub data_location: Option<i32>,
    /// Elements were left out, since they are many.
    pub is_large: bool,
}

impl TensorProto {
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    #[must_use]
    pub fn data_type(&self) -> i32 {
        self.data_type.unwrap_or_default()
    }

    #[must_use]
    pub fn data_location(&self) -> i32 {
        self.data_location.unwrap_or_default()
    }
}

impl Message for TensorProto {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        int64::encode_repeated(1, &self.dims, buf);
        self.data_type.iter().for_each(|value| int32::encode(2, value, buf));
        float::encode_packed(4, &self.float_data, buf);
        int32::encode_packed(5, &self.int32_data, buf);
        bytes::encode_repeated(6, &self.string_data, buf);
        int64::encode_packed(7, &self.int64_data, buf);
        self.name.iter().for_each(|value| string::encode(8, value, buf));
        self.raw_data.iter().for_each(|value| bytes::encode(9, value, buf));
        double::encode_packed(10, &self.double_data, buf);
        uint64::encode_packed(11, &self.uint64_data, buf);
        message::encode_repeated(13, &self.external_data, buf);
        self.data_location.iter().for_each(|value| int32::encode(14, value, buf));
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        match tag {
            1 => int64::merge_repeated(wire_type, &mut self.dims, buf, ctx),
            2 => int32::merge(wire_type, self.data_type.get_or_insert_default(), buf, ctx),
            8 => string::merge(wire_type, self.name.get_or_insert_default(), buf, ctx),
            13 => message::merge_repeated(wire_type, &mut self.external_data, buf, ctx),
            14 => int32::merge(wire_type, self.data_location.get_or_insert_default(), buf, ctx),
            4..=7 | 9..=11 if wire_type == WireType::LengthDelimited => {
                let length = decode_varint(buf)?;
                if length <= LARGEST_FIELD && length <= buf.remaining() as u64 && !self.is_full() {
                    // As it was before the length was looked at.
                    let mut field = Vec::new();
                    encode_varint(length, &mut field);
                    #[expect(clippy::cast_possible_truncation, reason = "LARGEST_FIELD at the most")]
                    field.put(buf.take(length as usize));
                    return self.merge_elements(tag, wire_type, &mut field.as_slice(), ctx);
                }
                self.is_large = true;
                let Some(length) = usize::try_from(length).ok().filter(|&length| length <= buf.remaining()) else {
                    // The reader's own error for a message that ends too early.
                    return skip_field(WireType::ThirtyTwoBit, tag, &mut [].as_slice(), ctx);
                };
                buf.advance(length);
                Ok(())
            }
            4..=7 | 9..=11 if !self.is_full() => self.merge_elements(tag, wire_type, buf, ctx),
            4..=7 | 9..=11 => {
                self.is_large = true;
                skip_field(wire_type, tag, buf, ctx)
            }
            _ => skip_field(wire_type, tag, buf, ctx),
        }
    }

    fn encoded_len(&self) -> usize {
        int64::encoded_len_repeated(1, &self.dims)
            + self.data_type.as_ref().map_or(0, |value| int32::encoded_len(2, value))
            + float::encoded_len_packed(4, &self.float_data)
            + int32::encoded_len_packed(5, &self.int32_data)
            + bytes::encoded_len_repeated(6, &self.string_data)
            + int64::encoded_len_packed(7, &self.int64_data)
            + self.name.as_ref().map_or(0, |value| string::encoded_len(8, value))
            + self.raw_data.as_ref().map_or(0, |value| bytes::encoded_len(9, value))
            + double::encoded_len_packed(10, &self.double_data)
            + uint64::encoded_len_packed(11, &self.uint64_data)
            + message::encoded_len_repeated(13, &self.external_data)
            + self.data_location.as_ref().map_or(0, |value| int32::encoded_len(14, value))
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

impl TensorProto {
    /// Fields that come one by one must not grow without end either.
    fn is_full(&self) -> bool {
        let elements = self.float_data.len()
            + self.int32_data.len()
            + self.string_data.len()
            + self.int64_data.len()
            + self.double_data.len()
            + self.uint64_data.len();
        elements as u64 > LARGEST_FIELD
    }

    fn merge_elements(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        match tag {
            4 => float::merge_repeated(wire_type, &mut self.float_data, buf, ctx),
            5 => int32::merge_repeated(wire_type, &mut self.int32_data, buf, ctx),
            6 => bytes::merge_repeated(wire_type, &mut self.string_data, buf, ctx),
            7 => int64::merge_repeated(wire_type, &mut self.int64_data, buf, ctx),
            9 => bytes::merge(wire_type, self.raw_data.get_or_insert_default(), buf, ctx),
            10 => double::merge_repeated(wire_type, &mut self.double_data, buf, ctx),
            _ => uint64::merge_repeated(wire_type, &mut self.uint64_data, buf, ctx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_tensors_are_read_whole() {
        let tensor = TensorProto {
            dims: vec![2, 3],
            data_type: Some(7),
            float_data: vec![0.5, -1.0],
            int32_data: vec![1, -1],
            string_data: vec![b"a".to_vec()],
            int64_data: vec![-1, 1 << 40],
            name: Some("t".into()),
            raw_data: Some(vec![1, 2, 3]),
            double_data: vec![0.25],
            uint64_data: vec![u64::MAX],
            external_data: vec![StringStringEntryProto { key: Some("location".into()), value: None }],
            data_location: Some(1),
            is_large: false,
        };
        let bytes = tensor.encode_to_vec();
        assert_eq!(bytes.len(), tensor.encoded_len());
        assert_eq!(TensorProto::decode(&bytes[..]).unwrap(), tensor);
        for end in 0..bytes.len() {
            let _ = TensorProto::decode(&bytes[..end]);
        }
    }

    #[test]
    fn weights_are_left_out() {
        let raw = TensorProto { raw_data: Some(vec![7; 1 << 20]), dims: vec![1 << 20], ..TensorProto::default() };
        let floats = TensorProto { float_data: vec![1.0; 1 << 16], dims: vec![1 << 16], ..TensorProto::default() };
        for tensor in [raw, floats] {
            let read = TensorProto::decode(&tensor.encode_to_vec()[..]).unwrap();
            let expected = TensorProto { dims: tensor.dims, is_large: true, ..TensorProto::default() };
            assert_eq!(read, expected);
        }
    }

    #[test]
    fn length_beyond_the_end_is_an_error() {
        let mut bytes = TensorProto { raw_data: Some(vec![7; 1 << 20]), ..TensorProto::default() }.encode_to_vec();
        bytes.truncate(1 << 19);
        assert!(TensorProto::decode(&bytes[..]).is_err());
    }
}
