//! Tells the linker what a plugin needs that a library does not.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // nbdkit unloads its plugins before it exits. Rust's thread-local
    // destructors and a thread that is just ending still need the code.
    println!("cargo:rustc-link-arg-cdylib=-Wl,-z,nodelete");
}
