#![no_main]

#[allow(dead_code)]
#[path = "../../engine/tests/hostile/targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::index(data));
