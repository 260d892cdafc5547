//! Replication of a pair without any I/O.
mod message;
pub use message::{
    Attach, Attached, FRAME_BYTES_MAX, Follower, FollowerKind, Message, MessageError, WIRE_VERSION,
};
