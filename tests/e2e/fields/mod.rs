//! Every field of the spec is changed and changed back (the method of Acto, SOSP '23): while a change
//! holds, the cluster must show it; afterwards everything that Kubernetes has of the pair must equal what
//! it has of a pair that was made so. What cannot be carried out must be told, survived and put right.
//!
//! Deliberately absent: values that the API server refuses by the schema alone; `bad-input` sends them.

mod cases;
mod schema;
mod state;
mod watch;

use crate::{
    flows::refusal,
    pair::{Namespace, Outcome, Pair},
    shell::{Shell, wait_for},
};
use anyhow::{Context, ensure};
use cases::{Case, Group, Seen, When};
use serde_json::{Value, json};
use state::State;
use std::{collections::BTreeSet, time::Duration};
use watch::Sight;

/// Longest time until a change is in force in every pod.
const IN_FORCE: Duration = Duration::from_secs(120);
/// Longest time until what a person did wrong is told.
const TOLD: Duration = Duration::from_secs(60);
/// Longest time until a change is taken back, and its last traces are gone.
const EQUAL: Duration = Duration::from_secs(90);
/// How long the recorder writes around a rollout.
const LOAD_SECONDS: u32 = 20;

/// What the grown volumes ask for in the end; the others begin with 1Gi.
const GROWN_SIZE: &str = "1100Mi";
/// Secrets of the user, in the flow's namespace.
const OWN_ADMIN: &str = "own-admin";
/// See `OWN_ADMIN`.
const OWN_APP: &str = "own-app";
/// An authority of another pair.
const OWN_AUTHORITY: &str = "own-authority";
/// No authority at all.
const OWN_GARBAGE: &str = "own-garbage";
/// A priority class, which belongs to no namespace.
const OWN_CLASS: &str = "e2e-fields";
/// Its number.
const OWN_CLASS_VALUE: i64 = 7;
/// A storage class like the cluster's own, whose volumes may grow.
const GROWING_CLASS: &str = "e2e-growing";

/// Each leaf of the schema has a case, and each case writes leaves of the schema.
pub(crate) fn assert_every_leaf_has_a_case() -> anyhow::Result<usize> {
    let leaves = schema::leaves()?;
    let all = cases::all();
    let written: BTreeSet<String> =
        all.iter().flat_map(|case| schema::written(&case.change, &leaves)).collect();
    for leaf in &leaves {
        ensure!(written.contains(leaf), "{leaf} has no case: add one to tests/e2e/fields/cases.rs");
    }
    for leaf in &written {
        ensure!(leaves.contains(leaf), "{leaf} is no field of the definition any more");
    }
    Ok(leaves.len())
}

/// The slice: fields that need new pods are changed a group at a time.
pub(crate) fn together(shell: &Shell, namespace: &Namespace<'_>) -> anyhow::Result<Outcome> {
    run(shell, namespace, When::Slice)
}

/// All of it, each case alone.
pub(crate) fn alone(shell: &Shell, namespace: &Namespace<'_>) -> anyhow::Result<Outcome> {
    run(shell, namespace, When::Alone)
}

fn run(shell: &Shell, namespace: &Namespace<'_>, when: When) -> anyhow::Result<Outcome> {
    let leaves = assert_every_leaf_has_a_case()?;
    let _classes = ClusterClasses::make(shell)?;
    let base = json!({"storage": {
        "data": {"size": "1Gi", "storageClassName": GROWING_CLASS},
        "log": {"size": "1Gi", "storageClassName": GROWING_CLASS}}});
    let mut grown = base.clone();
    for volume in ["data", "log"] {
        grown["storage"][volume]["size"] = Value::from(GROWN_SIZE);
    }
    let pair = namespace.pair("walked", base)?;
    let fresh = namespace.pair("fresh", grown)?;
    make_secrets(namespace, &fresh)?;
    let mut walk = Walk {
        shell,
        pair,
        base: Value::Null,
        fresh: state::state(&fresh)?,
        known: BTreeSet::new(),
        problems: Vec::new(),
    };
    walk.pair.psql("walked-active", "CREATE TABLE kept (a int PRIMARY KEY, b text)")?;
    let rows = "INSERT INTO kept SELECT n, 'before' FROM generate_series(1, 100) AS g(n)";
    walk.pair.psql("walked-active", rows)?;
    let (count, outcome) = walk.all(when)?;
    let rows = walk.pair.psql("walked-active", "SELECT count(*) FROM kept WHERE b = 'before'")?;
    ensure!(rows.trim() == "100", "{rows} of 100 rows are left");
    let now = state::state(&fresh)?;
    let differences = state::differences(&now, &walk.fresh);
    ensure!(differences.is_empty(), "the fresh pair changed meanwhile: {differences:#?}");
    deletions(namespace)?;
    let problems = walk.problems.join("\n");
    ensure!(problems.is_empty(), "{} changes went wrong:\n{problems}", walk.problems.len());
    let note = format!("{leaves} fields, {count} changes, each end equal to a fresh pair's");
    Ok(Outcome { note, ..outcome })
}

/// The pair whose fields are changed, and what it must come back to.
struct Walk<'a> {
    shell: &'a Shell,
    pair: Pair<'a>,
    /// The spec that every change comes back to.
    base: Value,
    fresh: State,
    /// Differences that were told already: one fault is not to hide the next.
    known: BTreeSet<String>,
    problems: Vec<String>,
}

/// Changes that are made at once.
#[derive(Default)]
struct Change {
    patch: Value,
    seen: Vec<Seen>,
}

impl Change {
    fn add(&mut self, patch: &Value, seen: Vec<Seen>) {
        merge(&mut self.patch, patch);
        self.seen.extend(seen);
    }
}

impl Walk<'_> {
    /// Everything in its order; how many changes there were, and what the recorder saw.
    fn all(&mut self, when: When) -> anyhow::Result<(usize, Outcome)> {
        let mut count = self.grow()?;
        let mut sum = Outcome::default();
        let mut groups = [Group::Members, Group::Placement, Group::Credentials]
            .map(|group| (group, Change::default()));
        for Case { change, outcome } in cases::all() {
            let result = match outcome {
                cases::Outcome::Grown(_) => continue,
                cases::Outcome::CostsStandby(_, only) if only == When::Alone && when != only => {
                    continue;
                }
                cases::Outcome::Rolled(group, seen) if when == When::Slice => {
                    let its = groups.iter_mut().find(|(name, _)| *name == group);
                    its.context("a group is missing")?.1.add(&change, seen);
                    count += 1;
                    continue;
                }
                cases::Outcome::Rolled(_, seen) => {
                    self.there_and_back(&Change { patch: change.clone(), seen })
                }
                cases::Outcome::Live(seen) => self.live(&Change { patch: change.clone(), seen }),
                cases::Outcome::Refused(reason) | cases::Outcome::CostsStandby(reason, _) => {
                    self.misoperate(&change, reason)
                }
                cases::Outcome::Denied(words) => self.deny(&change, words),
            };
            count += 1;
            self.go_on(&change, result)?;
        }
        for (group, change) in groups.iter().filter(|(_, change)| !change.seen.is_empty()) {
            let is_recorded = *group != Group::Credentials;
            let recording = is_recorded.then(|| self.pair.record(LOAD_SECONDS)).transpose()?;
            let result = self.there_and_back(change);
            if let Some(recording) = recording {
                sum.add(&recording.finish()?);
            }
            self.go_on(&change.patch, result)?;
        }
        let recording = self.pair.record(LOAD_SECONDS)?;
        let result = self.overtake();
        sum.add(&recording.finish()?);
        self.go_on(&json!("one change upon another"), result)?;
        Ok((count + 2, sum))
    }

    /// What went wrong is kept, the old spec is written back whole, and the walk goes on from there.
    fn go_on(&mut self, change: &Value, result: anyhow::Result<()>) -> anyhow::Result<()> {
        let Err(error) = result else { return Ok(()) };
        println!("went wrong: {error:#}");
        self.problems.push(format!("{error:#}"));
        let base = &self.base;
        let patch = json!([{"op": "replace", "path": "/spec", "value": base}]).to_string();
        let namespace = self.pair.namespace;
        namespace.kubectl(&["patch", "asp", &self.pair.name, "--type=json", "-p", &patch])?;
        wait_for(&format!("the pair settles after {change}"), IN_FORCE, || {
            Sight::of(&self.pair)?.assert_settled().map(Some)
        })?;
        self.known.extend(state::differences(&state::state(&self.pair)?, &self.fresh));
        Ok(())
    }

    /// One change, in force, and its way back to what a fresh pair is.
    fn there_and_back(&self, change: &Change) -> anyhow::Result<()> {
        let way_back = self.way_back(&change.patch)?;
        self.patch(&change.patch)?;
        self.wait_in_force(change)?;
        self.patch(&way_back)?;
        self.wait_equal(&change.patch)
    }

    /// The same without a new pod for a voter.
    fn live(&self, change: &Change) -> anyhow::Result<()> {
        let before = Sight::of(&self.pair)?.voter_uids()?;
        self.there_and_back(change)?;
        let after = Sight::of(&self.pair)?.voter_uids()?;
        ensure!(before == after, "{} replaced a pod", change.patch);
        Ok(())
    }

    /// Volumes cannot grow where their class does not let them: told, and mended when it does.
    fn grow(&mut self) -> anyhow::Result<usize> {
        let mut grown = Change::default();
        let mut patches = Vec::new();
        for Case { change, outcome } in cases::all() {
            if let cases::Outcome::Grown(seen) = outcome {
                grown.add(&change, seen);
                patches.push(change);
            }
        }
        let way_back = self.way_back(&grown.patch)?;
        set_growing(self.shell, false)?;
        let first = patches.first().context("nothing can grow")?;
        self.patch(first)?;
        let stuck = Change { patch: first.clone(), seen: cases::cannot_grow() };
        self.wait_in_force(&stuck)?;
        set_growing(self.shell, true)?;
        self.patch(&grown.patch)?;
        self.wait_in_force(&grown)?;
        let said = refusal(self.patch(&way_back).map(|()| String::new()))?;
        ensure!(said.contains("can only grow"), "the way back is refused with: {said}");
        self.wait_equal(&grown.patch)?;
        self.base = Sight::of(&self.pair)?.object["spec"].clone();
        Ok(patches.len())
    }

    /// What a person does wrong is told, the active serves on, and the next word of theirs puts it right.
    fn misoperate(&self, change: &Value, reason: &str) -> anyhow::Result<()> {
        let way_back = self.way_back(change)?;
        let active = self.pair.active()?;
        self.patch(change)?;
        wait_for(&format!("{change} is told as {reason}"), TOLD, || {
            Sight::of(&self.pair)?.assert_stalled(reason).map(Some)
        })?;
        let write = "INSERT INTO kept SELECT max(a) + 1, 'meanwhile' FROM kept";
        self.pair.psql("walked-active", write).with_context(|| format!("under {change}"))?;
        ensure!(self.pair.active()? == active, "{change} moved the active");
        self.patch(&way_back)?;
        self.wait_equal(change)
    }

    /// Refused by the API server in exactly these words.
    fn deny(&self, change: &Value, words: &str) -> anyhow::Result<()> {
        let said = refusal(self.patch(change).map(|()| "it was taken".to_owned()))?;
        ensure!(said.contains(words), "{change} is refused with: {said}");
        Ok(())
    }

    /// A second change comes while the pods are being replaced for the first, on the way there and on
    /// the way back.
    fn overtake(&self) -> anyhow::Result<()> {
        let [first, second] = cases::overtaking();
        let ways_back = [self.way_back(&first.change)?, self.way_back(&second.change)?];
        let mut both = Change::default();
        let patches = [first.change.clone(), second.change.clone()];
        for Case { change, outcome } in [first, second] {
            if let cases::Outcome::Rolled(_, seen) = outcome {
                both.add(&change, seen);
            }
        }
        self.patch_upon(&patches)?;
        self.wait_in_force(&both)?;
        self.patch_upon(&ways_back)?;
        self.wait_equal(&both.patch)
    }

    /// The second patch as soon as a pod goes for the first one.
    fn patch_upon(&self, [first, second]: &[Value; 2]) -> anyhow::Result<()> {
        let before = Sight::of(&self.pair)?.pods();
        self.patch(first)?;
        wait_for(&format!("pods are replaced for {first}"), IN_FORCE, || {
            Ok((Sight::of(&self.pair)?.pods() != before).then_some(()))
        })?;
        self.patch(second)
    }

    fn patch(&self, spec: &Value) -> anyhow::Result<()> {
        let patch = json!({"spec": spec}).to_string();
        let namespace = self.pair.namespace;
        namespace.kubectl(&["patch", "asp", &self.pair.name, "--type=merge", "-p", &patch])?;
        Ok(())
    }

    /// The patch that undoes another one, made before it.
    fn way_back(&self, patch: &Value) -> anyhow::Result<Value> {
        Ok(undone(patch, &Sight::of(&self.pair)?.object["spec"]))
    }

    fn wait_in_force(&self, change: &Change) -> anyhow::Result<()> {
        wait_for(&format!("{} is in force", change.patch), IN_FORCE, || {
            let sight = Sight::of(&self.pair)?;
            sight.assert_settled()?;
            change.seen.iter().try_for_each(|seen| sight.assert_seen(seen)).map(Some)
        })
    }

    /// Settled, and no different from the pair that was made so.
    fn wait_equal(&self, patch: &Value) -> anyhow::Result<()> {
        wait_for(&format!("the end of {patch} equals a fresh pair"), EQUAL, || {
            let sight = Sight::of(&self.pair)?;
            sight.assert_settled()?;
            sight.assert_seen(&cases::newest_scheme())?;
            let mut differences = state::differences(&state::state(&self.pair)?, &self.fresh);
            differences.retain(|line| !self.known.contains(line));
            ensure!(differences.is_empty(), "{differences:#?}");
            Ok(Some(()))
        })
    }
}

/// Merges a patch into another (RFC 7386).
fn merge(into: &mut Value, patch: &Value) {
    match patch {
        Value::Object(fields) => {
            if !into.is_object() {
                *into = json!({});
            }
            for (name, below) in fields {
                merge(&mut into[name], below);
            }
        }
        other => *into = other.clone(),
    }
}

/// What a merge patch must write to give every field that `patch` writes its value in `before`.
fn undone(patch: &Value, before: &Value) -> Value {
    match (patch, before) {
        (Value::Object(fields), Value::Object(before)) => fields
            .iter()
            .map(|(name, below)| {
                (name.clone(), undone(below, before.get(name).unwrap_or(&Value::Null)))
            })
            .collect(),
        (_, before) => before.clone(),
    }
}

/// Secrets that a user would bring.
fn make_secrets(namespace: &Namespace<'_>, other: &Pair<'_>) -> anyhow::Result<()> {
    let authority = namespace.object("secrets", &format!("{}-ca", other.name))?;
    let authority = authority.context("the other pair has no authority")?["data"].clone();
    let user = |name: &str| json!({"username": name, "password": "kept-in-a-safe-place"});
    for (name, key, data) in [
        (OWN_ADMIN, "stringData", user("chief")),
        (OWN_APP, "stringData", user("shop")),
        (OWN_GARBAGE, "stringData", json!({"tls.crt": "garbage", "tls.key": "garbage"})),
        (
            OWN_AUTHORITY,
            "data",
            json!({"tls.crt": authority["tls.crt"], "tls.key": authority["tls.key"]}),
        ),
    ] {
        let metadata = json!({"name": name});
        namespace.apply(
            &json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, key: data}),
        )?;
    }
    Ok(())
}

/// What was changed to Delete and back is Retain again: the volumes stay. Under Delete they go.
fn deletions(namespace: &Namespace<'_>) -> anyhow::Result<()> {
    let patch = r#"{"spec":{"storage":{"retentionPolicy":"Delete"}}}"#;
    namespace.kubectl(&["patch", "asp", "fresh", "--type=merge", "-p", patch])?;
    namespace.kubectl(&["delete", "asp", "walked", "fresh", "--timeout=60s"])?;
    wait_for("volumes and Lease of the fresh pair are gone", EQUAL, || {
        let left = namespace.kubectl(&["get", "pvc,leases", "-o", "name"])?;
        let (kept, gone): (Vec<&str>, Vec<&str>) =
            left.lines().partition(|line| line.contains("/walked-"));
        ensure!(gone.is_empty(), "{gone:?} are left");
        ensure!(kept.len() == 5, "of four volumes and a Lease, kept are {kept:?}");
        Ok(Some(()))
    })
}

/// Objects that belong to no namespace, and go with the flow.
struct ClusterClasses<'a> {
    shell: &'a Shell,
}

impl<'a> ClusterClasses<'a> {
    fn make(shell: &'a Shell) -> anyhow::Result<Self> {
        let classes = Self { shell };
        set_growing(shell, true)?;
        let priority = json!({
            "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
            "metadata": {"name": OWN_CLASS}, "value": OWN_CLASS_VALUE,
        });
        shell.kubectl_with(&["apply", "-f", "-"], &priority.to_string())?;
        Ok(classes)
    }
}

impl Drop for ClusterClasses<'_> {
    fn drop(&mut self) {
        for class in ["storageclass", "priorityclass"] {
            let name = if class == "storageclass" { GROWING_CLASS } else { OWN_CLASS };
            let _ = self.shell.kubectl(&["delete", class, name, "--ignore-not-found"]);
        }
    }
}

/// The cluster's default class under another name, with the leave to grow or without it.
fn set_growing(shell: &Shell, may_grow: bool) -> anyhow::Result<()> {
    let all = shell.object(&["storageclasses"])?.context("there are no storage classes")?;
    let is_default = |class: &&Value| {
        class["metadata"]["annotations"]["storageclass.kubernetes.io/is-default-class"] == "true"
    };
    let classes = all["items"].as_array().context("a list has items")?;
    let mut class = classes.iter().find(is_default).context("no class is the default")?.clone();
    class["metadata"] = json!({"name": GROWING_CLASS});
    class["allowVolumeExpansion"] = Value::from(may_grow);
    shell.kubectl_with(&["apply", "-f", "-"], &class.to_string()).map(drop)
}
