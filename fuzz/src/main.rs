//! The fuzzer of all that reads bytes which others wrote: one program, whose target the variable
//! `FUZZ_TARGET` names. `README.md` says how to run it.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tidegate::fuzzing::{TARGETS, Target};

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let names = TARGETS.map(|(name, _)| name).join(", ");
    let wanted = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let found = TARGETS.iter().find(|(name, _)| *name == wanted);
    found.unwrap_or_else(|| panic!("set FUZZ_TARGET to one of {names}")).1
});

fuzz_target!(|bytes: &[u8]| TARGET(bytes));
