//! What the cluster shows of a change: asked of the objects, the agents and SQL, never taken from the
//! answer to the change.

use super::cases::{At, Seen};
use crate::pair::Pair;
use anyhow::{Context, bail, ensure};
use serde_json::Value;

/// The pair's object and pods at one moment.
pub(super) struct Sight<'a> {
    pair: &'a Pair<'a>,
    pub(super) object: Value,
    pods: Vec<Value>,
}

impl<'a> Sight<'a> {
    pub(super) fn of(pair: &'a Pair<'a>) -> anyhow::Result<Self> {
        let object = pair.namespace.object("activestandbypairs", &pair.name)?;
        let selector = format!("understudy.dev/pair={}", pair.name);
        let pods = pair.namespace.kubectl(&["get", "pods", "-l", &selector, "-o", "json"])?;
        let pods: Value = serde_json::from_str(&pods)?;
        Ok(Self {
            pair,
            object: object.with_context(|| format!("pair {} is gone", pair.name))?,
            pods: pods["items"].as_array().cloned().unwrap_or_default(),
        })
    }

    /// The condition, when it was judged from the newest spec.
    fn condition(&self, type_: &str) -> Option<&Value> {
        let all = self.object["status"]["conditions"].as_array()?;
        let generation = &self.object["metadata"]["generation"];
        all.iter().find(|c| c["type"] == type_ && c["observedGeneration"] == *generation)
    }

    fn is(&self, type_: &str, status: &str) -> bool {
        self.condition(type_).is_some_and(|c| c["status"] == status)
    }

    /// Ready by the newest spec, with nothing left to do.
    pub(super) fn assert_settled(&self) -> anyhow::Result<()> {
        let is_settled = self.is("Ready", "True")
            && self.is("Reconciling", "False")
            && self.is("Stalled", "False")
            && self.object["status"]["phase"] == "Normal";
        ensure!(is_settled, "conditions: {}", self.object["status"]["conditions"]);
        Ok(())
    }

    /// Stalled by the newest spec for this reason.
    pub(super) fn assert_stalled(&self, reason: &str) -> anyhow::Result<()> {
        let stalled = self.condition("Stalled").filter(|c| c["status"] == "True");
        let told = stalled.is_some_and(|c| c["reason"] == reason);
        ensure!(told, "conditions: {}", self.object["status"]["conditions"]);
        Ok(())
    }

    /// Name and UID of each pod, and whether it is on its way out.
    pub(super) fn pods(&self) -> Vec<String> {
        let told = |pod: &Value| {
            let metadata = &pod["metadata"];
            format!("{} {} {}", metadata["name"], metadata["uid"], metadata["deletionTimestamp"])
        };
        self.pods.iter().map(told).collect()
    }

    /// Which pods the voters run in.
    pub(super) fn voter_uids(&self) -> anyhow::Result<Vec<String>> {
        Ok(self.of_kind("voter")?.iter().map(|pod| pod["metadata"]["uid"].to_string()).collect())
    }

    fn of_kind(&self, kind: &str) -> anyhow::Result<Vec<&Value>> {
        let pods = self.pods.iter();
        let found: Vec<&Value> =
            pods.filter(|pod| pod["metadata"]["labels"]["understudy.dev/kind"] == kind).collect();
        ensure!(!found.is_empty(), "there is no {kind}");
        Ok(found)
    }

    fn voters(&self) -> anyhow::Result<Vec<&str>> {
        let voters = self.of_kind("voter")?;
        Ok(voters.iter().filter_map(|pod| pod["metadata"]["name"].as_str()).collect())
    }

    /// An error that says what is there instead.
    pub(super) fn assert_seen(&self, seen: &Seen) -> anyhow::Result<()> {
        for found in self.look(seen.at)? {
            ensure!(found == seen.is, "{:?} shows {found}, not {}", seen.at, seen.is);
        }
        Ok(())
    }

    /// What is there now, once for every place that must show it.
    fn look(&self, at: At) -> anyhow::Result<Vec<Value>> {
        let namespace = self.pair.namespace;
        let name = &self.pair.name;
        let pointed = |object: &Value, pointer: &str| object.pointer(pointer).cloned();
        let found: Vec<Option<Value>> = match at {
            At::Effective(field) => vec![Some(self.object["status"]["effective"][field].clone())],
            At::Condition(type_) => vec![self.condition(type_).map(|c| c["reason"].clone())],
            At::Voters(pointer) => {
                let pods = self.of_kind("voter")?;
                pods.iter().map(|pod| pointed(&pod["spec"], pointer)).collect()
            }
            At::Subscribers(pointer) => {
                let pods = self.of_kind("subscriber")?;
                pods.iter().map(|pod| pointed(&pod["spec"], pointer)).collect()
            }
            At::Environment(variable) => {
                let pods = self.of_kind("voter")?;
                pods.iter().map(|pod| environment(pod, variable)).collect()
            }
            At::Claims(suffix) => {
                let size = "/spec/resources/requests/storage";
                let claim = |voter: &&str| namespace.object("pvc", &format!("{voter}{suffix}"));
                let claims: Vec<_> = self.voters()?.iter().map(claim).collect::<Result<_, _>>()?;
                claims.iter().map(|claim| pointed(claim.as_ref()?, size)).collect()
            }
            At::Agents(field) => {
                self.agents()?.into_iter().map(|agent| Some(agent[field].clone())).collect()
            }
            At::Scheme => {
                let generation = self.object["metadata"]["generation"].as_u64();
                let agents = self.agents()?;
                // The version holds the generation in 16 bits above the number of members (0002).
                let taken = |agent: &Value| Some((agent["schemeVersion"].as_u64()? >> 8) & 0xffff);
                agents.iter().map(|agent| Some(Value::from(taken(agent) == generation))).collect()
            }
            At::Lease(pointer) => {
                let lease = namespace.object("leases", &format!("{name}-authority"))?;
                vec![lease.and_then(|lease| pointed(&lease, pointer))]
            }
            At::Count(kind, letters) => {
                let named = namespace.kubectl(&["get", kind, "-o", "name"])?;
                let begin = format!("{name}{letters}");
                let count = named.lines().filter_map(|line| line.split('/').nth(1));
                vec![Some(Value::from(count.filter(|name| name.starts_with(&begin)).count()))]
            }
            At::Sql(query) => {
                let answer = self.pair.psql(&format!("{name}-active"), query)?;
                vec![Some(Value::from(answer.trim()))]
            }
            At::SecretKey(suffix, key) => {
                let secret = namespace.object("secrets", &format!("{name}{suffix}"))?;
                let data = secret.context("the Secret is gone")?["data"].clone();
                vec![Some(Value::from(data.get(key).is_some()))]
            }
        };
        Ok(found.into_iter().map(Option::unwrap_or_default).collect())
    }

    fn agents(&self) -> anyhow::Result<Vec<Value>> {
        let mut agents = Vec::new();
        for pod in &self.pods {
            let member = pod["metadata"]["name"].as_str().unwrap_or_default();
            let said = self.pair.exec(member, &["understudy", "status", "--local", "--json"])?;
            let Value::Array(mut said) = serde_json::from_str(&said)? else {
                bail!("{member} says {said}");
            };
            agents.append(&mut said);
        }
        Ok(agents)
    }
}

fn environment(pod: &Value, variable: &str) -> Option<Value> {
    let variables = pod["spec"]["containers"][0]["env"].as_array()?;
    Some(variables.iter().find(|v| v["name"] == variable)?["value"].clone())
}
