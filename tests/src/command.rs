//! The command line against a sidecar that runs in this process.
//!
//! Invariant: it is the product's command line, arguments in and exit status and texts out; it reaches the sidecar
//! through its admin socket only.

use std::ffi::OsString;
use std::path::Path;

use proxy::cli::{AuthorityRoot, EntryPoints};
use proxy::exit::Exit;

/// What a command came to.
#[derive(Debug)]
pub struct Ran {
    /// Its exit status.
    pub exit: u8,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub errors: String,
}

/// Runs `mosaic-federation --admin-socket SOCKET ARGUMENTS`.
pub async fn command(socket: &Path, arguments: &[&str]) -> Ran {
    let mut all: Vec<OsString> = vec!["mosaic-federation".into(), "--admin-socket".into()];
    all.push(socket.into());
    all.extend(arguments.iter().map(OsString::from));
    let (exit, out, errors) = tokio::task::spawn_blocking(move || run(all)).await.unwrap();
    Ran {
        exit: exit.number(),
        out: String::from_utf8(out).unwrap(),
        errors: String::from_utf8(errors).unwrap(),
    }
}

fn run(arguments: Vec<OsString>) -> (Exit, Vec<u8>, Vec<u8>) {
    let none = |what: &str| Err(format!("no {what} in a test"));
    let points = EntryPoints {
        serve: &|_| Err("no second sidecar in a test".to_owned()),
        init_authority: &|_| {
            none("authority").map(|()| AuthorityRoot {
                pem: String::new(),
                sha256: String::new(),
            })
        },
        demo: &|_, _| none("demo"),
    };
    let (mut out, mut errors) = (Vec::new(), Vec::new());
    let exit = proxy::cli::run(arguments, Vec::new(), &points, &mut out, &mut errors);
    (exit, out, errors)
}
