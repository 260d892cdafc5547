//! Names the build in which the store and the log take shuttle's locks (their `sync.rs`).

fn main() {
    println!("cargo::rustc-cfg=shuttle");
    println!("cargo::rerun-if-changed=build.rs");
}
