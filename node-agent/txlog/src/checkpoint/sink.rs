//! The receiving side of a duplicate: a checkpoint file that arrives in pieces.
//!
//! Bytes go to the temporary file as they come and are checked block by block, so that damage on the
//! way is seen at once. The file becomes a checkpoint only when it is whole, durable and read back
//! (law 7). A broken stream goes on where it stopped, in the same process or the next one.

use super::{
    CheckpointFile, CheckpointMeta, OpenError, PARTIAL_NAME, begin_partial, file_name,
    format::{Checker, DamagedCheckpoint},
    publish, verify,
};
use crate::disk::{Disk, DiskFile, open_if_present, read_full_at, write_all_at};
use std::{io, sync::Arc};

/// Why received bytes were not taken.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The disk failed; `StorageFull` when there is no room.
    #[error("failed to {operation} the received checkpoint")]
    Disk {
        /// What was attempted.
        operation: &'static str,
        /// Answer of the system.
        #[source]
        source: io::Error,
    },
    /// The bytes are not those of a checkpoint.
    #[error("the received checkpoint is damaged")]
    Damaged(#[source] DamagedCheckpoint),
    /// The stream ended before the checkpoint did.
    #[error("the received checkpoint ends at byte {0}, before its footer")]
    Unfinished(u64),
}

/// Takes a checkpoint file in pieces, in order.
pub struct CheckpointSink {
    disk: Arc<dyn Disk>,
    file: Box<dyn DiskFile>,
    offset: u64,
    checker: Checker,
}

impl CheckpointSink {
    /// Begins anew; what an earlier attempt received is removed.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn begin(disk: &Arc<dyn Disk>) -> Result<CheckpointSink, SinkError> {
        let file = begin_partial(&**disk)
            .map_err(|source| SinkError::Disk { operation: "begin", source })?;
        Ok(CheckpointSink { disk: Arc::clone(disk), file, offset: 0, checker: Checker::new() })
    }

    /// Goes on with what an earlier attempt received: everything up to the last good block. The
    /// caller asks the source for the bytes from [`CheckpointSink::offset`] on, of the same file.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn resume(disk: &Arc<dyn Disk>) -> Result<CheckpointSink, SinkError> {
        let failed = |source| SinkError::Disk { operation: "resume", source };
        let Some(file) = open_if_present(&**disk, PARTIAL_NAME).map_err(failed)? else {
            return CheckpointSink::begin(disk);
        };
        let mut checker = Checker::new();
        let mut buf = vec![0; 256 * 1024];
        let mut at = 0;
        loop {
            let n = read_full_at(&*file, &mut buf, at).map_err(failed)?;
            // Damage ends what can be kept; the rest comes again.
            if n == 0 || checker.push(&buf[..n]).is_err() {
                break;
            }
            at += n as u64;
        }
        let keep = checker.checked_bytes();
        file.truncate(keep).map_err(failed)?;
        checker.drop_pending();
        Ok(CheckpointSink { disk: Arc::clone(disk), file, offset: keep, checker })
    }

    /// How many bytes of the file are here.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// What the checkpoint says about itself, once that has arrived.
    #[must_use]
    pub fn meta(&self) -> Option<&CheckpointMeta> {
        self.checker.meta()
    }

    /// Takes the next bytes of the file.
    ///
    /// # Errors
    /// When they are damaged or the disk fails; the sink is then good for nothing but a new
    /// [`CheckpointSink::resume`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), SinkError> {
        self.checker.push(bytes).map_err(SinkError::Damaged)?;
        write_all_at(&*self.file, bytes, self.offset)
            .map_err(|source| SinkError::Disk { operation: "write", source })?;
        self.offset += bytes.len() as u64;
        Ok(())
    }

    /// Ends the stream: the file is made durable, read back and named.
    ///
    /// # Errors
    /// When the checkpoint is not whole, not what was received, or the disk fails.
    pub fn finish(self) -> Result<CheckpointFile, SinkError> {
        if !self.checker.is_finished() {
            return Err(SinkError::Unfinished(self.offset));
        }
        let failed = |operation| move |source| SinkError::Disk { operation, source };
        self.file.sync_data().map_err(failed("sync"))?;
        let (meta, raw_len) = verify(&*self.disk, PARTIAL_NAME).map_err(|e| match e {
            OpenError::Disk { source, .. } => failed("read back")(source),
            OpenError::Damaged { source, .. } => SinkError::Damaged(source),
        })?;
        publish(&*self.disk, meta.lsn).map_err(failed("publish"))?;
        Ok(CheckpointFile { disk: self.disk, name: file_name(meta.lsn), meta, raw_len })
    }
}
