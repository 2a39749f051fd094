//! repmgr's metadata as the source of nodes, kept by Debian's repmgr.

use std::{fs, process::Command};

use pgsluice::{config::Config, topology::Alarm};

use crate::{
    nobody,
    nodes::{Probed, Server, config, is_primary, system_bin},
};

/// Runs `repmgr`, as of the server's settings.
fn repmgr(server: &Server, args: &[&str]) {
    let settings = server.dir.path().join("repmgr.conf");
    let args = [&["-f", settings.to_str().unwrap()], args].concat();
    server.run_ok("repmgr", &args);
}

fn describe(server: &Server, id: u8, name: &str) {
    let (port, data, bin) = (server.port, server.data(), server.bin.display());
    let text = format!(
        "node_id={id}\nnode_name={name}\ndata_directory='{}'\npg_bindir='{bin}'\n\
         conninfo='host=127.0.0.1 port={port} user=postgres dbname=repmgr connect_timeout=2'\n",
        data.display()
    );
    fs::write(server.dir.path().join("repmgr.conf"), text).unwrap();
}

fn standby(of: &Server, id: u8, name: &str) -> Server {
    let server = of.replica();
    describe(&server, id, name);
    // Force: that it streams is not looked at, which may take it a moment.
    repmgr(&server, &["standby", "register", "--force"]);
    server
}

fn primary() -> Server {
    let server = Server::primary(&system_bin());
    server.sql("CREATE DATABASE repmgr");
    describe(&server, 1, "one");
    repmgr(&server, &["primary", "register"]);
    server
}

fn in_metadata(server: &Server, sql: &str) {
    let port = server.port.to_string();
    let at = ["-h", "127.0.0.1", "-p", &port, "-U", "postgres"];
    server.run_ok("psql", &[&at[..], &["-XAtqc", sql, "repmgr"]].concat());
}

/// Asks the metadata that `seed` has.
fn asking(seed: &Server) -> Config {
    let mut config = config(vec![seed.node("seed")]);
    config.repmgr.database = Some("repmgr".to_owned());
    config.repmgr.interval = std::time::Duration::from_millis(100);
    config
}

/// What `pgsluice check` says.
fn checked(seed: u16) -> String {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("p.toml");
    let text = format!(
        "[http]\nlisten = \"off\"\n[[listener]]\nlisten = \"127.0.0.1:0\"\nroute = \"primary\"\n\
         [[node]]\nname = \"seed\"\nhost = \"127.0.0.1\"\nport = {seed}\n\
         [repmgr]\ndatabase = \"repmgr\"\n[probe]\nuser = \"prober\"\n\
         [[user]]\nname = \"app\"\npassword = \"x\"\n"
    );
    fs::write(&file, text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_pgsluice"))
        .args(["check", "-c", file.to_str().unwrap()])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn registered_nodes_are_found_and_a_promotion_by_repmgr_is_followed() {
    if !system_bin().join("repmgr").exists() {
        eprintln!("*** repmgr is not installed: SKIPPED ***");
        return;
    }
    let first = primary();
    let said = checked(first.port);
    assert!(
        said.contains("permission denied for schema repmgr"),
        "{said}"
    );
    in_metadata(
        &first,
        "GRANT USAGE ON SCHEMA repmgr TO prober; GRANT SELECT ON repmgr.nodes TO prober",
    );
    let second = standby(&first, 2, "two");
    let said = checked(first.port);
    assert!(
        said.contains("two") && said.contains(&second.port.to_string()),
        "{said}"
    );

    let probed = Probed::with(asking(&first));
    let found = probed.wait("the standby, and the seed once", |t| {
        is_primary(t, "seed") && t.nodes.len() == 2 && t.replicas_up().count() == 1
    });
    assert!(found.node("two").is_some(), "{found:?}");

    // The seed is gone: the others have the metadata too.
    first.ctl(&["stop", "-m", "fast"]);
    repmgr(&second, &["standby", "promote"]);
    probed.wait_primary("two");
    let third = standby(&second, 3, "three");
    let grown = probed.wait("a node that was registered later", |t| {
        t.node("three").is_some_and(|node| node.is_up())
    });
    assert!(is_primary(&grown, "two") && grown.node("seed").is_some());
    repmgr(&third, &["standby", "unregister"]);
    probed.wait("a node that is registered no more", |t| {
        t.node("three").is_none()
    });
}

#[test]
fn while_nobody_tells_the_nodes_of_the_file_go_on() {
    let server = Server::primary(&system_bin());
    let probed = Probed::with(asking(&server));
    let topology = probed.wait_primary("seed");
    assert!(
        !topology.alarms.contains(&Alarm::SourceSilent),
        "{topology:?}"
    );
    let said = checked(server.port);
    assert!(said.contains("repmgr") && said.contains("seed"), "{said}");
    let said = checked(nobody());
    assert!(said.contains("no node tells repmgr's metadata"), "{said}");
}
