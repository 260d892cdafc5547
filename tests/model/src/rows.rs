//! The rows: each a model with its bounds, and what its exploration must find.
//!
//! A row is named by what is in it. Rows that are quick are run by the tests; the others are there to be
//! run by name, when a rule changes that they are about.

use crate::{
    beginning,
    liveness::{Question, Survivors},
    model::{
        ApiFault, Beyond, Bounds, DataPath, DurableCommit, Eagerness, GrantsOfDead, Model,
        Releases, ReturnService, Scenario, WriteWording,
    },
    properties::{ACKNOWLEDGED_AHEAD, HANDED_OVER, SEEN},
    rules::Rule,
    state::Name,
};

/// What a row must find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Every property holds in every state, and these were seen.
    Safe(&'static [&'static str]),
    /// From every judged state somebody can serve.
    Live(Question),
    /// A rule is missing: this property fails.
    Breaks(&'static str),
    /// A rule is missing: from some judged state nobody can serve.
    Sticks(Question),
}

/// When a row is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// By the tests.
    Always,
    /// By name.
    OnDemand,
}

/// What a row explores.
#[derive(Clone, Debug)]
pub enum Subject {
    /// The pair from its first active on.
    Pair(Model),
    /// How the first active comes about (R20).
    Beginning(beginning::Model),
}

impl Subject {
    /// How far it goes.
    #[must_use]
    pub fn bounds(&self) -> String {
        match self {
            Self::Pair(model) => model.bounds.to_string(),
            Self::Beginning(model) => model.bounds.to_string(),
        }
    }
}

/// One row.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its name.
    pub name: &'static str,
    /// What is in it.
    pub what: &'static str,
    /// The model.
    pub subject: Subject,
    /// The rules that the model lacks.
    pub without: Vec<Rule>,
    /// What must be found.
    pub check: Check,
    /// When it is run.
    pub when: When,
}

impl Row {
    pub(crate) fn on_demand(
        name: &'static str,
        what: &'static str,
        model: Model,
        check: Check,
    ) -> Self {
        let subject = Subject::Pair(model);
        Self { name, what, subject, without: Vec::new(), check, when: When::OnDemand }
    }

    pub(crate) fn of_beginning(
        name: &'static str,
        what: &'static str,
        model: beginning::Model,
        check: Check,
    ) -> Self {
        let subject = Subject::Beginning(model);
        Self { name, what, subject, without: Vec::new(), check, when: When::Always }
    }

    pub(crate) fn without(self, rules: &[Rule]) -> Self {
        let subject = match self.subject {
            Subject::Pair(model) => Subject::Pair(model.without(rules)),
            Subject::Beginning(model) => Subject::Beginning(model.without(rules)),
        };
        Self { subject, without: rules.to_vec(), ..self }
    }

    pub(crate) fn on_request(self) -> Self {
        Self { when: When::OnDemand, ..self }
    }

    pub(crate) fn always(self) -> Self {
        Self { when: When::Always, ..self }
    }
}

/// All rows: safety, liveness, then the rules taken away.
#[must_use]
pub fn all() -> Vec<Row> {
    let mut rows = safety();
    rows.extend(safety_under_other_assumptions());
    rows.extend(hand_overs());
    rows.extend(grants_of_dead());
    rows.extend(asynchronous());
    rows.extend(liveness());
    rows.extend(liveness_under_faults());
    rows.extend(crate::removed::rows());
    rows.extend(beginning::rows());
    rows
}

/// Everything but the fail-back, which two epochs are too few for.
const WITHOUT_FAIL_BACK: Check = Check::Safe(&[SEEN[0], SEEN[2], SEEN[3]]);
const WITH_FAIL_BACK: Check = Check::Safe(&SEEN);

/// Two ticks: with one, a heartbeat's period equals T and the clause of R7 shows nothing.
pub(crate) const UNDER_FAULT: Bounds = Bounds { crashes: 0, ticks: 2, ..Bounds::SMALL };

fn safety() -> Vec<Row> {
    let row = |name, what, bounds, check| Row::on_demand(name, what, Model::new(bounds), check);
    let small = Bounds::SMALL;
    let fail_back = Bounds::FAIL_BACK;
    vec![
        row("all-rules", "every rule in force", fail_back, WITH_FAIL_BACK).always(),
        row("two-crashes", "two crashes", Bounds { crashes: 2, ..fail_back }, WITH_FAIL_BACK),
        row(
            "two-commits",
            "two commits and two crashes",
            Bounds { commits: 2, crashes: 2, ..small },
            WITHOUT_FAIL_BACK,
        ),
        row("finer-time", "two ticks a deadline", Bounds { ticks: 2, ..small }, WITHOUT_FAIL_BACK),
        row(
            "reordering",
            "two messages in each direction",
            Bounds { crashes: 0, frames: 2, ..small },
            WITHOUT_FAIL_BACK,
        ),
        row(
            "restored-lease",
            "the Lease restored from a backup (R21)",
            Bounds { restores: 1, crashes: 0, ..small },
            WITHOUT_FAIL_BACK,
        )
        .always(),
        Row::on_demand(
            "recreated-lease",
            "the same, and the operator creates it anew; nobody lets go",
            Model {
                releases: Releases::Never,
                ..Model::new(Bounds { restores: 1, crashes: 0, ..fail_back })
            },
            WITH_FAIL_BACK,
        ),
        row(
            "replaced-process",
            "A's pod replaced while its process lives on (R11)",
            Bounds { replacements: 1, ..small },
            WITHOUT_FAIL_BACK,
        ),
        row(
            "frozen-clock",
            "a clock stands still for a tick; P1 and P5 are off",
            Bounds { frozen_ticks: 1, ..small },
            WITHOUT_FAIL_BACK,
        ),
        row(
            "frozen-clock-fail-back",
            "the same with three epochs, no crash",
            Bounds { frozen_ticks: 1, crashes: 0, ..fail_back },
            WITH_FAIL_BACK,
        ),
        Row::on_demand(
            "api-outage",
            "the API server away for all and back, nobody lets go: N1, N2",
            api_outage(),
            Check::Safe(&[]),
        )
        .always(),
    ]
}

fn safety_under_other_assumptions() -> Vec<Row> {
    let small = Bounds::SMALL;
    let fail_back = Bounds::FAIL_BACK;
    let five_clauses = [
        Rule::HeartbeatClause,
        Rule::ParentReleases,
        Rule::WriteOnlyWithAuthority,
        Rule::DoubtEndsBySolo,
        Rule::LogProbe,
    ];
    vec![
        Row::on_demand(
            "any-moment",
            "candidacies and promises at any moment, as if proofs were wrong",
            Model { eagerness: Eagerness::AnyMoment, ..Model::new(fail_back) },
            WITH_FAIL_BACK,
        ),
        Row::on_demand(
            "only-the-parent",
            "no proof of death but the parent's own release",
            Model::new(fail_back),
            WITH_FAIL_BACK,
        )
        .without(&[Rule::ProofOfDeath]),
        Row::on_demand(
            "without-five-clauses",
            "without five clauses, of R4, R5, R7, R10a and R15: still safe",
            Model::new(fail_back),
            WITH_FAIL_BACK,
        )
        .without(&five_clauses),
        Row::on_demand(
            "comparison",
            "durable commit off, comparison of R13c; P4 is off",
            non_durable(fail_back),
            WITH_FAIL_BACK,
        ),
        Row::on_demand(
            "comparison-two-crashes",
            "the same with two crashes",
            non_durable(Bounds { crashes: 2, ..small }),
            WITHOUT_FAIL_BACK,
        ),
        Row::on_demand(
            "loss-waiver",
            "a waiver of eligibility (R13d), no commit: P1 holds all the same",
            waived(small),
            Check::Safe(&[]),
        )
        .always(),
    ]
}

/// R22.
fn hand_overs() -> Vec<Row> {
    let small = Bounds::SMALL;
    let seen = Check::Safe(&[SEEN[0], SEEN[2], SEEN[3], HANDED_OVER]);
    let seen_fail_back = Check::Safe(&[SEEN[0], SEEN[1], SEEN[2], SEEN[3], HANDED_OVER]);
    let row = |name, what, bounds, check| Row::on_demand(name, what, handing_over(bounds), check);
    vec![
        row("hand-over", "hand-overs and their undoing (R22)", small, seen).always(),
        row("hand-over-fail-back", "the same with three epochs", Bounds::FAIL_BACK, seen_fail_back),
        row(
            "hand-over-two-commits",
            "two commits and two crashes",
            Bounds { commits: 2, crashes: 2, ..small },
            seen,
        ),
        Row::on_demand(
            "hand-over-waiver",
            "hand-overs, grants of the dead forgotten (R6), eligibility waived (R13d): P1",
            Model { beyond: Beyond::Waiver, ..forgetting(handing_over(small)) },
            Check::Safe(&[HANDED_OVER]),
        ),
        row(
            "hand-over-replaced",
            "hand-overs, A's pod replaced while its process lives on (R11)",
            Bounds { replacements: 1, ..small },
            seen,
        ),
        row("hand-over-unmeasured", "the LSN of the hand-over is not looked at", small, seen)
            .without(&[Rule::ReceivedUpToTransfer]),
        live("live-hand-over", "hand-overs, all members", handing_over(small), BOTH).always(),
    ]
}

/// R6, R10: a blackout for the living only.
fn grants_of_dead() -> Vec<Row> {
    let small = Bounds::SMALL;
    let fail_back = Bounds::FAIL_BACK;
    vec![
        Row::on_demand(
            "dead-grants",
            "grants of the dead are forgotten (R6), eligibility waived (R13d), two crashes",
            forgetting(waived(Bounds { crashes: 2, ..fail_back })),
            Check::Safe(&[]),
        ),
        Row::on_demand(
            "dead-grants-two-epochs",
            "the same with two epochs",
            forgetting(waived(Bounds { crashes: 2, ..small })),
            Check::Safe(&[]),
        )
        .always(),
        Row::on_demand(
            "dead-grants-in-sync",
            "grants of the dead are forgotten, only S acquires",
            forgetting(Model::new(fail_back)),
            WITH_FAIL_BACK,
        ),
        Row::on_demand(
            "dead-grants-comparison",
            "grants of the dead are forgotten, durable commit off, comparison (R13c)",
            forgetting(non_durable(small)),
            WITHOUT_FAIL_BACK,
        ),
        Row::on_demand(
            "dead-grants-replaced",
            "grants of the dead are forgotten, A's pod replaced while its process lives on",
            forgetting(Model::new(Bounds { replacements: 1, ..small })),
            WITHOUT_FAIL_BACK,
        ),
        Row::on_demand(
            "dead-grants-replaced-waiver",
            "the same, eligibility waived",
            forgetting(waived(Bounds { replacements: 1, ..small })),
            Check::Safe(&[]),
        ),
        Row::on_demand(
            "recreated-waiver",
            "the Lease made anew (R21), eligibility waived (R13d)",
            waived_after_recreation(),
            Check::Safe(&[]),
        )
        .always(),
    ]
}

/// A2.12.
fn asynchronous() -> Vec<Row> {
    let two = Bounds { commits: 2, ..Bounds::SMALL };
    let seen = Check::Safe(&[SEEN[0], SEEN[2], SEEN[3], ACKNOWLEDGED_AHEAD]);
    let row = |name, what, bounds| Row::on_demand(name, what, lagging(bounds), seen);
    vec![
        row("async", "class async, one commit of two may be lost (A2.12)", two),
        row("async-no-crash", "the same without a crash", Bounds { crashes: 0, ..two }).always(),
        row(
            "async-three-commits",
            "three commits, no crash",
            Bounds { commits: 3, crashes: 0, ..two },
        ),
    ]
}

fn liveness() -> Vec<Row> {
    let fail_back = Bounds::FAIL_BACK;
    vec![
        live("live", "all members", Model::new(fail_back), BOTH),
        live("live-two-epochs", "all members", Model::new(Bounds::SMALL), BOTH).always(),
        live("live-a-alone", "B silent for ever", Model::new(fail_back), only(Name::A)),
        live("live-b-alone", "A silent for ever", Model::new(fail_back), only(Name::B)),
        live("live-comparison", "durable commit off, comparison", non_durable(fail_back), BOTH),
        live(
            "live-any-moment",
            "candidacies and promises at any moment",
            Model { eagerness: Eagerness::AnyMoment, ..Model::new(fail_back) },
            BOTH,
        ),
    ]
}

fn liveness_under_faults() -> Vec<Row> {
    let faulty = |name, what, scenario| live(name, what, under(scenario), BOTH);
    let unheard = Scenario { deaf: Some(Name::A), ..NO_FAULT };
    let lost = Scenario { deaf: Some(Name::B), ..NO_FAULT };
    let away = |scenario| Scenario { api: ApiFault::AwayFromA, ..scenario };
    vec![
        faulty("live-b-unheard", "what B sends is lost", unheard),
        faulty("live-b-unheard-api-away", "the same, A cannot reach the API", away(unheard)),
        faulty("live-a-unheard", "what A sends is lost", lost),
        faulty("live-a-unheard-api-away", "the same, A cannot reach the API", away(lost)),
        faulty("live-dead-data-path", "A's log writer hangs", DEAD_DATA_PATH),
        faulty("live-api-answers-lost", "A's requests arrive, the answers do not", ANSWERS_LOST),
        faulty("live-api-answers-lost-b-unheard", "the same, what B sends is lost", NO_ANSWER),
        faulty("live-api-away", "the API away from all, for ever: A can serve", API_AWAY),
        live(
            "live-literal-r4",
            "only bare renewals need authority; no answer reaches A, nobody lets go",
            Model {
                write_wording: WriteWording::OnlyRenewals,
                releases: Releases::Never,
                ..under(NO_ANSWER)
            },
            BOTH,
        ),
    ]
}

fn live(name: &'static str, what: &'static str, model: Model, question: Question) -> Row {
    Row::on_demand(name, what, model, Check::Live(question))
}

pub(crate) const BOTH: Question = Question { survivors: Survivors::Both, epochs_left: 1 };

fn only(name: Name) -> Question {
    Question { survivors: Survivors::Only(name), ..BOTH }
}

pub(crate) const NO_FAULT: Scenario =
    Scenario { deaf: None, api: ApiFault::Fine, data_path: DataPath::Alive };
pub(crate) const DEAD_DATA_PATH: Scenario = Scenario { data_path: DataPath::Dead, ..NO_FAULT };
pub(crate) const ANSWERS_LOST: Scenario = Scenario { api: ApiFault::AnswersToALost, ..NO_FAULT };
/// Neither the API server's answers nor B's reach A.
pub(crate) const NO_ANSWER: Scenario = Scenario { deaf: Some(Name::A), ..ANSWERS_LOST };
pub(crate) const API_AWAY: Scenario = Scenario { api: ApiFault::AwayFromAll, ..NO_FAULT };

pub(crate) fn under(scenario: Scenario) -> Model {
    Model { scenario: Some(scenario), ..Model::new(UNDER_FAULT) }
}

pub(crate) fn api_outage() -> Model {
    Model { releases: Releases::Never, ..under(API_AWAY) }
}

pub(crate) fn non_durable(bounds: Bounds) -> Model {
    Model { durable_commit: DurableCommit::Off, beyond: Beyond::Comparison, ..Model::new(bounds) }
}

/// Only P1 can be asked where eligibility is waived, and it needs no commit.
pub(crate) fn waived(bounds: Bounds) -> Model {
    Model { beyond: Beyond::Waiver, ..Model::new(Bounds { commits: 0, ..bounds }) }
}

/// A person's word after the operator made the Lease anew.
pub(crate) fn waived_after_recreation() -> Model {
    let bounds = Bounds { restores: 1, crashes: 0, ..Bounds::FAIL_BACK };
    Model { releases: Releases::Never, ..waived(bounds) }
}

pub(crate) fn forgetting(model: Model) -> Model {
    Model { grants_of_dead: GrantsOfDead::Forgotten, ..model }
}

pub(crate) fn handing_over(bounds: Bounds) -> Model {
    Model { releases: Releases::OrTransfers, ..Model::new(bounds) }
}

pub(crate) fn lagging(bounds: Bounds) -> Model {
    Model { return_service: ReturnService::Async { max_lag: 1 }, ..Model::new(bounds) }
}
