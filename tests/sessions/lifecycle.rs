//! Drain, reload, databases that come and go, replication.

use pgsluice::config::PoolMode;

use crate::{
    bed::{Bed, USER, config, shared, wait_until},
    cutter::{Behaviour, Direction, Forwarder},
    nodes::{PATIENCE, runtime},
    raw::{Client, query, word},
};

#[test]
fn a_drain_ends_idle_sessions_at_once_and_others_with_their_transaction() {
    let bed = Bed::new(5);
    let mut idle = bed.client();
    let mut pinned = bed.client();
    pinned.ok("SET work_mem = '1MB'");
    let mut open = bed.client();
    open.ok("BEGIN");
    let mut running = bed.client();
    running.send(&query("SELECT pg_sleep(0.5)"));
    wait_until("it runs", || bed.count("wait_event = 'PgSleep'") == 1);
    let drained = bed.drain();
    assert_eq!(idle.farewell(), "E[FATAL 57P01]");
    assert_eq!(pinned.farewell(), "E[FATAL 57P01]");
    assert_eq!(running.farewell(), "TDCZIE[FATAL 57P01]");
    assert_eq!(open.value("SELECT 1"), "1");
    open.send(&query("COMMIT"));
    assert_eq!(open.farewell(), "CZIE[FATAL 57P01]");
    runtime().block_on(drained).unwrap();
    wait_until("no server is left", || bed.servers() == 0);
}

#[test]
fn a_reload_changes_sizes_and_nodes_and_ends_no_session() {
    let bed = Bed::with(1, |c| c.nodes[0].max_servers = 1);
    let mut first = bed.client();
    let mut second = bed.client();
    first.ok("BEGIN");
    second.send(&query("SELECT 2"));
    let mut wider = config(vec![bed.server.node("pg1")], 2);
    wider.nodes[0].max_servers = 1;
    bed.reload(wider.clone());
    wider.nodes[0].max_servers = 5;
    bed.reload(wider.clone());
    assert_eq!(word(&second.until_ready()), "TDCZI");
    let standby = bed.server.replica();
    wider.nodes.push(standby.node("pg2"));
    bed.reload(wider);
    wait_until("the new node serves", || {
        Client::connect(bed.replica, &bed.database, USER).value("SELECT pg_is_in_recovery()") == "t"
    });
    assert_eq!(first.value("SELECT 1"), "1");
    first.ok("COMMIT");
    assert_eq!(second.value("SELECT 3"), "3");
}

#[test]
fn a_lowered_size_closes_servers_that_are_idle_and_others_when_they_come_back() {
    let bed = Bed::new(4);
    let mut clients: Vec<_> = (0..4).map(|_| bed.client()).collect();
    clients.iter_mut().for_each(|client| client.ok("BEGIN"));
    assert_eq!(bed.servers(), 4);
    clients[0].ok("COMMIT");
    bed.reload(config(vec![bed.server.node("pg1")], 2));
    wait_until("the idle one is closed", || bed.servers() == 3);
    clients[1..]
        .iter_mut()
        .for_each(|client| client.ok("COMMIT"));
    wait_until("no more than the size are left", || bed.servers() == 2);
    clients.iter_mut().for_each(|client| client.ok("SELECT 1"));
    assert_eq!(bed.servers(), 2);
}

#[test]
fn a_listener_keeps_its_place_when_the_file_names_it_elsewhere() {
    let bed = Bed::new(2);
    let mut reordered = config(vec![bed.server.node("pg1")], 2);
    reordered.listeners.reverse();
    bed.reload(reordered.clone());
    reordered.listeners[1].mode = PoolMode::Transaction;
    bed.reload(reordered);
    wait_until("the second reload is in force", || {
        let mut client = Client::connect(bed.session, &bed.database, USER);
        client.value("SELECT pg_backend_pid()") != client.pid.to_string()
    });
    let mut client = bed.client();
    client.ok("CREATE TABLE written (a int)");
    let mut reader = Client::connect(bed.replica, &bed.database, USER);
    assert_eq!(reader.word(&query("DROP TABLE written")), "E[25006]ZI");
}

#[test]
fn databases_can_be_created_and_dropped_though_servers_idle_in_them() {
    for workers in [1, 2] {
        let bed = Bed::with(5, |c| c.workers = workers);
        bed.server.sql("ALTER ROLE app CREATEDB");
        let name = format!("{}_new", bed.database);
        let mut client = bed.client();
        for round in 0..5 {
            client.ok(&format!("CREATE DATABASE {name}"));
            let mut inside: Vec<_> = (0..4)
                .map(|_| Client::connect(bed.addr, &name, USER))
                .collect();
            for client in &mut inside {
                client.ok("SELECT 1");
            }
            client.send(&query(&format!("DROP DATABASE {name}")));
            assert_eq!(word(&client.until_ready()), "CZI", "round {round}");
        }
    }
}

#[test]
fn replication_passes_the_primarys_port() {
    let bed = Bed::with(2, |c| {
        c.users.push(pgsluice::config::User {
            name: "copier".into(),
            password: pgsluice::config::Secret::new("unused"),
        });
    });
    bed.server.sql("CREATE ROLE copier LOGIN REPLICATION");
    let port = bed.addr.port().to_string();
    let login = ["-h", "127.0.0.1", "-U", "copier", "-p", &port];
    let dir = bed.server.dir.path().join("copy");
    let to = [
        "-D",
        dir.to_str().unwrap(),
        "-X",
        "stream",
        "-c",
        "fast",
        "-N",
    ];
    bed.server
        .run_ok("pg_basebackup", &[&login[..], &to].concat());
    assert!(dir.join("backup_manifest").exists());
    let wal = bed.server.dir.path().join("wal");
    let target = bed.sql("SELECT pg_current_wal_insert_lsn()");
    std::fs::create_dir(&wal).unwrap();
    if let Some(owner) = nix::unistd::User::from_name("postgres").unwrap()
        && nix::unistd::geteuid().is_root()
    {
        nix::unistd::chown(&wal, Some(owner.uid), Some(owner.gid)).unwrap();
    }
    bed.sql("CREATE TABLE filler AS SELECT generate_series(1, 10000)");
    let to = [
        "-D",
        wal.to_str().unwrap(),
        "--endpos",
        &target,
        "-n",
        "--no-sync",
    ];
    bed.server
        .run_ok("pg_receivewal", &[&login[..], &to].concat());
    assert!(std::fs::read_dir(&wal).unwrap().count() > 0);
}

/// Class: a login that comes before the first probe's answer is refused, though a node is there.
#[test]
fn a_login_right_after_the_start_waits_until_a_node_is_known() {
    let server = shared();
    let between = Forwarder::to(server.port);
    between.set(Direction::ToClient, Behaviour::Stall);
    let mut node = server.node("pg1");
    node.port = between.port();
    let mut setup = config(vec![node], 1);
    setup.users.clear();
    setup.probe.timeout = PATIENCE;
    setup.auth.user = Some("postgres".into());
    setup.auth.query = "SELECT rolpassword, rolcanlogin, rolvaliduntil, rolsuper, rolreplication \
                        FROM pg_authid WHERE rolname = $1"
        .into();
    let bed = Bed::start(server, setup);
    std::thread::scope(|scope| {
        let login = scope.spawn(|| bed.client().value("SELECT 1"));
        wait_until("it has come", || bed.clients() == 1);
        between.set(Direction::ToClient, Behaviour::Pass);
        assert_eq!(login.join().unwrap(), "1");
    });
}
