//! Blocks, limits and what is kept, without the library: sizes from `MAPPED` on need none.
#![allow(unsafe_code, reason = "stands in for ONNX Runtime")]

use std::{slice, sync::mpsc, thread};

use proptest::prelude::*;

use super::{blocks::WINDOW, *};

const MIB: usize = 1 << 20;

/// What `allocate` does where no library is loaded: for sizes from `MAPPED` on.
fn get(size: usize) -> Option<NonNull<c_void>> {
    match decide(size + HEADER) {
        Decision::Kept(block) => NonNull::new(block.content()),
        Decision::Fresh(fresh) => {
            let (block, owner) = (mapped(fresh.size).unwrap(), fresh.owner());
            NonNull::new(block.begin(owner, fresh.taken()))
        }
        Decision::Refused => None,
    }
}

fn give(content: NonNull<c_void>) {
    // SAFETY: from `get`, and not used afterwards.
    unsafe { release(ptr::null_mut(), content.as_ptr()) };
}

fn kept(blocks: &Blocks) -> usize {
    blocks.lock().free_bytes
}

#[test]
fn run_may_hold_its_limit_at_once_and_more_in_turn() {
    let blocks = Blocks::new();
    let ((), shortage) = blocks.during(2 * MIB, || {
        for _ in 0..10 {
            give(get(MIB).unwrap());
        }
    });
    assert_eq!(shortage, None);
    let ((), shortage) = blocks.during(2 * MIB, || {
        let first = get(MIB).unwrap();
        assert!(get(MIB + MIB / 2).is_none() && get(usize::MAX - HEADER).is_none());
        give(first);
        give(get(MIB + MIB / 2).unwrap());
    });
    assert_eq!(shortage, Some(Shortage::Run));
}

#[test]
fn next_run_gets_the_blocks_of_the_one_before() {
    let blocks = Blocks::new();
    let run = |size| blocks.during(usize::MAX, || get(size).inspect(|&content| give(content))).0;
    let first = run(MIB);
    assert_eq!(run(MIB), first);
    assert_eq!(run(MIB - MIB / 10), first, "one that is a little too large will do");
    assert_eq!(kept(&blocks), class(MIB + HEADER));
    blocks.trim();
    assert_eq!(kept(&blocks), 0);
}

#[test]
fn what_is_kept_follows_what_recent_runs_held() {
    let blocks = Blocks::new();
    let run = |size| blocks.during(usize::MAX, || give(get(size).unwrap())).0;
    run(64 * MIB);
    for _ in 0..2 * WINDOW {
        run(MIB);
    }
    assert!(kept(&blocks) <= class(MIB + HEADER), "{}", kept(&blocks));
    // Sizes that never come again don't add up.
    for size in 1..50 {
        run(size * MIB);
    }
    assert!(kept(&blocks) <= class(50 * MIB));
}

#[test]
fn what_is_kept_goes_back_with_time_where_runs_are_few() {
    let blocks = Blocks::new();
    let run = |size| blocks.during(usize::MAX, || give(get(size).unwrap())).0;
    run(64 * MIB);
    blocks.age();
    assert_eq!(kept(&blocks), class(64 * MIB + HEADER), "a run of this while may be followed by another");
    run(MIB);
    blocks.age();
    assert!(kept(&blocks) <= class(MIB + HEADER), "{}", kept(&blocks));
    blocks.age();
    assert_eq!(kept(&blocks), 0, "nothing ran");
    // Steady runs keep their blocks, however many whiles pass, and small ones hold nothing back.
    let first = blocks.during(usize::MAX, || get(4 * MIB).inspect(|&content| give(content))).0;
    for _ in 0..10 {
        blocks.age();
        assert_eq!(blocks.during(usize::MAX, || get(4 * MIB).inspect(|&content| give(content))).0, first);
    }
    // What is in use stays, and is kept no longer than the rest.
    let output = blocks.during(usize::MAX, || get(32 * MIB).unwrap()).0;
    (0..3).for_each(|_| blocks.age());
    assert!(blocks.lock().in_use > 32 * MIB);
    give(output);
    assert!(kept(&blocks) > 32 * MIB);
    (0..2).for_each(|_| blocks.age());
    assert_eq!((kept(&blocks), blocks.lock().in_use), (0, 0));
}

#[test]
fn outputs_outlive_their_session_and_are_not_kept_then() {
    let blocks = Blocks::new();
    let output = blocks.during(usize::MAX, || get(MIB).unwrap()).0;
    blocks.close();
    let observer = Arc::downgrade(&blocks);
    drop(blocks);
    assert!(observer.upgrade().is_some_and(|blocks| blocks.lock().in_use > 0));
    give(output);
    assert!(observer.upgrade().is_none());
}

#[test]
fn memory_outside_of_runs_has_no_owner_and_no_limit() {
    let blocks = Blocks::new();
    let weights = get(3 * MIB).unwrap();
    let ((), shortage) = blocks.during(0, || give(weights));
    assert_eq!(shortage, None);
    assert_eq!((kept(&blocks), blocks.lock().in_use), (0, 0));
}

/// A block that two hold at once would show another's mark.
#[test]
fn no_block_is_handed_out_twice_whichever_thread_gives_it_back() {
    let blocks = Blocks::new();
    let (to, from) = mpsc::channel::<(usize, usize, u8)>();
    let check_and_give = |(content, size, mark): (usize, usize, u8)| {
        let content = NonNull::new(content as *mut c_void).unwrap();
        // SAFETY: `size` bytes that only the holder of the message uses.
        let bytes = unsafe { slice::from_raw_parts(content.as_ptr().cast::<u8>(), size) };
        assert!(bytes[0] == mark && bytes[size - 1] == mark && bytes[size / 2] == mark);
        give(content);
    };
    thread::scope(|scope| {
        for mark in 1..9_u8 {
            let (blocks, to) = (&blocks, to.clone());
            scope.spawn(move || {
                for round in 0..200_usize {
                    let ((), shortage) = blocks.during(64 * MIB, || {
                        let size = MAPPED + (round * 7919 + usize::from(mark) * 104_729) % MIB;
                        for size in [size, size / 2 + MAPPED] {
                            let content = get(size).unwrap();
                            // SAFETY: `size` bytes that only this thread uses.
                            unsafe { content.cast::<u8>().write_bytes(mark, size) };
                            to.send((content.as_ptr() as usize, size, mark)).unwrap();
                        }
                    });
                    assert_eq!(shortage, None);
                }
            });
        }
        drop(to);
        scope.spawn(move || from.into_iter().for_each(check_and_give));
    });
    assert_eq!(blocks.lock().in_use, 0);
}

proptest! {
    #[test]
    fn class_is_hardly_larger_than_asked_for(size in LARGE..1_usize << 40) {
        prop_assert!((size..=size + size / 8).contains(&class(size)));
        prop_assert_eq!(class(class(size)), class(size));
    }
}
