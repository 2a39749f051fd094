//! Replication clients, as their primary is lost and another is promoted.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Stdio},
};

use pgsluice::{
    config::{Secret, User},
    topology::Health,
};

use crate::{
    nodes::{Server, installations},
    proxied::{Cluster, WRITES, wait_until},
};

/// A program of PostgreSQL that streams through the proxy's port for writes; ended on drop.
struct Streamer {
    process: Child,
    said: PathBuf,
}

impl Streamer {
    fn start(cluster: &Cluster, program: &str, name: &str, args: &[&str]) -> Streamer {
        let address = cluster.proxied.addresses[WRITES];
        let said = cluster.pg2.dir.path().join(name);
        let url = format!(
            "host={} port={} user=streamer replication=true",
            address.ip(),
            address.port()
        );
        let mut command = cluster
            .pg2
            .command(program, &[&["-d", &url], args].concat());
        command.stdin(Stdio::null());
        command.stdout(fs::File::create(&said).unwrap());
        command.stderr(fs::File::options().append(true).open(&said).unwrap());
        let process = command.spawn().unwrap();
        Streamer { process, said }
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.said).unwrap()
    }

    fn is_running(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none()
    }
}

impl Drop for Streamer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn streams(server: &Server) -> bool {
    let sql = "select count(*) from pg_stat_replication where application_name = 'pg_receivewal' \
               and state = 'streaming'";
    server.sql(sql) == "1"
}

#[test]
fn replication_clients_wait_for_a_primary_and_leave_one_that_was_replaced() {
    for bin in installations() {
        let cluster = Cluster::start_with(&bin, |config| {
            config.users.push(User {
                name: "streamer".into(),
                password: Secret::new("unused"),
            });
        });
        cluster.pg1.sql("create role streamer login replication");
        cluster.wait_replayed();
        let received = cluster.pg2.own_directory("received");
        let received = received.to_str().unwrap();
        let follower = ["-D", received, "--no-sync"];
        let follower = Streamer::start(&cluster, "pg_receivewal", "follower", &follower);
        wait_until("it streams", || streams(&cluster.pg1));

        cluster.pg1.freeze();
        cluster.proxied.wait_health("pg1", Health::Down);
        let ask = ["-XAtc", "IDENTIFY_SYSTEM"];
        let mut late = Streamer::start(&cluster, "psql", "late", &ask);
        wait_until("it is connected", || cluster.proxied.clients() == 2);
        assert!(
            late.is_running() && late.said().is_empty(),
            "{}",
            late.said()
        );
        assert_eq!(follower.said(), "");

        cluster.pg2.promote();
        wait_until("it has its answer", || !late.is_running());
        let answer = late.said();
        assert_eq!(answer.split('|').nth(1), Some("2"), "{answer}");
        wait_until("it streams from the next", || streams(&cluster.pg2));
        let told = follower.said();
        assert!(told.contains("lost its role to another"), "{told}");
        cluster.pg1.thaw();
    }
}
