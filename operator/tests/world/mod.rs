//! The world of the golden scripts: a pair, its Lease, pods, volumes and agents, set by commands in
//! few words. It invents ids from member numbers, so that scripts stay readable.

mod agents;

use goldenscript::{Command, Runner};
use jiff::{SignedDuration, Timestamp};
use std::{collections::BTreeMap, error::Error, fmt::Write as _};
use understudy_agent_api::names as shared;
use understudy_authority::{
    Holder, LeaseRecord, LeaseState, StandbySync, SyncClass, Voter as LeaseVoter,
};
use understudy_crds::{
    ActiveStandbyPair, ActiveStandbyPairStatus, MemberStanding, MemberStatus, Phase,
};
use understudy_operator::pair::{
    action::Kind,
    build, names,
    observation::{
        ContainerDeath, ContainerSight, LeaseSight, Observation, PodSight, Seen, VolumeSight,
        VolumesSight,
    },
    plan::{self, Picture, Plan},
    status,
    validate::{PairView, References, validate},
};
use understudy_types::{Dbid, Epoch, Incarnation, Lsn, MaxLoss, MemberName, StoreId};
use uuid::Uuid;

/// Database of every script.
pub(crate) const DBID: Dbid = Dbid(Uuid::from_u128(0xdb));

/// The world.
pub(crate) struct World {
    pair: ActiveStandbyPair,
    seen: Observation,
    now: Timestamp,
}

impl Default for World {
    fn default() -> Self {
        let mut pair = ActiveStandbyPair::new("orders", Default::default());
        pair.metadata.namespace = Some("shop".to_owned());
        pair.metadata.uid = Some("5f0c".to_owned());
        pair.metadata.generation = Some(1);
        let seen = Observation {
            lease: Seen::Known(LeaseSight::Absent { since_ms: 0 }),
            pods: BTreeMap::new(),
            volumes: BTreeMap::new(),
            agents: BTreeMap::new(),
            status: ActiveStandbyPairStatus::default(),
        };
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        Self { pair, seen, now }
    }
}

pub(crate) type Outcome = Result<(), Box<dyn Error>>;

pub(crate) fn member(name: &str) -> MemberName {
    MemberName::new(name).unwrap()
}

fn number(name: &str) -> u128 {
    name.bytes().filter(u8::is_ascii_digit).fold(0, |n, d| n * 10 + u128::from(d - b'0'))
}

pub(crate) fn store(name: &str) -> StoreId {
    StoreId(Uuid::from_u128(number(name) * 100))
}

pub(crate) fn incarnation(name: &str, start: u64) -> Incarnation {
    Incarnation { start, id: Uuid::from_u128(number(name) * 1000 + u128::from(start)) }
}

fn holder(name: &str, start: u64) -> Holder {
    Holder { member: member(name), store: store(name), incarnation: incarnation(name, start) }
}

/// `orders-2/3`: member and start.
fn process(text: &str) -> Result<Holder, Box<dyn Error>> {
    let (name, start) = text.split_once('/').ok_or("write member/start")?;
    Ok(holder(name, start.parse()?))
}

impl Runner for World {
    type Command = Command;

    fn run(
        &mut self,
        command: &Command,
        _: &goldenscript::Context,
    ) -> Result<String, Box<dyn Error>> {
        match command.name.as_str() {
            "spec" => self.set_spec(command)?,
            "status" => self.set_status(command)?,
            "lease" => self.set_lease(command)?,
            "pod" => self.set_pod(command)?,
            "volumes" => self.set_volumes(command)?,
            "agent" => agents::set(&mut self.seen.agents, self.now, command)?,
            "wait" => self.wait(command)?,
            "plan" => return self.plan(),
            "say" => return self.say(),
            other => return Err(format!("unknown command {other}").into()),
        }
        Ok(String::new())
    }
}

impl World {
    fn view(&self) -> PairView {
        validate(&self.pair, "node-agent:1", &References::default())
    }

    /// `spec '{yaml}'` and `generation=N`.
    fn set_spec(&mut self, command: &Command) -> Outcome {
        let mut args = command.consume_args();
        if let Some(spec) = args.next_pos() {
            self.pair.spec = serde_yaml::from_str(spec)?;
        }
        if let Some(epoch) = args.take_key("accept-loss") {
            let noted = self.pair.metadata.annotations.get_or_insert_default();
            noted.insert(shared::ANNOTATION_ACCEPT_LOSS.to_owned(), epoch.to_owned());
        }
        if let Some(epoch) = args.take_key("asked") {
            let noted = self.pair.metadata.annotations.get_or_insert_default();
            noted.insert(shared::ANNOTATION_FAILOVER.to_owned(), epoch.to_owned());
        }
        if let Some(generation) = args.take_key("generation") {
            self.pair.metadata.generation = Some(generation.parse()?);
        }
        args.reject_next()
    }

    fn set_status(&mut self, command: &Command) -> Outcome {
        let mut args = command.consume_args();
        while let Some((key, value)) = args.next_key() {
            let status = &mut self.seen.status;
            match key {
                "phase" => {
                    status.phase = Phase::ALL.into_iter().find(|p| p.to_string() == value);
                    let since = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(self.now);
                    status.phase_since = Some(since);
                }
                "voters" => self.list_members(value, MemberStanding::Voter),
                "retired" => self.list_members(value, MemberStanding::Retired),
                "last" => status.last_member = Some(value.parse()?),
                "epoch" => status.epoch = Some(value.parse()?),
                "dbid" => status.dbid = Some(DBID.to_string()),
                other => return Err(format!("unknown key {other}").into()),
            }
        }
        args.reject_next()
    }

    fn list_members(&mut self, names: &str, standing: MemberStanding) {
        self.seen.status.members.retain(|m| m.standing != standing);
        let since = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(self.now);
        self.seen.status.members.extend(names.split(',').map(|name| MemberStatus {
            name: name.to_owned(),
            node: None,
            role: "Unknown".to_owned(),
            standing,
            state: String::new(),
            volume: format!("{name}-data"),
            version: None,
            since: since.clone(),
        }));
    }

    /// `lease absent age=MS | unknown | unreadable | uninitialised | initialising P | held P | released P |
    /// transferring P to=M`, with `epoch=`, `sync=P`, `lacks=COMMITS` (of an async one), `voters=M,M`, `age=MS`; P is member/start.
    fn set_lease(&mut self, command: &Command) -> Outcome {
        let mut args = command.consume_args();
        let word = args.next_pos().ok_or("which state?")?;
        self.seen.lease = match word {
            "absent" => {
                let since_ms = args.take_key("age").unwrap_or("0").parse()?;
                Seen::Known(LeaseSight::Absent { since_ms })
            }
            "unknown" => Seen::Unknown { since: self.now, why: "connection refused".to_owned() },
            "unreadable" => {
                Seen::Known(LeaseSight::Unreadable("the annotation is not a record".to_owned()))
            }
            _ => {
                let mut record = LeaseRecord::uninitialised(4000);
                if word != "uninitialised" {
                    let by = process(args.next_pos().ok_or("whose?")?)?;
                    record.state = match word {
                        "initialising" => LeaseState::Initialising { by: by.clone() },
                        "held" => LeaseState::Held,
                        "released" => LeaseState::Released,
                        "transferring" => LeaseState::Transferring {
                            to: member(args.take_key("to").ok_or("to whom?")?),
                            lsn: Lsn(7),
                        },
                        other => return Err(format!("unknown state {other}").into()),
                    };
                    if word != "initialising" {
                        record.holder = Some(by);
                        record.dbid = Some(DBID);
                        record.epoch = Epoch(1);
                    }
                }
                if let Some(epoch) = args.take_key("epoch") {
                    record.epoch = Epoch(epoch.parse()?);
                }
                if let Some(sync) = args.take_key("sync") {
                    let standby = process(sync)?;
                    let class = match args.take_key("lacks") {
                        Some(commits) => {
                            SyncClass::Async(MaxLoss { commits: commits.parse()?, millis: 2_000 })
                        }
                        None => SyncClass::Twosafe,
                    };
                    record.sync = Some(StandbySync { standby, class });
                }
                let voters = args.take_key("voters").unwrap_or_default();
                record.voters = voters
                    .split(',')
                    .filter(|name| !name.is_empty())
                    .map(|name| LeaseVoter { member: member(name), store: store(name) })
                    .collect();
                let unchanged_ms = args.take_key("age").unwrap_or("100").parse()?;
                let is_being_deleted = false;
                Seen::Known(LeaseSight::Present { record, unchanged_ms, is_being_deleted })
            }
        };
        args.reject_next()
    }

    /// A pod that runs, made from the present spec.
    fn usual_pod(&self, name: &str) -> PodSight {
        let view = self.view();
        let kind = match names::subscriber_number("orders", name) {
            Some(_) => Kind::Subscriber,
            None => Kind::Voter,
        };
        let template = view
            .spec
            .as_ref()
            .ok()
            .map(|spec| build::template_hash(&view, spec, &member(name), kind));
        PodSight {
            uid: format!("uid-{name}"),
            node: Some(format!("n{}", number(name))),
            is_ours: true,
            is_being_deleted: false,
            has_ended: false,
            is_ready: true,
            unschedulable: None,
            template,
            role_label: None,
            container: ContainerSight::Running,
            deaths: Vec::new(),
        }
    }

    /// `pod M running | unready | new | none | deleted | ended | waiting=REASON | unschedulable=TEXT | dead=START`
    /// with `exit=`, `old` (made from an older spec), `foreign` (of a deleted pair), `unproven`, `routed`.
    fn set_pod(&mut self, command: &Command) -> Outcome {
        let mut args = command.consume_args();
        let name = args.next_pos().ok_or("whose pod?")?;
        let member = member(name);
        let mut pod = self.usual_pod(name);
        let exit_code = args.take_key("exit").unwrap_or("137").parse()?;
        let (mut is_there, mut proven) = (true, true);
        let mut death = None;
        while let Some((key, value)) = args.next_key() {
            pod.is_ready = false;
            match key {
                "waiting" => {
                    let message = String::new();
                    pod.container = ContainerSight::Waiting { reason: value.to_owned(), message };
                }
                "unschedulable" => {
                    pod.unschedulable = Some(value.to_owned());
                    pod.node = None;
                    pod.container = ContainerSight::Absent;
                }
                "dead" => death = Some(incarnation(name, value.parse()?)),
                other => return Err(format!("unknown key {other}").into()),
            }
        }
        while let Some(word) = args.next_pos() {
            match word {
                "running" => pod.container = ContainerSight::Running,
                "none" => is_there = false,
                "unready" => pod.is_ready = false,
                "new" => {
                    pod.container = ContainerSight::Absent;
                    pod.is_ready = false;
                }
                "deleted" => pod.is_being_deleted = true,
                "ended" => pod.has_ended = true,
                "old" => pod.template = Some("older".to_owned()),
                "foreign" => pod.is_ours = false,
                "unproven" => proven = false,
                "routed" => pod.role_label = Some("active".to_owned()),
                other => return Err(format!("unknown word {other}").into()),
            }
        }
        if let Some(incarnation) = death {
            if pod.container == ContainerSight::Running {
                pod.container = ContainerSight::Terminated;
            }
            pod.deaths.push(ContainerDeath {
                exit_code,
                reason: "Error".to_owned(),
                message: format!("{incarnation}\n"),
                kubelet_was_alive: proven,
            });
        }
        self.seen.pods.remove(&member);
        if is_there {
            self.seen.pods.insert(member, pod);
        }
        Ok(())
    }

    /// `volumes M ok | none | deleted | lost | noted | half-noted`; the data volume is noted first.
    fn set_volumes(&mut self, command: &Command) -> Outcome {
        let mut args = command.consume_args();
        let member = member(args.next_pos().ok_or("whose volumes?")?);
        let mut volume =
            VolumeSight { is_being_deleted: false, is_lost: false, dbid: None, bytes: None };
        let word = args.next_pos().ok_or("how are they?")?;
        match word {
            "ok" | "none" => {}
            "deleted" => volume.is_being_deleted = true,
            "lost" => volume.is_lost = true,
            "noted" | "half-noted" => volume.dbid = Some(DBID.to_string()),
            other => return Err(format!("unknown word {other}").into()),
        }
        self.seen.volumes.remove(&member);
        if word != "none" {
            let mut both = VolumesSight { data: Some(volume.clone()), log: Some(volume) };
            if let (Some(log), "half-noted") = (&mut both.log, word) {
                log.dbid = None;
            }
            self.seen.volumes.insert(member, both);
        }
        args.reject_next()
    }

    /// `wait N`: seconds.
    fn wait(&mut self, command: &Command) -> Outcome {
        let seconds = command.consume_args().next_pos().ok_or("how long?")?.parse()?;
        self.now = self.now.checked_add(SignedDuration::from_secs(seconds))?;
        Ok(())
    }

    fn plan(&mut self) -> Result<String, Box<dyn Error>> {
        let view = self.view();
        let made = plan::plan(&view, &self.seen, self.now);
        assert_eq!(made, plan::plan(&view, &self.seen, self.now), "planning is deterministic");
        let picture = Picture::of(&view, &self.seen, self.now);
        plan::check::check(&picture, &made)?;
        Ok(describe(&made, self.now))
    }

    /// Writes the status and shows it. What is said twice of one situation, an hour later and under
    /// load, must be the same bytes: then nothing is written at rest.
    fn say(&mut self) -> Result<String, Box<dyn Error>> {
        let view = self.view();
        let plan = plan::plan(&view, &self.seen, self.now);
        let say = |seen: &Observation, now| {
            let picture = Picture::of(&view, seen, now);
            status::status(&picture, &plan, &status::Outcome::default())
        };
        let said = say(&self.seen, self.now);
        self.seen.status = said.clone();
        let mut loaded = self.seen.clone();
        agents::load(&mut loaded.agents);
        let later = self.now.checked_add(SignedDuration::from_hours(1))?;
        assert!(status::is_same(&said, &say(&loaded, later)), "the status changes by itself");
        Ok(tell(&said))
    }
}

fn tell(said: &ActiveStandbyPairStatus) -> String {
    let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "none".to_owned());
    let mut text = format!(
        "{} epoch={} active={} standby={} sync={:?}",
        said.phase.unwrap(),
        said.epoch.unwrap_or(0),
        or_none(&said.active),
        or_none(&said.standby),
        said.sync.as_ref().unwrap().state,
    );
    write!(text, "\npromise: {}", or_none(&said.promise)).unwrap();
    for c in &said.conditions {
        write!(text, "\n{}={} {}: {}", c.type_, c.status, c.reason, c.message).unwrap();
    }
    for member in &said.members {
        let (name, standing) = (&member.name, member.standing);
        write!(text, "\nmember {name} {standing:?} {} {}", member.role, member.state).unwrap();
    }
    for d in &said.decisions {
        write!(text, "\ndecision {} {}: {}", d.id, d.rule, d.did).unwrap();
    }
    text
}

fn describe(plan: &Plan, now: Timestamp) -> String {
    let mut text = format!("{} by {}", plan.phase, plan.rule);
    if let Some(waiting) = &plan.waiting {
        let stalled = if waiting.is_stalled { "stalled" } else { "waiting" };
        write!(text, "\n{stalled}: {}: {}", waiting.reason, waiting.message).unwrap();
    }
    for action in &plan.actions {
        write!(text, "\n- {action}").unwrap();
    }
    if let Some(exit) = &plan.exit {
        write!(text, "\nnext: {}", exit.next).unwrap();
        if let Some(deadline) = exit.deadline {
            write!(text, " (in {} s)", deadline.as_second() - now.as_second()).unwrap();
        }
        write!(text, "\nhuman: {}\nrisk: {}", exit.human, exit.risk).unwrap();
    }
    text
}
