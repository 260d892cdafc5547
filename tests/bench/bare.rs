//! The floor of a read in process: a map of numbers to rows, each behind its own lock. No transaction, no
//! version, no order of keys and no SQL: what remains are the places in memory that any store of so many
//! rows goes to, one after the other, and waits for.

use anyhow::Context;
use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    sync::{Arc, Mutex, PoisonError},
};

/// A row: as many bytes as a short one of ours.
type Row = [i64; 4];

/// The rows.
pub(crate) struct Bare(HashMap<i64, Arc<Mutex<Row>>, BuildHasherDefault<Spread>>);

/// One multiplication: the cheapest hash that still spreads numbers.
#[derive(Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_i64(i64::from(*byte)));
    }

    fn write_i64(&mut self, number: i64) {
        self.0 = (self.0 ^ number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
    }
}

impl Bare {
    /// With rows 1 to `rows`, of zeros.
    pub(crate) fn new(rows: u64) -> Self {
        let row = |key: u64| (key as i64, Arc::new(Mutex::new([0; 4])));
        Self((1..=rows).map(row).collect())
    }

    /// A column of a row, which is copied out under its lock.
    pub(crate) fn read(&self, key: i64) -> anyhow::Result<i64> {
        let row = self.0.get(&key).context("every key is there")?;
        let row: Row = *row.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(row[2])
    }
}
