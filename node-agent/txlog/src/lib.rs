//! The log of a member: records, segments, group commit, checkpoints, recovery and the fork cut.
//!
//! ```text
//! record      one record's bytes, the same on disk and on the wire
//! segment     files of records with durable marks
//! log         appender (memory), writer thread (files, fsync), readers, cut
//! checkpoint  the whole database at one LSN, in a verified file
//! recovery    from files to a running log, or the exact reason why not
//! reclaim     giving segments back
//! slot_file   the small file that is replaced whole: control file, probe
//! disk        the traits behind which all I/O happens: real, in memory, faulty
//! ```
//! The crate does synchronous I/O only and knows neither rows nor peers: payloads are bytes, and who may
//! append, acknowledge or show a record is decided elsewhere.
//!
//! **Invariants** (protocol R1, R2, A2.15, A2.22; law 3). 1. Nothing counts as durable before its fsync has
//! returned in this process. 2. The first failed write or fsync of the log is final. 3. Bytes from a disk
//! or a peer are checked before they are believed; what fails is named by file and offset. 4. Nothing is
//! removed before what replaces it has been read back.

pub mod checkpoint;
pub mod disk;
pub mod log;
mod options;
mod reclaim;
pub mod record;
pub mod recovery;
mod segment;
mod slot_file;
mod sync;

pub use checkpoint::{
    CheckpointFile, CheckpointMeta, CheckpointSink, keep_newest_checkpoint, write_checkpoint,
};
pub use log::{
    AppendError, Appender, CutError, CutReport, Export, ExportError, Log, LogError, ReadError,
    Usage,
};
pub use options::{BACKLOGS_MAX, Disks, LogOptions};
pub use reclaim::{CheckpointHold, ReclaimError, ReclaimReport};
pub use record::{RecordError, RecordKind, RecordView};
pub use recovery::{Recovered, RecoveryError, RecoveryReport, forget_failure, recover};
pub use segment::HeaderError;
pub use slot_file::{SlotError, SlotFile};
