//! The simulated world of `pair.rs`.

mod lease;
mod loss;

use std::collections::{BTreeSet, VecDeque};
use understudy_authority::{
    ControlState, Holder, LeaseRecord, LeaseState, Timing, Versioned, Voter,
};
use understudy_replication::{
    Follower, FollowerKind, Input, LogEnd, Member, Message, Output, Pledge, PledgeRefused,
    PledgeRequest, Policy, Report, Start, WriteOutcome,
};
use understudy_types::{
    Dbid, Durability, Epoch, EpochHistory, EpochId, EpochStart, FailoverPolicy, Incarnation, Lsn,
    MemberName, Moment, Span, StoreId, WhenStandbyLost,
};
use uuid::Uuid;

use loss::Losses;

/// Which faults a run injects.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Faults {
    /// Processes die and start again, losing memory and unsynced records.
    pub(crate) crash: bool,
    /// The replication link is cut for a while.
    pub(crate) cut: bool,
    /// The API server is away for a while.
    pub(crate) api: bool,
    /// Answers of the API server get lost; the write may have happened.
    pub(crate) doubt: bool,
    /// A process stands still for a while.
    pub(crate) freeze: bool,
    /// Nobody ever proves a death: pods are replaced, and their parents told nobody.
    pub(crate) unproven: bool,
    /// The clocks of a member's machine jump (A1.6).
    pub(crate) jump: bool,
    /// The Lease goes back to an older state, and the operator makes it again (R21).
    pub(crate) amnesia: bool,
}

const STEP: Span = Span::millis(5);

/// A log record: an epoch's first, or a commit with a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Record {
    Begin(EpochId),
    Commit(u64),
}

struct Node {
    member: Option<Member>,
    disk: ControlState,
    log: Vec<Record>,
    durable: usize,
    inc: Incarnation,
    /// Earlier processes of this store, all of one container.
    lives: Vec<Incarnation>,
    frozen_until: Moment,
    starts_at: Option<Moment>,
    sync_asked: bool,
    /// As a follower: attached to the other, at this epoch.
    attached: Option<EpochId>,
    data_inbox: VecDeque<(Moment, Wire)>,
    pledge_inbox: VecDeque<(Moment, Ask)>,
    api_inbox: VecDeque<(Moment, ApiAnswer)>,
    next_read: Moment,
}

#[derive(Debug, Clone)]
enum Wire {
    Records { epoch: EpochId, from: usize, records: Vec<Record>, acknowledged: Lsn },
    Say(Message),
}

#[derive(Debug, Clone)]
enum Ask {
    Request(PledgeRequest),
    Answer(EpochId, Result<Pledge, PledgeRefused>),
}

#[derive(Debug, Clone)]
enum ApiAnswer {
    Seen(Box<Versioned>, Moment),
    Written(u64, WriteOutcome),
}

/// See the file.
pub(crate) struct World {
    now: Moment,
    seed: u64,
    faults: Faults,
    nodes: [Node; 2],
    lease: LeaseRecord,
    version: u64,
    link_until: Moment,
    api_until: Moment,
    next_commit: u64,
    acknowledged: BTreeSet<u64>,
    last_acknowledgement: Moment,
    longest_gap: Span,
    delayed: Vec<(Moment, String, LeaseRecord)>,
    decided: Option<Incarnation>,
    /// The epoch of the question that is being answered.
    pledging: Option<EpochId>,
    /// What an active does without its standby.
    pub(crate) when_standby_lost: WhenStandbyLost,
    /// NO RETURN with what may be lost, and what was.
    pub(crate) losses: Losses,
    /// An older record, to be restored.
    backup: LeaseRecord,
    /// Since when the Lease is older than what was on it.
    regressed: Option<Moment>,
    /// Deaths that each member is still to be told, because it was down itself.
    untold: [Vec<Incarnation>; 2],
}

fn name(i: usize) -> MemberName {
    MemberName::new(format!("x-{}", i + 1)).expect("a DNS label")
}

impl World {
    /// Member 0 is active in epoch 1 (its Lease was just acquired through a restart), 1 follows.
    pub(crate) fn new(seed: u64, faults: Faults) -> Self {
        let dbid = Some(Dbid(Uuid::from_u128(1)));
        let store = |i: usize| StoreId(Uuid::from_u128(10 + i as u128));
        let epoch = EpochId { number: understudy_types::Epoch(1), author: Uuid::from_u128(99) };
        let node = |i: usize| {
            let mut disk = ControlState::fresh(name(i), store(i));
            disk.dbid = dbid;
            Node {
                member: None,
                disk,
                log: vec![Record::Begin(epoch)],
                durable: 1,
                inc: Incarnation { start: 0, id: Uuid::nil() },
                lives: Vec::new(),
                frozen_until: Moment::ZERO,
                starts_at: Some(Moment::ZERO),
                sync_asked: false,
                attached: None,
                data_inbox: VecDeque::new(),
                pledge_inbox: VecDeque::new(),
                api_inbox: VecDeque::new(),
                next_read: Moment::ZERO,
            }
        };
        let mut lease = LeaseRecord::uninitialised(4_000);
        lease.dbid = dbid;
        lease.epoch = epoch.number;
        lease.state = LeaseState::Released;
        lease.voters = [0, 1].map(|i| Voter { member: name(i), store: store(i) }).to_vec();
        lease.holder = Some(Holder {
            member: name(0),
            store: store(0),
            incarnation: Incarnation { start: 0, id: Uuid::nil() },
        });
        Self {
            now: Moment(1_000_000_000),
            seed: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            faults,
            nodes: [node(0), node(1)],
            version: 1,
            link_until: Moment::ZERO,
            api_until: Moment::ZERO,
            next_commit: 1,
            acknowledged: BTreeSet::new(),
            last_acknowledgement: Moment(1_000_000_000),
            longest_gap: Span::ZERO,
            delayed: Vec::new(),
            backup: lease.clone(),
            lease,
            decided: None,
            pledging: None,
            when_standby_lost: WhenStandbyLost::Continue,
            losses: Losses::default(),
            regressed: None,
            untold: [Vec::new(), Vec::new()],
        }
    }

    /// Below `limit`; xorshift.
    pub(crate) fn random(&mut self, limit: u64) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        self.seed % limit.max(1)
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.now.0 / 1_000_000
    }

    pub(crate) fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }

    pub(crate) fn longest_gap_ms(&self) -> u64 {
        self.longest_gap.as_millis()
    }

    pub(crate) fn run_ms(&mut self, ms: u64) {
        let end = self.now + Span::millis(ms);
        while self.now < end {
            self.step();
        }
    }

    fn active(&self) -> Option<usize> {
        (0..2).find(|&i| {
            let alive = self.nodes[i].frozen_until <= self.now;
            alive && self.nodes[i].member.as_ref().is_some_and(|m| m.has_authority(self.now))
        })
    }

    pub(crate) fn run_until_acknowledging_elsewhere(&mut self, bound_ms: u64) {
        let before: Vec<_> = self.nodes.iter().map(|n| n.inc).collect();
        let deposed = before.clone();
        let first = self.acknowledged.len();
        let end = self.now + Span::millis(bound_ms);
        let was = self.lease.holder.as_ref().map(|h| h.incarnation);
        while self.now < end {
            self.step();
            let other = self.active().map(|i| self.nodes[i].inc);
            if other.is_some() && other != was && self.acknowledged.len() > first {
                return;
            }
        }
        panic!("nobody else acknowledged within {bound_ms} ms; {deposed:?}\n{}", self.describe());
    }

    /// One of the run's faults, at random.
    pub(crate) fn fault(&mut self) {
        let i = self.random(2) as usize;
        let span = Span::millis(300 + self.random(8_000));
        match self.random(8) {
            5 if self.faults.jump => self.input(i, Input::ClockJumped),
            6 if self.faults.amnesia => self.backup = self.lease.clone(),
            7 if self.faults.amnesia => self.restore_lease(),
            0 if self.faults.crash => self.crash(i),
            1 if self.faults.cut => self.link_until = self.now + span,
            2 if self.faults.api => self.api_until = self.now + span,
            3 if self.faults.freeze => self.nodes[i].frozen_until = self.now + span,
            4 if self.faults.crash => {
                self.crash(0);
                self.crash(1);
            }
            _ => {}
        }
    }

    pub(crate) fn api_off(&mut self) {
        self.api_until = Moment::NEVER;
    }

    pub(crate) fn freeze_active(&mut self) {
        let i = self.active().expect("somebody serves");
        self.nodes[i].frozen_until = Moment::NEVER;
    }

    pub(crate) fn jump_active(&mut self) {
        let i = self.active().expect("somebody serves");
        self.input(i, Input::ClockJumped);
    }

    pub(crate) fn somebody_decides(&self) -> bool {
        self.active().is_some()
    }

    /// The standby's process is gone until [`World::heal`].
    pub(crate) fn lose_standby(&mut self) {
        let i = 1 - self.active().expect("somebody serves");
        self.crash(i);
        self.nodes[i].starts_at = Some(Moment::NEVER);
    }

    /// Its next process finds that it promised this many epochs ahead, as after candidacies that failed.
    pub(crate) fn restart_standby_promised(&mut self, ahead: u64) {
        let i = 1 - self.active().expect("somebody serves");
        self.crash(i);
        let disk = &mut self.nodes[i].disk;
        let number = Epoch(disk.promised.number.0 + ahead);
        disk.raise_promise(EpochId { number, ..disk.promised });
    }

    pub(crate) fn epochs(&self) -> usize {
        let i = self.active().expect("somebody serves");
        self.nodes[i].log.iter().filter(|record| number(record).is_none()).count()
    }

    pub(crate) fn hand_over(&mut self) {
        let i = self.active().expect("somebody serves");
        self.input(i, Input::Transfer { to: Some(name(1 - i)), deadline_ms: 3_000 });
    }

    pub(crate) fn crash_both_with_proof(&mut self, first: usize, pause_ms: u64) {
        let active = self.active().expect("somebody serves");
        let first = (active + first) % 2;
        self.crash(first);
        self.run_ms(pause_ms);
        self.crash(1 - first);
    }

    pub(crate) fn run_until_acknowledging(&mut self, bound_ms: u64) {
        let (first, end) = (self.acknowledged.len(), self.now + Span::millis(bound_ms));
        while self.acknowledged.len() == first {
            assert!(self.now < end, "nothing within {bound_ms} ms\n{}", self.describe());
            self.step();
        }
    }

    pub(crate) fn crash_active_with_proof(&mut self) {
        let i = self.active().expect("somebody serves");
        self.crash(i);
    }

    /// Both die at once and nobody ever proves it.
    pub(crate) fn lose_both_pods(&mut self) {
        self.faults.unproven = true;
        self.crash(0);
        self.crash(1);
    }

    /// The process dies; its parent tells the other voter if it can be reached, and starts the next.
    fn crash(&mut self, i: usize) {
        // A container is started again at once; a pod that was replaced comes when it comes.
        let away = if self.faults.unproven { self.random(9_000) } else { 0 };
        let node = &mut self.nodes[i];
        if node.member.take().is_none() {
            return;
        }
        let dead = node.inc;
        node.log.truncate(node.durable);
        node.sync_asked = false;
        node.frozen_until = Moment::ZERO;
        node.starts_at = Some(self.now + Span::millis(150 + away));
        self.detach(i);
        if self.link_until <= self.now && !self.faults.unproven {
            // A parent tells again until it is heard.
            if self.nodes[1 - i].member.is_none() {
                self.untold[1 - i].push(dead);
            }
            self.input(1 - i, Input::ProvenDead(dead));
        }
    }

    pub(crate) fn heal(&mut self) {
        self.faults = Faults::default();
        self.link_until = Moment::ZERO;
        self.api_until = Moment::ZERO;
        for node in &mut self.nodes {
            node.frozen_until = Moment::ZERO;
            if node.starts_at == Some(Moment::NEVER) {
                node.starts_at = Some(self.now);
            }
        }
    }

    fn detach(&mut self, i: usize) {
        for j in [i, 1 - i] {
            let lost = self.nodes[j].attached.take().is_some();
            self.nodes[j].data_inbox.clear();
            if lost && self.nodes[j].member.is_some() {
                self.input(j, Input::FeederLost);
            }
        }
        for j in 0..2 {
            let other = self.nodes[1 - j].inc;
            if self.nodes[j].member.is_some() {
                self.input(j, Input::StandbyLost(other));
            }
        }
    }

    fn step(&mut self) {
        self.now = self.now + STEP;
        if self.link_until > self.now && self.nodes.iter().any(|n| n.attached.is_some()) {
            self.detach(0);
        }
        self.land_delayed();
        self.reinstate();
        for i in 0..2 {
            self.start(i);
            if self.nodes[i].frozen_until > self.now {
                continue;
            }
            self.api(i);
            self.wire(i);
            self.pledges(i);
            self.disk(i);
            self.commit(i);
            self.input(i, Input::Tick { data_path_ok: true });
            self.look(i);
            self.attach(i);
            self.ship(i);
            self.check();
        }
    }

    fn start(&mut self, i: usize) {
        if self.nodes[i].starts_at.is_none_or(|at| at > self.now) {
            return;
        }
        let node = &mut self.nodes[i];
        node.starts_at = None;
        if !self.faults.unproven {
            node.lives.push(node.inc);
        }
        node.pledge_inbox.clear();
        node.disk.starts += 1;
        let id = Uuid::from_u128(u128::from(node.disk.starts) * 2 + i as u128 + 1000);
        node.inc = Incarnation { start: node.disk.starts, id };
        node.api_inbox.clear();
        let me = Holder { member: name(i), store: node.disk.store, incarnation: node.inc };
        let start = Start {
            me,
            kind: FollowerKind::Standby,
            timing: Timing::new(4_000).expect("in range"),
            control: node.disk.clone(),
            end: Lsn(node.log.len() as u64),
            proven_dead: node.lives.clone(),
        };
        node.member = Some(Member::new(start, self.now));
        node.next_read = self.now;
        self.input(
            i,
            Input::Policy(Policy {
                return_service: self.losses.return_service(),
                durability: Durability::LocalDisk,
                when_standby_lost: self.when_standby_lost,
                automatic: true,
                failover: FailoverPolicy::Automatic,
                max_loss: self.losses.allowed,
                timing: Timing::new(4_000).expect("in range"),
                return_wait_ms: 10_000,
            }),
        );
        for dead in std::mem::take(&mut self.untold[i]) {
            self.input(i, Input::ProvenDead(dead));
        }
    }

    fn input(&mut self, i: usize, input: Input) {
        let now = self.now;
        let Some(member) = self.nodes[i].member.as_mut() else { return };
        let out = member.step(input, now);
        self.perform(i, out);
    }

    fn perform(&mut self, i: usize, out: Output) {
        if out.persist {
            let member = self.nodes[i].member.as_ref().expect("it just stepped");
            let starts = self.nodes[i].disk.starts;
            self.nodes[i].disk = ControlState { starts, ..member.control().clone() };
        }
        if let Some(opening) = out.begin_epoch {
            self.detach(i);
            if opening.is_lossy {
                self.count_losses(i);
            }
            self.nodes[i].log.push(Record::Begin(opening.epoch));
            let lsn = Lsn(self.nodes[i].log.len() as u64);
            self.input(i, Input::Appended(lsn));
        }
        self.nodes[i].sync_asked |= out.sync_log;
        if let Some(request) = out.ask {
            self.ask(1 - i, Ask::Request(request));
        }
        if let Some(answer) = out.pledge {
            let epoch = self.pledging.expect("an answer follows a question");
            self.ask(1 - i, Ask::Answer(epoch, answer));
        }
        if let Some(write) = out.lease_write {
            self.write_lease(i, write);
        }
        if out.lease_read {
            self.nodes[i].next_read = self.now;
        }
        for message in out.messages {
            self.say(i, Wire::Say(message));
        }
        if let Some(lsn) = out.acknowledged {
            self.acknowledge(i, lsn);
        }
        if out.restart.is_some() {
            // A deposed process ends by itself and starts again; the kernel keeps what was written.
            self.nodes[i].durable = self.nodes[i].log.len();
            self.crash(i);
        }
    }

    fn acknowledge(&mut self, i: usize, lsn: Lsn) {
        // Commits are numbered upwards: whatever is new lies near the end.
        let commits: Vec<u64> = self.nodes[i].log[..lsn.0 as usize]
            .iter()
            .rev()
            .take(2_000)
            .filter_map(|r| match r {
                Record::Commit(n) => Some(*n),
                Record::Begin(_) => None,
            })
            .collect();
        let before = self.acknowledged.len();
        let new = commits.into_iter().filter(|n| !self.losses.lost.contains(n));
        let new: Vec<u64> = new.filter(|n| !self.acknowledged.contains(n)).collect();
        self.losses.note(&new, self.now);
        self.acknowledged.extend(new);
        if self.acknowledged.len() > before {
            self.longest_gap = self.longest_gap.max(self.now.since(self.last_acknowledgement));
            self.last_acknowledgement = self.now;
        }
    }

    fn say(&mut self, from: usize, wire: Wire) {
        let delay = Span::millis(1 + self.random(15));
        let at = self.nodes[1 - from]
            .data_inbox
            .back()
            .map_or(self.now + delay, |(last, _)| (*last).max(self.now + delay));
        if self.link_until <= self.now && self.nodes[1 - from].member.is_some() {
            self.nodes[1 - from].data_inbox.push_back((at, wire));
        }
    }

    /// Questions between agents go over another connection, and share its network.
    fn ask(&mut self, to: usize, ask: Ask) {
        let at = self.now + Span::millis(1 + self.random(40));
        if self.link_until <= self.now && self.nodes[to].member.is_some() {
            self.nodes[to].pledge_inbox.push_back((at, ask));
        }
    }

    fn log_end(&self, i: usize) -> LogEnd {
        let epoch = self.history(i).last_epoch().number;
        LogEnd { epoch, lsn: Lsn(self.nodes[i].log.len() as u64) }
    }

    fn pledges(&mut self, i: usize) {
        while self.nodes[i].pledge_inbox.front().is_some_and(|(at, _)| *at <= self.now) {
            let Some((_, ask)) = self.nodes[i].pledge_inbox.pop_front() else { return };
            let end = self.log_end(i);
            match ask {
                Ask::Request(request) => {
                    self.pledging = Some(request.epoch);
                    self.input(i, Input::PledgeAsked { request, end });
                }
                Ask::Answer(epoch, answer) => {
                    self.input(i, Input::PledgeAnswered { epoch, answer, end });
                }
            }
        }
    }

    fn disk(&mut self, i: usize) {
        if self.nodes[i].member.is_none() {
            return;
        }
        if self.random(3) == 0 || self.nodes[i].sync_asked {
            self.nodes[i].durable = self.nodes[i].log.len();
        }
        let durable = Lsn(self.nodes[i].durable as u64);
        self.input(i, Input::Durable(durable));
        if std::mem::take(&mut self.nodes[i].sync_asked) {
            let end = self.log_end(i);
            self.input(i, Input::Synced(end));
        }
    }

    fn commit(&mut self, i: usize) {
        let takes = self.nodes[i].member.as_ref().is_some_and(|m| m.takes_commits(self.now));
        if takes && self.random(3) == 0 {
            let n = self.next_commit;
            self.next_commit += 1;
            self.nodes[i].log.push(Record::Commit(n));
            let lsn = Lsn(self.nodes[i].log.len() as u64);
            self.input(i, Input::Appended(lsn));
        }
    }

    /// The follower half of `i`: dials whoever holds the Lease.
    fn attach(&mut self, i: usize) {
        let other = 1 - i;
        let ready = self.nodes[i].attached.is_none()
            && self.link_until <= self.now
            && self.nodes[other].frozen_until <= self.now
            && self.random(20) == 0;
        let Some(member) = self.nodes[i].member.as_ref() else { return };
        if !ready || member.active_epoch().is_some() || member.feeder_target() != Some(name(other))
        {
            return;
        }
        let Some(epoch) = self.nodes[other].member.as_ref().and_then(Member::active_epoch) else {
            return;
        };
        let promised = member.control().promised.number;
        let (mine, theirs) = (self.history(i), self.history(other));
        let end = |n: &Node| Lsn(n.log.len() as u64);
        let fork = mine.fork(end(&self.nodes[i]), &theirs, end(&self.nodes[other]));
        let fork = fork.0 as usize;
        assert_eq!(self.nodes[i].log[..fork], self.nodes[other].log[..fork], "P3 log matching");
        if fork < self.nodes[i].log.len() {
            self.assert_tail_unacknowledged(i, fork);
            self.nodes[i].log.truncate(fork);
            self.nodes[i].durable = fork;
            return self.crash(i);
        }
        if epoch.number < promised {
            return self.input(other, Input::Refused(promised));
        }
        let follower = Follower {
            member: name(i),
            store: self.nodes[i].disk.store,
            incarnation: self.nodes[i].inc,
        };
        self.nodes[i].attached = Some(epoch);
        self.nodes[i].data_inbox.clear();
        self.nodes[other].data_inbox.clear();
        self.input(i, Input::FeederAttached(epoch));
        self.input(other, Input::StandbyAttached(follower));
        self.acknowledge_position(i);
    }

    fn history(&self, i: usize) -> EpochHistory {
        let mut history = EpochHistory::default();
        for (at, record) in self.nodes[i].log.iter().enumerate() {
            if let Record::Begin(epoch) = record {
                let first_lsn = Lsn(at as u64 + 1);
                history.push(EpochStart { epoch: *epoch, first_lsn }).expect("epochs rise");
            }
        }
        history
    }

    fn ship(&mut self, i: usize) {
        let other = 1 - i;
        let Some(member) = self.nodes[i].member.as_ref() else { return };
        let Some(epoch) = member.active_epoch() else { return };
        if self.nodes[other].attached != Some(epoch) {
            return;
        }
        let from = self.nodes[other].log.len().min(self.nodes[i].log.len());
        let records = self.nodes[i].log[from..].to_vec();
        let acknowledged = member.acknowledged();
        self.say(i, Wire::Records { epoch, from, records, acknowledged });
    }

    fn wire(&mut self, i: usize) {
        while self.nodes[i].data_inbox.front().is_some_and(|(at, _)| *at <= self.now) {
            let Some((_, wire)) = self.nodes[i].data_inbox.pop_front() else { return };
            match wire {
                Wire::Records { epoch, from, records, acknowledged } => {
                    self.follow(i, epoch, from, &records, acknowledged);
                }
                Wire::Say(message) => self.hear(i, message),
            }
        }
    }

    fn follow(&mut self, i: usize, epoch: EpochId, from: usize, records: &[Record], ack: Lsn) {
        let node = &mut self.nodes[i];
        let Some(member) = node.member.as_mut() else { return };
        if node.attached != Some(epoch) || !member.accepts_frames(epoch.number) {
            return;
        }
        if from > node.log.len() {
            return;
        }
        let known = node.log.len() - from;
        if known < records.len() {
            node.log.extend_from_slice(&records[known..]);
        }
        let end = Lsn(node.log.len() as u64);
        member.follow_acknowledged(end, ack);
        self.acknowledge_position(i);
    }

    fn acknowledge_position(&mut self, i: usize) {
        let node = &self.nodes[i];
        let Some(epoch) = node.attached else { return };
        let end = Lsn(node.log.len() as u64);
        let ack = Message::Ack {
            epoch: epoch.number,
            incarnation: node.inc,
            store: node.disk.store,
            received: end,
            durable: Lsn(node.durable as u64),
            applied: end,
        };
        self.say(i, Wire::Say(ack));
    }

    fn hear(&mut self, i: usize, message: Message) {
        let epoch_id = self.nodes[i].attached;
        let store = self.nodes[1 - i].disk.store;
        let input = match message {
            Message::Heartbeat { active, nonce, serving, grant, .. } => match epoch_id {
                Some(epoch) => Input::Heartbeat { epoch, active, nonce, serving, grant },
                None => return,
            },
            Message::Grant { epoch, nonce, standby } => {
                Input::Grant { epoch, nonce, standby, store }
            }
            Message::Ack { epoch, incarnation, store, received, durable, applied } => {
                let report = Report { received, durable, applied };
                Input::Ack { epoch, incarnation, store, report }
            }
            Message::Refused { promised } => Input::Refused(promised),
            Message::Frame { .. } | Message::Acknowledged { .. } | Message::ApplyFailed { .. } => {
                return;
            }
        };
        self.input(i, input);
    }

    fn check(&mut self) {
        self.at_most_one_member_has_authority();
        // Comparing logs costs most of the time: at each change of who decides, and now and then.
        let decides = self.active().map(|i| self.nodes[i].inc);
        let now_and_then = self.now_ms().is_multiple_of(500);
        if decides != self.decided || now_and_then {
            self.decided = decides;
            self.whoever_has_authority_holds_every_acknowledged_commit();
        }
    }

    fn at_most_one_member_has_authority(&self) {
        let with =
            |i: usize| self.nodes[i].member.as_ref().is_some_and(|m| m.has_authority(self.now));
        assert!(!(with(0) && with(1)), "two decide at {}\n{}", self.now_ms(), self.describe());
    }

    fn whoever_has_authority_holds_every_acknowledged_commit(&self) {
        for node in &self.nodes {
            if node.member.as_ref().is_some_and(|m| m.has_authority(self.now)) {
                let held: BTreeSet<u64> = node.log.iter().filter_map(number).collect();
                let lost: Vec<_> = self.acknowledged.difference(&held).collect();
                assert!(lost.is_empty(), "lost {lost:?}\n{}", self.describe());
            }
        }
    }

    fn assert_tail_unacknowledged(&self, i: usize, fork: usize) {
        for record in &self.nodes[i].log[fork..] {
            if let Some(n) = number(record) {
                let elsewhere = self.nodes[1 - i].log.contains(record);
                assert!(
                    elsewhere || !self.acknowledged.contains(&n),
                    "acknowledged {n} would be cut\n{}",
                    self.describe()
                );
            }
        }
    }

    /// Normal again: somebody serves and the other is recorded in sync.
    pub(crate) fn assert_whole(&mut self) {
        let before = self.acknowledged.len();
        self.run_ms(1_000);
        assert!(self.active().is_some(), "nobody serves\n{}", self.describe());
        assert!(self.lease.sync.is_some(), "not redundant\n{}", self.describe());
        assert!(self.acknowledged.len() > before, "nothing acknowledged\n{}", self.describe());
    }

    pub(crate) fn describe(&self) -> String {
        let mut text = format!(
            "at {} ms, seed state {}, lease epoch {} seq {} {:?} holder {:?} sync {:?}\n",
            self.now_ms(),
            self.seed,
            self.lease.epoch,
            self.lease.seq,
            self.lease.state,
            self.lease.holder.as_ref().map(|h| (h.member.to_string(), h.incarnation.start)),
            self.lease
                .sync
                .as_ref()
                .map(|s| (s.standby.member.to_string(), s.standby.incarnation.start)),
        );
        for (i, n) in self.nodes.iter().enumerate() {
            let standing = n.member.as_ref().map(|m| m.standing(self.now));
            text.push_str(&format!(
                "  {} start {} log {} durable {} attached {:?} promised {} {standing:?}\n",
                i + 1,
                n.inc.start,
                n.log.len(),
                n.durable,
                n.attached.map(|e| e.number),
                n.disk.promised.number,
            ));
        }
        text
    }
}

fn number(record: &Record) -> Option<u64> {
    match record {
        Record::Commit(n) => Some(*n),
        Record::Begin(_) => None,
    }
}
