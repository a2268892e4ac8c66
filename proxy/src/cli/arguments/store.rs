//! The arguments of `store`.

use std::path::PathBuf;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum StoreCommand {
    /// Move the state from SQLite to PostgreSQL while no sidecar runs; run again, it goes on where it was cut off
    Migrate {
        /// The file, as sqlite:PATH; it is read only and stays as it is
        #[arg(long, value_name = "sqlite:PATH")]
        from: String,
        /// The database, as postgres://user@host/database
        #[arg(long, value_name = "URL")]
        to: String,
        /// The schema in it, which must be empty or not there
        #[arg(long, default_value = "mosaic_federation")]
        schema: String,
        /// File with the password
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
        /// File with the roots that the certificate of the server must lead to, PEM
        #[arg(long, value_name = "FILE")]
        root_file: Option<PathBuf>,
    },
}
