//! The lives of this volume: which processes used it, and in which pod. Earlier ones of the same pod
//! are dead once this one runs, for its supervisor reaped them or their container ended (R10).
//!
//! A lost line loses a proof, never safety: whoever is not listed is not proven dead.

use serde::{Deserialize, Serialize};
use std::{io, path::Path};
use understudy_types::Incarnation;

const FILE: &str = "lives.json";
/// Most lives remembered; a Lease names the newest or the one before.
const KEPT: usize = 32;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Life {
    incarnation: Incarnation,
    pod_uid: String,
}

/// Adds this life and returns the earlier ones of the same pod. An unknown pod has none.
///
/// # Errors
/// When the file cannot be written.
pub(crate) fn begin(
    data_dir: &Path,
    incarnation: Incarnation,
    pod_uid: &str,
) -> io::Result<Vec<Incarnation>> {
    let path = data_dir.join(FILE);
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let mut lives: Vec<Life> = serde_json::from_str(&text).unwrap_or_default();
    let dead = lives
        .iter()
        .filter(|life| !pod_uid.is_empty() && life.pod_uid == pod_uid)
        .map(|life| life.incarnation)
        .collect();
    lives.push(Life { incarnation, pod_uid: pod_uid.to_owned() });
    let surplus = lives.len().saturating_sub(KEPT);
    lives.drain(..surplus);
    let next = data_dir.join("lives.next");
    std::fs::write(&next, serde_json::to_vec(&lives)?)?;
    std::fs::File::open(&next)?.sync_all()?;
    std::fs::rename(next, path)?;
    Ok(dead)
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn life(start: u64) -> Incarnation {
        Incarnation { start, id: Uuid::from_u128(u128::from(start)) }
    }

    #[test]
    fn only_earlier_lives_of_the_same_pod_are_proven_dead() {
        let dir = tempfile::tempdir().unwrap();
        assert!(begin(dir.path(), life(1), "pod-a").unwrap().is_empty());
        assert_eq!(begin(dir.path(), life(2), "pod-a").unwrap(), vec![life(1)]);
        assert!(begin(dir.path(), life(3), "pod-b").unwrap().is_empty());
        assert_eq!(begin(dir.path(), life(4), "pod-a").unwrap(), vec![life(1), life(2)]);
        assert!(begin(dir.path(), life(5), "").unwrap().is_empty());
        assert!(begin(dir.path(), life(6), "").unwrap().is_empty());
    }
}
