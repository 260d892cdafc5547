//! Duplicates: a new store made from another member's checkpoint, streamed over the replication port.
//!
//! ```text
//!  receiver (fetch)                                    source (Duplicates::serve)
//!  new store beside the old one ── DuplicateRequest ─▶ hold the log from the checkpoint on
//!     what it has of which file                        take a checkpoint first if there is none
//!                               ◀──────── Stream ────  file, first byte
//!  CheckpointSink, block by block ◀════ chunks ══════  paced
//!                               ◀─── DuplicateEnd ───
//!  verify, control file, CURRENT ── DuplicateEnd ───▶  keep holding until the new store attached
//! ```
//! **Invariants.** 1. The store in use is untouched until the new one is verified (law 7, A2.16). 2. A
//! stream goes on only within one and the same file of one source; anything else begins anew. 3. The
//! fork check is the attachment's: a duplicate proves nothing about the log that follows. 4. The
//! member's promise is carried over (R1), raised to the source's epoch.
//!
//! Deliberately absent: deciding that a duplicate is needed, trying again (the node attaches anew,
//! which chooses feeder and need afresh), and replaying the log after the checkpoint (recovery and the
//! link do that).

mod fetch;
mod hold;
mod pace;
mod serve;
#[cfg(test)]
mod tests;

pub use fetch::{FetchError, Fetched, Receiver, Transferred, fetch};
pub use serve::{Duplicates, ServeError, Served, Source, SourceIdentity};

use crate::peer::CheckpointName;
use std::time::Duration;
use understudy_txlog::CheckpointFile;
use understudy_types::StoreId;

/// Longest time without any progress before a stream is given up. The kernel ends a link to a dead
/// node sooner; this is for a living one that does not move.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// The unmistakable name of a checkpoint of `store`.
fn name_of(checkpoint: &CheckpointFile, store: StoreId) -> CheckpointName {
    let meta = checkpoint.meta();
    CheckpointName {
        dbid: meta.dbid,
        store,
        epoch: meta.history.last_epoch(),
        lsn: meta.lsn,
        hash: meta.hash,
        bytes: checkpoint.raw_len(),
    }
}
