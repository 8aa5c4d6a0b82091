//! Raw binary requests: a body that is nothing but the bytes of a model's single input
//! (`Inference-Header-Content-Length: 0`). What JSON would say comes from the signature.

use bytes::Bytes;

use crate::{
    domain::{DataType, Dim, Shape, Signature, Tensor, TensorSpec},
    protocol::refusal::Refusal,
};

/// The input that `body` holds.
pub(super) fn input(signature: &Signature, body: Bytes) -> Result<Tensor, Refusal> {
    let [spec] = &*signature.inputs else {
        let words = format!(
            "a raw binary request needs a model with one input, this one has {}: send JSON before the tensors",
            signature.inputs.len()
        );
        return Err(Refusal::bad_request(words));
    };
    let wrong = |problem: String| Refusal::input(&spec.name, problem);
    let shape = Shape::new(dimensions(spec, body.len()).map_err(wrong)?).map_err(|error| wrong(error.to_string()))?;
    if spec.datatype == DataType::Bytes {
        // One element: the whole body, without its length before it.
        return Tensor::text(&*spec.name, shape, vec![body]).map_err(|error| wrong(error.to_string()));
    }
    Tensor::plain(&*spec.name, spec.datatype, shape, body).map_err(|error| wrong(error.to_string()))
}

/// The shape of `bytes` bytes: one dimension of any size follows from their number. Of two the
/// first is the batch, which is one row.
fn dimensions(spec: &TensorSpec, bytes: usize) -> Result<Vec<i64>, String> {
    let Some(size) = spec.datatype.size() else {
        return Ok(spec.shape.iter().map(|dim| if *dim == Dim::Any { 1 } else { dim.to_wire() }).collect());
    };
    let mut dimensions = spec.wire_shape();
    let open: Vec<_> = (0..dimensions.len()).filter(|&at| dimensions[at] < 0).collect();
    let open = match open[..] {
        [] => return Ok(dimensions),
        [single] => single,
        [0, second] => {
            dimensions[0] = 1;
            second
        }
        _ => return Err("its shape does not follow from the number of bytes: send JSON before the tensors".into()),
    };
    let others = dimensions.iter().filter(|&&known| known >= 0);
    let step =
        others.fold(size, |product, &known| product.saturating_mul(usize::try_from(known).unwrap_or(usize::MAX)));
    if step == 0 || !bytes.is_multiple_of(step) {
        return Err(format!("{bytes} bytes are not a multiple of {step}, which its shape and datatype need"));
    }
    dimensions[open] = i64::try_from(bytes / step).unwrap_or(i64::MAX);
    Ok(dimensions)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(datatype: DataType, shape: &[i64]) -> TensorSpec {
        let dim = |&size: &i64| u64::try_from(size).map_or(Dim::Any, Dim::Fixed);
        TensorSpec { name: "x".into(), datatype, shape: shape.iter().map(dim).collect(), optional: false }
    }

    fn shape_of(datatype: DataType, shape: &[i64], bytes: usize) -> Result<Vec<i64>, String> {
        let signature = Signature { inputs: vec![spec(datatype, shape)], outputs: vec![] };
        let tensor = input(&signature, vec![7; bytes].into()).map_err(|refusal| refusal.to_string())?;
        Ok(tensor.shape().dimensions().to_vec())
    }

    #[test]
    fn shape_follows_from_the_number_of_bytes() {
        for (shape, bytes, expected) in [
            (&[2, 3][..], 24, &[2, 3][..]),
            (&[-1, 3], 12, &[1, 3]),
            (&[-1, 3], 24, &[2, 3]),
            (&[-1, -1], 20, &[1, 5]),
            (&[-1, 2, -1], 16, &[1, 2, 2]),
            (&[], 4, &[]),
            (&[-1], 0, &[0]),
        ] {
            assert_eq!(shape_of(DataType::Fp32, shape, bytes).unwrap(), expected, "{shape:?} {bytes}");
        }
        for (shape, bytes) in
            [(&[2, 3][..], 20), (&[-1, 3], 13), (&[-1, -1, -1], 12), (&[3, -1, -1], 12), (&[-1, 0], 4)]
        {
            assert!(shape_of(DataType::Fp32, shape, bytes).unwrap_err().contains("input 'x'"), "{shape:?} {bytes}");
        }
    }

    #[test]
    fn text_is_one_element() {
        assert_eq!(shape_of(DataType::Bytes, &[-1], 5).unwrap(), [1]);
        assert_eq!(shape_of(DataType::Bytes, &[-1, 1], 5).unwrap(), [1, 1]);
        assert!(shape_of(DataType::Bytes, &[2], 5).unwrap_err().contains("needs 2 elements, got 1"));
    }

    #[test]
    fn model_of_several_inputs_is_refused() {
        let two = vec![spec(DataType::Fp32, &[1]), spec(DataType::Fp32, &[1])];
        let refusal = input(&Signature { inputs: two, outputs: vec![] }, Bytes::new()).unwrap_err();
        assert!(refusal.to_string().contains("this one has 2"));
    }
}
