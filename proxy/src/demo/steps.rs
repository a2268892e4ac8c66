//! What the demo shows: a table of steps, each with what has to be seen.
//!
//! Invariant: a step that shows nothing is not in the table; `{name}` in a command or an expectation stands for
//! what an earlier step kept under that name. How a step is played is in `play.rs`.

use super::stage::Side;

/// The user whose data is opened, as the work gateway names her.
pub(super) const WORK_USER: &str = "0a11ce00-0000-4000-8000-0000000000e1";

/// What is done in a step.
#[derive(Debug, Clone, Copy)]
pub(super) enum Act {
    /// This program is run with these words, as on that side's command line.
    Command(Side, &'static str),
    /// A file of that side is printed.
    Print(Side, &'static str),
    /// Later commands of the home side carry the kept session token.
    Session,
    /// The work gateway is told to misbehave, as its control listener takes it.
    Misbehave(&'static str),
}

/// One step and what has to be seen. Expectations are about output and errors together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    /// What is shown and why, for a newcomer; steps without go on with the one before.
    pub(super) say: &'static str,
    /// What is done.
    pub(super) act: Act,
    /// The exit status.
    pub(super) exit: i32,
    /// Texts that have to be there.
    pub(super) shows: &'static [&'static str],
    /// Texts that must not be there.
    pub(super) hides: &'static [&'static str],
    /// The name under which the output is kept.
    pub(super) keeps: &'static str,
    /// The name of an earlier output that this one has to equal.
    pub(super) same_as: &'static str,
    /// Whether what has to be seen may come a little later: audit rows are written behind the request.
    pub(super) soon: bool,
}

/// A step that succeeds and of which nothing more is expected: the others are written as what differs.
const PLAIN: Step = Step {
    say: "",
    act: Act::Session,
    exit: 0,
    shows: &[],
    hides: &[],
    keeps: "",
    same_as: "",
    soon: false,
};

/// The demo.
pub(super) const STEPS: &[Step] = &[
    Step {
        say: "Work: the sidecar asks its gateway with Amira's own token, so it never sees more than she may.\n\
              The gateway is not changed; it does not even know that there is a federation.",
        act: Act::Command(
            Side::Work,
            "gateway token set --user 0a11ce00-0000-4000-8000-0000000000e1 --token-file amira.token",
        ),
        shows: &["registered for"],
        ..PLAIN
    },
    Step {
        act: Act::Command(Side::Work, "gateway check"),
        shows: &["reachable         yes"],
        ..PLAIN
    },
    Step {
        say: "Work: a grant says what home may ask as Amira: tasks of one of her teams and her own, and her notes.\n\
              Nothing else is open.",
        act: Act::Print(Side::Work, "scope.json"),
        ..PLAIN
    },
    Step {
        act: Act::Command(
            Side::Work,
            "grant create --user 0a11ce00-0000-4000-8000-0000000000e1 --peer home --scope scope.json",
        ),
        shows: &["pending"],
        keeps: "grant",
        ..PLAIN
    },
    Step {
        say: "Work: an enrollment URL for that grant. It is good once and for minutes, and carries the fingerprint\n\
              of work's certificate authority; send it to Amira on any channel you trust.",
        act: Act::Command(Side::Work, "grant token {grant}"),
        shows: &["/api/federation/enrollment/", "#sha256="],
        keeps: "url",
        ..PLAIN
    },
    Step {
        say: "Home: redeeming it makes a key that never leaves home, gets a certificate for it, and proves the path\n\
              with one question over mutual TLS. That is all there is to onboarding.",
        act: Act::Command(Side::Home, "peer add {url} --user amira --name work"),
        shows: &["{grant}", "tasks, notes"],
        ..PLAIN
    },
    Step {
        say: "Home: a session for an agent. Its token opens the local door to the peers of this one user.",
        act: Act::Command(Side::Home, "session create --user amira"),
        shows: &["shown once"],
        keeps: "session",
        ..PLAIN
    },
    Step {
        act: Act::Session,
        ..PLAIN
    },
    Step {
        say: "Home: what may be asked, then a list, then one row. Rows are read at work when they are asked for and\n\
              kept nowhere else.",
        act: Act::Command(Side::Home, "query capabilities --peer work"),
        shows: &["tasks, notes", "list, get, search, capabilities"],
        hides: &["credentials"],
        ..PLAIN
    },
    Step {
        act: Act::Command(Side::Home, "query list tasks --peer work"),
        shows: &["private: Amira's errand", "AC-10: design", "there is more"],
        hides: &["Ben", "Chloe"],
        keeps: "rows",
        ..PLAIN
    },
    Step {
        act: Act::Command(
            Side::Home,
            "query get tasks 00000003-f0ed-4000-8000-000000000001 --peer work",
        ),
        shows: &["AC-1 Two gateways establish a grant by command line"],
        // The gateway's row has one: names that say secret are removed on the way.
        hides: &["tokenCount"],
        ..PLAIN
    },
    Step {
        say: "Home: Ben's errand exists, but the grant is about Amira. The answer is the same as for a row that\n\
              does not exist, so nobody can find out what there is.",
        act: Act::Command(
            Side::Home,
            "query get tasks 00000003-f0ed-4000-8000-000000000812 --peer work",
        ),
        exit: 3,
        shows: &["not_found"],
        hides: &["Ben"],
        ..PLAIN
    },
    Step {
        say: "Home: the grant does not name credentials, so they are refused before the gateway is even asked. With\n\
              `--json` errors are JSON too.",
        act: Act::Command(Side::Home, "query list credentials --peer work --json"),
        exit: 4,
        shows: &["\"scope_violation\"", "resource_not_granted"],
        hides: &["leak-canary"],
        ..PLAIN
    },
    Step {
        say: "Work: now the gateway is made to err. It answers every user's rows to anybody who asks.",
        act: Act::Misbehave("{\"over_share\":[\"rows\"]}"),
        ..PLAIN
    },
    Step {
        say: "Home: the same list shows the same rows. The sidecar checks the owner and team of every row again,\n\
              whatever the gateway says.",
        act: Act::Command(Side::Home, "query list tasks --peer work"),
        hides: &["Ben", "Chloe"],
        same_as: "rows",
        ..PLAIN
    },
    Step {
        say: "Work: the audit log counts the rows that had to be withheld. While the gateway was honest there were none.",
        act: Act::Command(
            Side::Work,
            "audit query --verb list --resource tasks --limit 1",
        ),
        shows: &[
            "ROWS  WITHHELD",
            "list tasks  200     -     5     ",
            "{grant}",
        ],
        hides: &["   5     0   "],
        soon: true,
        ..PLAIN
    },
    Step {
        say: "Work: Amira leaves. When the command returns, nothing is answered under the grant any more, on open\n\
              connections too.",
        act: Act::Command(Side::Work, "grant revoke {grant} --reason left"),
        shows: &["revision"],
        ..PLAIN
    },
    Step {
        say: "Home: the next request says so, and whom to ask.",
        act: Act::Command(Side::Home, "query list tasks --peer work"),
        exit: 4,
        shows: &["grant_revoked"],
        hides: &["private"],
        ..PLAIN
    },
    Step {
        say: "Both: every question and every act of an operator is in the audit logs, never a row's content.",
        act: Act::Command(Side::Work, "audit query --grant {grant}"),
        shows: &[
            "grant.create",
            "grant.activate",
            // The honest gateway's list: 5 rows returned, none withheld.
            "list tasks          200     -                     5     0   ",
            "list credentials",
            "grant.revoke",
        ],
        hides: &["private", "errand"],
        soon: true,
        ..PLAIN
    },
    Step {
        act: Act::Command(Side::Home, "audit query --outcome denied"),
        shows: &["not_found", "resource_not_granted", "grant_revoked"],
        soon: true,
        ..PLAIN
    },
];
