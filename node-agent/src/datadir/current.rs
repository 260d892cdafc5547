//! `CURRENT`: which store is in use, in words that a person can read and write.

use super::{DataDirError, failed, put_in_place, write_whole};
use std::{
    fmt::Write as _,
    io,
    path::{Path, PathBuf},
};
use understudy_types::StoreId;
use uuid::Uuid;

const NAME: &str = "CURRENT";
const NEXT: &str = "CURRENT.next";
const REPLACES: &str = "replaces ";

/// Contents of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Current {
    /// The store in use.
    pub(super) store: StoreId,
    /// Stores whose place it took and that are not retired yet, oldest first.
    pub(super) replaces: Vec<StoreId>,
}

impl Current {
    pub(super) fn path(data: &Path) -> PathBuf {
        data.join(NAME)
    }

    /// Reads the file of a data volume; `None` when there is none.
    pub(super) fn read(data: &Path) -> Result<Option<Self>, DataDirError> {
        let path = Self::path(data);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) if e.kind() == io::ErrorKind::InvalidData => {
                return Err(DataDirError::Current { path });
            }
            Err(e) => return Err(failed("read", &path)(e)),
        };
        Self::parse(&text).map(Some).ok_or(DataDirError::Current { path })
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines().map(str::trim).filter(|l| !l.is_empty());
        let id = |text: &str| text.parse::<Uuid>().ok().map(StoreId);
        let store = id(lines.next()?)?;
        let replaces = lines.map(|l| id(l.strip_prefix(REPLACES)?)).collect::<Option<_>>()?;
        Some(Self { store, replaces })
    }

    fn text(&self) -> String {
        let mut text = format!("{}\n", self.store);
        for replaced in &self.replaces {
            // Writing into a string cannot fail.
            let _ = writeln!(text, "{REPLACES}{replaced}");
        }
        text
    }

    /// Replaces the file; durable when it returns.
    pub(super) fn write(&self, data: &Path) -> Result<(), DataDirError> {
        self.write_next(data)?;
        Self::publish_next(data)
    }

    /// Writes the new contents beside the file, durably.
    pub(super) fn write_next(&self, data: &Path) -> Result<(), DataDirError> {
        write_whole(&data.join(NEXT), self.text().as_bytes())
    }

    /// Puts the new contents in force: the one atomic step.
    pub(super) fn publish_next(data: &Path) -> Result<(), DataDirError> {
        put_in_place(data, NEXT, NAME)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_reads_back_and_takes_what_a_person_writes() {
        let id = |n| StoreId(Uuid::from_u128(n));
        let current = Current { store: id(1), replaces: vec![id(2), id(3)] };
        assert_eq!(Current::parse(&current.text()), Some(current));
        let by_hand = format!("  {}  ", id(7));
        assert_eq!(Current::parse(&by_hand), Some(Current { store: id(7), replaces: vec![] }));
        for bad in ["", "\n", "store", "00000000-0000-0000-0000-000000000001\nreplace x"] {
            assert_eq!(Current::parse(bad), None, "{bad:?}");
        }
    }
}
