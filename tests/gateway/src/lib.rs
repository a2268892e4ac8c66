//! A stand-in gateway with its own SQLite file, for the demo and the tests of the sidecar.
//!
//! It serves two API shapes over the same rows, `internal-v1` and `mosaic`, honestly or with
//! chosen faults. It is a process of its own: the sidecar never links it. Tests may use
//! [`generate`] and [`plan`] to know the truth about every row, and [`server`] to run a gateway
//! inside the test process. The command line is in `main.rs`.

pub mod assertion;
pub mod authenticate;
pub mod big;
mod control;
pub mod deliver;
mod failure;
pub mod gateway;
pub mod generate;
mod internal_v1;
pub mod modes;
mod mosaic;
pub mod ownership;
mod params;
pub mod plan;
pub mod record;
pub mod render;
pub mod server;
pub mod store;
mod visibility;
