//! One log record, on disk and on the wire: the same bytes everywhere (R2).
//!
//! ```text
//! offset  bytes  field
//!      0      4  body length, little endian: bytes after the checksum
//!      4      4  CRC-32C of the length field and the body, little endian
//!      8      1  kind: 1 EpochBegin, 2 Transaction, 3 Feeder
//!      9      8  LSN, little endian
//!     17   1-10  epoch number, LEB128 in its shortest form
//!      …         payload
//! ```
//! The overhead is 18 bytes up to epoch 127, 19 up to 16383, 20 up to two million.
//!
//! **Invariants.** 1. A record has exactly one encoding, because the running hash is over the bytes.
//! 2. No record has length zero: preallocated zeros are never a record. 3. Decoding of untrusted bytes
//! never panics and allocates nothing.
//!
//! Deliberately absent: compression and the meaning of a transaction's payload.

use understudy_types::{Epoch, EpochBegin, Lsn};

/// Bytes before the body: length and checksum.
pub const PREFIX_BYTES: usize = 8;

/// Shortest body: kind, LSN, one byte of epoch.
const BODY_BYTES_MIN: usize = 10;

/// Most bytes that a record has beyond its payload.
pub const OVERHEAD_BYTES_MAX: usize = PREFIX_BYTES + 9 + 10;

/// Longest payload in bytes. A longer transaction must be refused before it gets here; the bound keeps
/// a damaged length from looking plausible.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 30;

/// What a record means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RecordKind {
    /// First record of an epoch; the payload is an [`EpochBegin`].
    EpochBegin,
    /// The row operations of one transaction; the payload is the store's.
    Transaction,
    /// A feeder number for a subscriber (R18a); the payload is the replication's.
    Feeder,
}

impl RecordKind {
    const fn code(self) -> u8 {
        match self {
            RecordKind::EpochBegin => 1,
            RecordKind::Transaction => 2,
            RecordKind::Feeder => 3,
        }
    }

    const fn from_code(code: u8) -> Option<RecordKind> {
        match code {
            1 => Some(RecordKind::EpochBegin),
            2 => Some(RecordKind::Transaction),
            3 => Some(RecordKind::Feeder),
            _ => None,
        }
    }
}

/// A decoded record that borrows its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordView<'a> {
    /// Position of the record.
    pub lsn: Lsn,
    /// Epoch that wrote it.
    pub epoch: Epoch,
    /// What it means.
    pub kind: RecordKind,
    /// The caller's bytes.
    pub payload: &'a [u8],
    /// The whole record, header included.
    pub encoded: &'a [u8],
}

/// Why bytes are not a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The bytes end before the record does.
    #[error("a record of {needed} bytes is cut at {available}")]
    Truncated {
        /// Bytes that the record needs, as far as is known.
        needed: usize,
        /// Bytes that there are.
        available: usize,
    },
    /// The length field cannot be true.
    #[error("a body length of {0} bytes is impossible")]
    Length(u32),
    /// The bytes have changed since they were written.
    #[error("checksum {found:08x} instead of {expected:08x}")]
    Checksum {
        /// Checksum in the record.
        expected: u32,
        /// Checksum of its bytes.
        found: u32,
    },
    /// A record of a kind that this version does not know.
    #[error("record kind {0} is unknown")]
    Kind(u8),
    /// The epoch is not in its shortest form or exceeds 64 bits.
    #[error("the epoch number is malformed")]
    Epoch,
}

/// A [`RecordError`] with the place of the record in the bytes that were given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("at byte {offset}: {error}")]
pub struct RecordErrorAt {
    /// Where the bad record begins, in bytes from the start of the input.
    pub offset: usize,
    /// What is wrong with it.
    pub error: RecordError,
}

/// Appends the encoding of one record to `out`.
///
/// # Panics
/// When the payload is longer than [`PAYLOAD_BYTES_MAX`]: the caller checks that first.
pub fn encode_into(out: &mut Vec<u8>, lsn: Lsn, epoch: Epoch, kind: RecordKind, payload: &[u8]) {
    encode_frame(out, lsn, epoch, kind.code(), payload);
}

/// [`encode_into`] with any kind code: segment files carry frames that are no records.
pub(crate) fn encode_frame(out: &mut Vec<u8>, lsn: Lsn, epoch: Epoch, code: u8, payload: &[u8]) {
    assert!(payload.len() <= PAYLOAD_BYTES_MAX, "a payload of {} bytes", payload.len());
    let mut header = [0; OVERHEAD_BYTES_MAX];
    header[8] = code;
    header[9..17].copy_from_slice(&lsn.0.to_le_bytes());
    let mut at = 17;
    let mut rest = epoch.0;
    while rest >= 0x80 {
        header[at] = rest as u8 | 0x80;
        rest >>= 7;
        at += 1;
    }
    header[at] = rest as u8;
    at += 1;
    // Fits: the payload's limit is far below 32 bits.
    let length = ((at - PREFIX_BYTES + payload.len()) as u32).to_le_bytes();
    header[..4].copy_from_slice(&length);
    let start = out.len();
    out.extend_from_slice(&header[..at]);
    out.extend_from_slice(payload);
    let summed = &out[start + PREFIX_BYTES..];
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&length), summed);
    out[start + 4..start + 8].copy_from_slice(&checksum.to_le_bytes());
}

/// A frame with a valid checksum whose kind has not been looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame<'a> {
    pub(crate) code: u8,
    pub(crate) lsn: Lsn,
    pub(crate) epoch: Epoch,
    pub(crate) payload: &'a [u8],
    pub(crate) encoded: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The frame as a record.
    pub(crate) fn record(self) -> Result<RecordView<'a>, RecordError> {
        let Frame { code, lsn, epoch, payload, encoded } = self;
        let kind = RecordKind::from_code(code).ok_or(RecordError::Kind(code))?;
        Ok(RecordView { lsn, epoch, kind, payload, encoded })
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes make a u32"))
}

/// Length of the record that begins `bytes`, in bytes, once its first four bytes are there.
///
/// # Errors
/// When the length is impossible; the stream it came from cannot be read on.
pub fn encoded_len(bytes: &[u8]) -> Result<Option<usize>, RecordError> {
    if bytes.len() < 4 {
        return Ok(None);
    }
    let length = u32_at(bytes, 0);
    let body = length as usize;
    if !(BODY_BYTES_MIN..=PAYLOAD_BYTES_MAX + OVERHEAD_BYTES_MAX).contains(&body) {
        return Err(RecordError::Length(length));
    }
    Ok(Some(PREFIX_BYTES + body))
}

fn read_epoch(body: &[u8]) -> Result<(Epoch, usize), RecordError> {
    let mut value = 0u64;
    for (at, byte) in body.iter().take(10).enumerate() {
        let bits = u64::from(byte & 0x7f);
        if at == 9 && bits > 1 {
            return Err(RecordError::Epoch);
        }
        value |= bits << (7 * at);
        if byte & 0x80 == 0 {
            return if at > 0 && *byte == 0 {
                Err(RecordError::Epoch)
            } else {
                Ok((Epoch(value), at + 1))
            };
        }
    }
    Err(RecordError::Epoch)
}

/// Decodes the frame that begins `bytes`.
pub(crate) fn decode_frame(bytes: &[u8]) -> Result<(Frame<'_>, &[u8]), RecordError> {
    let available = bytes.len();
    let needed = match encoded_len(bytes)? {
        Some(needed) if needed <= available => needed,
        Some(needed) => return Err(RecordError::Truncated { needed, available }),
        None => {
            let needed = PREFIX_BYTES + BODY_BYTES_MIN;
            return Err(RecordError::Truncated { needed, available });
        }
    };
    let (encoded, rest) = bytes.split_at(needed);
    let expected = u32_at(encoded, 4);
    let found = crc32c::crc32c_append(crc32c::crc32c(&encoded[..4]), &encoded[PREFIX_BYTES..]);
    if expected != found {
        return Err(RecordError::Checksum { expected, found });
    }
    let lsn = u64::from_le_bytes(encoded[9..17].try_into().expect("eight bytes make a u64"));
    let (epoch, epoch_bytes) = read_epoch(&encoded[17..])?;
    let payload = &encoded[17 + epoch_bytes..];
    Ok((Frame { code: encoded[8], lsn: Lsn(lsn), epoch, payload, encoded }, rest))
}

/// Decodes the record that begins `bytes`; also returns the bytes after it.
///
/// # Errors
/// When the bytes are not a whole, undamaged record of a known kind.
pub fn decode(bytes: &[u8]) -> Result<(RecordView<'_>, &[u8]), RecordError> {
    let (frame, rest) = decode_frame(bytes)?;
    Ok((frame.record()?, rest))
}

/// Goes through the records of `bytes`; ends after the first error.
#[must_use]
pub fn records(bytes: &[u8]) -> Records<'_> {
    Records { bytes, offset: 0 }
}

/// See [`records`].
#[derive(Debug, Clone)]
pub struct Records<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<RecordView<'a>, RecordErrorAt>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.bytes.is_empty() {
            return None;
        }
        match decode(self.bytes) {
            Ok((record, rest)) => {
                self.bytes = rest;
                self.offset += record.encoded.len();
                Some(Ok(record))
            }
            Err(error) => {
                self.bytes = &[];
                Some(Err(RecordErrorAt { offset: self.offset, error }))
            }
        }
    }
}

/// Why a payload is not an `EpochBegin`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to read the body of an EpochBegin record")]
pub struct EpochBeginError(#[source] postcard::Error);

/// The payload of an `EpochBegin` record.
///
/// # Panics
/// Never: the type has a fixed shape that always encodes.
#[must_use]
pub fn epoch_begin_payload(begin: &EpochBegin) -> Vec<u8> {
    postcard::to_stdvec(begin).expect("plain numbers always encode")
}

/// Reads the payload of an `EpochBegin` record.
///
/// # Errors
/// When the bytes are not exactly one `EpochBegin`.
pub fn read_epoch_begin(payload: &[u8]) -> Result<EpochBegin, EpochBeginError> {
    match postcard::take_from_bytes(payload) {
        Ok((begin, [])) => Ok(begin),
        Ok(_) => Err(EpochBeginError(postcard::Error::DeserializeBadEncoding)),
        Err(error) => Err(EpochBeginError(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use understudy_types::{EpochId, Incarnation, Position, RunningHash};
    use uuid::Uuid;

    fn encode(lsn: u64, epoch: u64, kind: RecordKind, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encode_into(&mut out, Lsn(lsn), Epoch(epoch), kind, payload);
        out
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn the_bytes_of_a_record_never_change() {
        assert_eq!(
            hex(&encode(258, 7, RecordKind::Transaction, b"abc")),
            "0d0000004d7c91d002020100000000000007616263"
        );
        assert_eq!(
            hex(&encode(1, 300, RecordKind::Feeder, b"")),
            "0b000000777e1b08030100000000000000ac02"
        );
    }

    #[test]
    fn the_bytes_of_an_epoch_begin_never_change() {
        let begin = EpochBegin {
            epoch: EpochId { number: Epoch(7), author: Uuid::from_u128(0xa) },
            author: Incarnation { start: 3, id: Uuid::from_u128(0xa) },
            previous: Position {
                epoch: EpochId { number: Epoch(6), author: Uuid::from_u128(0xb) },
                lsn: Lsn(300),
            },
            hash: RunningHash(0x0102),
            lossy: true,
        };
        let payload = epoch_begin_payload(&begin);
        assert_eq!(
            hex(&payload),
            concat!(
                "07100000000000000000000000000000000a", // epoch and its author
                "03100000000000000000000000000000000a", // the author's start counter and id
                "06100000000000000000000000000000000b", // the epoch before
                "ac02820201",                           // its end, the hash there, lossy
            )
        );
        assert_eq!(read_epoch_begin(&payload).unwrap(), begin);
        assert!(read_epoch_begin(&payload[1..]).is_err());
        assert!(read_epoch_begin(&[&payload[..], &[0]].concat()).is_err());
    }

    #[test]
    fn overhead_is_18_bytes_in_small_epochs_and_27_at_most() {
        assert_eq!(encode(u64::MAX, 127, RecordKind::Transaction, b"").len(), 18);
        assert_eq!(encode(u64::MAX, u64::MAX, RecordKind::Transaction, b"").len(), 27);
        assert_eq!(OVERHEAD_BYTES_MAX, 27);
    }

    #[test]
    fn zeros_are_not_a_record() {
        assert_eq!(decode(&[0; 64]), Err(RecordError::Length(0)));
    }

    #[test]
    fn an_epoch_in_a_longer_form_is_refused() {
        let mut body = vec![2];
        body.extend_from_slice(&1u64.to_le_bytes());
        body.extend_from_slice(&[0x81, 0x00]);
        let length = (body.len() as u32).to_le_bytes();
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&length), &body);
        let bytes = [&length[..], &checksum.to_le_bytes(), &body].concat();
        assert_eq!(decode(&bytes), Err(RecordError::Epoch));
    }

    proptest! {
        #[test]
        fn a_record_comes_back_as_it_was_written(
            lsn: u64, epoch: u64, kind in 1u8..=3, payload: Vec<u8>, rest: Vec<u8>,
        ) {
            let kind = RecordKind::from_code(kind).unwrap();
            let bytes = encode(lsn, epoch, kind, &payload);
            let whole = [&bytes[..], &rest].concat();
            let (view, left) = decode(&whole).unwrap();
            prop_assert_eq!(view.lsn, Lsn(lsn));
            prop_assert_eq!(view.epoch, Epoch(epoch));
            prop_assert_eq!(view.kind, kind);
            prop_assert_eq!(view.payload, &payload[..]);
            prop_assert_eq!(view.encoded, &bytes[..]);
            prop_assert_eq!(left, &rest[..]);
        }

        #[test]
        fn one_changed_bit_is_always_seen(payload: Vec<u8>, at: usize, bit in 0u8..8) {
            let mut bytes = encode(9, 4, RecordKind::Transaction, &payload);
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            prop_assert!(decode(&bytes).is_err());
        }

        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            for record in records(&bytes) {
                prop_assert!(record.is_err());
            }
        }

        #[test]
        fn every_cut_of_a_record_is_truncated(payload: Vec<u8>, at: usize) {
            let bytes = encode(9, 4, RecordKind::Transaction, &payload);
            let at = at % bytes.len();
            let cut = decode(&bytes[..at]);
            let is_truncated = matches!(cut, Err(RecordError::Truncated { .. }));
            prop_assert!(is_truncated, "{cut:?}");
        }
    }
}
