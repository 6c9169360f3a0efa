// SPDX-License-Identifier: Apache-2.0
//! The device's own join code, natively, against a real control plane: seconds a case instead of a boot.
//!
//! One control plane for all cases; each has its own token and node name, so that what it left in the cluster can be
//! kept apart, and puts back what it changed. All cases run, then the failed ones are named. Tampered networks need no
//! cluster: firstboot/src/kube/wire_tests.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod addresses;
mod attack;
mod bench;
mod beside;
mod beside_bench;
mod beside_client;
mod cache;
mod cache_bench;
mod cache_figures;
mod cache_lossy;
mod cache_many;
mod cache_networks;
mod cache_pods;
mod cache_streams;
mod cluster;
mod creating;
mod csr;
mod cuts;
mod faults;
mod forms;
mod installation;
mod kubelet_port;
mod leaving;
mod machine;
mod recovery;
mod sandboxed;
mod trust;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::Instant;

use e2e::native::cluster::publish_server;
use libtest_mimic::{Arguments, Failed, Trial};
use qemu::control_plane::{ControlPlane, Options};

type Case = (&'static str, fn(&ControlPlane));

const CASES: &[Case] = &[
    ("ten requests, resumed", cluster::joins_with_ten_requests_and_resumes),
    ("device binary in its sandbox", sandboxed::the_device_binary_joins_from_its_sandbox),
    ("CA in the seed", trust::ca_in_the_seed_reads_the_time_without_the_token),
    ("wrong CA hash", trust::wrong_ca_hash),
    ("unknown token", trust::unknown_token),
    ("expired token", trust::expired_token_by_the_clusters_clock),
    ("wrong token secret", trust::wrong_token_secret),
    ("token that may not authenticate", trust::token_that_signs_but_does_not_authenticate),
    ("cluster-info not published", trust::cluster_info_that_is_not_published),
    ("name not covered", addresses::certificate_that_does_not_cover_the_address),
    ("refused connection, next server", addresses::refused_connection_then_the_next_server),
    ("cluster-info names an unreachable server", addresses::seeds_server_is_kept_when_the_clusters_own_fails),
    ("kubelet newer than the cluster", cluster::kubelet_newer_than_the_cluster),
    ("ConfigMaps missing and forbidden", cluster::config_maps_missing_and_forbidden),
    ("name taken", cluster::name_of_a_ready_node),
    ("previous installation", cluster::waits_for_ready_node_of_a_previous_installation),
    ("left-over Node", cluster::leftover_node_is_taken_over),
    ("changed seed during the wait", machine::changed_seed_is_picked_up_during_the_wait),
    ("power cut at every effect", machine::power_cut_at_every_effect_leaves_one_csr),
    ("power cut and fault at every effect of the whole way", cuts::every_effect),
    ("power cut at every change of a card with many seeds", cuts::many_seeds),
    ("process killed at every phase", faults::killed_at_every_phase),
    ("reset that fails", faults::a_reset_that_fails),
    ("card that fails", faults::a_card_that_fails),
    ("record that cannot be opened", faults::a_record_that_cannot_be_opened),
    ("tree of another machine", faults::a_tree_of_another_machine),
    ("s01_a_lying_join_worker_and_a_second_control_plane", attack::s01_a_lying_join_worker_and_a_second_control_plane),
    ("s02_a_token_can_name_any_node", attack::s02_a_token_can_name_any_node),
    ("its own Ready Node", machine::own_ready_node_is_no_other_machine),
    ("what an administrator has to do", machine::remaining_steps_for_an_administrator_are_reported),
    ("reset, and another installation", leaving::a_reset_leaves_the_cluster_and_another_seed_comes_back),
    ("reset of a node that may not leave", leaving::refusals_of_the_cluster_are_reported_and_the_reset_completes),
    ("pods that stay when asked to go", leaving::pods_that_are_held_are_counted_and_end),
    ("kubelet-config mended", recovery::a_kubelet_config_that_kubelet_rejects),
    ("serving certificate to approve", recovery::a_serving_certificate_that_waits_for_approval),
    ("own Node on leaving", leaving::reset_with_silent_and_unreachable_servers),
    ("creating: pod network", creating::a_pod_network_is_deployed_and_brought_back),
    ("creating: administrator", creating::an_administrators_request_is_signed_once),
    ("cache: what was read comes again without API server", cache::what_was_read_comes_again),
    ("cache: one client never reads what another may", cache::one_client_never_reads_what_another_may),
    ("cache: memory and added time with 60 pods", cache_figures::memory_and_added_time),
    ("cache: a failed cache is out of the way", cache::a_failed_cache_is_out_of_the_way),
    ("cache: pods find and trust it", cache_pods::pods_find_and_trust_the_cache),
    ("cache: nothing is lost on a bad way", cache_networks::nothing_is_lost_on_a_bad_way),
    ("cache: logs, exec, attach and port-forward", cache_streams::logs_exec_attach_and_port_forward),
    ("cache: places are kept", cache_streams::places_are_kept),
    ("cache: a thousand objects", cache_many::a_thousand),
    // Last: without automatic approval.
    ("certificate by hand", csr::certificate_by_hand),
    ("denied", csr::denied),
    ("failed", csr::failed),
    ("expired certificate", csr::certificate_of_an_old_csr_has_expired),
    ("lost key", csr::kept_key_is_unreadable),
];

/// The control plane of all cases, which ends with the program.
fn plane() -> &'static ControlPlane {
    static PLANE: OnceLock<ControlPlane> = OnceLock::new();
    PLANE.get_or_init(|| {
        let plane = ControlPlane::start(&Options::without_addons()).unwrap();
        // What is published for guests leads nowhere on the build machine; that is a case of its own.
        publish_server(&plane, &plane.endpoint_for_host()).unwrap();
        plane
    })
}

/// One case as one test. A failure comes with the end of the cluster's logs.
fn trial(name: &'static str, case: fn(&ControlPlane)) -> Trial {
    Trial::test(name, move || {
        let started = Instant::now();
        let done = catch_unwind(AssertUnwindSafe(|| case(plane())));
        eprintln!("{name}: {:.1} s", started.elapsed().as_secs_f64());
        done.map_err(|panic| Failed::from(format!("{}\n{}", text(&*panic), plane().logs(20))))
    })
}

/// A long case with a control plane of its own.
fn on_its_own(name: &'static str, case: fn()) -> Trial {
    let run = move || catch_unwind(case).map_err(|panic| Failed::from(text(&*panic).to_owned()));
    Trial::test(name, run).with_ignored_flag(true)
}

/// The message of a panic.
fn text(panic: &(dyn std::any::Any + Send)) -> &str {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    owned.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked")
}

/// The arguments, and the names of the tests to run: with `--exact` there may be several, as for every other test
/// program, of which libtest-mimic takes one.
fn arguments(words: Vec<String>) -> (Arguments, Option<Vec<String>>) {
    let (mut flags, mut names): (Vec<String>, Vec<String>) = words.into_iter().partition(|word| word.starts_with("--"));
    let exact = flags.iter().any(|flag| flag == "--exact");
    match exact {
        true => flags.retain(|flag| flag != "--exact"),
        // With a flag's value among them, the order counts.
        false => (flags, names) = (std::env::args().skip(1).collect(), Vec::new()),
    }
    let program = std::env::args().next().unwrap_or_default();
    // Cases change one cluster and put it back, so one runs after the other.
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_iter(std::iter::once(program).chain(flags)) };
    (arguments, exact.then_some(names))
}

fn main() -> ExitCode {
    let (arguments, chosen) = arguments(std::env::args().skip(1).collect());
    let mut trials: Vec<Trial> = CASES.iter().map(|(name, case)| trial(name, *case)).collect();
    // Before the cases without automatic approval: each takes a second or two.
    let form = |form: &'static forms::Form| {
        Trial::test(format!("as kubeadm: {}", form.0), move || {
            let done = catch_unwind(AssertUnwindSafe(|| forms::both_agree(plane(), form)));
            done.map_err(|panic| Failed::from(text(&*panic).to_owned()))
        })
    };
    trials.splice(0..0, forms::FORMS.iter().map(form));
    trials.extend([
        Trial::test("join of an IPv6 cluster", || {
            addresses::ipv6();
            Ok(())
        }),
        // The full product of what "power cut and fault at every effect of the whole way" takes one of: 20 minutes or more.
        trial("every effect in every way", cuts::every_effect_in_every_way).with_ignored_flag(true),
        trial("cache: figures", cache_figures::figures).with_ignored_flag(true),
        // Six caches one after the other, each of which may take half a minute to show that nothing comes: 8 minutes.
        trial("cache: beside yurthub and lite-apiserver", beside::beside_others).with_ignored_flag(true),
        trial("cache: ten thousand objects", cache_many::ten_thousand).with_ignored_flag(true),
        on_its_own("cache: ten minutes of a network that comes and goes", cache_lossy::flapping),
        on_its_own("cache: ten minutes of lost packets", cache_lossy::losing),
    ]);
    if let Some(names) = &chosen {
        trials.retain(|trial| names.iter().any(|name| name == trial.name()));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}
