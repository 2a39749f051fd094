//! The corpus of `tests/proof` through port 6432: where each statement ran, by the nodes' own logs.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
};

use pgsluice::config::Consistency;

use crate::{
    Cluster, SPLIT,
    lines::Line,
    nodes::{Server, installations},
    raw::{Client, bind, describe, execute, frame, parse, query, sync},
    wait_fresh, wait_until,
};

const SCHEMA: &str = include_str!("../proof/schema.sql");

/// How a statement is sent.
#[derive(Clone, Copy, Debug)]
enum Way {
    Simple,
    Unnamed,
    /// Parsed under a name in the batch that executes it.
    Named,
    InTransaction,
}

/// So often a read is sent that ran on the primary: a probe may have been late.
const ATTEMPTS: usize = 8;

#[test]
fn every_statement_of_the_corpus_runs_where_it_belongs() {
    for bin in installations() {
        let stage = Stage::start(&bin);
        let lines: Vec<Line> = Line::all()
            .into_iter()
            .filter(|line| line.since <= stage.major && line.sql != ";")
            .collect();
        let mut wrong = Vec::new();
        for way in [Way::Simple, Way::Unnamed, Way::Named] {
            wrong.extend(stage.run_reads(&lines, way));
        }
        for way in [Way::Simple, Way::Unnamed, Way::InTransaction] {
            wrong.extend(stage.run_others(&lines, way));
        }
        assert!(
            wrong.is_empty(),
            "{} wrong:\n{}",
            wrong.len(),
            wrong.join("\n")
        );
    }
}

struct Stage {
    cluster: Cluster,
    major: u8,
}

impl Stage {
    fn start(bin: &Path) -> Stage {
        // What a read on the primary saw is not what is looked at here.
        let cluster = Cluster::start_with(bin, |config| {
            config.reads.consistency = Consistency::OwnWrites;
        });
        cluster.pg1.sql("ALTER ROLE app SET log_statement = 'all'");
        // `app` is there already.
        let schema = SCHEMA.replace("CREATE ROLE app LOGIN;", "");
        let file = cluster.pg1.dir.path().join("schema.sql");
        std::fs::write(&file, schema).unwrap();
        let port = cluster.pg1.port.to_string();
        let file = file.to_str().unwrap();
        let psql = [
            "-h",
            "127.0.0.1",
            "-p",
            &port,
            "-U",
            "postgres",
            "-Xqf",
            file,
        ];
        cluster.pg1.run_ok("psql", &psql);
        cluster.wait_replayed();
        let major = cluster.pg1.sql("SHOW server_version_num");
        let stage = Stage {
            major: major[..2].parse().unwrap(),
            cluster,
        };
        stage.wait_for_the_catalogue();
        stage
    }

    fn client(&self) -> Client {
        let address = self.cluster.proxied.addresses[SPLIT];
        Client::connect(address, "postgres", "app")
    }

    /// Nobody told the proxy of the definitions.
    fn wait_for_the_catalogue(&self) {
        let mut maker = self.client();
        maker.ok("CREATE TEMP TABLE made (a int)");
        let mut client = self.client();
        let sql = "explain route select * from app.things where f_reads(1) = 1";
        wait_until("the catalogue is read", || {
            wait_fresh(&self.cluster);
            client.value(sql) == "replica"
        });
    }

    /// What did not run on replicas only.
    fn run_reads(&self, lines: &[Line], way: Way) -> Vec<String> {
        let mut client = self.client();
        let reads = || lines.iter().enumerate().filter(|(_, line)| line.is_read());
        let mut left: Vec<usize> = reads().map(|(number, _)| number).collect();
        let mut wrong = Vec::new();
        for attempt in 0..ATTEMPTS {
            wait_fresh(&self.cluster);
            let marker = |number| marker(number, way, attempt);
            for number in &left {
                send(&mut client, &lines[*number], &marker(*number), way);
            }
            let seen = self.seen();
            left.retain(|number| {
                let at = &seen[&marker(*number)];
                let is_there = at.contains("pg2") || at.contains("pg3");
                // An error of the replica's may have been the primary's to give.
                if is_there && at.contains("pg1") && !lines[*number].fails {
                    wrong.push(format!("{way:?} on both | {}", lines[*number].sql));
                }
                !is_there
            });
        }
        let kept = |number: usize| format!("{way:?} kept on the primary | {}", lines[number].sql);
        wrong.extend(left.into_iter().map(kept));
        wrong
    }

    /// What ran on a replica and should not have. What is no read has a session of its own, which might keep its
    /// server.
    fn run_others(&self, lines: &[Line], way: Way) -> Vec<String> {
        let in_transaction = matches!(way, Way::InTransaction);
        let others = || {
            let lines = lines.iter().enumerate();
            lines.filter(|(_, line)| in_transaction || !line.is_read())
        };
        let mut reader = self.client();
        for (number, line) in others() {
            let marker = marker(number, way, 0);
            if line.is_read() {
                send(&mut reader, line, &marker, way);
                reader.ok("rollback");
            } else {
                send(&mut self.client(), line, &marker, way);
            }
        }
        let seen = self.seen();
        let strays = others().filter(|(number, line)| {
            let at = seen.get(&marker(*number, way, 0));
            // The proxy itself says that the session has drawn nothing.
            let is_refused = ["sequence:currval", "sequence:lastval"].contains(&line.expected);
            match at {
                None => !is_refused,
                Some(at) => at.len() != 1 || !at.contains("pg1"),
            }
        });
        strays
            .map(|(number, line)| {
                let at = seen.get(&marker(number, way, 0));
                format!("{way:?} on {at:?} | {}", line.sql)
            })
            .collect()
    }

    /// Where each marker was seen.
    fn seen(&self) -> HashMap<String, HashSet<&'static str>> {
        let Cluster { pg1, pg2, pg3, .. } = &self.cluster;
        let mut seen = HashMap::<_, HashSet<_>>::new();
        for (name, node) in [("pg1", pg1), ("pg2", pg2), ("pg3", pg3)] {
            for marker in markers(node) {
                seen.entry(marker).or_default().insert(name);
            }
        }
        seen
    }
}

fn marker(number: usize, way: Way, attempt: usize) -> String {
    format!("/* at {number} {way:?} {attempt}. */")
}

/// All in a node's log.
fn markers(node: &Server) -> Vec<String> {
    let log = std::fs::read(node.dir.path().join("log")).unwrap();
    let log = String::from_utf8_lossy(&log);
    let begins = log.match_indices("/* at ").map(|(at, _)| &log[at..]);
    begins
        .map(|text| text[..text.find("*/").unwrap() + 2].to_owned())
        .collect()
}

fn send(client: &mut Client, line: &Line, marker: &str, way: Way) {
    let sql = match line.sql.contains("no end") {
        true => format!("{marker} {}", line.sql),
        false => format!("{}\n{marker}", line.sql),
    };
    match way {
        Way::Simple => finish(client, &query(&sql)),
        Way::Unnamed => finish(client, &batch("", &sql)),
        Way::Named => finish(client, &batch(&format!("s{marker}"), &sql)),
        Way::InTransaction => {
            client.ok("begin");
            finish(client, &query(&sql));
        }
    }
}

fn batch(name: &str, sql: &str) -> Vec<u8> {
    let bound = [bind("", name), describe(b'P', ""), execute("", 0)].concat();
    [parse(name, sql), bound, sync()].concat()
}

/// Sends it and reads the answer. A COPY from the client gets nothing.
fn finish(client: &mut Client, bytes: &[u8]) {
    client.send(bytes);
    loop {
        let next = client.next();
        match next.tag {
            b'Z' => return,
            b'G' if bytes[0] == b'Q' => client.send(&frame(b'f', b"\0")),
            b'G' => client.send(&[frame(b'f', b"\0"), sync()].concat()),
            _ => {}
        }
    }
}
