//! One test for each sentence of R6, R7, R11 and R13 that a candidacy can break.

use super::*;
use crate::{LeaseSeen, Sight, StandbySync, SyncClass, Versioned, Voter};
use understudy_types::{Dbid, Epoch, FailoverPolicy, MaxLoss, Span, StoreId};
use uuid::Uuid;

const D: Span = Span::millis(4_000);

fn at(ms: u64) -> Moment {
    Moment(ms * 1_000_000)
}

fn process(member: &str, store: u128, start: u64) -> Holder {
    Holder {
        member: MemberName::new(member).unwrap(),
        store: StoreId(Uuid::from_u128(store)),
        incarnation: Incarnation { start, id: Uuid::from_u128(store * 100 + u128::from(start)) },
    }
}

struct Case {
    me: Holder,
    control: ControlState,
    record: LeaseRecord,
    dead: Vec<Incarnation>,
    heard: Option<Moment>,
    expired: bool,
    unfit: Option<&'static str>,
    yields: Moment,
    failover: FailoverPolicy,
    word: Option<Word>,
}

impl Case {
    /// B stands by in sync for A, which is silent and expired: the plain failover.
    fn standby() -> Self {
        let (a, b) = (process("x-1", 1, 1), process("x-2", 2, 1));
        let mut record = LeaseRecord::uninitialised(4_000);
        record.dbid = Some(Dbid(Uuid::from_u128(5)));
        record.epoch = Epoch(3);
        record.state = LeaseState::Held;
        record.voters =
            [&a, &b].map(|h| Voter { member: h.member.clone(), store: h.store }).to_vec();
        record.sync = Some(StandbySync { standby: b.clone(), class: SyncClass::Twosafe });
        record.holder = Some(a);
        let mut control = ControlState::fresh(b.member.clone(), b.store);
        control.dbid = record.dbid;
        Self {
            me: b,
            control,
            record,
            dead: vec![],
            heard: None,
            expired: true,
            unfit: None,
            yields: Moment::ZERO,
            failover: FailoverPolicy::Automatic,
            word: None,
        }
    }

    /// A itself restarted as a later process.
    fn restarted_holder() -> Self {
        let mut case = Self::standby();
        case.dead.push(case.record.holder.as_ref().unwrap().incarnation);
        case.me = process("x-1", 1, 2);
        case.control = ControlState::fresh(case.me.member.clone(), case.me.store);
        case.control.dbid = case.record.dbid;
        case
    }

    fn verdict(&self, now: Moment) -> Result<Claim, Veto> {
        let mut view = LeaseView::new(LeaseSeen::default());
        let versioned = Versioned { version: "7".into(), record: self.record.clone() };
        view.observe(
            Sight { versioned: versioned.clone(), asked: Some(Moment::ZERO) },
            Moment::ZERO,
        );
        if self.expired {
            view.observe(Sight { versioned, asked: Some(view.expiry()) }, view.expiry());
        }
        let granted_before = GrantsBefore::of(&self.control);
        let candidate = Candidate {
            granted_before: &granted_before,
            me: &self.me,
            control: &self.control,
            view: &view,
            timing: Timing::new(4_000).unwrap(),
            started: at(1_000),
            heard_serving: self.heard,
            proven_dead: &self.dead,
            unfit: self.unfit,
            automatic: true,
            yields_until: self.yields,
            failover: self.failover,
            word: self.word,
        };
        may_candidate(&candidate, now)
    }
}

fn free(ground: Ground) -> Claim {
    Claim { ground, needs: Needs::Nothing, loss: Loss::Nothing }
}

#[test]
fn the_recorded_standby_candidates_when_the_lease_is_expired() {
    assert_eq!(Case::standby().verdict(at(10_000)), Ok(free(Ground::Expired)));
}

#[test]
fn nobody_candidates_while_the_lease_is_held() {
    let mut case = Case::standby();
    case.expired = false;
    assert!(matches!(case.verdict(at(10_000)), Err(Veto::Held { .. })));
}

#[test]
fn a_proof_of_death_needs_no_expiry() {
    let mut case = Case::standby();
    case.expired = false;
    case.dead.push(case.record.holder.as_ref().unwrap().incarnation);
    assert_eq!(case.verdict(at(1_001)), Ok(free(Ground::ProvenDead)));
}

#[test]
fn nobody_candidates_against_an_active_that_says_it_serves() {
    let mut case = Case::standby();
    case.heard = Some(at(9_000));
    assert_eq!(case.verdict(at(10_000)), Err(Veto::HearsServing { until: at(9_000) + D }));
    assert_eq!(case.verdict(at(13_000)), Ok(free(Ground::Expired)));
}

#[test]
fn a_restarted_standby_is_out_of_s_until_recorded_again() {
    let mut case = Case::standby();
    case.me = process("x-2", 2, 2);
    let compared = Claim { ground: Ground::Expired, needs: Needs::Comparison, loss: Loss::Nothing };
    assert_eq!(case.verdict(at(10_000)), Ok(compared));
}

#[test]
fn a_member_of_s_without_a_vote_cannot_be_compared_with() {
    let mut case = Case::standby();
    case.me = process("x-2", 2, 2);
    case.record.voters.remove(0);
    assert!(matches!(case.verdict(at(10_000)), Err(Veto::NotInSync { .. })));
}

#[test]
fn a_new_store_has_no_vote_until_it_is_listed() {
    let mut case = Case::standby();
    case.me.store = StoreId(Uuid::from_u128(9));
    assert_eq!(case.verdict(at(10_000)), Err(Veto::NotVoter));
}

#[test]
fn grants_of_an_earlier_life_black_out_unless_their_receiver_is_dead() {
    let mut case = Case::standby();
    let holder = case.record.holder.as_ref().unwrap().incarnation;
    case.control.raise_grant(holder, D);
    assert_eq!(case.verdict(at(5_000)), Err(Veto::Blackout { until: at(6_000) }));
    assert_eq!(case.verdict(at(6_000)), Ok(free(Ground::Expired)));
    case.dead.push(holder);
    assert_eq!(case.verdict(at(1_001)), Ok(free(Ground::ProvenDead)));
}

#[test]
fn a_replacement_process_needs_a_proof_or_the_other_voters_promise() {
    let mut case = Case::restarted_holder();
    case.record.sync = None;
    assert_eq!(case.verdict(at(10_000)), Ok(free(Ground::ProvenDead)));
    case.dead.clear();
    let promised = Claim { ground: Ground::Replaced, needs: Needs::Promise, loss: Loss::Nothing };
    assert_eq!(case.verdict(at(10_000)), Ok(promised));
    case.heard = Some(at(9_000));
    assert!(matches!(case.verdict(at(10_000)), Err(Veto::HearsServing { .. })));
    case.expired = false;
    assert!(matches!(case.verdict(at(10_000)), Err(Veto::Held { .. })));
}

#[test]
fn a_restarted_holder_lets_the_recorded_standby_go_first() {
    let case = Case::restarted_holder();
    assert_eq!(case.verdict(at(2_000)), Err(Veto::StandbyFirst { until: at(5_000) }));
    assert_eq!(case.verdict(at(5_000)), Ok(free(Ground::ProvenDead)));
}

#[test]
fn a_restarted_holder_that_acked_beyond_its_fsync_compares_logs() {
    let mut case = Case::restarted_holder();
    case.control.acked_beyond_fsync = Some(case.record.epoch);
    let compared =
        Claim { ground: Ground::ProvenDead, needs: Needs::Comparison, loss: Loss::Nothing };
    assert_eq!(case.verdict(at(9_000)), Ok(compared));
    case.record.sync = None;
    assert_eq!(case.verdict(at(9_000)), Ok(free(Ground::ProvenDead)));
}

#[test]
fn released_and_transferred_leases_are_free_at_once() {
    let mut case = Case::standby();
    case.expired = false;
    case.heard = Some(at(9_999));
    case.record.state = LeaseState::Released;
    assert_eq!(case.verdict(at(10_000)), Ok(free(Ground::Released)));
    case.record.state =
        LeaseState::Transferring { to: case.me.member.clone(), lsn: understudy_types::Lsn(4) };
    assert_eq!(case.verdict(at(10_000)), Ok(free(Ground::Transferred)));
    case.me = process("x-1", 1, 2);
    assert!(matches!(case.verdict(at(10_000)), Err(Veto::TransferringTo(_))));
}

#[test]
fn a_lapsed_active_yields_before_it_runs_again() {
    let mut case = Case::standby();
    case.me = case.record.holder.clone().unwrap();
    case.control.store = case.me.store;
    let author = case.me.incarnation.id;
    case.control.promised = understudy_types::EpochId { number: case.record.epoch, author };
    case.yields = at(20_000);
    assert_eq!(case.verdict(at(10_000)), Err(Veto::Yielding { until: at(20_000) }));
    assert_eq!(case.verdict(at(20_000)), Ok(free(Ground::Own)));
}

#[test]
fn unfit_poisoned_and_foreign_stores_are_never_promoted() {
    let mut case = Case::standby();
    case.unfit = Some("the duplicate is not complete");
    assert!(matches!(case.verdict(at(10_000)), Err(Veto::Unfit(_))));
    let mut case = Case::standby();
    case.control.poisoned = true;
    assert!(matches!(case.verdict(at(10_000)), Err(Veto::Unfit(_))));
    let mut case = Case::standby();
    case.control.dbid = None;
    assert_eq!(case.verdict(at(10_000)), Err(Veto::WrongDatabase));
}

/// A1.16: a person wrote the standby into the record. It never promised that epoch as its own, so the
/// record is neither its own authority nor a proof that it holds everything.
#[test]
fn a_record_that_names_this_process_without_its_promise_is_nobodys_act() {
    let mut case = Case::standby();
    case.record.holder = Some(case.me.clone());
    case.record.sync = None;
    case.expired = false;
    assert!(matches!(case.verdict(at(10_000)), Err(Veto::Held { .. })));
    case.expired = true;
    let compared =
        Claim { ground: Ground::Replaced, needs: Needs::Comparison, loss: Loss::Nothing };
    assert_eq!(case.verdict(at(10_000)), Ok(compared));
}

#[test]
fn the_last_holder_does_not_wait_for_a_recorded_standby_that_is_proven_dead() {
    let mut case = Case::restarted_holder();
    assert!(matches!(case.verdict(at(2_000)), Err(Veto::StandbyFirst { .. })));
    case.dead.push(case.record.sync.as_ref().unwrap().standby.incarnation);
    assert_eq!(case.verdict(at(2_000)), Ok(free(Ground::ProvenDead)));
}

#[test]
fn a_person_who_accepts_the_loss_makes_a_store_eligible_that_lacks_commits() {
    let mut case = Case::standby();
    case.record.sync = None;
    let epoch = case.record.epoch;
    case.word = Some(Word { epoch, accepts_loss: true });
    let claim = Claim { loss: Loss::Accepted, ..free(Ground::Expired) };
    assert_eq!(case.verdict(at(10_000)), Ok(claim));
    // The word was given about another situation.
    case.word = Some(Word { epoch: Epoch(epoch.0 - 1), accepts_loss: true });
    assert!(!matches!(case.verdict(at(10_000)), Ok(Claim { needs: Needs::Nothing, .. })));
}

#[test]
fn nobodys_word_takes_the_lease_from_a_holder_that_may_live() {
    let mut case = Case::standby();
    case.record.sync = None;
    case.word = Some(Word { epoch: case.record.epoch, accepts_loss: true });
    case.expired = false;
    assert!(matches!(case.verdict(at(10_000)), Err(Veto::Held { .. })));
    case.expired = true;
    case.heard = Some(at(9_000));
    assert!(matches!(case.verdict(at(10_000)), Err(Veto::HearsServing { .. })));
}

#[test]
fn nobodys_word_makes_a_damaged_store_active() {
    let mut case = Case::standby();
    case.record.sync = None;
    case.word = Some(Word { epoch: case.record.epoch, accepts_loss: true });
    case.control.poisoned = true;
    assert!(matches!(case.verdict(at(10_000)), Err(Veto::Unfit(_))));
}

#[test]
fn under_manual_the_standby_awaits_a_persons_word_for_this_epoch() {
    let mut case = Case::standby();
    case.failover = FailoverPolicy::Manual;
    let epoch = case.record.epoch;
    assert_eq!(case.verdict(at(10_000)), Err(Veto::AwaitsWord { epoch }));
    case.word = Some(Word { epoch: Epoch(epoch.0 - 1), accepts_loss: false });
    assert_eq!(case.verdict(at(10_000)), Err(Veto::AwaitsWord { epoch }));
    case.word = Some(Word { epoch, accepts_loss: false });
    assert_eq!(case.verdict(at(10_000)), Ok(free(Ground::Expired)));
}

#[test]
fn under_manual_a_planned_hand_over_and_the_last_holders_return_need_no_word() {
    let mut case = Case::standby();
    case.failover = FailoverPolicy::Manual;
    let to = case.me.member.clone();
    case.record.state = LeaseState::Transferring { to, lsn: understudy_types::Lsn(9) };
    assert_eq!(case.verdict(at(10_000)), Ok(free(Ground::Transferred)));
    let mut back = Case::restarted_holder();
    back.failover = FailoverPolicy::Manual;
    back.record.sync = None;
    assert_eq!(back.verdict(at(10_000)), Ok(free(Ground::ProvenDead)));
}

#[test]
fn a_standby_that_no_commit_waits_for_is_promoted_with_a_bounded_loss() {
    let mut case = Case::standby();
    let class = SyncClass::Async(MaxLoss { commits: 100, millis: 1_000 });
    case.record.sync.as_mut().unwrap().class = class;
    let claim = Claim { loss: Loss::Bounded, ..free(Ground::Expired) };
    assert_eq!(case.verdict(at(10_000)), Ok(claim));
    // What it was handed it had in full.
    let to = case.me.member.clone();
    case.record.state = LeaseState::Transferring { to, lsn: understudy_types::Lsn(9) };
    assert_eq!(case.verdict(at(10_000)), Ok(free(Ground::Transferred)));
}

#[test]
fn an_accepted_loss_stays_accepted_for_its_epoch_only() {
    let word = |epoch, accepts_loss| Word { epoch: Epoch(epoch), accepts_loss };
    assert_eq!(word(3, true).and(word(3, false)), word(3, true));
    assert_eq!(word(3, true).and(word(4, false)), word(4, false));
}
