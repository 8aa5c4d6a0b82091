//! Runs of a session and the values in them, through ONNX Runtime's C API.
//!
//! `ort` runs a session through `&mut Session` only, and its string tensors cannot hold NUL or
//! invalid UTF-8. Both are limits of that crate's safe interface, not of the runtime: its
//! documentation promises that `Run` may be called on one session by several threads at once
//! ("`OrtApi::Run` … is thread safe"), and the CPU provider, the only one that sessions here are
//! made with, keeps that promise. So one session, with one copy of the weights, serves all runs.
//!
//! This is, with `memory` and `rank` in it, the only module with `unsafe` code. Its argument, for every call:
//!
//! 1. **Pointers in.** A session pointer comes from a [`SharedSessionInner`] that is held for the
//!    whole call; names are `CString`s of the same struct; input bytes and shapes are borrowed for
//!    the whole call. ONNX Runtime only reads inputs, keeps none of the pointers after `Run`
//!    returns, and the values that stand for lent bytes are released before the borrow ends.
//! 2. **Lengths.** Lent bytes are exactly the product of the shape and the element size, aligned
//!    for the element (checked in [`Argument::plain`]); string indexes are below the number of
//!    elements; each buffer is used only within the length agreed in the same step.
//! 3. **Pointers out.** A value that ONNX Runtime hands out is owned by exactly one [`Value`],
//!    which releases it once. Its memory is not written after `Run`, so that it can be read from
//!    any thread for as long as the `Value` lives; the value holds its allocator itself.
//! 4. **Threads.** Nothing here is mutated after it is built: what is shared between threads is
//!    the session (see above), the memory info and the names, all read-only.
//!
//! `tests/it/concurrency.rs` runs one session from many threads and compares every answer.
#![allow(unsafe_code, reason = "see above")]

pub(super) mod memory;
pub(super) mod rank;

use std::{
    ffi::{CString, c_char},
    ptr::{self, NonNull},
    sync::Arc,
};

use bytes::Bytes;
use ort::{
    AsPointer,
    memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType},
    ortsys,
    session::{Session, SharedSessionInner},
    sys::OrtValue,
};
use smallvec::SmallVec;

use self::memory::{Blocks, Shortage};

pub(super) use ort::sys::ONNXTensorElementDataType as ElementType;

/// Most models have no more inputs or outputs than this: then a run allocates nothing for lists.
const FEW: usize = 8;

/// A session that any number of threads may run at once.
pub(super) struct SharedSession {
    session: Arc<SharedSessionInner>,
    blocks: Arc<Blocks>,
    max_run_bytes: usize,
    memory: MemoryInfo<'static>,
    inputs: Vec<CString>,
    outputs: Vec<CString>,
}

/// What happens to memory that a session holds when a run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AfterRun {
    /// It is kept for the next run.
    Keep,
    /// What is not in use goes back to the system.
    Trim,
}

/// Why a run failed.
#[derive(Debug)]
pub(super) enum RunError {
    /// It got less memory than it asked for.
    Shortage(Shortage),
    Runtime(ort::Error),
}

impl From<ort::Error> for RunError {
    fn from(error: ort::Error) -> Self {
        Self::Runtime(error)
    }
}

/// An input of a run.
pub(super) struct Argument<'a> {
    /// The input's place among the names that the session was made with.
    index: usize,
    content: Content<'a>,
}

enum Content<'a> {
    Plain { element: ElementType, shape: &'a [i64], bytes: &'a [u8] },
    Text { shape: &'a [i64], elements: &'a [Bytes] },
}

impl<'a> Argument<'a> {
    /// Elements of a fixed size, lent for the run.
    ///
    /// # Errors
    /// When the bytes do not fill the shape, or are not aligned for the element.
    pub(super) fn plain(
        index: usize,
        element: ElementType,
        size: usize,
        shape: &'a [i64],
        bytes: &'a [u8],
    ) -> ort::Result<Self> {
        let elements = shape.iter().try_fold(1_usize, |product, &dimension| {
            usize::try_from(dimension).ok().and_then(|dimension| product.checked_mul(dimension))
        });
        if elements.and_then(|elements| elements.checked_mul(size)) != Some(bytes.len()) {
            return Err(ort::Error::new("the elements do not fill the shape"));
        }
        if !is_aligned(bytes, size) {
            return Err(ort::Error::new("the elements are not aligned"));
        }
        Ok(Self { index, content: Content::Plain { element, shape, bytes } })
    }

    /// Strings of any bytes, copied for the run.
    pub(super) fn text(index: usize, shape: &'a [i64], elements: &'a [Bytes]) -> Self {
        Self { index, content: Content::Text { shape, elements } }
    }
}

/// True when `bytes` may be read as elements of `size` bytes, all of whose sizes are powers of two.
pub(super) fn is_aligned(bytes: &[u8], size: usize) -> bool {
    bytes.as_ptr().align_offset(size) == 0
}

impl SharedSession {
    /// Takes the session over. `inputs` and `outputs` are the names that arguments and wanted
    /// outputs refer to by their index. A run may hold `max_run_bytes` of memory.
    pub(super) fn new<'n>(
        session: &Session,
        max_run_bytes: usize,
        inputs: impl Iterator<Item = &'n str>,
        outputs: impl Iterator<Item = &'n str>,
    ) -> ort::Result<Self> {
        fn names<'n>(names: impl Iterator<Item = &'n str>) -> ort::Result<Vec<CString>> {
            names.map(|name| CString::new(name).map_err(ort::Error::wrap)).collect()
        }
        Ok(Self {
            session: session.inner(),
            blocks: Blocks::new(),
            max_run_bytes,
            memory: MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::Default)?,
            inputs: names(inputs)?,
            outputs: names(outputs)?,
        })
    }

    /// Runs the model: the outputs at `wanted`, in that order.
    ///
    /// # Errors
    /// Those of ONNX Runtime, and when the run would hold too much memory.
    ///
    /// # Panics
    /// When an index is not one of the session's inputs or outputs.
    pub(super) fn run(
        &self,
        arguments: &[Argument<'_>],
        wanted: &[usize],
        after: AfterRun,
    ) -> Result<SmallVec<[Value; FEW]>, RunError> {
        let mut values: SmallVec<[Value; FEW]> = SmallVec::with_capacity(arguments.len());
        for argument in arguments {
            values.push(self.value(argument)?);
        }
        let names: SmallVec<[*const c_char; FEW]> =
            arguments.iter().map(|argument| self.inputs[argument.index].as_ptr()).collect();
        let lent: SmallVec<[*const OrtValue; FEW]> = values.iter().map(|value| value.0.as_ptr().cast_const()).collect();
        let wanted: SmallVec<[*const c_char; FEW]> = wanted.iter().map(|&index| self.outputs[index].as_ptr()).collect();
        let mut produced: SmallVec<[*mut OrtValue; FEW]> = SmallVec::from_elem(ptr::null_mut(), wanted.len());
        let (status, shortage) = self.blocks.during(self.max_run_bytes, || {
            // SAFETY: points 1 and 4 above; each list is as long as the length given with it.
            ortsys![unsafe Run(
                self.session.ptr().cast_mut(),
                ptr::null(),
                names.as_ptr(),
                lent.as_ptr(),
                lent.len(),
                wanted.as_ptr(),
                wanted.len(),
                produced.as_mut_ptr()
            )]
        });
        let produced = produced.into_iter().filter_map(|value| NonNull::new(value).map(Value)).collect();
        if after == AfterRun::Trim {
            self.blocks.trim();
        }
        // SAFETY: the status comes from the call above and is looked at once.
        let outcome = unsafe { ort::Error::result_from_status(status) };
        outcome.map_err(|error| shortage.map_or(RunError::Runtime(error), RunError::Shortage))?;
        Ok(produced)
    }

    fn value(&self, argument: &Argument<'_>) -> ort::Result<Value> {
        match argument.content {
            Content::Plain { element, shape, bytes } => {
                let mut value = ptr::null_mut();
                // SAFETY: points 1 and 2: ONNX Runtime reads `bytes.len()` bytes, which are lent
                // for longer than the value lives (it is released at the end of `run`).
                ortsys![unsafe CreateTensorWithDataAsOrtValue(
                    self.memory.ptr(),
                    bytes.as_ptr().cast_mut().cast(),
                    bytes.len(),
                    shape.as_ptr(),
                    shape.len(),
                    element,
                    &raw mut value
                )?];
                NonNull::new(value).map(Value).ok_or_else(|| ort::Error::new("no value was made"))
            }
            Content::Text { shape, elements } => text_value(shape, elements),
        }
    }
}

impl Drop for SharedSession {
    fn drop(&mut self) {
        self.blocks.close();
    }
}

/// A string tensor with these elements.
fn text_value(shape: &[i64], elements: &[Bytes]) -> ort::Result<Value> {
    let mut value = ptr::null_mut();
    let allocator = Allocator::default();
    let string = ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING;
    // SAFETY: the allocator and the shape outlive the call.
    ortsys![unsafe CreateTensorAsOrtValue(allocator.ptr().cast_mut(), shape.as_ptr(), shape.len(), string, &raw mut value)?];
    let value = NonNull::new(value).map(Value).ok_or_else(|| ort::Error::new("no value was made"))?;
    if value.elements()? != elements.len() {
        return Err(ort::Error::new("the elements do not fill the shape"));
    }
    for (index, element) in elements.iter().enumerate() {
        let mut buffer = ptr::null_mut();
        // SAFETY: the value is a string tensor of `elements.len()` elements (checked above).
        ortsys![unsafe GetResizedStringTensorElementBuffer(value.0.as_ptr(), index, element.len(), &raw mut buffer)?];
        if !element.is_empty() {
            // SAFETY: on success `buffer` points to `element.len()` bytes owned by the tensor,
            // which nothing else refers to.
            unsafe { ptr::copy_nonoverlapping(element.as_ptr(), buffer.cast::<u8>(), element.len()) };
        }
    }
    Ok(value)
}

/// A value that this side owns.
pub(super) struct Value(NonNull<OrtValue>);

// SAFETY: point 3: owned by one `Value`, read-only once a run has produced it, and releasable on
// any thread, as ONNX Runtime's allocators are thread-safe.
unsafe impl Send for Value {}
// SAFETY: as above: all methods only read.
unsafe impl Sync for Value {}

impl Drop for Value {
    fn drop(&mut self) {
        // SAFETY: point 3: owned, released once.
        ortsys![unsafe ReleaseValue(self.0.as_ptr())];
    }
}

impl Value {
    /// The dimensions of a tensor.
    pub(super) fn dimensions(&self) -> ort::Result<Vec<i64>> {
        let mut info = ptr::null_mut();
        // SAFETY: a live value; the info is released below.
        ortsys![unsafe GetTensorTypeAndShape(self.0.as_ptr(), &raw mut info)?];
        let read = || {
            let mut count = 0;
            // SAFETY: `info` lives until it is released below.
            ortsys![unsafe GetDimensionsCount(info, &raw mut count)?];
            let mut dimensions = vec![0; count];
            // SAFETY: room for exactly `count` dimensions.
            ortsys![unsafe GetDimensions(info, dimensions.as_mut_ptr(), count)?];
            Ok(dimensions)
        };
        let dimensions = read();
        // SAFETY: owned by this function, released once.
        ortsys![unsafe ReleaseTensorTypeAndShapeInfo(info)];
        dimensions
    }

    fn elements(&self) -> ort::Result<usize> {
        let dimensions = self.dimensions()?;
        Ok(dimensions.iter().map(|&dimension| usize::try_from(dimension).unwrap_or(0)).product())
    }

    /// The element bytes of a tensor of fixed-size elements.
    pub(super) fn bytes(&self) -> ort::Result<&[u8]> {
        let mut length = 0;
        // SAFETY: a live value.
        ortsys![unsafe GetTensorSizeInBytes(self.0.as_ptr(), &raw mut length)?];
        if length == 0 {
            return Ok(&[]);
        }
        let mut data = ptr::null_mut();
        // SAFETY: a live value.
        ortsys![unsafe GetTensorMutableData(self.0.as_ptr(), &raw mut data)?];
        // SAFETY: points 2 and 3: the tensor owns `length` bytes at `data`, for as long as it
        // lives, and nothing writes to them.
        Ok(unsafe { std::slice::from_raw_parts(data.cast_const().cast::<u8>(), length) })
    }

    /// The elements of a string tensor.
    pub(super) fn strings(&self) -> ort::Result<Vec<Bytes>> {
        let count = self.elements()?;
        let mut elements = Vec::with_capacity(count);
        for index in 0..count {
            let mut length = 0;
            // SAFETY: a string tensor with `count` elements; `length` outlives the call.
            ortsys![unsafe GetStringTensorElementLength(self.0.as_ptr(), index, &raw mut length)?];
            let mut element = vec![0_u8; length];
            // SAFETY: `element` has exactly `length` writable bytes.
            ortsys![unsafe GetStringTensorElement(self.0.as_ptr(), length, index, element.as_mut_ptr().cast())?];
            elements.push(element.into());
        }
        Ok(elements)
    }

    /// The value as shared bytes: no copy, released when the last of them goes.
    pub(super) fn into_bytes(self) -> ort::Result<Bytes> {
        struct Owner(Value);
        impl AsRef<[u8]> for Owner {
            fn as_ref(&self) -> &[u8] {
                self.0.bytes().unwrap_or_default()
            }
        }
        // Whether it can be read is found out while an error can still be told.
        self.bytes()?;
        Ok(Bytes::from_owner(Owner(self)))
    }
}
