//! The topology on real PostgreSQL: what its probes see of shutdowns, crashes, freezes and promotions.
//!
//! Every test makes its own cluster on free ports, in a temporary directory, for PostgreSQL 15 and, where
//! `PGSLUICE_TEST_PG_BINS` (colon-separated directories) names more, for those too.

mod nodes;

use std::{
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use nodes::{INTERVAL, Probed, Server, config, generation, installations, is_primary};
use pgsluice::topology::{self, Alarm, Evidence, Health, Reason, Role, Topology};

#[test]
fn primary_and_replica_are_found_with_timeline_system_and_positions() {
    for bin in installations() {
        let primary = Server::primary(&bin);
        let replica = primary.replica();
        let probed = Probed::start(vec![primary.node("pg1"), replica.node("pg2")]);
        let t = probed.wait("both up on timeline 1", |t| {
            is_primary(t, "pg1")
                && t.replicas_up().count() == 1
                && t.nodes.iter().all(|n| n.timeline == Some(1))
        });
        let system = primary.sql("select system_identifier from pg_control_system()");
        for node in &t.nodes {
            assert_eq!(node.system_id.unwrap().to_string(), system);
        }
        assert!(t.nodes[0].position.insert().0 > 0 && t.nodes[1].position.replay().0 > 0);
        assert!(t.alarms.is_empty(), "{t:?}");
        assert!(!probed.ever(|t| is_primary(t, "pg2")));
    }
}

#[test]
fn a_promotion_after_the_primary_was_killed_is_followed() {
    for bin in installations() {
        let primary = Server::primary(&bin);
        let replica = primary.replica();
        let probed = Probed::start(vec![primary.node("pg1"), replica.node("pg2")]);
        let before = probed.wait_primary("pg1");
        primary.signal(Signal::SIGKILL);
        let killed = Instant::now();
        let down = probed.wait_health("pg1", Health::Down);
        eprintln!("{}: down after {:?}", bin.display(), killed.elapsed());
        assert_eq!(down.primary, None);
        assert_eq!(down.node("pg1").unwrap().role, Role::Primary, "{down:?}");
        assert_eq!(down.alarms, [Alarm::NoPrimary]);
        replica.promote();
        let promoted = Instant::now();
        let after = probed.wait_primary("pg2");
        eprintln!("{}: followed after {:?}", bin.display(), promoted.elapsed());
        assert_eq!(after.node("pg2").unwrap().timeline, Some(2));
        assert_eq!(after.node("pg1").unwrap().role, Role::Unknown);
        assert!(generation(&after, "pg2") > generation(&before, "pg2"));
    }
}

#[test]
fn a_frozen_primary_that_was_replaced_is_fenced_when_it_thaws() {
    for bin in installations() {
        let primary = Server::primary(&bin);
        let replica = primary.replica();
        let probed = Probed::start(vec![primary.node("pg1"), replica.node("pg2")]);
        probed.wait("both up", |t| {
            is_primary(t, "pg1") && t.replicas_up().count() == 1
        });
        primary.freeze();
        let frozen = Instant::now();
        let down = probed.wait_health("pg1", Health::Down);
        eprintln!(
            "{}: frozen, down after {:?}",
            bin.display(),
            frozen.elapsed()
        );
        assert_eq!(down.node("pg1").unwrap().reason, Reason::Silent);
        replica.promote();
        probed.wait_primary("pg2");
        primary.thaw();
        let fenced = probed.wait_health("pg1", Health::Fenced);
        assert!(is_primary(&fenced, "pg2"));
        assert_eq!(fenced.node("pg1").unwrap().reason, Reason::OldTimeline);
        assert_eq!(fenced.alarms, [Alarm::StalePrimary]);
        let promoted_at = fenced.nodes[1].since;
        let later =
            |t: &Topology| t.nodes[1].role == Role::Primary && t.nodes[1].since >= promoted_at;
        assert!(!probed.ever(|t| later(t) && is_primary(t, "pg1")));
    }
}

#[test]
fn a_frozen_replica_leaves_rotation_and_returns_with_its_generation() {
    for bin in installations() {
        let primary = Server::primary(&bin);
        let replica = primary.replica();
        let probed = Probed::start(vec![primary.node("pg1"), replica.node("pg2")]);
        let before = probed.wait("both up with incarnations known", |t| {
            is_primary(t, "pg1") && t.replicas_up().any(|n| n.timeline.is_some())
        });
        replica.freeze();
        probed.wait_health("pg2", Health::Down);
        replica.thaw();
        let after = probed.wait_health("pg2", Health::Up);
        assert_eq!(generation(&after, "pg2"), generation(&before, "pg2"));
        assert!(!probed.ever(|t| t.number >= before.number && t.primary.is_none()));
    }
}

#[test]
fn a_replica_that_lags_or_does_not_stream_leaves_rotation_under_that_word() {
    let primary = Server::primary(&installations()[0]);
    primary.sql("CREATE TABLE t (id int)");
    let (pg2, pg3) = (primary.replica(), primary.replica());
    let mut config = config(vec![primary.node("pg1"), pg2.node("pg2"), pg3.node("pg3")]);
    config.reads.max_staleness = Duration::from_secs(1);
    let probed = Probed::with(config);
    let wait = |reason: Reason| {
        let deadline = Instant::now() + nodes::PATIENCE;
        let is_so = |t: &Topology| {
            let up = [true, reason == Reason::Answering, true];
            t.nodes.iter().map(|n| n.is_up()).eq(up) && t.nodes[1].reason == reason
        };
        while !is_so(&probed.handle.current()) {
            let t = probed.handle.current();
            assert!(Instant::now() < deadline, "never {reason:?}: {t:#?}");
            primary.sql("INSERT INTO t VALUES (1)");
        }
    };
    wait(Reason::Answering);
    pg2.sql("SELECT pg_wal_replay_pause()");
    wait(Reason::Lagging);
    pg2.sql("SELECT pg_wal_replay_resume()");
    wait(Reason::Answering);
    pg2.sql("ALTER SYSTEM SET primary_conninfo = ''");
    pg2.sql("SELECT pg_reload_conf()");
    wait(Reason::NotStreaming);
}

#[test]
fn a_crash_restart_is_a_new_incarnation_and_no_failover() {
    for bin in installations() {
        let primary = Server::primary(&bin);
        let replica = primary.replica();
        let probed = Probed::start(vec![primary.node("pg1"), replica.node("pg2")]);
        let before = probed.wait_primary("pg1");
        // A backend that is not the probe's dies hard, and all the others with it.
        let mut sleeper = primary
            .command(
                "psql",
                &[
                    "-h",
                    "127.0.0.1",
                    "-p",
                    &primary.port.to_string(),
                    "-U",
                    "postgres",
                    "-d",
                    "postgres",
                    "-Xc",
                    "select pg_sleep(600)",
                ],
            )
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let query = "select count(*) from pg_stat_activity where query like '%pg_sleep(600)' and state = 'active'";
        probed.wait_sql(&primary, query, "1");
        let pid = primary.sql("select pid from pg_stat_activity where query like '%pg_sleep(600)' and state = 'active'");
        kill(Pid::from_raw(pid.parse().unwrap()), Signal::SIGKILL).unwrap();
        let incarnation = before.node("pg1").unwrap().incarnation;
        let after = probed.wait("a new incarnation of the primary", |t| {
            is_primary(t, "pg1") && t.nodes[0].incarnation > incarnation
        });
        let _ = sleeper.wait();
        assert!(generation(&after, "pg1") > generation(&before, "pg1"));
        assert_eq!(after.node("pg1").unwrap().timeline, Some(1));
        assert!(!probed.ever(|t| is_primary(t, "pg2") || t.alarms.contains(&Alarm::StalePrimary)));
    }
}

#[test]
fn a_terminated_probe_connection_changes_nothing() {
    for bin in installations() {
        let primary = Server::primary(&bin);
        let probed = Probed::start(vec![primary.node("pg1")]);
        let before = probed.wait_primary("pg1");
        let probe =
            "from pg_stat_activity where usename = 'prober' and query like '%pg_is_in_recovery%'";
        let old = primary.sql(&format!("select pid {probe}"));
        primary.sql(&format!("select pg_terminate_backend(pid) {probe}"));
        probed.wait_sql(
            &primary,
            &format!("select count(*) {probe} and pid <> {old}"),
            "1",
        );
        let after = probed.handle.current();
        assert_eq!(generation(&after, "pg1"), generation(&before, "pg1"));
        assert!(!probed.ever(|t| t.number >= before.number && !is_primary(t, "pg1")));
    }
}

#[test]
fn a_smart_shutdown_is_seen_as_draining_and_ends_while_probed() {
    for bin in installations() {
        let primary = Server::primary(&bin);
        let probed = Probed::start(vec![primary.node("pg1")]);
        probed.wait_primary("pg1");
        let started = Instant::now();
        primary.ctl(&["stop", "-m", "smart"]);
        eprintln!("{}: smart stop took {:?}", bin.display(), started.elapsed());
        let down = probed.wait_health("pg1", Health::Down);
        assert!(probed.ever(|t| t.nodes[0].health == Health::Draining));
        assert_eq!(down.primary, None);
        primary.start();
        let back = probed.wait_primary("pg1");
        assert!(back.nodes[0].incarnation > 0);
    }
}

#[test]
fn a_node_of_another_cluster_is_refused_by_name() {
    for bin in installations() {
        let primary = Server::primary(&bin);
        let replica = primary.replica();
        let other = Server::primary(&bin);
        let nodes = vec![
            other.node("stray"),
            primary.node("pg1"),
            replica.node("pg2"),
        ];
        let probed = Probed::start(nodes);
        let t = probed.wait_primary("pg1");
        let stray = t.node("stray").unwrap();
        assert_eq!(stray.health, Health::Fenced);
        assert_eq!(stray.reason, Reason::ForeignSystem);
        assert_eq!(t.alarms, [Alarm::ForeignNode]);
        assert!(!probed.ever(|t| is_primary(t, "stray")));
    }
}

/// A configuration that remembers in `state`.
fn remembering(
    nodes: Vec<pgsluice::config::Node>,
    state: &std::path::Path,
) -> pgsluice::config::Config {
    let mut config = config(nodes);
    config.failover.state_file = Some(state.to_owned());
    config.failover.settle = std::time::Duration::ZERO;
    config
}

fn wait_written(state: &std::path::Path, text: &str) {
    let deadline = Instant::now() + nodes::PATIENCE;
    while !std::fs::read_to_string(state).is_ok_and(|it| it.contains(text)) {
        assert!(Instant::now() < deadline, "never written: {text}");
        std::thread::sleep(INTERVAL);
    }
}

#[test]
fn an_old_primary_that_is_alone_after_a_restart_is_fenced_by_the_state_file() {
    for bin in installations() {
        let (old, dir) = (Server::primary(&bin), tempfile::tempdir().unwrap());
        let next = old.replica();
        let both = vec![old.node("pg1"), next.node("pg2")];
        let state = dir.path().join("state");
        let probed = Probed::with(remembering(both.clone(), &state));
        probed.wait("both up", |t| {
            is_primary(t, "pg1") && t.replicas_up().count() == 1
        });
        wait_written(&state, "timeline = 1");
        old.freeze();
        probed.wait_health("pg1", Health::Down);
        next.promote();
        probed.wait_primary("pg2");
        wait_written(&state, "timeline = 2");
        wait_written(&state, &format!("primary = \"127.0.0.1:{}\"", next.port));
        drop(probed);
        next.freeze();
        old.thaw();

        let forgetful = Probed::with(remembering(both.clone(), &dir.path().join("other")));
        forgetful.wait_primary("pg1");
        drop(forgetful);
        let probed = Probed::with(remembering(both, &state));
        let fenced = probed.wait_health("pg1", Health::Fenced);
        assert_eq!(fenced.nodes[0].reason, Reason::OldTimeline);
        next.thaw();
        probed.wait_primary("pg2");
        assert!(!probed.ever(|t| is_primary(t, "pg1")));
    }
}

#[test]
fn a_state_file_that_cannot_be_written_is_an_alarm_until_it_can() {
    let (primary, dir) = (
        Server::primary(&installations()[0]),
        tempfile::tempdir().unwrap(),
    );
    let place = dir.path().join("place");
    std::fs::create_dir(&place).unwrap();
    let replica = primary.replica();
    let nodes = vec![primary.node("pg1"), replica.node("pg2")];
    let probed = Probed::with(remembering(nodes, &place.join("state")));
    probed.wait_primary("pg1");
    wait_written(&place.join("state"), "timeline = 1");
    std::fs::remove_dir_all(&place).unwrap();
    primary.ctl(&["stop", "-m", "fast"]);
    replica.promote();
    let unsaved = Alarm::StateNotSaved;
    let alarmed = probed.wait("the alarm", |t| t.alarms.contains(&unsaved));
    assert!(is_primary(&alarmed, "pg2") || probed.wait_primary("pg2").primary == Some(1));
    std::fs::create_dir(&place).unwrap();
    let calm = probed.wait("no alarm", |t| !t.alarms.contains(&unsaved));
    assert!(is_primary(&calm, "pg2"));
    wait_written(&place.join("state"), "timeline = 2");
}

#[test]
fn a_promotion_beside_a_primary_with_replicas_holds_writes_until_one_of_them_stops() {
    for bin in installations() {
        let primary = Server::primary(&bin);
        let (stray, replica) = (primary.replica(), primary.replica());
        let nodes = vec![primary.node("pg1"), stray.node("pg2"), replica.node("pg3")];
        let probed = Probed::start(nodes.clone());
        probed.wait("all up", |t| {
            is_primary(t, "pg1") && t.replicas_up().count() == 2
        });
        stray.promote();
        let disputed = probed.wait("the alarm", |t| t.alarms.contains(&Alarm::StrayPromotion));
        assert_eq!(disputed.primary, None);
        assert_eq!(disputed.nodes[0].reason, Reason::Disputed);
        assert!(disputed.nodes[2].is_up(), "reads go on");
        let mut trusting = config(nodes);
        trusting.failover.trust_promotion = true;
        let trusted = Probed::with(trusting);
        let followed = trusted.wait("the promotion and the replica of the other", |t| {
            is_primary(t, "pg2") && t.nodes[2].reason == Reason::OtherTimeline
        });
        assert_eq!(followed.nodes[0].reason, Reason::OldTimeline);
        assert!(!probed.ever(|t| is_primary(t, "pg2")));
        primary.ctl(&["stop", "-m", "fast"]);
        let followed = probed.wait_primary("pg2");
        assert!(!followed.alarms.contains(&Alarm::StrayPromotion));
    }
}

#[test]
fn a_reload_adds_and_removes_nodes_without_touching_the_others() {
    for bin in installations() {
        let primary = Server::primary(&bin);
        let replica = primary.replica();
        let probed = Probed::start(vec![primary.node("pg1")]);
        let before = probed.wait_primary("pg1");
        let pid = "select string_agg(pid::text, ',') from pg_stat_activity \
                   where usename = 'prober' and query like '%pg_is_in_recovery%'";
        let probe_pid = primary.sql(pid);
        let both = config(vec![replica.node("pg2"), primary.node("pg1")]);
        probed.handle.reload(&both).unwrap();
        let t = probed.wait_health("pg2", Health::Up);
        let (old, new) = (before.node("pg1").unwrap(), t.node("pg1").unwrap());
        assert!(Arc::ptr_eq(&old.load, &new.load));
        assert_eq!(old.generation, new.generation);
        assert_eq!(t.primary, Some(1));
        probed
            .handle
            .reload(&config(vec![primary.node("pg1")]))
            .unwrap();
        let t = probed.wait("pg2 gone", |t| t.nodes.len() == 1);
        assert!(is_primary(&t, "pg1"));
        assert_eq!(
            primary.sql(pid),
            probe_pid,
            "the probe of pg1 kept its connection"
        );
        assert!(!probed.ever(|t| t.number >= before.number && !is_primary(t, "pg1")));
        let gone = "select count(*) from pg_stat_activity where usename = 'prober'";
        probed.wait_sql(&replica, gone, "0");
    }
}

#[test]
fn a_node_whose_postmaster_alone_is_frozen_takes_no_new_sessions() {
    let primary = Server::primary(&installations()[0]);
    let probed = Probed::start(vec![primary.node("pg1")]);
    probed.wait_primary("pg1");
    kill(primary.pids()[0], Signal::SIGSTOP).unwrap();
    let down = probed.wait_health("pg1", Health::Down);
    assert_eq!(down.nodes[0].reason, Reason::NoNewConnections);
    primary.thaw();
    probed.wait_primary("pg1");
}

#[test]
fn a_workers_report_makes_the_probe_dial_at_once() {
    let primary = Server::primary(&installations()[0]);
    let probed = Probed::start(vec![primary.node("pg1")]);
    probed.wait_primary("pg1");
    let sessions = "select sessions > 30 from pg_stat_database where datname = 'postgres'";
    // Without reports there is one dial a second, and none of them counts before its statistics are flushed.
    let deadline = Instant::now() + nodes::PATIENCE;
    let started = Instant::now();
    while primary.sql(sessions) != "t" {
        assert!(Instant::now() < deadline, "too few dials");
        probed.handle.report("pg1", Evidence::Terminated);
        std::thread::sleep(INTERVAL);
    }
    eprintln!("30 dials took {:?}", started.elapsed());
    assert!(!probed.ever(|t| t.nodes[0].health == Health::Draining));
}

#[test]
fn probes_log_in_with_scram_over_verified_tls() {
    use pgsluice::config::TlsMode;
    let primary = Server::primary(&installations()[0]);
    let ca = primary.demand_tls_and_scram();
    let cases = [
        (TlsMode::VerifyFull, Some(ca.clone()), Reason::Answering),
        (TlsMode::VerifyCa, Some(ca.clone()), Reason::Answering),
        (TlsMode::Require, None, Reason::Answering),
        (TlsMode::Prefer, None, Reason::Answering),
        (TlsMode::VerifyFull, None, Reason::Silent),
        (TlsMode::Disable, None, Reason::LoginRefused),
    ];
    for (mode, ca, reason) in cases {
        let mut config = config(vec![primary.node("pg1")]);
        config.tls.server.mode = mode;
        config.tls.server.ca = ca;
        let probed = Probed::with(config);
        probed.wait(&format!("{mode:?}: {reason:?}"), |t| {
            t.nodes[0].reason == reason
        });
    }
}

#[test]
fn a_missing_certificate_is_named_before_any_probe_starts() {
    let mut config = config(Vec::new());
    config.tls.server.mode = pgsluice::config::TlsMode::VerifyFull;
    config.tls.server.ca = Some("/nonexistent/ca.pem".into());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let error = runtime.block_on(async { topology::spawn(&config).err().unwrap() });
    assert!(error.to_string().contains("/nonexistent/ca.pem"), "{error}");
}
