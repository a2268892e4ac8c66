//! The lease protocol as a model: every interleaving of two serving and two asking sides at small bounds.
//!
//! One grant is answered under its first revision until an operator takes that away. The property: **once the act has
//! returned, nothing of the first revision leaves a serving side, and nothing of it is served from a cache.** It has
//! to hold in every state that can be reached, and it must *not* hold once a part of the protocol is left out, so
//! that a model in which nothing can go wrong would be noticed.
//!
//! Names are those of the code: a `book` is an end in `LeaseBook`, `until` and `pause` are `ServeRight`'s, `forgotten` is
//! `RetiredLeases::forgotten_until`, a `row` is a `ReplicaRecord`, `settle` is what the act waits for. Serving sides are
//! replicas of one store, as the specification's section 8 has it. The first one has the store at hand; the other one
//! hears of it by heartbeats, each of which writes the replica's row, then reads whether there is a change, and can be
//! held up or lost at each step. The database has a clock of its own.
//!
//! **Time** is not counted from a beginning: a state holds what is left of each wait and how old each thing is, on
//! the clock of whoever waits, and one step lets time pass for all. Clocks run at 10 or 11 units a step, so rates
//! differ by 10 %. So the state space is finite and all of it is searched.
//! **Messages** stay on the way until their sender gives up on them: they can be lost, late and delivered again.
//! **Pauses**: a check and its write are two steps with anything in between, within the bound that the specification
//! assumes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use stateright::{Checker, HasDiscoveries, Model, Property};

/// A whole lease, in units of a clock: seven steps at the slow rate.
const LEASE: u8 = 70;
/// Three quarters of it, counted from the sending: `ServeRight::until`.
const UNTIL: u8 = 52;
/// 0.15 of it: `ServeRight::pause`.
const PAUSE: u8 = 10;
/// How long a replica that has not heard of the store's revision goes on serving.
const FENCE: u8 = 10;
/// By how much longer the others wait before they take it to be fenced.
const FENCE_MARGIN: u8 = 12;
/// `SERVING_PAUSE`: one step at most, less than the margin.
const SERVING_PAUSE: u8 = 11;
/// The names of the two properties.
const LEAVES_LATE: &str = "nothing leaves a serving side after the act has returned";
const SERVED_LATE: &str = "nothing is served from a cache after the act has returned";
/// From when on a row that nobody writes says that its replica serves nothing.
const SILENT: u8 = FENCE + FENCE_MARGIN;

/// A part of the protocol that is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    /// Nothing.
    Nothing,
    /// The asking side writes however long after its check.
    NoPauseBound,
    /// The asking side counts from the receipt of the answer instead of the sending of the question.
    CountedFromReceipt,
    /// After a start, leases of the process before are not waited for.
    NoStartWait,
    /// The asking side uses the whole lease.
    WholeLease,
    /// The serving side does not wait for the leases it has booked.
    NoLeaseWait,
    /// The act does not wait for the other replica.
    NoReplicaWait,
    /// The act does not wait for leases of a replica that fell silent.
    NoLeaseWaitAfterSilence,
    /// A replica does not say how long its leases last.
    LeasesUnsaid,
    /// A heartbeat reads the store before its row is written.
    ReadFirst,
    /// A heartbeat says what it is about to put in force.
    SaidTooEarly,
    /// The fence is counted from the return of a heartbeat instead of its sending.
    FenceFromReceipt,
    /// A replica that has lost the store goes on serving.
    NoFence,
}

/// One asking side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Asking {
    /// Age of the question that is out, on its own clock.
    question: Option<u8>,
    /// The question is on the way, to be delivered any number of times.
    asked: bool,
    /// An answer to it is on the way, to be delivered any number of times.
    answered: bool,
    /// What is left of `ServeRight::until` for what is in the cache.
    until: u8,
    /// Time since a check that let a write pass.
    checked: Option<u8>,
    /// Questions that may still be sent; also what tells one question from another.
    budget: u8,
}

/// An answer being made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Answering {
    /// For whom, and which of their questions.
    asker: u8,
    question: u8,
    /// Time since the receipt of the question.
    received: u8,
    /// Time since the answer began at the gate, if it has.
    begun: Option<u8>,
}

/// What a replica says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Row {
    /// Whether the change is in force there.
    applied: bool,
    /// How long the leases last that it gave before.
    leases: u8,
}

/// How far a heartbeat is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    /// On the way to the store.
    Sent(Row),
    /// The row is written.
    Written,
    /// On the way back, with whether there is a change.
    Read(bool),
    /// Left out of its order: on the way to be written, with what was read before.
    ReadThenSent(bool, Row),
}

/// A heartbeat that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Heartbeat {
    /// Time since it was sent.
    sent: u8,
    stage: Stage,
}

/// One serving side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Serving {
    up: bool,
    /// Whether its view has the change.
    applied: bool,
    /// What is left of the last lease it has booked for the first revision.
    book: u8,
    /// What is left of `forgotten_until`.
    forgotten: u8,
    /// Age of the last heartbeat that came back, counted from its sending.
    heard: u8,
    heartbeat: Option<Heartbeat>,
    answering: Option<Answering>,
    /// A row on the way to the store whose heartbeat was given up: it may be written at any time.
    stray: Option<Row>,
    /// As the store has it, and by its clock: the row, how old it is, and what is left of the leases that it tells of.
    row: Row,
    row_age: u8,
}

/// The operator's act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Act {
    NotYet,
    /// Waiting at a replica; what is left of the longest lease since all others were done, once they are.
    Settling {
        at: u8,
        others: Option<u8>,
    },
    /// The replica that waited is gone: the operator may repeat it.
    Interrupted,
    Returned,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    rates: Rates,
    /// Whether the store has the change.
    committed: bool,
    act: Act,
    serving: Vec<Serving>,
    asking: Vec<Asking>,
    /// Crashes that may still happen.
    crashes: u8,
    /// Something of the first revision left a serving side after the act had returned.
    left_late: bool,
    /// Something of the first revision was served from a cache after the act had returned.
    served_late: bool,
}

/// Units by which clocks advance in one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Rates {
    serving: [u8; 2],
    asking: [u8; 2],
    store: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    /// Time passes for all.
    Wait,
    /// An asking side sends a question (a list, or `capabilities` to renew).
    Ask(u8),
    /// A serving side receives a question.
    Receive {
        at: u8,
        asker: u8,
    },
    /// It begins the answer at the gate: checks, and books the lease.
    Begin(u8),
    /// The answer's bytes are accepted by its kernel.
    Leave(u8),
    /// An answer arrives: it is passed on and kept.
    Arrive(u8),
    /// An asking side finds the answer in its cache and checks the lease.
    Check(u8),
    /// It writes what it has checked.
    Write(u8),
    /// It loses its memory.
    Forget(u8),
    /// A replica sends a heartbeat.
    Heartbeat(u8),
    /// Its row is written.
    WriteRow(u8),
    /// It reads whether there is a change.
    ReadStore(u8),
    /// It comes back.
    HearHeartbeat(u8),
    /// The row of one that was given up is written.
    WriteStray(u8),
    Crash(u8),
    Restart(u8),
    /// The operator's act is committed and applied at a replica, or repeated there.
    Act(u8),
    /// The act finds that the other replicas are done.
    OthersDone,
    /// The act returns.
    Return,
}

struct Protocol {
    broken: Broken,
    serving: u8,
    asking: u8,
    /// Questions of the first asking side; each other one sends a single one.
    questions: u8,
    crashes: u8,
    /// For how long a serving side works on an answer before it begins.
    patience: u8,
    /// Whether a heartbeat can be held up between its steps.
    steps: bool,
    /// Whether rows of heartbeats that were given up may still be written.
    strays: bool,
}

/// `value` less `by`, not below nothing.
fn left(value: u8, by: u8) -> u8 {
    value.saturating_sub(by)
}

/// `value` more `by`, kept small: beyond a lease all ages are alike.
fn older(value: u8, by: u8) -> u8 {
    value.saturating_add(by).min(LEASE + 11)
}

impl Protocol {
    fn with(broken: Broken) -> Self {
        Self {
            broken,
            serving: 1,
            asking: 1,
            questions: 2,
            crashes: 1,
            patience: 11,
            steps: true,
            strays: false,
        }
    }

    fn is(&self, broken: Broken) -> bool {
        self.broken == broken
    }

    /// How long a cached answer may be served, counted from the sending.
    fn until(&self) -> u8 {
        if self.is(Broken::WholeLease) {
            LEASE
        } else {
            UNTIL
        }
    }

    /// Whether a replica that last heard of the store so long ago serves.
    fn is_fenced(&self, one: &Serving) -> bool {
        self.serving > 1 && !self.is(Broken::NoFence) && one.heard >= FENCE
    }

    fn fresh(&self, applied: bool, forgotten: u8) -> Serving {
        Serving {
            up: true,
            applied,
            book: 0,
            forgotten,
            heard: 0,
            heartbeat: None,
            answering: None,
            stray: None,
            row: Row {
                applied,
                leases: if applied { forgotten } else { 0 },
            },
            row_age: 0,
        }
    }

    /// What a replica says of itself now. The leases before the change is in force it says too, but nothing depends on them.
    fn says(&self, one: &Serving) -> Row {
        let leases = one.book.max(one.forgotten);
        let said = one.applied && !self.is(Broken::LeasesUnsaid);
        Row {
            applied: one.applied,
            leases: if said { leases } else { 0 },
        }
    }

    fn wait(&self, state: &mut State) -> Option<()> {
        let rates = state.rates;
        for (number, one) in state.serving.iter_mut().enumerate() {
            let by = rates.serving[number];
            one.book = left(one.book, by);
            one.forgotten = left(one.forgotten, by);
            // The first replica has the store at hand; which of the two has not, does not matter.
            if number > 0 || (self.serving > 1 && !one.up) {
                // Only the fence asks, and it only asks whether it is past.
                one.heard = one.heard.saturating_add(by).min(FENCE);
                one.row_age = one.row_age.saturating_add(rates.store).min(SILENT + LEASE);
            }
            one.row.leases = left(one.row.leases, rates.store);
            if let Some(heartbeat) = &mut one.heartbeat {
                heartbeat.sent = heartbeat.sent.saturating_add(by).min(FENCE);
                if heartbeat.sent >= FENCE && !self.is(Broken::FenceFromReceipt) {
                    if let Stage::Sent(row) = heartbeat.stage
                        && self.strays
                    {
                        one.stray = Some(row);
                    }
                    one.heartbeat = None;
                }
            }
            if let Some(answering) = &mut one.answering {
                answering.received = older(answering.received, by);
                if let Some(begun) = &mut answering.begun {
                    *begun = begun.saturating_add(by);
                    // The write would be late: it ends in a reset.
                    if *begun > SERVING_PAUSE {
                        one.answering = None;
                    }
                } else if answering.received > self.patience {
                    one.answering = None;
                }
            }
        }
        for (number, one) in state.asking.iter_mut().enumerate() {
            let by = rates.asking[number];
            one.until = left(one.until, by);
            if let Some(age) = &mut one.question {
                *age = older(*age, by);
                if *age >= self.until() && !self.is(Broken::CountedFromReceipt) {
                    // Whatever still comes grants nothing: the question is given up.
                    one.question = None;
                    one.asked = false;
                    one.answered = false;
                }
            }
            if let Some(checked) = &mut one.checked {
                *checked = checked.saturating_add(by).min(LEASE);
                if *checked > PAUSE && !self.is(Broken::NoPauseBound) {
                    // The write would be late: it ends in a reset, and is reported apart.
                    one.checked = None;
                }
            }
        }
        if let Act::Settling { others, .. } = &mut state.act {
            *others = others.map(|rest| left(rest, rates.store));
        }
        Some(())
    }

    /// A view with the change is put in force and the gates are closed: what was begun under the old one is cut.
    fn apply(&self, at: u8, one: &mut Serving) {
        one.applied = true;
        one.answering = None;
        if at == 0 {
            write(one, self.says(one));
        }
    }

    fn asking(&self, state: &mut State, step: Step) -> Option<()> {
        let until = self.until();
        match step {
            Step::Ask(n) => {
                let one = &mut state.asking[usize::from(n)];
                // One that was out before is given up: whatever still comes of it is not looked at.
                one.budget = one.budget.checked_sub(1)?;
                *one = Asking {
                    question: Some(0),
                    asked: true,
                    answered: false,
                    ..*one
                };
            }
            Step::Arrive(n) => {
                let one = &mut state.asking[usize::from(n)];
                let age = one.question.filter(|_| one.answered)?;
                let rest = if self.is(Broken::CountedFromReceipt) {
                    until
                } else {
                    left(until, age)
                };
                // An uncached answer is passed on, and one kept, only while its lease lasts.
                if rest == 0 {
                    return None;
                }
                one.until = one.until.max(rest);
            }
            Step::Check(n) => {
                let one = &mut state.asking[usize::from(n)];
                if one.until == 0 || one.checked.is_some() {
                    return None;
                }
                one.checked = Some(0);
            }
            Step::Write(n) => {
                let late = state.act == Act::Returned;
                let one = &mut state.asking[usize::from(n)];
                one.checked.take()?;
                state.served_late |= late;
            }
            Step::Forget(n) => {
                let one = &mut state.asking[usize::from(n)];
                let forgotten = Asking {
                    budget: one.budget,
                    ..Asking::default()
                };
                if *one == forgotten || state.crashes == 0 {
                    return None;
                }
                state.crashes -= 1;
                *one = forgotten;
            }
            _ => return None,
        }
        Some(())
    }

    fn answering(&self, state: &mut State, step: Step) -> Option<()> {
        match step {
            Step::Receive { at, asker } => {
                let one = &mut state.serving[usize::from(at)];
                let Asking { asked, budget, .. } = state.asking[usize::from(asker)];
                if !one.up || one.answering.is_some() || !asked || self.is_fenced(one) {
                    return None;
                }
                if one.applied {
                    return None;
                }
                one.answering = Some(Answering {
                    asker,
                    question: budget,
                    received: 0,
                    begun: None,
                });
            }
            Step::Begin(at) => {
                let fenced = self.is_fenced(&state.serving[usize::from(at)]);
                let one = &mut state.serving[usize::from(at)];
                let answering = one.answering.as_mut()?;
                if fenced || one.applied || answering.begun.is_some() {
                    return None;
                }
                answering.begun = Some(0);
                one.book = one.book.max(left(LEASE, answering.received));
            }
            Step::Leave(at) => {
                let late = state.act == Act::Returned;
                let one = &mut state.serving[usize::from(at)];
                one.answering.filter(|one| one.begun.is_some())?;
                let answering = one.answering.take()?;
                state.left_late |= late;
                let asking = &mut state.asking[usize::from(answering.asker)];
                // An answer to a question that was given up leads nowhere.
                asking.answered |= asking.asked && asking.budget == answering.question;
            }
            _ => return None,
        }
        Some(())
    }

    fn replicating(&self, state: &mut State, step: Step) -> Option<()> {
        let committed = state.committed;
        match step {
            Step::Heartbeat(at) => {
                let one = &mut state.serving[usize::from(at)];
                if at == 0 || !one.up || one.heartbeat.is_some() {
                    return None;
                }
                let mut row = self.says(one);
                // Time is saved by asking only when it would change something.
                if one.heard == 0 && one.applied == committed && one.row_age == 0 && one.row == row
                {
                    return None;
                }
                if self.is(Broken::SaidTooEarly) {
                    row.applied = committed;
                }
                let stage = if self.is(Broken::ReadFirst) {
                    Stage::ReadThenSent(committed, row)
                } else {
                    Stage::Sent(row)
                };
                one.heartbeat = Some(Heartbeat { sent: 0, stage });
                if !self.steps {
                    write(one, row);
                    let stage = Stage::Read(committed);
                    one.heartbeat = Some(Heartbeat { sent: 0, stage });
                }
            }
            Step::WriteRow(at) => {
                let one = &mut state.serving[usize::from(at)];
                let heartbeat = one.heartbeat.as_mut()?;
                let (row, next) = match heartbeat.stage {
                    Stage::Sent(row) => (row, Stage::Written),
                    Stage::ReadThenSent(read, row) => (row, Stage::Read(read)),
                    Stage::Written | Stage::Read(_) => return None,
                };
                heartbeat.stage = next;
                write(one, row);
            }
            Step::WriteStray(at) => {
                let one = &mut state.serving[usize::from(at)];
                let row = one.stray.take()?;
                write(one, row);
            }
            Step::ReadStore(at) => {
                let heartbeat = state.serving[usize::from(at)].heartbeat.as_mut()?;
                if heartbeat.stage != Stage::Written {
                    return None;
                }
                heartbeat.stage = Stage::Read(committed);
            }
            Step::HearHeartbeat(at) => {
                let one = &mut state.serving[usize::from(at)];
                let heartbeat = one.heartbeat?;
                let Stage::Read(read) = heartbeat.stage else {
                    return None;
                };
                one.heartbeat = None;
                one.heard = if self.is(Broken::FenceFromReceipt) {
                    0
                } else {
                    heartbeat.sent
                };
                if read && !one.applied {
                    self.apply(at, one);
                }
            }
            Step::Crash(at) => {
                let one = &mut state.serving[usize::from(at)];
                if !one.up || state.crashes == 0 {
                    return None;
                }
                state.crashes -= 1;
                *one = Serving {
                    up: false,
                    stray: one.stray,
                    row: one.row,
                    row_age: one.row_age,
                    ..self.fresh(false, 0)
                };
                if matches!(state.act, Act::Settling { at: waiting, .. } if waiting == at) {
                    state.act = Act::Interrupted;
                }
            }
            Step::Restart(at) => {
                let one = &mut state.serving[usize::from(at)];
                if one.up {
                    return None;
                }
                let forgotten = if self.is(Broken::NoStartWait) {
                    0
                } else {
                    LEASE
                };
                let before = *one;
                *one = self.fresh(committed, forgotten);
                if at > 0 {
                    // It serves nothing before its first heartbeat. Its row takes the place of the old one, where the product keeps both.
                    *one = Serving {
                        heard: FENCE,
                        stray: before.stray,
                        row: before.row,
                        row_age: before.row_age,
                        ..*one
                    };
                }
            }
            _ => return None,
        }
        Some(())
    }

    fn acting(&self, state: &mut State, step: Step) -> Option<()> {
        match (step, state.act) {
            (Step::Act(at), Act::NotYet | Act::Interrupted) => {
                let one = &mut state.serving[usize::from(at)];
                if !one.up {
                    return None;
                }
                state.committed = true;
                if !one.applied {
                    self.apply(at, one);
                }
                let others = (self.serving < 2 || self.is(Broken::NoReplicaWait)).then_some(0);
                state.act = Act::Settling { at, others };
            }
            (Step::OthersDone, Act::Settling { at, others: None }) => {
                let (_, other) = state
                    .serving
                    .iter()
                    .enumerate()
                    .find(|(number, _)| *number != usize::from(at))?;
                let silent = if self.is(Broken::NoLeaseWaitAfterSilence) {
                    SILENT
                } else {
                    SILENT + LEASE
                };
                // `Waiting`: what it said when it was first found to have the change in force, else its silence.
                let rest = if other.row.applied {
                    other.row.leases
                } else if other.row_age >= silent {
                    0
                } else {
                    return None;
                };
                let others = Some(rest);
                state.act = Act::Settling { at, others };
            }
            (
                Step::Return,
                Act::Settling {
                    at,
                    others: Some(0),
                },
            ) => {
                let one = &state.serving[usize::from(at)];
                let booked = one.book > 0 && !self.is(Broken::NoLeaseWait);
                if booked || one.forgotten > 0 {
                    return None;
                }
                state.act = Act::Returned;
            }
            _ => return None,
        }
        Some(())
    }
}

/// A row is written. What is left of the leases that it told of before stays.
fn write(one: &mut Serving, row: Row) {
    one.row = Row {
        leases: one.row.leases.max(row.leases),
        ..row
    };
    one.row_age = 0;
}

impl Model for Protocol {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        // The asking side slow and the serving side fast is what a lease has to fear, and the other way round.
        let rates = [
            Rates {
                serving: [11, 10],
                asking: [10, 11],
                store: 10,
            },
            Rates {
                serving: [10, 11],
                asking: [11, 10],
                store: 11,
            },
        ];
        let state = |rates| State {
            rates,
            committed: false,
            act: Act::NotYet,
            serving: (0..self.serving).map(|_| self.fresh(false, 0)).collect(),
            asking: (0..self.asking)
                .map(|number| Asking {
                    budget: if number == 0 { self.questions } else { 1 },
                    ..Asking::default()
                })
                .collect(),
            crashes: self.crashes,
            left_late: false,
            served_late: false,
        };
        let both = usize::from(self.serving < 2 || self.asking < 2) + 1;
        rates.map(state).into_iter().take(both).collect()
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        if state.left_late || state.served_late {
            return;
        }
        steps.push(Step::Wait);
        for n in 0..self.asking {
            steps.extend([
                Step::Ask(n),
                Step::Arrive(n),
                Step::Check(n),
                Step::Write(n),
                Step::Forget(n),
            ]);
        }
        for at in 0..self.serving {
            steps.extend((0..self.asking).map(|asker| Step::Receive { at, asker }));
            steps.extend([
                Step::Begin(at),
                Step::Leave(at),
                Step::Heartbeat(at),
                Step::WriteRow(at),
                Step::ReadStore(at),
                Step::HearHeartbeat(at),
                Step::WriteStray(at),
                Step::Crash(at),
                Step::Restart(at),
                Step::Act(at),
            ]);
        }
        steps.extend([Step::OthersDone, Step::Return]);
    }

    fn next_state(&self, before: &State, step: Step) -> Option<State> {
        let mut state = before.clone();
        match step {
            Step::Wait => self.wait(&mut state),
            Step::Ask(_) | Step::Arrive(_) | Step::Check(_) | Step::Write(_) | Step::Forget(_) => {
                self.asking(&mut state, step)
            }
            Step::Receive { .. } | Step::Begin(_) | Step::Leave(_) => {
                self.answering(&mut state, step)
            }
            Step::Heartbeat(_)
            | Step::WriteRow(_)
            | Step::ReadStore(_)
            | Step::HearHeartbeat(_)
            | Step::WriteStray(_)
            | Step::Crash(_)
            | Step::Restart(_) => self.replicating(&mut state, step),
            Step::Act(_) | Step::OthersDone | Step::Return => self.acting(&mut state, step),
        }?;
        if state.act == Act::Returned {
            // Nobody looks at rows any more.
            for one in &mut state.serving {
                one.row = Row::default();
                one.row_age = 0;
                one.stray = None;
            }
        }
        (state != *before).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(LEAVES_LATE, |_, state: &State| !state.left_late),
            Property::always(SERVED_LATE, |_, state: &State| !state.served_late),
            Property::sometimes("the act returns", |_, state: &State| {
                state.act == Act::Returned
            }),
            Property::sometimes(
                "an answer is served from a cache while the act waits",
                |_, state: &State| {
                    matches!(state.act, Act::Settling { .. })
                        && state.asking.iter().any(|one| one.checked == Some(0))
                },
            ),
        ]
    }
}

/// Searches the whole state space, which has more states than `least`: a model that cannot get far would keep any promise.
fn keeps_the_promise(model: Protocol, least: usize) {
    let checker = model.checker().threads(2).spawn_bfs().join();
    checker.assert_properties();
    let states = checker.unique_state_count();
    println!("{states} states");
    assert!(states > least, "{states}");
}

/// Whether the searches may take minutes, as the long counts do.
fn is_long() -> bool {
    std::env::var_os("MOSAIC_SOAK").is_some()
}

/// Fails unless the model finds something late.
fn is_violated(model: Protocol) {
    let broken = model.broken;
    let checker = model
        .checker()
        .threads(2)
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    let late = [LEAVES_LATE, SERVED_LATE];
    let violated = late.iter().any(|name| checker.discovery(name).is_some());
    assert!(violated, "{broken:?} is not noticed");
}

#[test]
fn one_serving_side_that_crashes_keeps_the_promise_to_two_askers() {
    keeps_the_promise(
        Protocol {
            asking: 2,
            questions: 1,
            ..Protocol::with(Broken::Nothing)
        },
        100_000,
    );
}

#[test]
fn an_asker_that_renews_keeps_the_promise() {
    keeps_the_promise(Protocol::with(Broken::Nothing), 10_000);
}

/// Two replicas and one asking side, which asks once.
fn two_replicas(broken: Broken) -> Protocol {
    Protocol {
        serving: 2,
        questions: 1,
        ..Protocol::with(broken)
    }
}

#[test]
fn two_replicas_of_which_one_crashes_keep_the_promise() {
    keeps_the_promise(
        Protocol {
            steps: is_long(),
            ..two_replicas(Broken::Nothing)
        },
        100_000,
    );
}

#[test]
fn heartbeats_that_are_late_at_any_step_keep_the_promise() {
    keeps_the_promise(
        Protocol {
            crashes: u8::from(is_long()),
            patience: 0,
            strays: true,
            ..two_replicas(Broken::Nothing)
        },
        100_000,
    );
}

#[test]
fn two_replicas_keep_the_promise_to_two_askers() {
    keeps_the_promise(
        Protocol {
            asking: 2,
            crashes: 0,
            patience: 0,
            steps: is_long(),
            ..two_replicas(Broken::Nothing)
        },
        100_000,
    );
}

#[test]
fn every_part_of_the_protocol_is_needed() {
    for broken in [
        Broken::NoPauseBound,
        Broken::CountedFromReceipt,
        Broken::NoStartWait,
        Broken::WholeLease,
        Broken::NoLeaseWait,
    ] {
        is_violated(Protocol::with(broken));
    }
    for broken in [
        Broken::NoReplicaWait,
        Broken::NoFence,
        Broken::NoLeaseWaitAfterSilence,
        Broken::LeasesUnsaid,
        Broken::ReadFirst,
        Broken::SaidTooEarly,
        Broken::FenceFromReceipt,
    ] {
        is_violated(Protocol {
            crashes: 0,
            patience: 0,
            ..two_replicas(broken)
        });
    }
}
