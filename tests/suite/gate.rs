//! The gate of a connection under load: a write is wholly before a change, or refused.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use certs::{Clock, SystemClock};
use policy::id::GrantId;
use policy::revision::{EffectiveRevision, RevisionKey};
use proxy::transport::pause::SERVING_PAUSE;
use proxy::transport::{ConnectionGate, GateRegistry, GatedStream, PauseWatch, Stale};
use support::reader::PATIENCE;
use support::rounds;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A revision for each number.
fn revision(grant: GrantId, number: u64) -> EffectiveRevision {
    let key = RevisionKey::new(&[7; 32]);
    EffectiveRevision::of(&key, grant, number, &[0; 32])
}

/// One connection after the other, each answering under the revision it finds, until told to stop.
/// Gives the number of writes that passed.
fn answer_until(
    registry: &Arc<GateRegistry>,
    grant: GrantId,
    multiplexed: bool,
    (current, returned, stop): (&AtomicU64, &AtomicU64, &AtomicBool),
) -> u64 {
    let mut passed = 0;
    while !stop.load(Ordering::SeqCst) {
        let gate = ConnectionGate::new();
        if multiplexed {
            gate.mark_multiplexed();
        }
        let _registered = registry.register(grant, &gate);
        'connection: while !stop.load(Ordering::SeqCst) {
            let number = current.load(Ordering::SeqCst);
            let live = || Some(revision(grant, current.load(Ordering::SeqCst)));
            let answer = match gate.begin(revision(grant, number), live, || {}) {
                Ok(answer) => answer,
                Err(Stale::RevisionMoved) => continue,
                Err(Stale::Cut) => break,
            };
            for _ in 0..8 {
                let Ok(pass) = gate.pass() else {
                    break 'connection;
                };
                // A change that has returned cannot be newer than a write under way.
                let newest = returned.load(Ordering::SeqCst);
                assert!(
                    newest <= number,
                    "a write under {number} after {newest} had returned"
                );
                passed += 1;
                drop(pass);
            }
            drop(answer);
        }
    }
    passed
}

#[test]
fn a_write_passes_the_gate_before_a_change_or_not_at_all() {
    let registry = GateRegistry::new();
    let grant = GrantId::new(uuid::Uuid::new_v4());
    let (current, returned) = (AtomicU64::new(0), AtomicU64::new(0));
    let stop = AtomicBool::new(false);
    let shared = (&current, &returned, &stop);
    let (mut passed, mut cut) = (0, 0);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|worker| {
                let registry = &registry;
                scope.spawn(move || answer_until(registry, grant, worker % 2 == 0, shared))
            })
            .collect();
        for number in 1..=u64::from(rounds(1_000, 100_000)) {
            current.store(number, Ordering::SeqCst);
            let count = registry.change(grant, Some(revision(grant, number)));
            returned.store(number, Ordering::SeqCst);
            cut += count.reset;
            if number.is_multiple_of(16) {
                std::thread::yield_now();
            }
        }
        stop.store(true, Ordering::SeqCst);
        passed = workers
            .into_iter()
            .map(|worker| worker.join().unwrap())
            .sum();
    });
    assert!(
        passed > 0 && cut > 0,
        "{passed} writes passed, {cut} connections were cut"
    );
    assert!(registry.is_empty(), "connections leave the register");
}

#[test]
fn no_lease_is_booked_after_the_change_that_ends_its_revision() {
    let registry = GateRegistry::new();
    let grant = GrantId::new(uuid::Uuid::new_v4());
    let (current, closed) = (AtomicU64::new(0), AtomicU64::new(0));
    let (booked, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(Ordering::SeqCst) {
                    let gate = ConnectionGate::new();
                    let _registered = registry.register(grant, &gate);
                    let number = current.load(Ordering::SeqCst);
                    let live = || Some(revision(grant, current.load(Ordering::SeqCst)));
                    let book = || {
                        let newest = closed.load(Ordering::SeqCst);
                        assert!(newest <= number, "booked for {number} after {newest}");
                        booked.fetch_add(1, Ordering::SeqCst);
                    };
                    drop(gate.begin(revision(grant, number), live, book));
                }
            });
        }
        for number in 1..=u64::from(rounds(1_000, 100_000)) {
            current.store(number, Ordering::SeqCst);
            registry.change(grant, Some(revision(grant, number)));
            closed.store(number, Ordering::SeqCst);
            if number.is_multiple_of(16) {
                std::thread::yield_now();
            }
        }
        stop.store(true, Ordering::SeqCst);
    });
    assert!(booked.load(Ordering::SeqCst) > 0, "no lease was booked");
}

/// A clock that has gone on by more than a pause at each reading.
#[derive(Debug, Default)]
struct Jumping(AtomicU64);

impl Clock for Jumping {
    fn unix_millis(&self) -> i64 {
        0
    }

    fn boot_nanos(&self) -> u64 {
        self.0.fetch_add(SERVING_PAUSE + 1, Ordering::SeqCst)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_was_late_after_its_check_cuts_the_connection_and_is_counted() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut reader = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (socket, _) = listener.accept().await.unwrap();
    let gate = ConnectionGate::new();
    let pauses = PauseWatch::new(Arc::new(Jumping::default()));
    let mut stream = GatedStream::new(socket, Arc::clone(&gate), Arc::clone(&pauses));
    let late = stream.write(b"late").await.unwrap_err();
    assert_eq!(late.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(pauses.exceeded(), 1);
    assert!(gate.resets());
    assert!(stream.write(b"more").await.is_err());
    drop(stream);
    let mut got = Vec::new();
    let end = reader.read_to_end(&mut got).await;
    assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_does_not_wait_for_a_blocked_write() {
    let registry = GateRegistry::new();
    let grant = GrantId::new(uuid::Uuid::new_v4());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut reader = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (socket, _) = listener.accept().await.unwrap();
    let gate = ConnectionGate::new();
    let pauses = PauseWatch::new(Arc::new(SystemClock));
    let _registered = registry.register(grant, &gate);
    let _answer = gate
        .begin(revision(grant, 1), || Some(revision(grant, 1)), || {})
        .unwrap();
    let accepted = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&accepted);
    let mut stream = GatedStream::new(socket, Arc::clone(&gate), pauses);
    let writing = tokio::spawn(async move {
        let piece = [0; 16 * 1024];
        let write = async {
            loop {
                match stream.write(&piece).await {
                    Ok(written) => {
                        count.fetch_add(u64::try_from(written).unwrap(), Ordering::SeqCst)
                    }
                    Err(error) => return error.kind(),
                };
            }
        };
        tokio::select! {
            error = write => Some(error),
            () = gate.cut() => None,
        }
    });
    let mut last = u64::MAX;
    while last != accepted.load(Ordering::SeqCst) {
        last = accepted.load(Ordering::SeqCst);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let change = tokio::task::spawn_blocking(move || registry.change(grant, None));
    let cut = tokio::time::timeout(PATIENCE, change)
        .await
        .expect("it returns")
        .unwrap();
    assert_eq!((cut.reset, cut.closed), (1, 0));
    let at_return = accepted.load(Ordering::SeqCst);
    // Whichever is looked at first: the write that is refused, or the cut.
    let error = writing.await.unwrap();
    assert!(
        matches!(error, None | Some(std::io::ErrorKind::ConnectionReset)),
        "{error:?}"
    );
    let mut taken = 0;
    let mut piece = vec![0; 64 * 1024];
    let end = loop {
        match reader.read(&mut piece).await {
            Ok(0) => break None,
            Ok(read) => taken += u64::try_from(read).unwrap(),
            Err(error) => break Some(error.kind()),
        }
    };
    assert_eq!(end, Some(std::io::ErrorKind::ConnectionReset));
    assert!(taken <= at_return, "{taken} of {at_return} bytes arrived");
    assert_eq!(accepted.load(Ordering::SeqCst), at_return);
}
