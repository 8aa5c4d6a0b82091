//! The memory that runs take: how much one may hold, and what is kept for the next.
//!
//! Every session takes the memory of its tensors from the one allocator registered here. It asks
//! ONNX Runtime's own CPU allocator for it, and keeps three rules:
//!
//! * A run may hold so much at once (`scheduler.max_run_memory`), and all sessions together so
//!   much (`runtime.max_memory`). What is more is refused, and the run fails with an error.
//!   A shape in a request that asks for a terabyte must not be the end of the process.
//! * Large blocks are kept by their session for its next runs ([`Blocks`]): fresh memory costs a
//!   page fault for each 4 KiB. What is kept is never more than what its recent runs held at
//!   once, and goes back to the system with the session, or when the memory of all runs is short.
//! * Small blocks are left to the system's allocator, which is good at them.
//!
//! A run is known by its thread: kernels allocate on the thread that called `Run`. What they
//! allocate on threads of the pool, and what the standard containers inside of kernels hold (the
//! characters of strings among it), is not counted.
//!
//! # The argument for the `unsafe` code
//!
//! 1. **Blocks.** A block is what ONNX Runtime's allocator gave: [`HEADER`] bytes that hold a
//!    [`Header`], then what the session gets. So the pointer that a session gives back finds its
//!    header just before it, and the alignment of ONNX Runtime's allocator is kept. The header is
//!    written once, before the block is handed out, and a block is in one place at a time: with
//!    the session, or on the list of its `Blocks`.
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

use std::{
    cell::RefCell,
    collections::BTreeMap,
    ffi::c_void,
    mem,
    ptr::{self, NonNull},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use ort::{
    AsPointer,
    environment::Environment,
    memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType},
    ortsys,
    sys::{ORT_API_VERSION, OrtAllocator, OrtMemoryInfo},
};

/// Bytes before what a session gets: a multiple of the largest alignment that kernels ask for.
const HEADER: usize = 64;
/// Blocks of at least this size are kept for the next run; smaller ones are cheap to get.
const LARGE: usize = 16 << 10;
/// A run that holds no more than this is not refused because of what others hold.
const MODEST: usize = 64 << 20;
/// What is kept follows what the runs of this many runs held.
const WINDOW: u32 = 64;
/// More than any machine has.
const IMPOSSIBLE: usize = isize::MAX as usize - HEADER;

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
static SYSTEM: OnceLock<System> = OnceLock::new();

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

#[repr(C)]
struct Header {
    /// Null for a block that no run took, or a small one.
    owner: *const Blocks,
    /// Bytes of the whole block.
    size: usize,
}

/// A block that nobody uses, from its header on.
struct Block(NonNull<Header>);

// SAFETY: point 1: memory that belongs to nobody else.
unsafe impl Send for Block {}

/// ONNX Runtime's own CPU allocator.
struct System {
    allocator: *mut OrtAllocator,
    alloc: unsafe extern "system-unwind" fn(*mut OrtAllocator, usize) -> *mut c_void,
    free: unsafe extern "system" fn(*mut OrtAllocator, *mut c_void),
}

// SAFETY: the default allocator is one for the whole process, lives as long, and may be used by
// any thread.
unsafe impl Send for System {}
// SAFETY: as above.
unsafe impl Sync for System {}

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
            let block = system.allocate(fresh.size);
            let owner = fresh.owner();
            block.map_or(ptr::null_mut(), |block| block.begin(owner, fresh.taken()))
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
    all.iter().for_each(|blocks| blocks.trim());
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
    let step = (size.next_power_of_two() / 16).max(1);
    size.checked_next_multiple_of(step).unwrap_or(size)
}

/// The large blocks of one session's runs.
pub(in crate::engine) struct Blocks {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// By size.
    free: BTreeMap<usize, Vec<Block>>,
    free_bytes: usize,
    in_use: usize,
    /// The most that was in use at once in this window of runs, and in the one before.
    peak: usize,
    previous_peak: usize,
    runs: u32,
    /// The session is gone: nothing is kept any more.
    is_closed: bool,
}

impl Blocks {
    pub(in crate::engine) fn new() -> Arc<Self> {
        let blocks = Arc::new(Self { kept: Mutex::default() });
        let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|other| other.strong_count() > 0);
        all.push(Arc::downgrade(&blocks));
        blocks
    }

    /// Does `work` as a run that may hold `limit` bytes. Says whether it was short of memory.
    pub(in crate::engine) fn during<T>(
        self: &Arc<Self>,
        limit: usize,
        work: impl FnOnce() -> T,
    ) -> (T, Option<Shortage>) {
        struct Guard;
        impl Drop for Guard {
            fn drop(&mut self) {
                RUN.take();
            }
        }
        RUN.set(Some(Run { blocks: Arc::as_ptr(self), limit, held: 0, has_taken: false, shortage: None }));
        let guard = Guard;
        let done = work();
        let run = RUN.take();
        mem::forget(guard);
        if run.as_ref().is_some_and(|run| run.has_taken) {
            self.end_of_run();
        }
        (done, run.and_then(|run| run.shortage))
    }

    /// Gives back all that is kept.
    pub(in crate::engine) fn trim(&self) {
        let mut kept = self.lock();
        (kept.peak, kept.previous_peak) = (kept.in_use, 0);
        let surplus = kept.surplus();
        drop(kept);
        free_all(surplus);
    }

    /// As [`Blocks::trim`], and keeps nothing from here on.
    pub(in crate::engine) fn close(&self) {
        self.lock().is_closed = true;
        self.trim();
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A kept block that is not much too large.
    fn take(&self, size: usize) -> Option<Block> {
        let mut kept = self.lock();
        let (_, blocks) = kept.free.range_mut(size..=size + size / 4).find(|(_, blocks)| !blocks.is_empty())?;
        let block = blocks.pop()?;
        kept.free_bytes -= block.size();
        kept.uses(block.size());
        Some(block)
    }

    /// A block that is counted, and not yet allocated. What it pushes over what was ever held at
    /// once is given back before.
    fn fresh(self: Arc<Self>, size: usize) -> Fresh {
        let mut kept = self.lock();
        kept.uses(size);
        let surplus = kept.surplus();
        drop(kept);
        free_all(surplus);
        Fresh { size, owner: Some(self) }
    }

    fn give_back(&self, block: Block) {
        let mut kept = self.lock();
        kept.in_use -= block.size();
        kept.free_bytes += block.size();
        kept.free.entry(block.size()).or_default().push(block);
        let surplus = if kept.is_closed { kept.surplus_over(0) } else { Vec::new() };
        drop(kept);
        free_all(surplus);
    }

    fn end_of_run(&self) {
        let mut kept = self.lock();
        kept.runs += 1;
        if kept.runs < WINDOW {
            return;
        }
        (kept.runs, kept.previous_peak, kept.peak) = (0, kept.peak, kept.in_use);
        let surplus = kept.surplus();
        drop(kept);
        free_all(surplus);
    }
}

impl Kept {
    fn uses(&mut self, size: usize) {
        self.in_use += size;
        self.peak = self.peak.max(self.in_use);
    }

    /// What is kept beyond what recent runs held at once, taken off the lists.
    fn surplus(&mut self) -> Vec<Block> {
        let allowed = self.peak.max(self.previous_peak).saturating_sub(self.in_use);
        self.surplus_over(allowed)
    }

    /// The largest first: the fewest calls.
    fn surplus_over(&mut self, allowed: usize) -> Vec<Block> {
        let mut surplus = Vec::new();
        while self.free_bytes > allowed {
            let Some(mut largest) = self.free.last_entry() else { break };
            match largest.get_mut().pop() {
                Some(block) => {
                    self.free_bytes -= block.size();
                    surplus.push(block);
                }
                None => drop(largest.remove()),
            }
        }
        surplus
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        let surplus = self.kept.get_mut().unwrap_or_else(PoisonError::into_inner).surplus_over(0);
        free_all(surplus);
    }
}

fn free_all(blocks: Vec<Block>) {
    for block in blocks {
        HELD.fetch_sub(block.size(), Relaxed);
        block.free();
    }
}

impl Block {
    /// # Safety
    /// `content` came out of [`Block::content`] of a block that the caller gives up.
    unsafe fn of(content: NonNull<c_void>) -> Self {
        // SAFETY: point 1.
        Self(unsafe { content.byte_sub(HEADER) }.cast())
    }

    /// Writes the header of a fresh block; what the session gets.
    fn begin(self, owner: *const Blocks, size: usize) -> *mut c_void {
        // SAFETY: point 1: the block has room for a header, is aligned for it, and is ours.
        unsafe { self.0.write(Header { owner, size }) };
        self.content()
    }

    fn content(self) -> *mut c_void {
        // SAFETY: point 1.
        unsafe { self.0.byte_add(HEADER) }.as_ptr().cast()
    }

    fn size(&self) -> usize {
        // SAFETY: point 1.
        unsafe { self.0.as_ref() }.size
    }

    /// The count that the block holds of its owner.
    fn take_owner(&self) -> Option<Arc<Blocks>> {
        // SAFETY: point 1.
        let owner = unsafe { self.0.as_ref() }.owner;
        // SAFETY: point 2: the count that was given with the block.
        (!owner.is_null()).then(|| unsafe { Arc::from_raw(owner) })
    }

    fn free(self) {
        if let Some(system) = SYSTEM.get() {
            // SAFETY: point 1: given by this allocator, and nobody's any more.
            unsafe { (system.free)(system.allocator, self.0.as_ptr().cast()) };
        }
    }
}

impl System {
    fn init() -> ort::Result<()> {
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
    fn allocate(&self, size: usize) -> Option<Block> {
        // SAFETY: the process's default allocator.
        NonNull::new(unsafe { (self.alloc)(self.allocator, size) }).map(|block| Block(block.cast()))
    }

    /// Throws (point 4).
    fn refuse(&self) -> *mut c_void {
        // SAFETY: the process's default allocator.
        unsafe { (self.alloc)(self.allocator, IMPOSSIBLE) }
    }
}
