//! What the commands need of a cluster: the pair, its pods, and a command's output from inside a pod.

use anyhow::Context;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::{
    Api, Client,
    api::{AttachParams, ListParams},
};
use std::collections::BTreeMap;
use tokio::io::AsyncReadExt;
use understudy_agent_api::names;
use understudy_crds::ActiveStandbyPair;

/// Where a pair lives.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct PairArguments {
    /// The pair
    pub(crate) pair: String,
    /// Its namespace [default: the kubeconfig's]
    #[arg(short, long)]
    pub(crate) namespace: Option<String>,
}

/// A pair in a cluster.
pub(crate) struct PairInCluster {
    /// The pair's name.
    pub(crate) name: String,
    /// Client of the API server.
    pub(crate) client: Client,
    /// Namespace of the pair.
    pub(crate) namespace: String,
}

impl PairInCluster {
    /// Connects by the kubeconfig, or the pod's service account.
    pub(crate) async fn connect(arguments: &PairArguments) -> anyhow::Result<Self> {
        let config = kube::Config::infer().await.context("no kubeconfig; set KUBECONFIG")?;
        let namespace =
            arguments.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config)?;
        Ok(Self { name: arguments.pair.clone(), client, namespace })
    }

    /// The resource.
    pub(crate) async fn pair(&self) -> anyhow::Result<ActiveStandbyPair> {
        let api: Api<ActiveStandbyPair> = Api::namespaced(self.client.clone(), &self.namespace);
        api.get(&self.name).await.with_context(|| {
            format!("cannot read ActiveStandbyPair {}/{}", self.namespace, self.name)
        })
    }

    /// Pods of the pair.
    pub(crate) fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Names of the pair's pods, with their role labels.
    pub(crate) async fn members(&self) -> anyhow::Result<Vec<(String, Option<String>)>> {
        let selector = format!("{}={}", names::LABEL_PAIR, self.name);
        let pods = self.pods().list(&ListParams::default().labels(&selector)).await?;
        Ok(pods
            .items
            .into_iter()
            .filter_map(|pod| {
                let role = pod.metadata.labels.unwrap_or_default().remove(names::LABEL_ROLE);
                pod.metadata.name.map(|name| (name, role))
            })
            .collect())
    }

    /// The member that is labelled active.
    pub(crate) async fn active(&self) -> anyhow::Result<String> {
        let members = self.members().await?;
        members
            .into_iter()
            .find(|(_, role)| role.as_deref() == Some("active"))
            .map(|(name, _)| name)
            .with_context(|| format!("{} has no active at this time", self.name))
    }

    /// The application's Secret, decoded.
    pub(crate) async fn app_secret(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let name = format!("{}-app", self.name);
        let secret = api.get(&name).await.with_context(|| format!("cannot read Secret {name}"))?;
        Ok(secret
            .data
            .unwrap_or_default()
            .into_iter()
            .filter_map(|(key, value)| String::from_utf8(value.0).ok().map(|text| (key, text)))
            .collect())
    }

    /// What a command inside a member's pod prints.
    pub(crate) async fn output_of(&self, member: &str, command: &[&str]) -> anyhow::Result<String> {
        let params = AttachParams::default().stdout(true).stderr(true);
        let mut process = self.pods().exec(member, command.iter().copied(), &params).await?;
        let mut text = String::new();
        if let Some(mut stdout) = process.stdout() {
            stdout.read_to_string(&mut text).await?;
        }
        let mut errors = String::new();
        if let Some(mut stderr) = process.stderr() {
            stderr.read_to_string(&mut errors).await?;
        }
        process.join().await?;
        anyhow::ensure!(!text.is_empty(), "{member}: {}", errors.trim());
        Ok(text)
    }
}
