//! The memory that runs take: how much one may hold, and what is kept for the next.
//!
//! Every session takes the memory of its tensors from the one allocator registered here. It gets
//! large blocks from the system as pages of their own, so that each goes back to the system when it
//! is freed, and small ones from ONNX Runtime's own CPU allocator. It keeps three rules:
//!
//! * A run may hold so much at once (`scheduler.max_run_memory`), and all sessions together so
//!   much (`runtime.max_memory`). What is more is refused, and the run fails with an error.
//!   A shape in a request that asks for a terabyte must not be the end of the process.
//! * Large blocks are kept by their session for its next runs ([`Blocks`]): fresh memory costs a
//!   page fault for each 4 KiB. What is kept is never more than what its recent runs held at
//!   once, and goes back to the system with the session, or when the memory of all runs is short. Where recent runs are few, it
//!   goes back with time ([`age`]): one large answer is not kept until many more have followed.
//! * Small blocks are left to the allocator below, which is good at them.
//!
//! A run is known by its thread: kernels allocate on the thread that called `Run`. What they
//! allocate on threads of the pool, and what the standard containers inside of kernels hold (the
//! characters of strings among it), is not counted.
//!
//! # The argument for the `unsafe` code
//!
//! 1. **Blocks.** A block is what the system or ONNX Runtime's allocator gave: [`HEADER`] bytes
//!    that hold a [`Header`], then what the session gets, and in pages [`TAIL`] bytes more, as
//!    some kernels read a little too far. So the pointer that a session gives back finds its header
//!    just before it, and is aligned to `HEADER`, as that of ONNX Runtime's allocator is. The
//!    header is written once, before the block is handed out; its size tells where the block is
//!    from. A block is in one place at a time: with the session, or on the list of its `Blocks`.
//! 2. **Owners.** A block taken in a run holds one strong count of its `Blocks`, which it gives up
//!    when it comes back: outputs may outlive their session. Other blocks have no owner.
//! 3. **The current run.** `RUN` is set and taken back on the same thread by [`Blocks::during`],
//!    which borrows the `Blocks` for as long: the pointer in it is valid whenever it is seen.
//! 4. **Refusing.** The kernels of ONNX Runtime don't expect null: its own allocator throws
//!    `std::bad_alloc`, which `Run` turns into an error. So to refuse, that allocator is asked for
//!    more than any machine has. The exception passes through [`allocate`], whose ABI
//!    (`system-unwind`) allows for that; what it holds then is released as in any unwinding. No
//!    exception is thrown on a thread that has no run: threads of the pool would not survive it.
//! 5. **Types.** `ort` declares the callbacks without `-unwind`. They are called by C++ only, to
//!    which both are the same; ours are `system-unwind`, and the runtime's is called as such.

mod block;
mod blocks;

use std::{
    cell::RefCell,
    ffi::c_void,
    mem,
    ptr::{self, NonNull},
    sync::{
        Arc, Mutex, OnceLock, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use ort::{
    AsPointer,
    environment::Environment,
    memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType},
    ortsys,
    sys::{ORT_API_VERSION, OrtAllocator, OrtMemoryInfo},
};

use self::block::{Block, HEADER, MAPPED, SYSTEM, System, mapped};
pub(in crate::engine) use self::blocks::Blocks;

/// Blocks of at least this size are kept for the next run; smaller ones are cheap to get.
const LARGE: usize = 16 << 10;
/// A run that holds no more than this is not refused because of what others hold.
const MODEST: usize = 64 << 20;

/// Why a run got no more memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum Shortage {
    /// It would hold more than one run may.
    Run,
    /// All runs together hold what they may.
    All,
}

/// Bytes of large blocks that all sessions hold, kept ones included.
static HELD: AtomicUsize = AtomicUsize::new(0);
/// The most that `HELD` may be.
static LIMIT: AtomicUsize = AtomicUsize::new(usize::MAX);
/// Whose kept blocks can be let go when memory is short.
static ALL: Mutex<Vec<Weak<Blocks>>> = Mutex::new(Vec::new());

thread_local! {
    /// The run that this thread is in.
    static RUN: RefCell<Option<Run>> = const { RefCell::new(None) };
}

struct Run {
    blocks: *const Blocks,
    limit: usize,
    held: usize,
    has_taken: bool,
    shortage: Option<Shortage>,
}

/// Has every session of `environment` that is made with env allocators take its memory from here.
/// `limit` is what all runs together may hold.
pub(in crate::engine) fn register(environment: &Environment, limit: usize) -> ort::Result<()> {
    LIMIT.store(limit, Relaxed);
    System::init()?;
    let info = MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::Default)?;
    // Both live as long as the process: the environment keeps the pointer.
    INFO.get_or_init(|| Info(info.ptr()));
    mem::forget(info);
    // SAFETY: point 5.
    let alloc = unsafe {
        mem::transmute::<
            unsafe extern "system-unwind" fn(*mut OrtAllocator, usize) -> *mut c_void,
            unsafe extern "system" fn(*mut OrtAllocator, usize) -> *mut c_void,
        >(allocate)
    };
    // SAFETY: plain data.
    let empty = unsafe { OrtAllocator::default() };
    let ours = Box::leak(Box::new(OrtAllocator {
        version: ORT_API_VERSION,
        Alloc: Some(alloc),
        Free: Some(release),
        Info: Some(info_of),
        ..empty
    }));
    // SAFETY: a live environment, and an allocator that is never dropped.
    ortsys![unsafe RegisterAllocator(environment.ptr().cast_mut(), ours)?];
    Ok(())
}

struct Info(*const OrtMemoryInfo);

// SAFETY: read-only from here on.
unsafe impl Send for Info {}
// SAFETY: as above.
unsafe impl Sync for Info {}

static INFO: OnceLock<Info> = OnceLock::new();

unsafe extern "system" fn info_of(_: *const OrtAllocator) -> *const OrtMemoryInfo {
    INFO.get().map_or(ptr::null(), |info| info.0)
}

/// `OrtAllocator::Alloc`.
unsafe extern "system-unwind" fn allocate(_: *mut OrtAllocator, size: usize) -> *mut c_void {
    let Some(system) = SYSTEM.get().filter(|_| size > 0) else { return ptr::null_mut() };
    let size = size.saturating_add(HEADER);
    // What is decided holds nothing borrowed: the calls below may throw (point 4).
    match decide(size) {
        Decision::Kept(block) => block.content(),
        Decision::Fresh(fresh) => {
            let block = if fresh.size < MAPPED { system.allocate(fresh.size) } else { mapped(fresh.size) };
            match block {
                Some(block) => {
                    let owner = fresh.owner();
                    block.begin(owner, fresh.taken())
                }
                None => system.refuse(),
            }
        }
        Decision::Refused => system.refuse(),
    }
}

/// `OrtAllocator::Free`.
unsafe extern "system" fn release(_: *mut OrtAllocator, content: *mut c_void) {
    // SAFETY: point 1: what a session gives back is what it got from `allocate`.
    let Some(block) = NonNull::new(content).map(|content| unsafe { Block::of(content) }) else { return };
    let size = block.size();
    let _ = RUN.try_with(|run| {
        if let Ok(mut run) = run.try_borrow_mut()
            && let Some(run) = run.as_mut()
        {
            run.held = run.held.saturating_sub(size);
        }
    });
    match block.take_owner() {
        Some(owner) => owner.give_back(block),
        None => block.free(),
    }
}

enum Decision {
    Kept(Block),
    Fresh(Fresh),
    Refused,
}

/// A block that is about to be allocated. Dropped before it is: nothing of it is counted.
struct Fresh {
    size: usize,
    /// For a large block of a run: `size` is counted in `HELD` and in the owner already.
    owner: Option<Arc<Blocks>>,
}

impl Fresh {
    fn owner(&self) -> *const Blocks {
        self.owner.as_ref().map_or(ptr::null(), Arc::as_ptr)
    }

    /// The block exists: it owns the count from here on. Returns its size.
    fn taken(mut self) -> usize {
        if let Some(owner) = self.owner.take() {
            let _ = Arc::into_raw(owner);
        }
        self.size
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        if let Some(owner) = &self.owner {
            owner.lock().in_use -= self.size;
            HELD.fetch_sub(self.size, Relaxed);
        }
    }
}

fn decide(size: usize) -> Decision {
    let outside = || Decision::Fresh(Fresh { size, owner: None });
    RUN.try_with(|run| run.try_borrow_mut().ok()?.as_mut().map(|run| run.decide(size)))
        .ok()
        .flatten()
        .unwrap_or_else(outside)
}

impl Run {
    fn decide(&mut self, size: usize) -> Decision {
        let size = if size < LARGE { size } else { class(size) };
        if self.held.saturating_add(size) > self.limit {
            self.shortage.get_or_insert(Shortage::Run);
            return Decision::Refused;
        }
        if size < LARGE {
            self.held += size;
            return Decision::Fresh(Fresh { size, owner: None });
        }
        self.has_taken = true;
        // SAFETY: point 3; a count for the block (point 2).
        let blocks = unsafe {
            Arc::increment_strong_count(self.blocks);
            Arc::from_raw(self.blocks)
        };
        if let Some(block) = blocks.take(size) {
            self.held += block.size();
            let _ = Arc::into_raw(blocks);
            return Decision::Kept(block);
        }
        if !has_room(size, self.held + size <= MODEST) {
            self.shortage.get_or_insert(Shortage::All);
            return Decision::Refused;
        }
        self.held += size;
        Decision::Fresh(blocks.fresh(size))
    }
}

/// A while has passed: gives back what no run has held during this while or the one before it. What a while is, the caller says.
pub(in crate::engine) fn age() {
    let all: Vec<Arc<Blocks>> =
        ALL.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade).collect();
    for blocks in all {
        blocks.age();
    }
}

/// Counts `size` more bytes, where the limit of all runs allows it.
fn has_room(size: usize, is_modest: bool) -> bool {
    let limit = LIMIT.load(Relaxed);
    let count = || {
        let next = |held: usize| held.checked_add(size).filter(|&held| held <= limit);
        HELD.fetch_update(Relaxed, Relaxed, next).is_ok()
    };
    if count() {
        return true;
    }
    let all: Vec<Arc<Blocks>> =
        ALL.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade).collect();
    for blocks in all {
        blocks.trim();
    }
    if count() {
        return true;
    }
    if is_modest {
        HELD.fetch_add(size, Relaxed);
    }
    is_modest
}

/// The size that is allocated for `size`: eight sizes from one power of two to the next, so that
/// blocks fit again for inputs of nearly the same size.
fn class(size: usize) -> usize {
    let step = 1 << size.max(8).ilog2().saturating_sub(3);
    size.checked_next_multiple_of(step).unwrap_or(size)
}

#[cfg(test)]
mod tests;
