//! Blocks of memory, and where they come from. The argument for the `unsafe` code stands in
//! [`super`]: its points are meant here.

use std::{
    ffi::c_void,
    mem,
    ptr::{self, NonNull},
    sync::{Arc, OnceLock},
};

use ort::{AsPointer, memory::Allocator, sys::OrtAllocator};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use super::Blocks;

/// Bytes before what a session gets: a multiple of the largest alignment that kernels ask for.
pub(super) const HEADER: usize = 64;
/// Bytes behind what a session gets, in a block of pages: ONNX Runtime's allocator adds them too.
const TAIL: usize = 64;
/// Blocks of at least this size are pages of their own.
pub(super) const MAPPED: usize = 128 << 10;
/// More than any machine has.
const IMPOSSIBLE: usize = isize::MAX as usize - HEADER;

pub(super) static SYSTEM: OnceLock<System> = OnceLock::new();

#[repr(C)]
pub(super) struct Header {
    /// Null for a block that no run took, or a small one.
    owner: *const Blocks,
    /// Bytes of the whole block.
    size: usize,
}

/// A block that nobody uses, from its header on.
pub(super) struct Block(NonNull<Header>);

// SAFETY: point 1: memory that belongs to nobody else.
unsafe impl Send for Block {}

impl Block {
    /// # Safety
    /// `content` came out of [`Block::content`] of a block that the caller gives up.
    pub(super) unsafe fn of(content: NonNull<c_void>) -> Self {
        // SAFETY: point 1.
        Self(unsafe { content.byte_sub(HEADER) }.cast())
    }

    /// Writes the header of a fresh block; what the session gets.
    pub(super) fn begin(self, owner: *const Blocks, size: usize) -> *mut c_void {
        // SAFETY: point 1: the block has room for a header, is aligned for it, and is ours.
        unsafe { self.0.write(Header { owner, size }) };
        self.content()
    }

    pub(super) fn content(self) -> *mut c_void {
        // SAFETY: point 1.
        unsafe { self.0.byte_add(HEADER) }.as_ptr().cast()
    }

    pub(super) fn size(&self) -> usize {
        // SAFETY: point 1.
        unsafe { self.0.as_ref() }.size
    }

    /// The count that the block holds of its owner.
    pub(super) fn take_owner(&self) -> Option<Arc<Blocks>> {
        // SAFETY: point 1.
        let owner = unsafe { self.0.as_ref() }.owner;
        // SAFETY: point 2: the count that was given with the block.
        (!owner.is_null()).then(|| unsafe { Arc::from_raw(owner) })
    }

    pub(super) fn free(self) {
        let size = self.size();
        if size >= MAPPED {
            // SAFETY: point 1: mapped with this length, and nobody's any more. What cannot be
            // unmapped stays: there is nobody to tell.
            let _ = unsafe { munmap(self.0.as_ptr().cast(), size + TAIL) };
        } else if let Some(system) = SYSTEM.get() {
            // SAFETY: point 1: given by this allocator, and nobody's any more.
            unsafe { (system.free)(system.allocator, self.0.as_ptr().cast()) };
        }
    }
}

/// A block of pages.
pub(super) fn mapped(size: usize) -> Option<Block> {
    let length = size.checked_add(TAIL)?;
    // SAFETY: fresh pages that touch no memory of this program.
    let pages =
        unsafe { mmap_anonymous(ptr::null_mut(), length, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE) };
    NonNull::new(pages.ok()?).map(|pages| Block(pages.cast()))
}

impl System {
    pub(super) fn init() -> ort::Result<()> {
        let allocator = Allocator::default().ptr().cast_mut();
        // SAFETY: the default allocator lives as long as the process.
        let callbacks = unsafe { ((*allocator).Alloc, (*allocator).Free) };
        let (Some(alloc), Some(free)) = callbacks else {
            return Err(ort::Error::new("ONNX Runtime's allocator cannot allocate"));
        };
        // SAFETY: point 5.
        let alloc = unsafe {
            mem::transmute::<
                unsafe extern "system" fn(*mut OrtAllocator, usize) -> *mut c_void,
                unsafe extern "system-unwind" fn(*mut OrtAllocator, usize) -> *mut c_void,
            >(alloc)
        };
        SYSTEM.get_or_init(|| Self { allocator, alloc, free });
        Ok(())
    }

    /// May throw (point 4).
    pub(super) fn allocate(&self, size: usize) -> Option<Block> {
        // SAFETY: the process's default allocator.
        NonNull::new(unsafe { (self.alloc)(self.allocator, size) }).map(|block| Block(block.cast()))
    }

    /// Throws (point 4).
    pub(super) fn refuse(&self) -> *mut c_void {
        // SAFETY: the process's default allocator.
        unsafe { (self.alloc)(self.allocator, IMPOSSIBLE) }
    }
}

/// ONNX Runtime's own CPU allocator.
pub(super) struct System {
    allocator: *mut OrtAllocator,
    alloc: unsafe extern "system-unwind" fn(*mut OrtAllocator, usize) -> *mut c_void,
    free: unsafe extern "system" fn(*mut OrtAllocator, *mut c_void),
}

// SAFETY: the default allocator is one for the whole process, lives as long, and may be used by
// any thread.
unsafe impl Send for System {}
// SAFETY: as above.
unsafe impl Sync for System {}
