//! The arguments of `keys`.

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum KeysCommand {
    /// Change the sealing secret while the sidecar runs
    #[command(subcommand)]
    Reseal(ResealCommand),
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ResealCommand {
    /// Seal everything with the next secret, or go on with that: it is read from where the settings have the present one, with
    /// `.next` behind a file's or credential's name and `_NEXT` behind a variable's
    Start,
    /// Show which secret what is sealed with
    Status,
    /// End the change: the secret before opens nothing any more
    Finish,
}
