//! One pair: observe → validate → plan → build → execute → status.

pub mod action;
pub mod build;
pub mod names;
pub mod observation;
pub mod plan;
pub mod status;
pub mod validate;
