//! Names the build in which `store/src/sync.rs` takes shuttle's locks.

fn main() {
    println!("cargo::rustc-cfg=shuttle");
    println!("cargo::rerun-if-changed=build.rs");
}
