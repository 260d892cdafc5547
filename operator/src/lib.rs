//! See the crate's own files; this root only declares them.
