//! What the pair's object says while something is broken: everything that a watch of it shows.

use crate::pair::Pair;
use anyhow::Context;
use futures::StreamExt;
use kube::{
    Api, Client,
    runtime::{WatchStreamExt, watcher},
};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};
use tokio::runtime::{Builder, Runtime};
use understudy_crds::{ActiveStandbyPair, ActiveStandbyPairStatus};

/// Listens to a pair until it is asked what it heard.
pub(crate) struct Listening {
    heard: Arc<Mutex<BTreeSet<String>>>,
    /// Ends its tasks when dropped.
    _runtime: Runtime,
}

impl Listening {
    /// Begins to listen; what the object says at this moment counts too.
    pub(crate) fn to(pair: &Pair<'_>) -> anyhow::Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let heard = Arc::new(Mutex::new(BTreeSet::new()));
        let client =
            runtime.block_on(Client::try_default()).context("no access to the API server")?;
        let pairs = Api::<ActiveStandbyPair>::namespaced(client, &pair.namespace.name);
        let only = watcher::Config::default().fields(&format!("metadata.name={}", pair.name));
        let told = Arc::clone(&heard);
        runtime.spawn(async move {
            // An API server that is away is asked again until it is back.
            let objects = watcher(pairs, only).default_backoff().applied_objects();
            let mut objects = std::pin::pin!(objects);
            while let Some(object) = objects.next().await {
                let Ok(object) = object else { continue };
                let words = words(&object.status.unwrap_or_default());
                told.lock().unwrap_or_else(|dead| dead.into_inner()).extend(words);
            }
        });
        Ok(Self { heard, _runtime: runtime })
    }

    /// Everything that was said, as `phase Normal` or `Available=True Serving`.
    pub(crate) fn heard(&self) -> BTreeSet<String> {
        self.heard.lock().unwrap_or_else(|dead| dead.into_inner()).clone()
    }
}

fn words(status: &ActiveStandbyPairStatus) -> Vec<String> {
    let mut all: Vec<String> =
        status.phase.iter().map(|phase| format!("phase {phase:?}")).collect();
    all.extend(status.conditions.iter().map(|c| format!("{}={} {}", c.type_, c.status, c.reason)));
    all
}
