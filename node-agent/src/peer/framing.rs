//! Frames: how messages lie in the byte stream. Pure; used by [`super::link`] only.
//!
//! ```text
//! u32 little endian: length of what follows │ u8 kind │ body (postcard) │ records (only Message::Frame)
//! ```
//!
//! **Invariants.** 1. A length is checked against the limit of its kind as soon as five bytes are
//! there. 2. Decoding of untrusted bytes never panics.
//!
//! Deliberately absent: checksums of its own. TLS authenticates every byte, and records carry the
//! log's own checksum, verified again when they are appended.

use super::{error::FrameError, link::Received};
use bytes::{Buf, Bytes, BytesMut};
use serde::{Serialize, de::DeserializeOwned};
use understudy_replication::{FRAME_BYTES_MAX, Message};
use understudy_txlog::record::{OVERHEAD_BYTES_MAX, PAYLOAD_BYTES_MAX};

/// First bytes of the side that dials, inside TLS: name and version of the framing.
pub(super) const PREFACE: [u8; 8] = *b"ustudy\x00\x01";

/// Length field and kind.
pub(super) const HEADER_BYTES: usize = 5;

/// Longest postcard body of a message beside its records.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// Longest first exchange: an epoch history of about 30 000 failovers.
const ATTACH_BYTES_MAX: usize = 1 << 20;

/// Longest piece of a duplicate in one frame.
pub(crate) const CHUNK_BYTES_MAX: usize = 256 * 1024;

/// Longest record: one that is longer than [`FRAME_BYTES_MAX`] travels alone in its frame.
const RECORDS_BYTES_MAX: usize = PAYLOAD_BYTES_MAX + OVERHEAD_BYTES_MAX;
const _: () = assert!(RECORDS_BYTES_MAX >= FRAME_BYTES_MAX);
const _: () = assert!(RECORDS_BYTES_MAX + MESSAGE_BYTES_MAX < u32::MAX as usize);

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    /// `Attach`, the follower's first.
    Attach,
    /// `Attached`, the feeder's answer.
    Attached,
    /// `Message`, with the bytes of records behind a `Message::Frame`.
    Message,
    /// `DuplicateRequest`, first on a connection that wants a duplicate.
    DuplicateRequest,
    /// `DuplicateAnswer`.
    DuplicateAnswer,
    /// Raw bytes of a checkpoint file, in order.
    DuplicateChunk,
    /// `DuplicateEnd`: of the source after its last byte, of the receiver after verification.
    DuplicateEnd,
}

impl FrameKind {
    /// The byte on the wire.
    const fn code(self) -> u8 {
        match self {
            Self::Attach => 1,
            Self::Attached => 2,
            Self::Message => 3,
            Self::DuplicateRequest => 4,
            Self::DuplicateAnswer => 5,
            Self::DuplicateChunk => 6,
            Self::DuplicateEnd => 7,
        }
    }

    const fn from_code(code: u8) -> Result<Self, FrameError> {
        Ok(match code {
            1 => Self::Attach,
            2 => Self::Attached,
            3 => Self::Message,
            4 => Self::DuplicateRequest,
            5 => Self::DuplicateAnswer,
            6 => Self::DuplicateChunk,
            7 => Self::DuplicateEnd,
            code => return Err(FrameError::UnknownKind { code }),
        })
    }

    /// Longest body in bytes.
    const fn bytes_max(self) -> usize {
        match self {
            Self::Attach | Self::Attached | Self::DuplicateRequest => ATTACH_BYTES_MAX,
            Self::Message => RECORDS_BYTES_MAX + MESSAGE_BYTES_MAX,
            Self::DuplicateChunk => CHUNK_BYTES_MAX,
            Self::DuplicateAnswer | Self::DuplicateEnd => MESSAGE_BYTES_MAX,
        }
    }
}

/// Appends a frame: its body as postcard, then `tail` as it is.
pub(super) fn encode_into(out: &mut Vec<u8>, kind: FrameKind, body: &impl Serialize, tail: &[u8]) {
    let start = begin(out, kind);
    // On the stack first: postcard pushes byte by byte into a vector, a slice it fills.
    let mut small = [0_u8; 256];
    if let Ok(encoded) = postcard::to_slice(body, &mut small) {
        out.extend_from_slice(encoded);
    } else {
        let encoded = postcard::to_stdvec(body).expect("plain data always encodes");
        out.extend_from_slice(&encoded);
    }
    end(out, start, tail);
}

/// Appends a frame whose body is raw bytes.
pub(super) fn encode_raw_into(out: &mut Vec<u8>, kind: FrameKind, body: &[u8]) {
    let start = begin(out, kind);
    end(out, start, body);
}

fn begin(out: &mut Vec<u8>, kind: FrameKind) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0, 0, 0, 0, kind.code()]);
    start
}

fn end(out: &mut Vec<u8>, start: usize, tail: &[u8]) {
    out.extend_from_slice(tail);
    let length = u32::try_from(out.len() - start - 4).expect("senders keep the limits of kinds");
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

/// Kind and whole length of the frame at the start of `bytes`; `None` while too little has come.
fn header(bytes: &[u8]) -> Result<Option<(FrameKind, usize)>, FrameError> {
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_le_bytes(*length) as usize;
    if length == 0 {
        return Err(FrameError::Empty);
    }
    let Some(code) = rest.first() else { return Ok(None) };
    let kind = FrameKind::from_code(*code)?;
    let limit = kind.bytes_max();
    if length - 1 > limit {
        return Err(FrameError::TooLong { kind, bytes: length - 1, limit });
    }
    Ok(Some((kind, length + 4)))
}

/// Takes the frame at the start of `bytes`, if it is whole.
pub(super) fn take_frame(bytes: &mut BytesMut) -> Result<Option<(FrameKind, Bytes)>, FrameError> {
    let Some((kind, length)) = header(bytes)? else { return Ok(None) };
    if bytes.len() < length {
        return Ok(None);
    }
    let mut frame = bytes.split_to(length).freeze();
    frame.advance(HEADER_BYTES);
    Ok(Some((kind, frame)))
}

/// Takes every whole message at the start of `bytes`; records stay where they are and are shared, not
/// copied.
///
/// # Errors
/// On the first frame that is not a message. `batch` keeps what came before it.
pub(super) fn take_messages(
    bytes: &mut BytesMut,
    batch: &mut Vec<Received>,
) -> Result<(), FrameError> {
    loop {
        let Some((kind, length)) = header(bytes)? else { return Ok(()) };
        if bytes.len() < length {
            return Ok(());
        }
        if kind != FrameKind::Message {
            return Err(FrameError::Unexpected { kind });
        }
        let (message, tail) = decode_head::<Message>(kind, &bytes[HEADER_BYTES..length])?;
        let records = if matches!(message, Message::Frame { .. }) {
            let mut frame = bytes.split_to(length).freeze();
            frame.advance(length - tail);
            frame
        } else if tail == 0 {
            bytes.advance(length);
            Bytes::new()
        } else {
            return Err(FrameError::Trailing { kind, bytes: tail });
        };
        batch.push(Received { message, records });
    }
}

/// Decodes a whole body.
pub(super) fn decode<T: DeserializeOwned>(kind: FrameKind, body: &[u8]) -> Result<T, FrameError> {
    match decode_head(kind, body)? {
        (value, 0) => Ok(value),
        (_, bytes) => Err(FrameError::Trailing { kind, bytes }),
    }
}

/// Decodes the value at the start of a body and says how many bytes are left.
pub(super) fn decode_head<T: DeserializeOwned>(
    kind: FrameKind,
    body: &[u8],
) -> Result<(T, usize), FrameError> {
    postcard::take_from_bytes(body)
        .map(|(value, rest)| (value, rest.len()))
        .map_err(|source| FrameError::Malformed { kind, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use understudy_types::{Epoch, Lsn};

    fn frame(first: u64) -> Message {
        Message::Frame {
            epoch: Epoch(3),
            first: Lsn(first),
            last: Lsn(first),
            acknowledged: Lsn(first - 1),
        }
    }

    #[test]
    fn messages_and_their_records_come_out_as_they_went_in() {
        let mut wire = Vec::new();
        encode_into(&mut wire, FrameKind::Message, &frame(7), b"records of seven");
        let note = Message::Refused { promised: Epoch(9) };
        encode_into(&mut wire, FrameKind::Message, &note, &[]);
        encode_into(&mut wire, FrameKind::Message, &frame(8), &[1; 5000]);
        // Every cut of the stream gives the same messages.
        for cut in 0..wire.len() {
            let mut bytes = BytesMut::from(&wire[..cut]);
            let mut batch = Vec::new();
            take_messages(&mut bytes, &mut batch).unwrap();
            bytes.extend_from_slice(&wire[cut..]);
            take_messages(&mut bytes, &mut batch).unwrap();
            assert!(bytes.is_empty());
            assert_eq!(batch.len(), 3);
            assert_eq!(batch[0].message, frame(7));
            assert_eq!(&batch[0].records[..], b"records of seven");
            assert_eq!(batch[1].message, note);
            assert!(batch[1].records.is_empty());
            assert_eq!(batch[2].records.len(), 5000);
        }
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_at_its_header() {
        let mut wire = Vec::new();
        wire.extend_from_slice(&(u32::MAX).to_le_bytes());
        wire.push(FrameKind::Message.code());
        let error = take_messages(&mut BytesMut::from(&wire[..]), &mut Vec::new()).unwrap_err();
        assert!(matches!(error, FrameError::TooLong { kind: FrameKind::Message, .. }), "{error}");
        wire[..4].copy_from_slice(&(CHUNK_BYTES_MAX as u32 + 2).to_le_bytes());
        wire[4] = FrameKind::DuplicateChunk.code();
        let error = take_frame(&mut BytesMut::from(&wire[..])).unwrap_err();
        assert!(matches!(error, FrameError::TooLong { .. }), "{error}");
    }

    #[test]
    fn a_frame_of_length_zero_or_of_an_unknown_kind_is_refused() {
        let error = take_frame(&mut BytesMut::from(&[0_u8; 5][..])).unwrap_err();
        assert_eq!(error, FrameError::Empty);
        let error = take_frame(&mut BytesMut::from(&[1, 0, 0, 0, 99][..])).unwrap_err();
        assert_eq!(error, FrameError::UnknownKind { code: 99 });
    }

    #[test]
    fn bytes_behind_a_message_without_records_are_refused() {
        let mut wire = Vec::new();
        let message = Message::Refused { promised: Epoch(1) };
        encode_into(&mut wire, FrameKind::Message, &message, b"x");
        let error = take_messages(&mut BytesMut::from(&wire[..]), &mut Vec::new()).unwrap_err();
        assert_eq!(error, FrameError::Trailing { kind: FrameKind::Message, bytes: 1 });
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut stream = BytesMut::from(&bytes[..]);
            let _ = take_messages(&mut stream, &mut Vec::new());
            let mut stream = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = take_frame(&mut stream) {}
        }

        #[test]
        fn a_garbled_body_is_an_error_or_a_message(body in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut wire = Vec::new();
            encode_raw_into(&mut wire, FrameKind::Message, &body);
            let mut stream = BytesMut::from(&wire[..]);
            let mut batch = Vec::new();
            if take_messages(&mut stream, &mut batch).is_ok() {
                prop_assert_eq!(batch.len(), 1);
                prop_assert!(stream.is_empty());
            }
        }
    }
}
