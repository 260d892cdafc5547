//! What happens to the pair, stage by stage, and how each stage must end.

use super::{
    bench::Proxy,
    operator::ELECTION,
    words::{Order, Report},
};
use crate::{
    pair::{Namespace, Pair, pair_object},
    shell::{Shell, wait_for},
};
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use std::{
    cell::{Cell, RefCell},
    time::{Duration, Instant},
};
use understudy_tests::sieve::{
    case::Case,
    state::{difference, normal_form},
};

/// The pair's name.
const PAIR: &str = "orders";
/// Everything that a pair consists of.
const KINDS: &str =
    "asp,pods,services,secrets,pvc,pdb,configmaps,serviceaccounts,roles,rolebindings,leases";
/// Longest time until a stage ends as it should: the operator begins some dozens of times in it.
const REACHED: Duration = Duration::from_secs(180);
/// How long an end must stand.
const STEADY: Duration = Duration::from_secs(2);
/// Longest time until the operator has filled its caches.
const LISTED: Duration = Duration::from_secs(30);
/// How many lists fill them.
const LISTS: u64 = 4;
/// How long the operator lives in the past.
const PAST: Duration = Duration::from_secs(4);

/// One change to the pair.
struct Stage {
    name: &'static str,
    change: fn(&Scene<'_>) -> anyhow::Result<()>,
}

/// In their order.
const STAGES: [Stage; 5] = [
    Stage { name: "created", change: create },
    Stage { name: "handed over", change: hand_over },
    Stage { name: "scaled in", change: scale_in },
    Stage { name: "rolled", change: roll },
    Stage { name: "deleted", change: delete },
];

/// The place of one run.
pub(crate) struct Scene<'a> {
    pub(crate) shell: &'a Shell,
    pub(crate) namespace: &'a Namespace<'a>,
    pub(crate) proxy: RefCell<Proxy<'a>>,
    pub(crate) case: Case,
    /// The pair's, once it is known.
    uid: RefCell<String>,
}

impl<'a> Scene<'a> {
    pub(crate) fn new(
        shell: &'a Shell,
        namespace: &'a Namespace<'a>,
        proxy: Proxy<'a>,
        case: Case,
    ) -> Self {
        Self { shell, namespace, proxy: RefCell::new(proxy), case, uid: RefCell::default() }
    }

    /// Plays every stage; the states at their ends. With a reference, each must end as it does there.
    pub(crate) fn play(&self, reference: Option<&[String]>) -> anyhow::Result<Vec<String>> {
        let mut ends = Vec::new();
        for (at, stage) in STAGES.iter().enumerate() {
            let expected = reference.map(|ends| ends[at].as_str());
            let end = self.play_stage(stage, expected);
            ends.push(end.with_context(|| format!("stage {:?}", stage.name))?);
        }
        let report = self.order(&Order::Report)?;
        ensure!(report.fell == 0, "the operator ended by itself {} times", report.fell);
        Ok(ends)
    }

    fn play_stage(&self, stage: &Stage, expected: Option<&str>) -> anyhow::Result<String> {
        self.order(&Order::Stage(stage.name.to_owned()))?;
        if self.case == Case::Stale {
            self.order(&Order::Restart)?;
            self.wait_report("the caches are filled", |report| report.lists_of_life >= LISTS)?;
            self.order(&Order::Remember)?;
        }
        (stage.change)(self)?;
        if self.case == Case::Stale {
            self.live_in_the_past()?;
            self.reach(expected)?;
            self.live_in_the_past()?;
        }
        self.reach(expected)
    }

    pub(crate) fn order(&self, order: &Order) -> anyhow::Result<Report> {
        self.proxy.borrow_mut().order(order)
    }

    /// The end of the operator's log.
    pub(crate) fn last_words(&self, lines: usize) -> String {
        self.proxy.borrow().log(lines)
    }

    fn wait_report(&self, what: &str, is_so: impl Fn(&Report) -> bool) -> anyhow::Result<()> {
        wait_for(what, LISTED, || Ok(is_so(&self.order(&Order::Report)?).then_some(())))
    }

    /// The operator begins with what was true before the change, and hears of nothing later for a while.
    fn live_in_the_past(&self) -> anyhow::Result<()> {
        self.order(&Order::RestartInThePast(PAST.as_millis() as u64))?;
        self.wait_report("the past is over", |report| !report.is_past)
    }

    /// Waits until the state is the expected one, or without one until it is complete, and stays so.
    fn reach(&self, expected: Option<&str>) -> anyhow::Result<String> {
        let last = RefCell::new(String::new());
        let since = Cell::new(Instant::now());
        let reached = wait_for("the stage ends", REACHED, || {
            let objects = self.objects()?;
            let state = self.normal_form(&objects);
            let is_right = match expected {
                Some(expected) => state == expected,
                None => self.is_complete(&objects)?,
            };
            let is_same = last.replace(state) == *last.borrow();
            if !(is_right && is_same) {
                since.set(Instant::now());
            }
            Ok((is_right && since.get().elapsed() >= STEADY).then_some(()))
        });
        let state = last.into_inner();
        reached.with_context(|| match expected {
            Some(expected) => format!("not as in the reference:\n{}", difference(expected, &state)),
            None => format!("as it was last:\n{state}"),
        })?;
        Ok(state)
    }

    /// Everything of the namespace that is not there without a pair.
    fn objects(&self) -> anyhow::Result<Vec<Value>> {
        let text = self.namespace.kubectl(&["get", KINDS, "-o", "json"])?;
        let list: Value = serde_json::from_str(&text)?;
        let items = list["items"].as_array().cloned().unwrap_or_default();
        let is_ours = |object: &Value| {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            match object["kind"].as_str().unwrap_or_default() {
                "ConfigMap" => name != "kube-root-ca.crt",
                "ServiceAccount" => name != "default",
                "Lease" => !name.starts_with(ELECTION),
                _ => true,
            }
        };
        Ok(items.into_iter().filter(is_ours).collect())
    }

    fn normal_form(&self, objects: &[Value]) -> String {
        let pair = objects.iter().find(|object| object["kind"] == "ActiveStandbyPair");
        if let Some(uid) = pair.and_then(|pair| pair["metadata"]["uid"].as_str()) {
            self.uid.replace(uid.to_owned());
        }
        let uid = self.uid.borrow();
        normal_form(objects, &[(&self.namespace.name, "NAMESPACE"), (&uid, "UID")])
    }

    /// Whether the pair is whole and the newest spec carried out; where no pair is, whether nothing is.
    fn is_complete(&self, objects: &[Value]) -> anyhow::Result<bool> {
        if self.namespace.object("activestandbypairs", PAIR)?.is_none() {
            return Ok(objects.is_empty());
        }
        let is_ready = |pod: &Value| {
            let conditions = pod["status"]["conditions"].as_array();
            conditions.is_some_and(|all| {
                all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
            })
        };
        let mut pods = objects.iter().filter(|object| object["kind"] == "Pod");
        let is_going = |object: &Value| object["metadata"].get("deletionTimestamp").is_some();
        let pair = self.pair();
        Ok(pods.all(is_ready)
            && !objects.iter().any(is_going)
            && pair.roles_when_ready()?.is_some()
            && pair.is_settled()?)
    }

    fn pair(&self) -> Pair<'_> {
        Pair::existing(self.shell, self.namespace, PAIR)
    }

    fn patch(&self, patch: &Value) -> anyhow::Result<()> {
        let patch = patch.to_string();
        self.namespace.kubectl(&["patch", "asp", PAIR, "--type=merge", "-p", &patch]).map(drop)
    }
}

fn create(scene: &Scene<'_>) -> anyhow::Result<()> {
    let storage = json!({
        "data": {"size": "1Gi"}, "log": {"size": "1Gi"}, "retentionPolicy": "Delete"});
    let spec = json!({"subscribers": {"replicas": 1}, "storage": storage});
    scene.namespace.apply(&pair_object(PAIR, spec)).map(drop)
}

fn hand_over(scene: &Scene<'_>) -> anyhow::Result<()> {
    let active = scene.pair().active()?;
    let before = scene.pair().pod(&active)?["metadata"]["uid"].clone();
    scene.namespace.kubectl(&["delete", "pod", &active, "--wait=false"])?;
    wait_for("the pod is another", REACHED, || {
        let pod = scene.namespace.object("pods", &active)?;
        Ok(pod.filter(|pod| pod["metadata"]["uid"] != before).map(drop))
    })
}

fn scale_in(scene: &Scene<'_>) -> anyhow::Result<()> {
    scene.patch(&json!({"spec": {"subscribers": {"replicas": 0}}}))
}

fn roll(scene: &Scene<'_>) -> anyhow::Result<()> {
    scene.patch(&json!({"spec": {"resources": {"requests": {"cpu": "60m"}}}}))
}

fn delete(scene: &Scene<'_>) -> anyhow::Result<()> {
    scene.namespace.kubectl(&["delete", "asp", PAIR, "--wait=false"]).map(drop)
}
