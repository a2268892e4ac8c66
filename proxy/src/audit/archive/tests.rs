//! Files of the archive: what reads back, what is noticed, and what manifests say of them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;
use tempfile::TempDir;

use super::super::chain::{ChainKey, Head, NO_HASH};
use super::super::fixture::{id, record};
use super::super::query::AuditRow;
use super::super::{AuditOutcome, AuditRecord, AuditText, Direction, HistoryPlace};
use super::*;

fn shelf() -> (TempDir, Shelf) {
    let home = tempfile::tempdir().unwrap();
    let shelf = Shelf {
        dir: home.path().join("archive"),
        store: id(1),
    };
    (home, shelf)
}

/// Rows from before there were chains, then of as many chains.
fn rows(unlinked: u64, chains: u64, each: u64) -> Vec<AuditRow> {
    let (key, mut buffer) = (ChainKey::new(&[7; 32]), Vec::new());
    let mut rows = Vec::new();
    let mut put = |record: AuditRecord, link| {
        let position = i64::try_from(rows.len()).unwrap() * 2 + 1;
        rows.push(AuditRow {
            position,
            record,
            link,
            // Every third has a place in the history of its grant.
            history: (position % 3 == 0).then(|| HistoryPlace {
                gseq: position.unsigned_abs(),
                ghash: [5; 32],
            }),
        });
    };
    for n in 0..unlinked {
        put(record(n), None);
    }
    for chain in 0..chains {
        let mut head = Head {
            chain: id(1_000_000 + chain),
            seq: 0,
            hash: NO_HASH,
        };
        for n in 0..each {
            let record = record(unlinked + chain * each + n);
            let link = key.link(&mut head, &record, &mut buffer);
            put(record, Some(link));
        }
    }
    rows
}

fn write(shelf: &Shelf, number: u64, rows: &[AuditRow]) -> Manifest {
    let lock = shelf.take().unwrap();
    let mut writer = ColdWriter::begin(shelf, number).unwrap();
    for row in rows {
        assert!(writer.push(row).unwrap());
    }
    let finished = writer.finish().unwrap().unwrap();
    finished.sync().unwrap();
    finished.read_back().unwrap();
    finished.rename().unwrap();
    finished.sync_name().unwrap();
    drop(lock);
    finished.manifest().clone()
}

fn read(shelf: &Shelf, file: &ColdFile) -> Result<Vec<AuditRow>, ColdError> {
    let mut reader = ColdReader::open(shelf, file)?;
    let mut all = Vec::new();
    loop {
        let page = reader.rows(7)?;
        if page.is_empty() {
            return Ok(all);
        }
        all.extend(page);
    }
}

#[test]
fn a_file_reads_back_and_is_private() {
    let (_home, shelf) = shelf();
    let rows = rows(3, 2, 50);
    let manifest = write(&shelf, 1, &rows);
    assert_eq!(read(&shelf, &manifest.file).unwrap(), rows);
    let file = &manifest.file;
    assert_eq!(
        (file.rows, file.name().as_str()),
        (103, "00000001.audit.zst")
    );
    let places = (file.first_position, file.last_position);
    assert_eq!(places, (rows[0].position, rows[102].position));
    let spans: Vec<_> = manifest
        .chains
        .iter()
        .map(|span| (span.chain, span.first, span.last, span.hash))
        .collect();
    let last = |n: usize| rows[n].link.unwrap().hash;
    assert_eq!(
        spans,
        [
            (id(1_000_000), 1, 50, last(52)),
            (id(1_000_001), 1, 50, last(102))
        ]
    );
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&shelf.path(1)), 0o600);
    assert_eq!(mode(&shelf.dir), 0o700);
    let size = std::fs::metadata(shelf.path(1)).unwrap().len();
    assert_eq!(size, file.bytes);
    // What there is to say of a row more than once is said in few bytes.
    assert!(size < 103 * 120, "{size}");
}

#[test]
fn every_changed_byte_and_every_cut_is_noticed() {
    let (_home, shelf) = shelf();
    let rows = rows(0, 1, 40);
    let file = write(&shelf, 1, &rows).file;
    let whole = std::fs::read(shelf.path(1)).unwrap();
    let noticed = |bytes: &[u8]| {
        std::fs::write(shelf.path(1), bytes).unwrap();
        match read(&shelf, &file) {
            Err(ColdError::Changed { name, .. }) => name == file.name(),
            _ => false,
        }
    };
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 0x10;
        assert!(noticed(&changed), "byte {at}");
        assert!(noticed(&whole[..at]), "cut at {at}");
    }
    assert!(noticed(&[&whole[..], b"x"].concat()), "one byte more");
    assert!(noticed(&[&whole[..], &whole[..]].concat()), "twice");
    std::fs::remove_file(shelf.path(1)).unwrap();
    let name = file.name();
    assert_eq!(read(&shelf, &file), Err(ColdError::Missing { name }));
}

#[test]
fn rows_in_front_of_a_fault_are_given_out_first() {
    let (_home, shelf) = shelf();
    let rows = rows(0, 1, 5_000);
    let file = write(&shelf, 1, &rows).file;
    let whole = std::fs::read(shelf.path(1)).unwrap();
    std::fs::write(shelf.path(1), &whole[..whole.len() - 40]).unwrap();
    let mut reader = ColdReader::open(&shelf, &file).unwrap();
    let mut given = 0;
    let fault = loop {
        match reader.rows(1_000) {
            Ok(page) => {
                assert!(!page.is_empty(), "it ended well");
                assert_eq!(page, rows[given..given + page.len()]);
                given += page.len();
            }
            Err(fault) => break fault,
        }
    };
    assert!(given > 0);
    assert!(matches!(fault, ColdError::Changed { .. }), "{fault}");
}

#[test]
fn a_file_of_another_place_is_not_taken() {
    let (_home, shelf) = shelf();
    let rows = rows(0, 1, 10);
    let first = write(&shelf, 1, &rows[..5]).file;
    let second = write(&shelf, 2, &rows[5..]).file;
    std::fs::copy(shelf.path(2), shelf.path(1)).unwrap();
    let refused = read(&shelf, &first).unwrap_err().to_string();
    assert!(
        refused.contains("written as `00000002.audit.zst`"),
        "{refused}"
    );
    let elsewhere = Shelf {
        store: id(2),
        ..shelf.clone()
    };
    let refused = read(&elsewhere, &second).unwrap_err().to_string();
    assert!(refused.contains("another store"), "{refused}");
}

#[test]
fn what_was_not_finished_goes_and_only_one_process_is_at_it() {
    let (_home, shelf) = shelf();
    let lock = shelf.take().unwrap();
    let mut writer = ColdWriter::begin(&shelf, 1).unwrap();
    assert!(writer.push(&rows(0, 1, 1)[0]).unwrap());
    assert!(matches!(shelf.take(), Err(ColdError::Busy)));
    drop((lock, writer));
    let part = shelf.dir.join("00000001.audit.zst.part");
    assert!(part.exists());
    let _lock = shelf.take().unwrap();
    assert!(!part.exists());
    // A file without rows is none.
    let none = ColdWriter::begin(&shelf, 1).unwrap().finish().unwrap();
    assert!(none.is_none() && !part.exists());
}

#[test]
fn a_file_holds_so_many_chains_that_its_manifest_can_list_them() {
    let (_home, shelf) = shelf();
    let _lock = shelf.take().unwrap();
    let rows = rows(2, 70, 1);
    let mut writer = ColdWriter::begin(&shelf, 1).unwrap();
    let taken = rows
        .iter()
        .take_while(|row| writer.push(row).unwrap())
        .count();
    assert_eq!(taken, 2 + 64);
    let finished = writer.finish().unwrap().unwrap();
    finished.read_back().unwrap();
    let manifest = finished.manifest();
    assert_eq!(manifest.chains.len(), 64);
    assert_eq!(Manifest::of(&told(manifest)).as_ref(), Some(manifest));
}

/// The row of a manifest, read back from its bytes.
fn told(manifest: &Manifest) -> AuditRow {
    let request = AuditText::fixed("archive");
    let (admin, allowed) = (Direction::Admin, AuditOutcome::Allowed);
    let mut record = AuditRecord::new(id(77), UnixMillis(9), admin, allowed, request);
    record.action = Some(AuditText::fixed(MANIFEST_ACTION));
    record.detail = Some(manifest.detail());
    let bytes = super::super::canonical::to_bytes(&record);
    let position = i64::try_from(manifest.file.number).unwrap() * 1_000;
    AuditRow {
        position,
        record: super::super::canonical::decode(&bytes).unwrap(),
        link: None,
        history: None,
    }
}

#[test]
fn manifests_and_the_list_of_files_must_agree() {
    let file = |number: u64| ColdFile {
        number,
        rows: 5,
        first_position: -3,
        last_position: i64::MAX,
        earliest: UnixMillis(i64::MIN),
        latest: UnixMillis(1),
        bytes: 10,
        sha256: [u8::try_from(number).unwrap(); 32],
    };
    let seen = |numbers: &[u64]| {
        let mut manifests = Manifests::default();
        for number in numbers {
            let chains = Vec::new();
            let file = file(*number);
            manifests.see(&told(&Manifest { file, chains }));
        }
        manifests
    };
    let files = [file(1), file(2), file(3)];
    assert_eq!(seen(&[1, 2, 3]).disagreement(3, &files), None);
    // Made while the log was read.
    assert_eq!(seen(&[1, 2]).disagreement(2, &files), None);
    assert_eq!(seen(&[]).disagreement(0, &[]), None);
    let named = |manifests: Manifests, before, files: &[ColdFile]| {
        let found = manifests.disagreement(before, files).unwrap();
        (found.name, found.position)
    };
    let (first, second) = (file_name(1), file_name(2));
    assert_eq!(
        named(seen(&[1, 2]), 2, &files[..1]),
        (second.clone(), 2_000)
    );
    assert_eq!(named(seen(&[1]), 2, &files), (second.clone(), 0));
    assert_eq!(named(seen(&[2, 3]), 3, &files[1..]), (first, 0));
    // The manifest of the first file was in the second one: that one is named.
    let around = [file(1), file(3)];
    assert_eq!(named(seen(&[2, 3]), 3, &around), (second.clone(), 2_000));
    let other = [file(1), ColdFile { rows: 6, ..file(2) }];
    assert_eq!(named(seen(&[1, 2]), 2, &other), (second, 2_000));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_are_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), packed in any::<bool>()) {
        let (_home, shelf) = shelf();
        let _lock = shelf.take().unwrap();
        // Half of them decompress.
        let bytes = if packed { zstd::encode_all(bytes.as_slice(), 1).unwrap() } else { bytes };
        std::fs::write(shelf.path(1), bytes).unwrap();
        let refused = ColdReader::open_unlisted(&shelf, 1);
        let noticed = matches!(refused, Err(ColdError::Changed { .. }));
        prop_assert!(noticed);
    }
}
