//! The one place where records enter the log: encoded in memory, no I/O.

use super::{Log, Owner, Shared, tail::Nap};
use crate::record::{self, RecordError, RecordKind, RecordView};
use std::sync::{Arc, atomic::Ordering};
use understudy_types::{Epoch, EpochBegin, EpochHistory, EpochStart, Lsn, Position, RunningHash};

/// Why received records cannot be appended. None of them has been.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The bytes are not whole, undamaged records.
    #[error("bad record at byte {offset} of the batch")]
    Record {
        /// Where in the given bytes.
        offset: usize,
        /// What is wrong.
        #[source]
        source: RecordError,
    },
    /// The records do not continue this log.
    #[error("record {found} does not follow {end}")]
    NotContiguous {
        /// End of the log before the record.
        end: Lsn,
        /// LSN of the record.
        found: Lsn,
    },
    /// A record whose epoch was not opened by an `EpochBegin` just before.
    #[error("record {lsn} of epoch {found} stands in epoch {current}")]
    Epoch {
        /// LSN of the record.
        lsn: Lsn,
        /// Epoch of the log at that place.
        current: Epoch,
        /// Epoch of the record.
        found: Epoch,
    },
    /// An `EpochBegin` that does not continue this log.
    #[error("the EpochBegin at {lsn} does not continue this log: {reason}")]
    EpochBegin {
        /// LSN of the record.
        lsn: Lsn,
        /// What does not fit.
        reason: &'static str,
    },
}

/// Where a log ends: enough to judge whether a record continues it.
#[derive(Debug, Clone)]
pub(crate) struct Continuation {
    pub(crate) end: Lsn,
    pub(crate) hash: RunningHash,
    pub(crate) epoch: Epoch,
    pub(crate) history: EpochHistory,
}

impl Continuation {
    /// Takes one more record, if it continues the log (R2, R18).
    pub(crate) fn follow(&mut self, record: &RecordView<'_>) -> Result<(), AppendError> {
        let lsn = record.lsn;
        if lsn != self.end.next() {
            return Err(AppendError::NotContiguous { end: self.end, found: lsn });
        }
        match record.kind {
            RecordKind::EpochBegin => {
                let begin = record::read_epoch_begin(record.payload).map_err(|_| {
                    AppendError::EpochBegin { lsn, reason: "its body is malformed" }
                })?;
                self.open(record.epoch, &begin)
                    .map_err(|reason| AppendError::EpochBegin { lsn, reason })?;
            }
            RecordKind::Transaction | RecordKind::Feeder if record.epoch != self.epoch => {
                let (current, found) = (self.epoch, record.epoch);
                return Err(AppendError::Epoch { lsn, current, found });
            }
            RecordKind::Transaction | RecordKind::Feeder => {}
        }
        self.epoch = record.epoch;
        self.hash = self.hash.extend(record.encoded);
        self.end = lsn;
        Ok(())
    }

    /// Opens an epoch with the next record.
    fn open(&mut self, epoch: Epoch, begin: &EpochBegin) -> Result<(), &'static str> {
        if begin.epoch.number != epoch {
            return Err("header and body name different epochs");
        }
        let here = Position { epoch: self.history.last_epoch(), lsn: self.end };
        if begin.previous != here {
            return Err("it continues another position");
        }
        if begin.hash != self.hash {
            return Err("the running hash before it differs");
        }
        self.history
            .push(EpochStart { epoch: begin.epoch, first_lsn: self.end.next() })
            .map_err(|_| "its number does not rise")
    }
}

/// Appends records. There is one, and it lives in the commit section.
pub struct Appender {
    shared: Arc<Shared>,
    /// Keeps the writer running.
    _owner: Arc<Owner>,
    at: Continuation,
}

impl std::fmt::Debug for Appender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Appender").field("at", &self.at).finish_non_exhaustive()
    }
}

impl Drop for Appender {
    fn drop(&mut self) {
        self.shared.appender_taken.store(false, Ordering::Release);
    }
}

impl Appender {
    pub(super) fn new(log: &Log) -> Appender {
        let tail = log.shared.tail.lock();
        let at = Continuation {
            end: tail.end,
            hash: tail.hash,
            epoch: tail.epoch,
            history: tail.history.clone(),
        };
        drop(tail);
        Appender { shared: Arc::clone(&log.shared), _owner: Arc::clone(&log.owner), at }
    }

    /// LSN of the last record.
    #[must_use]
    pub fn end(&self) -> Lsn {
        self.at.end
    }

    /// Epoch and LSN of the last record.
    #[must_use]
    pub fn position(&self) -> Position {
        Position { epoch: self.at.history.last_epoch(), lsn: self.at.end }
    }

    /// Running hash after the last record.
    #[must_use]
    pub fn hash(&self) -> RunningHash {
        self.at.hash
    }

    /// Which epoch begins where, up to the last record.
    #[must_use]
    pub fn history(&self) -> &EpochHistory {
        &self.at.history
    }

    /// Appends one record of the epoch that is open, or the `EpochBegin` that opens the next one. Memory
    /// only: no I/O, no allocation at rest.
    ///
    /// # Panics
    /// When `epoch` is not the open one, when an `EpochBegin` does not continue this log (see
    /// [`Appender::begin_epoch`]), and when the payload exceeds [`record::PAYLOAD_BYTES_MAX`]: all three
    /// are errors of the program.
    pub fn append(&mut self, epoch: Epoch, kind: RecordKind, payload: &[u8]) -> Lsn {
        match kind {
            RecordKind::EpochBegin => self.append_epoch_begin(payload),
            RecordKind::Transaction | RecordKind::Feeder => {
                assert!(
                    epoch == self.at.epoch,
                    "append in epoch {epoch}, open is {}",
                    self.at.epoch
                );
                self.encode(epoch, kind, payload)
            }
        }
    }

    fn append_epoch_begin(&mut self, payload: &[u8]) -> Lsn {
        let lsn = self.at.end.next();
        let opened = record::read_epoch_begin(payload)
            .map_err(|_| AppendError::EpochBegin { lsn, reason: "its body is malformed" })
            .and_then(|begin| self.begin_epoch(&begin));
        match opened {
            Ok(lsn) => lsn,
            Err(error) => panic!("{error}"),
        }
    }

    /// Opens an epoch: appends its `EpochBegin` (R2, R9).
    ///
    /// # Errors
    /// When `begin` does not name this end of the log and its hash, or its number does not rise.
    pub fn begin_epoch(&mut self, begin: &EpochBegin) -> Result<Lsn, AppendError> {
        let (lsn, epoch) = (self.at.end.next(), begin.epoch.number);
        self.at.open(epoch, begin).map_err(|reason| AppendError::EpochBegin { lsn, reason })?;
        self.at.epoch = epoch;
        Ok(self.encode(epoch, RecordKind::EpochBegin, &record::epoch_begin_payload(begin)))
    }

    fn encode(&mut self, epoch: Epoch, kind: RecordKind, payload: &[u8]) -> Lsn {
        let mut tail = self.shared.tail.lock();
        if kind == RecordKind::EpochBegin {
            // Together with its record: nobody sees the new epoch at the old end.
            tail.history = self.at.history.clone();
        }
        let lsn = tail.encode(epoch, kind, payload);
        self.at.end = lsn;
        self.at.hash = tail.hash;
        self.publish(&mut tail);
        lsn
    }

    /// Appends received records (one or more, whole, in order) after checking every byte of them.
    ///
    /// # Errors
    /// When any of them is damaged or does not continue this log; then none has been appended.
    pub fn append_encoded(&mut self, encoded: &[u8]) -> Result<Lsn, AppendError> {
        let mut next = self.at.clone();
        for record in record::records(encoded) {
            let record =
                record.map_err(|e| AppendError::Record { offset: e.offset, source: e.error })?;
            next.follow(&record)?;
        }
        let mut tail = self.shared.tail.lock();
        let mut rest = encoded;
        while let Ok(Some(bytes)) = record::encoded_len(rest) {
            let (one, after) = rest.split_at(bytes);
            let hash = tail.hash;
            tail.copy(one, hash);
            tail.hash = hash.extend(one);
            rest = after;
        }
        tail.epoch = next.epoch;
        if tail.history.starts().len() != next.history.starts().len() {
            tail.history = next.history.clone();
        }
        self.publish(&mut tail);
        self.at = next;
        Ok(self.at.end)
    }

    fn publish(&self, tail: &mut super::tail::Tail) {
        self.shared.end.store(tail.end.0, Ordering::Release);
        self.shared.unwritten_bytes.store(tail.unwritten_bytes, Ordering::Relaxed);
        let must_drain = tail.unwritten_bytes >= self.shared.options.drain_bytes;
        if tail.nap == Nap::Deep || (must_drain && tail.nap == Nap::Short) {
            self.shared.nudge(tail);
        }
    }
}
