//! The laws of merging, over sources that page as a serving side does.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::VecDeque;

use bytes::Bytes;
use proptest::prelude::*;

use super::super::page::Row;
use super::*;

/// A source: its rows newest first, and the most rows of a page. A cursor is the number of rows before it.
#[derive(Debug, Clone)]
struct Source {
    rows: Vec<Key>,
    page: usize,
}

fn key(millis: i64, id: &str) -> Key {
    let created_at = format!("1970-01-01T00:00:00.{millis:03}Z");
    Key::parse(&created_at, id).unwrap()
}

impl Source {
    fn serve(&self, start: Option<&str>, limit: usize) -> Page {
        let from: usize = start.map_or(0, |start| start.parse().unwrap());
        let until = (from + self.page.min(limit)).min(self.rows.len());
        let rows = self.rows[from..until].iter().map(|key| Row {
            key: key.clone(),
            text: Bytes::from(key.id.clone()),
        });
        Page {
            rows: rows.collect::<VecDeque<_>>(),
            next: (until < self.rows.len()).then(|| until.to_string()),
            partial: false,
            truncated: false,
        }
    }
}

/// A few sources whose rows share a handful of instants; ids say whose they are.
fn sources() -> impl Strategy<Value = Vec<Source>> {
    let source = (prop::collection::vec(0_i64..12, 0..20), 1_usize..6);
    prop::collection::vec(source, 1..5).prop_map(|sources| {
        let source = |(number, (mut instants, page)): (usize, (Vec<i64>, usize))| {
            instants.sort_unstable_by(|a, b| b.cmp(a));
            let rows = instants.into_iter().enumerate();
            let rows = rows.map(|(row, millis)| key(millis, &format!("{number}-{:02}", 99 - row)));
            Source {
                rows: rows.collect(),
                page,
            }
        };
        sources.into_iter().enumerate().map(source).collect()
    })
}

/// One answer: pages are fetched at most `rounds` times. Gives the ids that came out, and where each source stands.
fn answer(sources: &[Source], feeds: &mut [Feed], limit: usize, rounds: usize) -> Vec<String> {
    let mut merged = Merged::default();
    for _ in 0..rounds {
        for feed in feeds.iter_mut().filter(|feed| feed.stage == Stage::Due) {
            let number: usize = feed.name.parse().unwrap();
            feed.take(sources[number].serve(feed.start.as_deref(), limit));
        }
        if merged.run(feeds, limit.try_into().unwrap(), usize::MAX) != Stop::Due {
            break;
        }
    }
    let text = String::from_utf8(merged.rows).unwrap();
    let ids: Vec<String> = text
        .split(',')
        .filter(|id| !id.is_empty())
        .map(str::to_owned)
        .collect();
    assert_eq!(u64::try_from(ids.len()).unwrap(), merged.count);
    ids
}

/// As the cursor does it: only name, start and last survive from one answer to the next.
fn forget(feeds: Vec<Feed>) -> Vec<Feed> {
    feeds
        .into_iter()
        .filter(Feed::has_more)
        .map(|feed| Feed::new(&feed.name, feed.start, feed.last))
        .collect()
}

fn begin(sources: &[Source]) -> Vec<Feed> {
    (0..sources.len())
        .map(|number| Feed::new(&number.to_string(), None, None))
        .collect()
}

/// Every answer until there is no more.
fn read(sources: &[Source], limit: usize, rounds: usize) -> Vec<String> {
    let mut feeds = begin(sources);
    let mut ids = Vec::new();
    for _ in 0..1_000 {
        ids.extend(answer(sources, &mut feeds, limit, rounds));
        feeds = forget(feeds);
        if feeds.is_empty() {
            return ids;
        }
    }
    panic!("it never ends");
}

fn expected(sources: &[Source]) -> Vec<Key> {
    let mut all: Vec<Key> = sources
        .iter()
        .flat_map(|source| source.rows.clone())
        .collect();
    all.sort_by(|a, b| b.cmp(a));
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn every_row_comes_out_once_newest_first(sources in sources(), limit in 1_usize..30, rounds in 1_usize..4) {
        let ids = read(&sources, limit, rounds);
        let wanted: Vec<String> = expected(&sources).into_iter().map(|key| key.id).collect();
        prop_assert_eq!(ids, wanted);
    }

    #[test]
    fn rows_made_while_paging_are_not_shown_twice_nor_push_others_out(
        sources in sources(), limit in 1_usize..10, made in prop::collection::vec(0_usize..4, 1..12),
    ) {
        let mut world = sources.clone();
        let mut feeds = begin(&world);
        let mut ids = Vec::new();
        let mut made = made.into_iter();
        for number in 0..1_000 {
            ids.extend(answer(&world, &mut feeds, limit, 2));
            feeds = forget(feeds);
            if feeds.is_empty() {
                break;
            }
            if let Some(source) = made.next().filter(|source| *source < world.len()) {
                // Newer than everything; cursors of a serving side stay where they were.
                world[source].rows.insert(0, key(900, &format!("new-{number:03}")));
                for feed in &mut feeds {
                    if feed.name == source.to_string() && let Some(start) = &mut feed.start {
                        *start = (start.parse::<usize>().unwrap() + 1).to_string();
                    }
                }
            }
        }
        ids.retain(|id| !id.starts_with("new"));
        let mut unique = ids.clone();
        unique.sort();
        unique.dedup();
        prop_assert_eq!(unique.len(), ids.len(), "shown twice: {:?}", ids);
        let mut wanted: Vec<String> = expected(&sources).into_iter().map(|key| key.id).collect();
        wanted.sort();
        prop_assert_eq!(unique, wanted);
    }
}

#[test]
fn an_empty_page_is_no_end() {
    let mut feeds = vec![Feed::new("a", None, None), Feed::new("b", None, None)];
    let row = |millis, id: &str| Row {
        key: key(millis, id),
        text: Bytes::from(id.to_owned()),
    };
    feeds[0].take(Page {
        next: Some("1".to_owned()),
        ..Page::default()
    });
    feeds[1].take(Page {
        rows: [row(1, "b")].into(),
        ..Page::default()
    });
    let mut merged = Merged::default();
    assert_eq!(merged.run(&mut feeds, 10, usize::MAX), Stop::Due);
    assert_eq!(merged.count, 0, "the first source may hold a newer row");
    feeds[0].take(Page {
        rows: [row(2, "a")].into(),
        ..Page::default()
    });
    assert_eq!(merged.run(&mut feeds, 10, usize::MAX), Stop::Ended);
    assert_eq!(merged.rows, b"a,b");
}

#[test]
fn a_failed_source_holds_nobody_up_and_keeps_its_place() {
    let sources = [
        Source {
            rows: vec![key(3, "0-a"), key(1, "0-b")],
            page: 2,
        },
        Source {
            rows: vec![key(2, "1-a")],
            page: 2,
        },
    ];
    let mut feeds = begin(&sources);
    feeds[1].stage = Stage::Failed;
    assert_eq!(answer(&sources, &mut feeds, 10, 2), ["0-a", "0-b"]);
    assert_eq!(
        (feeds[1].start.clone(), feeds[1].last.clone()),
        (None, None)
    );
}

#[test]
fn an_answer_has_a_longest() {
    let source = Source {
        rows: (0..9).map(|n| key(9 - n, &format!("0-{n}"))).collect(),
        page: 9,
    };
    let mut feeds = begin(std::slice::from_ref(&source));
    feeds[0].take(source.serve(None, 9));
    let mut merged = Merged::default();
    assert_eq!(merged.run(&mut feeds, 9, 10), Stop::Long);
    assert_eq!(merged.rows, b"0-0,0-1,0-2");
    assert_eq!(feeds[0].last, Some(key(7, "0-2")));
}
