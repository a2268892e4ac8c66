//! The federation sidecar: listeners, gateway, store, audit, telemetry, admin, command line.
//!
//! Layers, bottom up; a layer uses lower ones only: `config`, `telemetry`, `audit`, `store`
//! and `limit`, `transport` and `message`, `gateway`, `directory` and `replicas`, `inbound`, `enrollment`, `outbound`, `admin`,
//! `app`, `cli`; apart from them `demo`. What may be seen is decided in the crate `policy`, who asks in the crate `certs`.

pub mod admin;
pub mod app;
pub mod audit;
pub mod cli;
pub mod config;
pub mod demo;
pub mod directory;
pub mod enrollment;
pub mod exit;
pub mod gateway;
pub mod hand_over;
pub mod hardening;
pub mod inbound;
pub mod limit;
pub mod message;
pub mod one_call;
pub mod outbound;
pub mod policy_files;
pub mod replicas;
pub mod revocation;
pub mod sealing_secret;
pub mod server_certificate;
pub mod service_manager;
pub mod store;
pub mod telemetry;
pub mod tier;
pub mod transport;
