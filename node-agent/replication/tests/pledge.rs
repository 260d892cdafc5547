//! The word that one voter gives another (R11, R13c): one test for each condition under which it must
//! not be given, or must not be believed.

#![allow(clippy::unwrap_used, reason = "a test may panic, also in its helper functions")]

mod voter;

use understudy_authority::{ControlState, Holder, LeaseRecord, LeaseState, Sight, Versioned, Word};
use understudy_replication::{
    Input, LogEnd, Member, Output, Pledge, PledgeRefused, PledgeRequest, WriteOutcome,
};
use understudy_types::{Dbid, Epoch, EpochId, Incarnation, Lsn, Moment, Span};
use uuid::Uuid;
use voter::{D, END, at, lease, process, versioned, voter};

fn epoch(number: u64, author: &Holder) -> EpochId {
    EpochId { number: Epoch(number), author: author.incarnation.id }
}

fn request(number: u64) -> PledgeRequest {
    let candidate = process(1, 2);
    let epoch = epoch(number, &candidate);
    PledgeRequest { dbid: lease().dbid, epoch, candidate, compare: None, set_at_ms: None }
}

fn ask(member: &mut Member, request: PledgeRequest, now: Moment) -> Output {
    member.step(Input::PledgeAsked { request, end: END }, now)
}

fn refusal(out: Output) -> PledgeRefused {
    assert!(!out.persist, "nothing is promised");
    out.pledge.unwrap().unwrap_err()
}

#[test]
fn a_voter_promises_before_it_answers_and_takes_nothing_older_from_then_on() {
    let mut b = voter(process(2, 1), |_| {});
    assert!(b.accepts_frames(Epoch(3)));
    let out = ask(&mut b, request(4), at(10));
    assert!(out.persist, "the promise is on disk before the answer");
    let pledge = out.pledge.unwrap().unwrap();
    assert_eq!((pledge.epoch, pledge.voter, pledge.end), (request(4).epoch, process(2, 1), END));
    assert_eq!(b.control().promised, request(4).epoch);
    assert!(!b.accepts_frames(Epoch(3)));
    let again = refusal(ask(&mut b, request(4), at(20)));
    assert_eq!(again.promised, Epoch(4), "a candidate must go above it");
}

#[test]
fn a_grant_that_may_be_in_use_outlives_no_promise() {
    let mut b = voter(process(2, 1), |_| {});
    let fed = epoch(3, &process(1, 1));
    let _ = b.step(Input::FeederAttached(fed), at(10));
    let beat = Input::Heartbeat {
        epoch: fed,
        active: process(1, 1).incarnation,
        nonce: 1,
        serving: false,
        grant: D,
    };
    let out = b.step(beat, at(20));
    assert_eq!(out.messages.len(), 1, "it granted");
    let _ = b.step(Input::FeederLost, at(30));
    assert!(refusal(ask(&mut b, request(4), at(5_019))).why.contains("grant"));
    assert!(ask(&mut b, request(4), at(5_021)).pledge.unwrap().is_ok());
}

#[test]
fn grants_of_an_earlier_life_black_out_promises_for_others() {
    let mut b = voter(process(2, 2), |control| {
        control.raise_grant(process(1, 1).incarnation, D);
    });
    assert!(refusal(ask(&mut b, request(4), at(4_999))).why.contains("earlier life"));
    assert!(ask(&mut b, request(4), at(5_000)).pledge.unwrap().is_ok());
}

#[test]
fn a_follower_of_a_serving_active_promises_nobody() {
    let mut b = voter(process(2, 1), |_| {});
    let fed = epoch(3, &process(1, 1));
    let _ = b.step(Input::FeederAttached(fed), at(10));
    let beat = Input::Heartbeat {
        epoch: fed,
        active: process(1, 1).incarnation,
        nonce: 1,
        serving: true,
        grant: D,
    };
    let _ = b.step(beat, at(20));
    assert!(refusal(ask(&mut b, request(4), at(30))).why.contains("serves"));
}

#[test]
fn a_voter_with_the_longer_log_promises_nobody_who_compares() {
    let mut b = voter(process(2, 1), |_| {});
    let shorter = LogEnd { epoch: END.epoch, lsn: END.lsn.previous() };
    let behind = PledgeRequest { compare: Some(shorter), ..request(4) };
    assert!(refusal(ask(&mut b, behind, at(10))).why.contains("ends later"));
    let as_long = PledgeRequest { compare: Some(END), ..request(4) };
    assert!(ask(&mut b, as_long, at(20)).pledge.unwrap().is_ok());
}

#[test]
fn strangers_and_other_databases_get_no_promise() {
    let mut b = voter(process(2, 1), |_| {});
    let stranger = PledgeRequest { candidate: process(9, 1), ..request(4) };
    assert!(refusal(ask(&mut b, stranger, at(10))).why.contains("no vote"));
    let other = PledgeRequest { dbid: Some(Dbid(Uuid::from_u128(6))), ..request(4) };
    assert!(refusal(ask(&mut b, other, at(10))).why.contains("another database"));
    let mut without_vote = voter(process(9, 1), |_| {});
    assert!(refusal(ask(&mut without_vote, request(4), at(10))).why.contains("no vote"));
}

/// x-1's second process, until it asks; returns it, its question and the time.
fn asking(change: impl FnOnce(&mut ControlState)) -> (Member, PledgeRequest, Moment) {
    let mut a = voter(process(1, 2), change);
    let mut now = at(0);
    for _ in 0..2_000 {
        now = now + Span::millis(10);
        let mut out = a.step(Input::Tick { data_path_ok: true }, now);
        if out.lease_read {
            let sight = Sight { versioned: versioned(), asked: Some(now) };
            out = a.step(Input::Lease(Box::new(sight)), now);
        }
        if out.sync_log {
            let out = a.step(Input::Synced(END), now);
            return (a, out.ask.expect("it needs the other's word"), now);
        }
        assert!(out.lease_write.is_none(), "it writes without having asked");
    }
    panic!("it never asked: {:?}", a.standing(now).veto);
}

fn answer(
    asked: &PledgeRequest,
    change: impl FnOnce(&mut Pledge),
) -> Result<Pledge, PledgeRefused> {
    let mut pledge = Pledge { epoch: asked.epoch, voter: process(2, 2), end: END };
    change(&mut pledge);
    Ok(pledge)
}

#[test]
fn a_replacement_writes_the_lease_only_with_the_others_word() {
    let (mut a, asked, now) = asking(|_| {});
    assert!(now >= at(5_080), "not before the Lease is expired");
    let epoch = asked.epoch;
    let yes = answer(&asked, |_| {});
    let out = a.step(Input::PledgeAnswered { epoch, answer: yes, end: END }, now);
    assert!(out.persist);
    assert_eq!(out.lease_write.unwrap().record.epoch, epoch.number);
    let (mut a, asked, now) = asking(|_| {});
    let no = Err(PledgeRefused { why: "no".into(), promised: Epoch(9) });
    let out = a.step(Input::PledgeAnswered { epoch: asked.epoch, answer: no, end: END }, now);
    assert!(out.lease_write.is_none());
}

#[test]
fn a_refused_candidate_asks_above_what_the_other_promised() {
    let (mut a, asked, mut now) = asking(|_| {});
    let no = Err(PledgeRefused { why: "no".into(), promised: Epoch(9) });
    let _ = a.step(Input::PledgeAnswered { epoch: asked.epoch, answer: no, end: END }, now);
    let again = (0..1_000).find_map(|_| {
        now = now + Span::millis(10);
        let out = a.step(Input::Tick { data_path_ok: true }, now);
        out.sync_log.then(|| a.step(Input::Synced(END), now).ask.unwrap())
    });
    assert_eq!(again.unwrap().epoch.number, Epoch(10));
}

#[test]
fn a_word_of_another_epoch_or_of_nobody_counts_for_nothing() {
    let wrong: [fn(&mut Pledge); 3] = [
        |pledge| pledge.epoch.number = Epoch(99),
        |pledge| pledge.voter = process(9, 1),
        |pledge| pledge.voter = process(1, 1),
    ];
    for change in wrong {
        let (mut a, asked, now) = asking(|_| {});
        let answer = answer(&asked, change);
        let out = a.step(Input::PledgeAnswered { epoch: asked.epoch, answer, end: END }, now);
        assert!(out.lease_write.is_none());
    }
}

#[test]
fn whoever_acknowledged_beyond_its_disk_compares_and_the_longer_log_wins() {
    let beyond = |control: &mut ControlState| control.acked_beyond_fsync = Some(Epoch(3));
    for (epoch, lsn, wins) in [(3, 50, true), (3, 51, false), (4, 1, false), (2, 99, true)] {
        let (mut a, asked, now) = asking(beyond);
        let end = LogEnd { epoch: Epoch(epoch), lsn: Lsn(lsn) };
        let answer = answer(&asked, |pledge| pledge.end = end);
        let out = a.step(Input::PledgeAnswered { epoch: asked.epoch, answer, end: END }, now);
        assert_eq!(out.lease_write.is_some(), wins, "against {end:?}");
    }
}

#[test]
fn a_question_without_an_answer_ends() {
    let (mut a, asked, now) = asking(|_| {});
    let _ = a.step(Input::Tick { data_path_ok: true }, now + Span::seconds(3));
    assert!(!a.standing(now).candidate);
    let late = answer(&asked, |_| {});
    let out = a.step(
        Input::PledgeAnswered { epoch: asked.epoch, answer: late, end: END },
        now + Span::seconds(4),
    );
    assert!(out.lease_write.is_none(), "a late answer is nobody's");
}

/// The Lease was lost and made again as released while x-1 serves by x-2's grant: nobody let go of
/// anything, whatever a person accepts (R21, R8, R13d).
#[test]
fn a_lease_that_was_made_again_voids_no_grant() {
    let mut standby = voter(process(2, 1), |_| {});
    let active = process(1, 1);
    let fed = EpochId { number: Epoch(3), author: active.incarnation.id };
    let _ = standby.step(Input::FeederAttached(fed), at(10));
    let beat = Input::Heartbeat {
        epoch: fed,
        active: active.incarnation,
        nonce: 1,
        serving: true,
        grant: D,
    };
    let granted = standby.step(beat, at(10));
    assert!(!granted.messages.is_empty(), "no grant was given");
    let mut record = lease();
    record.epoch = Epoch(4);
    record.seq += 5;
    record.state = LeaseState::Released;
    record.holder = Some(Holder { incarnation: Incarnation::NOBODY, ..active });
    record.sync = None;
    let versioned = Versioned { version: "8".into(), record };
    let _ = standby.step(Input::Lease(Box::new(Sight { versioned, asked: Some(at(20)) })), at(20));
    let word = Word { epoch: Epoch(4), accepts_loss: true };
    let early = standby.step(Input::Asked(word), at(30));
    assert!(!early.sync_log, "the candidacy goes on under a grant that may be in use");
    let late = standby.step(Input::Tick { data_path_ok: true }, at(5_100));
    assert!(late.sync_log, "{:?}", standby.standing(at(5_100)));
}

/// The write that makes the database ended unknown, and lands after the second attempt began (R20).
#[test]
fn a_second_attempt_to_begin_makes_the_same_database() {
    let me = process(1, 1);
    let mut member = voter(me.clone(), |control| control.dbid = None);
    let mut record = LeaseRecord::uninitialised(4_000);
    record.seq = 900;
    record.epoch = Epoch(3);
    record.state = LeaseState::Initialising { by: me };
    let look = |version: &str, record: &LeaseRecord, ms| {
        let versioned = Versioned { version: version.into(), record: record.clone() };
        Input::Lease(Box::new(Sight { versioned, asked: Some(at(ms)) }))
    };
    assert!(member.step(look("9", &record, 10), at(10)).initialise);
    let dbid = |n| Input::Initialised(Dbid(Uuid::from_u128(n)));
    let first = member.step(dbid(71), at(11)).lease_write.unwrap();
    let outcome = WriteOutcome::Unknown("time-out".into());
    let _ = member.step(Input::LeaseWritten { ticket: first.ticket, outcome }, at(1_500));
    assert!(member.step(look("9", &record, 1_510), at(1_511)).initialise);
    let second = member.step(dbid(72), at(1_512)).lease_write.unwrap();
    assert_eq!(second.record.dbid, first.record.dbid);
    let outcome = WriteOutcome::Conflict;
    let _ = member.step(Input::LeaseWritten { ticket: second.ticket, outcome }, at(1_520));
    let _ = member.step(look("10", &first.record, 1_530), at(1_531));
    assert_eq!(member.control().dbid, first.record.dbid);
}
