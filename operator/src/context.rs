//! What every reconciliation shares: clients, caches, agents, metrics. No decisions.

use crate::{
    agents::{Agents, PairKey},
    metrics::Metrics,
    pair::{apply::Applied, names, secrets::Secured},
};
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{PersistentVolumeClaim, Pod},
};
use kube::{
    Client, ResourceExt,
    runtime::{events::Recorder, reflector::Store},
};
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Instant,
};
use understudy_crds::{ActiveStandbyPair, ActiveStandbyPairStatus};
use understudy_lease::{AuthorityLease, Timeouts};

/// The caches, each fed by one watch.
pub struct Stores {
    /// Pairs.
    pub pairs: Store<ActiveStandbyPair>,
    /// Pods of pairs.
    pub pods: Store<Pod>,
    /// Volume claims of pairs.
    pub volumes: Store<PersistentVolumeClaim>,
    /// Authority Leases.
    pub leases: Store<Lease>,
}

/// Shared by every reconciliation.
pub struct Context {
    /// For everything but Leases.
    pub client: Client,
    /// For Leases: short times, no retries.
    pub prompt: Client,
    /// The caches.
    pub stores: Stores,
    /// The agents.
    pub agents: Agents,
    /// Publishes events; one for the whole process, for it counts repetitions.
    pub recorder: Recorder,
    /// Metrics.
    pub metrics: Metrics,
    /// Image of the node-agent, unless a spec names one.
    pub default_image: String,
    /// What was applied and found right.
    pub applied: Applied,
    /// When each version of a Lease was first seen.
    pub sightings: Sightings,
    /// The statuses that this process wrote last.
    pub written: Written,
    /// Secrets that were found right, and when.
    pub secured: Mutex<HashMap<PairKey, (String, Instant, Secured)>>,
}

impl Context {
    /// The Lease of a pair.
    #[must_use]
    pub fn authority_lease(&self, namespace: &str, pair: &str) -> AuthorityLease {
        let name = names::lease(pair);
        AuthorityLease::with_client(self.prompt.clone(), namespace, &name, Timeouts::default())
    }

    /// Forgets everything about a pair that is gone.
    pub fn forget(&self, pair: &PairKey) {
        self.agents.forget(pair);
        self.applied.forget(&pair.0, &pair.1);
        self.sightings.forget(pair);
        self.written.forget(pair);
        self.metrics.forget(pair);
        self.secured.lock().unwrap_or_else(PoisonError::into_inner).remove(pair);
    }
}

/// When each version of a Lease was first seen, by the own monotonic clock (R4: no clocks compared).
#[derive(Debug, Default)]
pub struct Sightings {
    seen: Mutex<HashMap<PairKey, Sighting>>,
    absent: Mutex<HashMap<PairKey, Instant>>,
}

#[derive(Debug)]
struct Sighting {
    version: String,
    since: Instant,
    judged_by: String,
}

impl Sightings {
    /// Notes a version; true when `digest`, what a plan could depend on, differs from the last one.
    pub fn note(&self, pair: &PairKey, version: &str, digest: &str) -> bool {
        self.absent.lock().unwrap_or_else(PoisonError::into_inner).remove(pair);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match seen.get_mut(pair) {
            Some(sighting) => {
                if sighting.version != version {
                    version.clone_into(&mut sighting.version);
                    sighting.since = Instant::now();
                }
                let is_news = sighting.judged_by != digest;
                digest.clone_into(&mut sighting.judged_by);
                is_news
            }
            None => {
                let sighting = Sighting {
                    version: version.to_owned(),
                    since: Instant::now(),
                    judged_by: digest.to_owned(),
                };
                seen.insert(pair.clone(), sighting);
                true
            }
        }
    }

    /// Milliseconds since `version` was first seen; 0 when it was not noted yet.
    #[must_use]
    pub fn unchanged_ms(&self, pair: &PairKey, version: &str) -> u64 {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(pair)
            .filter(|sighting| sighting.version == version)
            .map_or(0, |s| u64::try_from(s.since.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Milliseconds since it was first noted that the pair has no Lease.
    #[must_use]
    pub fn absent_ms(&self, pair: &PairKey) -> u64 {
        let mut absent = self.absent.lock().unwrap_or_else(PoisonError::into_inner);
        let since = absent.entry(pair.clone()).or_insert_with(Instant::now);
        u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn forget(&self, pair: &PairKey) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).remove(pair);
        self.absent.lock().unwrap_or_else(PoisonError::into_inner).remove(pair);
    }
}

/// The statuses that this process wrote last: the cache may be one write behind.
#[derive(Debug, Default)]
pub struct Written {
    pairs: Mutex<HashMap<PairKey, ActiveStandbyPair>>,
}

impl Written {
    /// Notes what the API server answered to a write.
    pub fn note(&self, key: &PairKey, pair: &ActiveStandbyPair) {
        let mut pairs = self.pairs.lock().unwrap_or_else(PoisonError::into_inner);
        pairs.insert(key.clone(), pair.clone());
    }

    /// The status of the own write, when it is newer than `cached` and of the same object.
    #[must_use]
    pub fn newest(
        &self,
        key: &PairKey,
        cached: &ActiveStandbyPair,
    ) -> Option<ActiveStandbyPairStatus> {
        let pairs = self.pairs.lock().unwrap_or_else(PoisonError::into_inner);
        let own = pairs.get(key).filter(|own| own.uid() == cached.uid())?;
        let number = |pair: &ActiveStandbyPair| pair.resource_version()?.parse::<u64>().ok();
        (number(own)? > number(cached)?).then(|| own.status.clone()).flatten()
    }

    fn forget(&self, key: &PairKey) {
        self.pairs.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renewal_is_a_new_version_and_no_news() {
        let sightings = Sightings::default();
        let pair = ("shop".to_owned(), "orders".to_owned());
        assert!(sightings.note(&pair, "1", "held"));
        assert!(!sightings.note(&pair, "2", "held"));
        assert!(sightings.note(&pair, "3", "released"));
        assert_eq!(sightings.unchanged_ms(&pair, "2"), 0);
    }

    #[test]
    fn absence_is_counted_from_the_first_look_until_a_lease_is_there() {
        let sightings = Sightings::default();
        let pair = ("shop".to_owned(), "orders".to_owned());
        assert_eq!(sightings.absent_ms(&pair), 0);
        let long_ago = Instant::now() - std::time::Duration::from_secs(9);
        sightings.absent.lock().unwrap().insert(pair.clone(), long_ago);
        assert!(sightings.absent_ms(&pair) >= 9_000);
        sightings.note(&pair, "1", "held");
        assert_eq!(sightings.absent_ms(&pair), 0);
    }
}
