//! The shared limiter against a real server: several of them share one bucket, exactly, and each goes on without it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use certs::SystemClock;
use policy::id::GrantId;
use policy::rate::Rate;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;
use uuid::Uuid;

use super::*;
use crate::config::{Valkey, ValkeyUrl};
use crate::limit::Quota;

/// Long enough for a busy machine; what waits for it is tested apart.
const LONG: Duration = Duration::from_secs(5);

/// The server of this run; without one the test says so and is counted as skipped.
fn server(test: &str) -> Option<String> {
    let found = std::env::var("MOSAIC_TEST_VALKEY").ok();
    if found.is_none() {
        println!("SKIPPED {test}: MOSAIC_TEST_VALKEY names no server");
    }
    found
}

fn limiter(url: &str, patience: Duration) -> (Arc<SharedLimiter>, Arc<Metrics>) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let metrics = Arc::new(Metrics::new().unwrap());
    let own = Arc::new(LocalLimiter::new(Arc::clone(&clock)));
    let options = ValkeyOptions::new(&valkey(url, patience), None, None).unwrap();
    let shared = SharedLimiter::new(options, own, clock, Arc::clone(&metrics));
    (Arc::new(shared), metrics)
}

fn valkey(url: &str, timeout: Duration) -> Valkey {
    Valkey {
        servers: ValkeyUrl::parse(url).unwrap(),
        sentinel_user: None,
        sentinel_password_file: None,
        roots: None,
        only_this_host: true,
        timeout,
    }
}

/// The bucket of a grant that nobody else has.
fn bucket(grant: Uuid, purpose: Purpose, quota: Quota) -> Limited {
    Limited {
        key: BucketKey {
            grant: GrantId::new(grant),
            purpose,
        },
        quota,
    }
}

fn fallbacks(metrics: &Metrics) -> u64 {
    let text = String::from_utf8(metrics.render().unwrap()).unwrap();
    let name = "mosaic_federation_shared_limit_fallbacks_total ";
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_replicas_together_let_through_what_one_would() {
    let Some(url) = server("four_replicas_together_let_through_what_one_would") else {
        return;
    };
    // 200 a second and 100 at once.
    let limit = bucket(
        Uuid::new_v4(),
        Purpose::Questions,
        Quota::of(Rate::new(12_000, 100).unwrap()),
    );
    let began = SystemClock.boot_nanos();
    let passed = move || Duration::from_nanos(SystemClock.boot_nanos() - began);
    let replicas = (0..4).map(|_| {
        let (replica, metrics) = limiter(&url, LONG);
        tokio::spawn(async move {
            let mut accepted = 0u32;
            while passed() < Duration::from_secs(3) {
                accepted += u32::from(replica.draw(&[limit]).await.from.is_some());
            }
            assert_eq!(fallbacks(&metrics), 0);
            accepted
        })
    });
    let counts = futures_util::future::join_all(replicas.collect::<Vec<_>>()).await;
    let accepted: u32 = counts.into_iter().map(Result::unwrap).sum();
    let due = 100.0 + passed().as_secs_f64() * 200.0;
    let ratio = f64::from(accepted) / due;
    println!("{accepted} accepted of {due:.0} due: {ratio:.4}");
    // Never more than is due; less only by what came due after the last draw.
    assert!(ratio <= 1.0 && ratio > 0.97, "{ratio}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_is_exact_and_standings_are_those_of_one_process() {
    let Some(url) = server("a_wait_is_exact_and_standings_are_those_of_one_process") else {
        return;
    };
    let (shared, _) = limiter(&url, LONG);
    let quota = Quota::of(Rate::new(600, 3).unwrap());
    let grant = Uuid::new_v4();
    let limit = bucket(grant, Purpose::Questions, quota);
    assert_eq!(
        shared.look(limit).await,
        Standing {
            remaining: 3,
            full_in: Duration::ZERO
        }
    );
    for left in [2, 1, 0] {
        let drawn = shared.draw(&[limit]).await;
        assert_eq!((drawn.from, drawn.standing.remaining), (Some(0), left));
        assert_eq!(drawn.retry_in, Duration::ZERO);
    }
    let refused = shared.draw(&[limit]).await;
    assert_eq!(refused.from, None);
    assert!(refused.retry_in > Duration::ZERO && refused.retry_in <= Duration::from_millis(100));
    assert!(refused.standing.full_in <= Duration::from_millis(300));
    // A refusal has taken nothing: the same wait, less what has passed.
    assert!(shared.draw(&[limit]).await.retry_in <= refused.retry_in);
    tokio::time::sleep(refused.retry_in).await;
    assert_eq!(shared.draw(&[limit]).await.from, Some(0));

    // The bucket of its own comes first, and then the common one.
    let own = bucket(
        grant,
        Purpose::Revalidation,
        Quota::per_window(1, Duration::from_secs(600)),
    );
    let common = bucket(
        grant,
        Purpose::Renewal,
        Quota::per_window(2, Duration::from_secs(600)),
    );
    let places: Vec<_> = [
        shared.draw(&[own, common]).await,
        shared.draw(&[own, common]).await,
    ]
    .map(|drawn| (drawn.from, drawn.standing.remaining))
    .to_vec();
    assert_eq!(places, [(Some(0), 2), (Some(1), 1)]);
    assert_eq!(shared.draw(&[common]).await.from, Some(0));
    let refused = shared.draw(&[own, common]).await;
    assert_eq!((refused.from, refused.standing.remaining), (None, 0));
    assert!(
        refused.retry_in > Duration::from_secs(299) && refused.retry_in <= Duration::from_secs(300)
    );
}

/// A way to the server that can be cut and mended.
async fn way(url: &str) -> (String, watch::Sender<bool>) {
    let server = url
        .strip_prefix("redis://")
        .unwrap()
        .trim_end_matches('/')
        .to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (open, opened) = watch::channel(true);
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let (server, mut opened) = (server.clone(), opened.clone());
            tokio::spawn(async move {
                if !*opened.borrow() {
                    return;
                }
                let mut far = TcpStream::connect(server).await.unwrap();
                tokio::select! {
                    _ = copy_bidirectional(&mut near, &mut far) => {}
                    _ = opened.wait_for(|open| !*open) => {}
                }
            });
        }
    });
    (format!("redis://{address}"), open)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_server_nothing_fails_and_half_is_let_through_until_it_is_back() {
    let Some(url) =
        server("without_the_server_nothing_fails_and_half_is_let_through_until_it_is_back")
    else {
        return;
    };
    let (url, open) = way(&url).await;
    let (shared, metrics) = limiter(&url, LONG);
    let quota = Quota::per_window(10, Duration::from_secs(3_600));
    let busy = bucket(Uuid::new_v4(), Purpose::Questions, quota);
    for _ in 0..6 {
        assert_eq!(shared.draw(&[busy]).await.from, Some(0));
    }
    assert_eq!(fallbacks(&metrics), 0);
    open.send(false).unwrap();
    // Half of what there would be; what was drawn there was drawn here as well.
    let fresh = bucket(Uuid::new_v4(), Purpose::Questions, quota);
    let mut accepted = [0, 0];
    for _ in 0..10 {
        for (count, limit) in accepted.iter_mut().zip([busy, fresh]) {
            *count += u32::from(shared.draw(&[limit]).await.from.is_some());
        }
    }
    assert_eq!(accepted, [0, 5]);
    assert_eq!(fallbacks(&metrics), 20);
    open.send(true).unwrap();
    // Four are left there; it is asked again within a second or so.
    let back = async {
        while shared.look(busy).await.remaining != 4 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(30), back)
        .await
        .expect("it is asked again");
    for left in [3, 2, 1, 0] {
        assert_eq!(shared.draw(&[busy]).await.standing.remaining, left);
    }
    assert_eq!(shared.draw(&[busy]).await.from, None);
}

#[tokio::test]
async fn a_server_that_says_nothing_delays_one_request_a_second_and_no_longer_than_told() {
    // Accepts and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", silent.local_addr().unwrap());
    let (shared, metrics) = limiter(&url, Duration::from_millis(20));
    let quota = Quota::per_window(1_000, Duration::from_secs(60));
    let limit = bucket(Uuid::new_v4(), Purpose::Questions, quota);
    for _ in 0..100 {
        assert_eq!(shared.draw(&[limit]).await.from, Some(0));
    }
    assert_eq!(fallbacks(&metrics), 100);
    assert!(shared.away_until.load(Ordering::Acquire) > 0);
}

#[test]
fn an_address_that_cannot_be_used_is_refused() {
    let valkey = valkey("redis://localhost/?protocol=none", LONG);
    assert!(ValkeyOptions::new(&valkey, None, None).is_err());
}

mod several;
