//! The libFuzzer binary: attacks the target that `FUZZ_TARGET` names. Started by `./run fuzz NAME`.
#![no_main]
#![allow(clippy::panic, missing_docs)]

use std::sync::LazyLock;

static TARGET: LazyLock<fuzz::Target> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    fuzz::target(&name).unwrap_or_else(|| panic!("FUZZ_TARGET names no target: `{name}`"))
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| (TARGET.attack)(data));
