//! The rules that can be taken away, each with its number in the protocol and what is done without it.
//!
//! Taking one away and finding a violation proves the rule necessary inside the bounds of the row.

/// A rule, or the part of a rule, that the model can do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// R4: a Lease write, other than letting go, only with authority; else yield.
    WriteOnlyWithAuthority,
    /// R5: authority by a grant counts from sending the heartbeat.
    GrantCountsFromSending,
    /// R4, R5: a member with a dead data path neither renews nor sends heartbeats.
    LogProbe,
    /// R5, R7: a heartbeat says whether its sender serves, and only a serving one holds others back.
    HeartbeatSaysServing,
    /// R6: after its start a member neither grants nor candidates until its old grants ran out.
    Blackout,
    /// R6: nor does it promise for another's candidacy.
    BlackoutBeforePromise,
    /// R7: nobody candidates while it hears a serving holder.
    HeartbeatClause,
    /// R7: a candidate grants no more.
    CandidateStopsGranting,
    /// R8: a candidate waits until its last grant ran out.
    CandidateWaitsForItsGrants,
    /// R8: a candidate fsyncs its whole log before it promises.
    FsyncBeforePromise,
    /// R8, R18: a member refuses lower epochs from its promise on.
    RefuseFromPromise,
    /// R9: only the candidate's own agent writes it into the Lease.
    OnlyTheCandidateAcquires,
    /// R9: only the confirmed answer of an Acquire activates.
    ReadingNeverActivates,
    /// R10: a proof of death opens the Lease.
    ProofOfDeath,
    /// R10a: the parent process of a dead holder may release its Lease.
    ParentReleases,
    /// R11: a replacement of a process not proven dead needs the other voter's promise.
    PromiseForReplacement,
    /// R13a: the record of the standby in sync names its incarnation.
    SyncNamesIncarnation,
    /// R13b: a restarted holder goes on alone only if nothing was acknowledged beyond its fsync.
    HolderAloneOnlyIfComplete,
    /// R15: acknowledging alone begins with the confirmed answer of `SetSolo`.
    SoloOnlyConfirmed,
    /// R15: reading the Lease never ends doubt about a write.
    ReadingNeverSetsSolo,
    /// R15: after a write of S of unknown outcome every write is `SetSolo`, until one is confirmed.
    DoubtEndsBySolo,
    /// R15: acknowledging from memory only while the Lease is confirmed to name the standby.
    MemoryOnlyWhileSyncConfirmed,
    /// R15: without durable commit the whole log is fsynced before `SetSolo`.
    FsyncBeforeSolo,
    /// R16: a member stops acknowledging alone before it records the other in sync.
    StopAloneBeforeSync,
    /// R17: a standby shows only what was acknowledged.
    StandbyShowsAcknowledged,
    /// R6: only a proof of death takes the receiver of a grant out of the control file.
    ForgetOnlyTheDead,
    /// R6, R8: so does an own acquisition, once the grants ran out, and no candidacy before it.
    ForgetOnlyWhenAcquiring,
    /// R22: a member that sent its hand-over serves no more.
    ServesNoMoreOnceSent,
    /// R22: nor does it after the deadline.
    NoUndoOnceSent,
    /// R22: the other acquires only with everything up to the LSN that the hand-over names.
    ReceivedUpToTransfer,
    /// A2.12: S = the active alone before a commit is acknowledged that exceeds the lag.
    AloneBeforeLag,
    /// R16: a standby is recorded only once it lacks no more than the lag.
    NearBeforeSync,
    /// R20: the Lease is created only where no database is known.
    CreatedOnlyOnce,
    /// R20: nor is an initialiser named where one is known.
    NamedOnlyOnce,
    /// R20: an initialiser is named only on the version of the Lease that was judged.
    NamedOnTheJudgedVersion,
    /// R20: the initialiser takes the Lease only on the version that names it.
    TakenOnTheNamingVersion,
    /// R20: a directory that has a database keeps it, whatever became of the write that takes the Lease.
    DirectoryKeepsItsDatabase,
    /// R20: a store that was named is named again under its new incarnation, with its database.
    NamedAgainWithDatabase,
    /// R20, A1.13: the database is noted before the Lease can be deleted.
    NotedBeforeDeletion,
    /// R21: nothing is decided on a Lease below the highest (epoch, seq) seen.
    NothingBelowSeen,
    /// R21: a Lease created anew names the active as its last holder, else the longest log.
    RecreationNamesTheActive,
    /// R8, R21: whom a Lease made anew names did not let go, so the grants to it count on.
    RecreationIsNoRelease,
    /// "Time" of part B: the rates of two clocks differ by 10 % at most.
    ClockRate,
}

impl Rule {
    /// Its number, and what is done without it.
    #[must_use]
    #[allow(clippy::too_many_lines, reason = "a table with one entry for each rule")]
    pub fn without(self) -> (&'static str, &'static str) {
        match self {
            Self::WriteOnlyWithAuthority => {
                ("R4", "an active writes the Lease although it has no authority")
            }
            Self::GrantCountsFromSending => {
                ("R5", "authority by a grant counts from receiving the answer")
            }
            Self::LogProbe => ("R5", "a member whose log writer hangs renews and heartbeats on"),
            Self::HeartbeatSaysServing => {
                ("R5", "B holds back for every heartbeat it answered, serving or not")
            }
            Self::Blackout => ("R6", "a restarted member grants and candidates at once"),
            Self::BlackoutBeforePromise => {
                ("R6", "a restarted member promises at once for another's candidacy")
            }
            Self::HeartbeatClause => ("R7", "a member candidates although it hears the holder"),
            Self::CandidateStopsGranting => ("R7", "a candidate goes on granting"),
            Self::CandidateWaitsForItsGrants => ("R8", "a candidate does not wait for its grants"),
            Self::FsyncBeforePromise => ("R8", "a candidate promises with its log in memory"),
            Self::RefuseFromPromise => {
                ("R8", "a member refuses lower epochs only once it is active itself")
            }
            Self::OnlyTheCandidateAcquires => {
                ("R9", "the operator checks, writes B into the Lease, and tells it afterwards")
            }
            Self::ReadingNeverActivates => ("R9", "reading itself as the holder activates"),
            Self::ProofOfDeath => ("R10", "a proof of death opens nothing"),
            Self::ParentReleases => ("R10a", "the parent process does not release"),
            Self::PromiseForReplacement => {
                ("R11", "a replacement process acquires without the other voter's promise")
            }
            Self::SyncNamesIncarnation => ("R13a", "the record in sync names a member only"),
            Self::HolderAloneOnlyIfComplete => {
                ("R13b", "a restarted holder goes on alone whatever it acknowledged")
            }
            Self::SoloOnlyConfirmed => ("R15", "a member acknowledges alone unconfirmed"),
            Self::ReadingNeverSetsSolo => {
                ("R15", "reading that S is itself lets a member acknowledge alone")
            }
            Self::DoubtEndsBySolo => ("R15", "a write of S of unknown outcome is forgotten"),
            Self::MemoryOnlyWhileSyncConfirmed => {
                ("R15", "two memories suffice although the Lease may not name the standby")
            }
            Self::FsyncBeforeSolo => ("R15", "SetSolo is sent with the log in memory"),
            Self::StopAloneBeforeSync => {
                ("R16", "the other is recorded in sync while acknowledging alone")
            }
            Self::StandbyShowsAcknowledged => ("R17", "a standby shows what it has applied"),
            Self::ForgetOnlyTheDead => {
                ("R6", "the receiver of a grant is forgotten without a proof of its death")
            }
            Self::ForgetOnlyWhenAcquiring => {
                ("R6", "a candidate forgets whom it gave grants before they ran out")
            }
            Self::ServesNoMoreOnceSent => ("R22", "A serves on until its hand-over is answered"),
            Self::NoUndoOnceSent => ("R22", "A takes its role back after the hand-over was sent"),
            Self::ReceivedUpToTransfer => ("R22", "B does not compare its log with the hand-over"),
            Self::AloneBeforeLag => {
                ("A2.12", "commits beyond maxLag are acknowledged while the Lease names B")
            }
            Self::NearBeforeSync => ("R16", "B is recorded although it lacks more than maxLag"),
            Self::CreatedOnlyOnce => {
                ("R20", "the operator creates a Lease although a database is known")
            }
            Self::NamedOnlyOnce => {
                ("R20", "the operator names an initialiser although a database is known")
            }
            Self::NamedOnTheJudgedVersion => {
                ("R20", "a late operator names an initialiser, whatever the Lease says by now")
            }
            Self::TakenOnTheNamingVersion => {
                ("R20", "an initialiser takes the Lease, whatever it says by now")
            }
            Self::DirectoryKeepsItsDatabase => {
                ("R20", "each attempt to begin makes a new database in the same directory")
            }
            Self::NamedAgainWithDatabase => {
                ("R20", "only an empty store is named, also when the named one had begun")
            }
            Self::NotedBeforeDeletion => {
                ("R20", "the Lease is deleted before the operator noted the database")
            }
            Self::NothingBelowSeen => ("R21", "a Lease restored from a backup is believed"),
            Self::RecreationNamesTheActive => {
                ("R21", "of equal epochs, anybody is named when the Lease is created anew")
            }
            Self::RecreationIsNoRelease => {
                ("R21", "a Lease made anew is taken for its holder's own release")
            }
            Self::ClockRate => ("Time", "a clock stands still for a tick"),
        }
    }
}

/// A set of rules that are taken away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules(u64);

impl Rules {
    /// These rules.
    #[must_use]
    pub const fn of(rules: &[Rule]) -> Self {
        let mut set = 0;
        let mut at = 0;
        while at < rules.len() {
            set |= 1 << rules[at] as u64;
            at += 1;
        }
        Self(set)
    }

    /// Whether this one is among them.
    #[must_use]
    pub fn contains(self, rule: Rule) -> bool {
        self.0 & (1 << rule as u64) != 0
    }
}
