//! Writing the newest segment anew, so that its fsync is this process's own (A2.15).

use crate::{
    disk::{Disk, DiskFile, read_full_at, write_all_at},
    log::is_full,
};
use std::io;

/// New copy of the newest segment.
pub(super) const REWRITTEN_NAME: &str = "rewritten.tmp";

/// End of the last byte that is not zero at or after `from`; `from` when all are zero.
pub(super) fn last_nonzero(file: &dyn DiskFile, from: u64) -> io::Result<u64> {
    let mut buf = vec![0; 256 * 1024];
    let (mut at, mut last) = (from, from);
    loop {
        let n = read_full_at(file, &mut buf, at)?;
        if let Some(i) = buf[..n].iter().rposition(|b| *b != 0) {
            last = at + i as u64 + 1;
        }
        if n < buf.len() {
            return Ok(last);
        }
        at += n as u64;
    }
}

/// Replaces a segment by a new, durable file with its first `keep` bytes and zeros up to `capacity`;
/// also says what the capacity has become. On a full volume it takes the room that the old file had.
pub(super) fn rewrite_tail(
    disk: &dyn Disk,
    name: &str,
    keep: u64,
    capacity: u64,
) -> io::Result<(Box<dyn DiskFile>, u64)> {
    let old = disk.open(name)?;
    let new = disk.create(REWRITTEN_NAME)?;
    let reserve = |bytes| match new.allocate(bytes) {
        Ok(()) => Ok(true),
        Err(e) if is_full(&e) => Ok(false),
        Err(e) => Err(e),
    };
    let has_room = reserve(capacity)?;
    if !has_room && !reserve(keep)? {
        disk.remove(REWRITTEN_NAME)?;
        // The same bytes once more over themselves: torn or not, it changes nothing.
        copy(&*old, &*old, keep)?;
        old.truncate(keep)?;
        old.sync_data()?;
        return extended(old, keep, capacity);
    }
    copy(&*old, &*new, keep)?;
    new.sync_data()?;
    disk.rename(REWRITTEN_NAME, name)?;
    disk.sync_directory()?;
    drop(old);
    let new = disk.open(name)?;
    if has_room { Ok((new, capacity)) } else { extended(new, keep, capacity) }
}

/// Gives a file back the room behind its first `keep` bytes, so that the records of the next start find
/// some on a full volume too; what it has become when there is none.
fn extended(
    file: Box<dyn DiskFile>,
    keep: u64,
    capacity: u64,
) -> io::Result<(Box<dyn DiskFile>, u64)> {
    match file.allocate(capacity) {
        Ok(()) => {
            file.sync_data()?;
            Ok((file, capacity))
        }
        Err(e) if is_full(&e) => {
            file.truncate(keep)?;
            Ok((file, keep))
        }
        Err(e) => Err(e),
    }
}

/// Copies the first `keep` bytes.
fn copy(from: &dyn DiskFile, to: &dyn DiskFile, keep: u64) -> io::Result<()> {
    let mut buf = vec![0; 1 << 20];
    let mut at = 0;
    while at < keep {
        let want = buf.len().min(usize::try_from(keep - at).unwrap_or(usize::MAX));
        let n = read_full_at(from, &mut buf[..want], at)?;
        if n < want {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        write_all_at(to, &buf[..n], at)?;
        at += n as u64;
    }
    Ok(())
}
