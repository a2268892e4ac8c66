//! Checkpoints verify with the public key alone, and with nothing changed.
#![allow(clippy::unwrap_used, clippy::panic)]

use super::super::fixture::id;
use super::*;

fn signer() -> CheckpointSigner {
    CheckpointSigner::from_pkcs8(&CheckpointSigner::generate().unwrap()).unwrap()
}

fn checkpoint(chain: u64, seq: u64) -> Checkpoint {
    Checkpoint {
        store: id(1),
        head: Head {
            chain: id(chain),
            seq,
            hash: [9; 32],
        },
        at: UnixMillis(1_700_000_000_000),
    }
}

#[test]
fn a_checkpoint_proves_its_values_and_no_others() {
    let signer = signer();
    let signed = signer.sign(&checkpoint(2, 40));
    let public = CheckpointVerifier::parse(&signer.verifier().to_hex()).unwrap();
    assert_eq!(signed.verify(&public), Ok(checkpoint(2, 40)));
    let changes: [fn(&mut SignedCheckpoint); 6] = [
        |one| one.seq += 1,
        |one| one.at -= 1,
        |one| one.chain = id(3),
        |one| one.store = id(3),
        |one| one.hash = "00".repeat(32),
        |one| one.signature.replace_range(0..2, "ff"),
    ];
    for (n, change) in changes.into_iter().enumerate() {
        let mut changed = signed.clone();
        change(&mut changed);
        if n == 5 && changed == signed {
            change(&mut changed);
        }
        assert_eq!(
            changed.verify(&public),
            Err(CheckpointError::Signature),
            "{n}"
        );
    }
    let other = self::signer().verifier();
    assert_eq!(signed.verify(&other), Err(CheckpointError::Signature));
}

#[test]
fn the_file_keeps_the_newest_of_each_chain_and_only_for_its_owner() {
    use std::os::unix::fs::PermissionsExt;
    let home = tempfile::tempdir().unwrap();
    let file = CheckpointFile::in_dir(home.path());
    assert_eq!(file.load().unwrap(), []);
    let signer = signer();
    for (chain, seq) in [(2, 1), (2, 5), (3, 1), (2, 9)] {
        file.keep(&signer.sign(&checkpoint(chain, seq))).unwrap();
    }
    let kept: Vec<_> = file
        .load()
        .unwrap()
        .into_iter()
        .map(|one| one.verify(&signer.verifier()).unwrap().head)
        .map(|head| (head.chain, head.seq))
        .collect();
    assert_eq!(kept, [(id(3), 1), (id(2), 9)]);
    let mode = std::fs::metadata(file.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    std::fs::write(file.path(), "{}\n").unwrap();
    assert!(matches!(file.load(), Err(CheckpointError::Malformed(_))));
}
