//! What every store has to do, whatever database is behind it.
//!
//! Invariant: nothing here knows a database: each law takes a `&dyn Store` that is fresh. A new store joins by one more
//! line in [`laws!`]. What only one database can get wrong is tested beside that store.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod atomic;
mod audit_archive;
mod audit_chain;
mod audit_log;
mod fixture;
mod grants;
mod life;
mod moving;
mod outbound;
mod removal;
mod renewal;
mod replicas;
mod revocation;
mod rows_seen;
mod sealing;
mod tokens;
mod trust;

pub(super) use atomic::cut_off;

use super::postgres::tests::Place;
use super::sqlite::{SqliteOptions, SqliteStore};

macro_rules! laws {
    ($($group:ident: $($law:ident),+;)+) => {
        mod on_sqlite {
            $(mod $group {
                $(
                    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                    async fn $law() {
                        let home = tempfile::tempdir().unwrap();
                        let store = super::super::sqlite(&home).await;
                        super::super::$group::$law(&store).await;
                    }
                )+
            })+
        }
        mod on_postgres {
            $(mod $group {
                $(
                    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                    async fn $law() {
                        let Some(place) = super::super::postgres(stringify!($law)) else { return };
                        let store = place.open().await;
                        super::super::$group::$law(&store).await;
                        drop(store);
                        place.remove().await;
                    }
                )+
            })+
        }
    };
}

/// Laws of which some part keeps the store.
macro_rules! shared_laws {
    ($($group:ident: $($law:ident),+;)+) => {
        mod shared_on_sqlite {
            $(mod $group {
                $(
                    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                    async fn $law() {
                        let home = tempfile::tempdir().unwrap();
                        let store = super::super::sqlite(&home).await;
                        super::super::$group::$law(std::sync::Arc::new(store)).await;
                    }
                )+
            })+
        }
        mod shared_on_postgres {
            $(mod $group {
                $(
                    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                    async fn $law() {
                        let Some(place) = super::super::postgres(stringify!($law)) else { return };
                        let store = place.open().await;
                        super::super::$group::$law(std::sync::Arc::new(store)).await;
                        place.remove().await;
                    }
                )+
            })+
        }
    };
}

shared_laws! {
    audit_archive:
        rows_leave_with_their_manifest_or_stay,
        a_chain_verifies_through_the_archive,
        history_finds_what_would_be_found_if_nothing_had_been_moved,
        only_what_is_old_is_due,
        moving_that_is_cut_off_is_whole_or_absent;
}

async fn sqlite(home: &tempfile::TempDir) -> SqliteStore {
    let path = home.path().join("store.db");
    let options = SqliteOptions::new(path, fixture::uuid(0), fixture::START);
    SqliteStore::open(&options).await.unwrap()
}

fn postgres(law: &str) -> Option<Place> {
    Place::find(law, fixture::uuid(0), fixture::START)
}

laws! {
    grants:
        every_mutation_raises_the_revision_by_one_and_is_audited,
        what_changes_nothing_writes_nothing,
        create_refuses_taken_ids_and_dead_grants,
        revocation_is_final_and_takes_certificates_and_token_along,
        forgetting_a_user_revokes_all_of_theirs_at_once,
        grants_that_are_over_leave_nothing_behind,
        suspension_touches_every_unfinished_grant_and_ends_where_it_began,
        expiry_uses_the_earlier_end_and_never_comes_early,
        unknown_ids_are_not_found,
        policy_is_published_as_a_whole_or_not_at_all,
        the_image_leaves_out_only_what_ended_long_ago,
        changes_are_those_of_single_grants_or_not_told,
        an_edit_replaces_the_scope_of_an_unfinished_grant,
        the_longest_lease_is_kept_without_a_revision;
    tokens:
        of_many_claims_one_wins,
        a_claim_says_why_it_was_refused,
        a_new_token_withdraws_the_old_one,
        lives_longer_than_allowed_are_refused,
        replacement_revokes_and_reopens,
        an_enrollment_cannot_finish_after_the_grant_moved_on,
        an_intent_closes_once;
    outbound:
        a_peer_name_belongs_to_one_user_and_grant,
        a_revoked_credential_stays_revoked,
        contacts_are_kept_without_a_revision,
        sessions_are_found_only_while_live,
        sessions_that_are_over_are_forgotten_in_time,
        of_what_peers_showed_the_newest_is_kept,
        secrets_keep_the_first_and_subject_tokens_the_last;
    audit_log:
        records_come_back_as_they_went_in,
        each_filter_narrows,
        following_misses_nothing_and_repeats_nothing,
        a_batch_is_written_once_however_often_it_is_tried,
        extreme_records_are_accepted;
    audit_chain:
        every_row_is_linked_and_verifies,
        a_chain_begins_where_the_one_before_ended,
        keys_are_stored_with_the_chain_or_not_at_all,
        a_failed_change_leaves_no_gap,
        the_history_of_a_grant_is_one_line_through_chains;
    removal:
        removing_an_inbound_peer_revokes_what_it_had_and_frees_its_name,
        removing_an_outbound_peer_forgets_its_keys;
    renewal:
        a_renewed_certificate_takes_over_with_its_first_use,
        a_known_request_gets_its_certificate_again,
        only_the_newest_confirmed_gets_another,
        one_issued_in_vain_is_not_the_newest,
        a_grant_that_is_over_gets_no_certificate,
        one_certificate_is_revoked_alone,
        the_next_credential_takes_the_place_of_the_old,
        a_renewal_ends_with_its_credential,
        tries_are_kept_and_a_failing_peer_is_degraded;
    sealing:
        a_store_has_one_secret_from_its_first_start,
        a_change_of_the_secret_ends_when_no_row_is_left,
        a_row_of_another_secret_is_not_taken;
    trust:
        a_rotation_goes_step_by_step,
        acknowledgements_never_go_back;
    revocation:
        the_number_of_our_list_goes_up_by_one,
        each_revocation_has_its_reason_and_is_listed_until_its_end,
        certificates_of_listeners_stand_until_their_end,
        a_revocation_is_untold_until_its_authority_had_it,
        what_was_issued_in_vain_is_registered_as_revoked,
        lists_of_a_place_are_kept_whole;
    replicas:
        a_heartbeat_keeps_one_row_and_reads_the_revision,
        leases_of_older_revisions_are_never_shortened,
        one_that_left_is_kept_until_its_leases_have_ended,
        a_job_has_one_runner_until_it_leaves_or_ends;
    rows_seen:
        a_budget_counts_different_rows_exactly,
        grants_and_days_have_budgets_of_their_own,
        answers_at_the_same_time_do_not_go_over_the_budget,
        a_whole_page_is_booked_at_once;
    atomic:
        a_call_cut_off_anywhere_is_whole_or_absent;
    life:
        any_history_keeps_the_laws;
}
