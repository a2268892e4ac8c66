//! The command line against a sidecar that runs in this process.
//!
//! Invariant: it is the product's command line, arguments in and exit status and texts out; it reaches the sidecar
//! through its admin socket only.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;

use proxy::cli::{AuthorityRoot, EntryPoints};

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
    let arguments = invocation(socket, arguments);
    tokio::task::spawn_blocking(move || run(arguments, None))
        .await
        .unwrap()
}

/// The same, for a command that does not end by itself: nobody reads on after a line that holds `last`.
pub async fn until(socket: &Path, arguments: &[&str], last: &'static str) -> Ran {
    let arguments = invocation(socket, arguments);
    tokio::task::spawn_blocking(move || run(arguments, Some(last)))
        .await
        .unwrap()
}

fn invocation(socket: &Path, arguments: &[&str]) -> Vec<OsString> {
    let mut all: Vec<OsString> = vec!["mosaic-federation".into(), "--admin-socket".into()];
    all.push(socket.into());
    all.extend(arguments.iter().map(OsString::from));
    all
}

/// Takes output until a whole line of it holds a text; then it is a closed pipe.
struct Reader {
    out: Vec<u8>,
    last: Option<&'static str>,
}

impl Write for Reader {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let closed = self.last.is_some_and(|last| {
            let text = String::from_utf8_lossy(&self.out);
            text.ends_with('\n') && text.contains(last)
        });
        if closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.out.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.write(&[]) {
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn run(arguments: Vec<OsString>, last: Option<&'static str>) -> Ran {
    let none = |what: &str| Err(format!("no {what} in a test"));
    let points = EntryPoints {
        serve: &|_, _| none("second sidecar"),
        init_authority: &|_| {
            none("authority").map(|()| AuthorityRoot {
                pem: String::new(),
                sha256: String::new(),
            })
        },
        demo: &|_, _| none("demo"),
    };
    let mut errors = Vec::new();
    let mut reader = Reader {
        out: Vec::new(),
        last,
    };
    let exit = proxy::cli::run(arguments, Vec::new(), &points, &mut reader, &mut errors);
    Ran {
        exit: exit.number(),
        out: String::from_utf8(reader.out).unwrap(),
        errors: String::from_utf8(errors).unwrap(),
    }
}
