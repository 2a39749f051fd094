//! Batches as drivers send them: names, several statements, Flush, and messages that come in pieces.

use crate::{
    Cluster, ON_PRIMARY, ON_REPLICA, SPLIT, cluster,
    nodes::system_bin,
    ran,
    raw::{Client, bind, close, describe, execute, flush, parse, query, run, sync, word},
    times_ran, wait_fresh, wait_until,
};

/// A client whom every replica has served.
fn client(cluster: &Cluster) -> Client {
    let mut client = Client::connect(cluster.proxied.addresses[SPLIT], "postgres", "app");
    wait_until("every replica has served", || {
        wait_fresh(cluster);
        client.ok("select v from kv where k = 1 /* warm up. */");
        let mut replicas = [&cluster.pg2, &cluster.pg3].into_iter();
        replicas.all(|replica| times_ran(replica, "/* warm up. */") > 0)
    });
    client
}

fn join(parts: &[Vec<u8>]) -> Vec<u8> {
    parts.concat()
}

/// Sends the parts one after the other, and waits between them for the answer that a Flush demands.
fn converse(client: &mut Client, parts: &[(Vec<u8>, usize)]) -> String {
    let mut told = String::new();
    for (bytes, replies) in parts {
        client.send(bytes);
        for _ in 0..*replies {
            told.push_str(&word(&[client.next()]));
        }
    }
    told
}

#[test]
fn reads_go_to_replicas_in_every_batch_that_drivers_send() {
    let cluster = cluster(&system_bin(), |_| {});
    let mut client = client(&cluster);
    let read = |marker: &str| format!("select v from kv where k = 1 /* {marker}. */");
    let write = |marker: &str| format!("update kv set v = v where k = 1 /* {marker}. */");
    let whole = |name: &str| join(&[bind("", name), describe(b'P', ""), execute("", 0)]);
    // Npgsql and JDBC: a named statement is parsed where it is first executed.
    let named = join(&[parse("a", &read("named")), whole("a"), sync()]);
    // A batch of statements.
    let two = join(&[run(&read("two a")), run(&read("two b")), sync()]);
    let named_two = join(&[
        close(b'S', "a"),
        parse("a", &read("again")),
        parse("b", &read("beside")),
        whole("a"),
        whole("b"),
        sync(),
    ]);
    let mixed = join(&[run(&read("mixed")), run(&write("mixed")), sync()]);
    let later = join(&[whole("a"), parse("w", &write("later")), whole("w"), sync()]);
    let long = format!("{} {}", read("long"), " ".repeat(40_000));
    for (bytes, marker, expected, replies) in [
        (named, "/* named. */", ON_REPLICA, "12TDCZI"),
        (
            join(&[whole("a"), sync()]),
            "/* named. */",
            ON_REPLICA,
            "2TDCZI",
        ),
        (two, "/* two b. */", ON_REPLICA, "12DC12DCZI"),
        (named_two, "/* beside. */", ON_REPLICA, "3112TDC2TDCZI"),
        (mixed, "/* mixed. */", ON_PRIMARY, "12DC12CZI"),
        (later, "/* later. */", ON_PRIMARY, "2TDC12nCZI"),
        (
            join(&[describe(b'S', "b"), sync()]),
            "/* beside. */",
            ON_REPLICA,
            "tTZI",
        ),
        (
            join(&[close(b'S', "b"), sync()]),
            "/* beside. */",
            ON_REPLICA,
            "3ZI",
        ),
        // Too long for the proxy to carry from server to server.
        (
            join(&[run(&long), sync()]),
            "/* long. */",
            ON_PRIMARY,
            "12DCZI",
        ),
    ] {
        wait_fresh(&cluster);
        assert_eq!(client.word(&bytes), replies, "{marker}");
        assert_eq!(ran(&cluster, marker), expected, "{marker}");
    }
    assert_eq!(client.word(&query(&write("after"))), "CZI");
    assert_eq!(ran(&cluster, "/* after. */"), ON_PRIMARY);
}

#[test]
fn what_is_prepared_before_a_flush_is_prepared_on_a_replica_and_bound_where_it_belongs() {
    let cluster = cluster(&system_bin(), |_| {});
    let mut client = client(&cluster);
    let prepare = |name: &str, sql: &str| join(&[parse(name, sql), describe(b'S', name), flush()]);
    let go = |name: &str| join(&[bind("", name), execute("", 0), sync()]);
    let read = "select v from kv where k = 1 /* asked. */";
    for name in ["r", ""] {
        wait_fresh(&cluster);
        let told = converse(&mut client, &[(prepare(name, read), 3), (go(name), 4)]);
        assert_eq!(told, "1tT2DCZI");
    }
    assert_eq!(ran(&cluster, "/* asked. */"), ON_REPLICA);
    // A write is bound instead, in the same batch as the client has it.
    let write = "update kv set v = v + 1 where k = 2 /* instead. */";
    assert_eq!(client.word(&join(&[parse("w", write), sync()])), "1ZI");
    wait_fresh(&cluster);
    let told = converse(&mut client, &[(prepare("s", read), 3), (go("w"), 3)]);
    assert_eq!(told, "1tT2CZI");
    assert_eq!(ran(&cluster, "/* instead. */"), ON_PRIMARY);
    // An error is told at once, and what follows is passed over up to the Sync.
    wait_fresh(&cluster);
    let wrong = "select count(1, 2) from kv";
    let told = converse(&mut client, &[(prepare("x", wrong), 1)]);
    assert_eq!(told, "E[42883]");
    let skipped = join(&[go("w"), query("select 1")]);
    client.send(&skipped);
    assert_eq!(word(&client.until_ready()), "ZI");
    assert_eq!(word(&client.until_ready()), "TDCZI");
    assert_eq!(times_ran(&cluster.pg1, "/* instead. */"), 1);
    // Nobody asks for the end of a batch that only prepares.
    wait_fresh(&cluster);
    assert_eq!(
        converse(&mut client, &[(prepare("y", read), 3), (sync(), 1)]),
        "1tTZI"
    );
    assert_eq!(client.value("select v from kv where k = 2"), "1");
}

#[test]
fn a_batch_that_comes_in_parts_is_waited_for() {
    let cluster = cluster(&system_bin(), |_| {});
    let mut client = client(&cluster);
    let filler = "x".repeat(3000);
    let sql = format!("select v from kv where '{filler}' <> '' and k = 1 /* parts. */");
    let bytes = join(&[run(&sql), sync()]);
    for at in [
        1,
        100,
        2500,
        bytes.len() - 5,
        bytes.len() - 4,
        bytes.len() - 1,
    ] {
        wait_fresh(&cluster);
        client.send(&bytes[..at]);
        // Whatever has come of it has been looked at.
        let mut other = Client::connect(cluster.proxied.addresses[SPLIT], "postgres", "app");
        other.ok("select 1");
        client.send(&bytes[at..]);
        assert_eq!(word(&client.until_ready()), "12DCZI", "{at}");
        assert_eq!(ran(&cluster, "/* parts. */"), ON_REPLICA, "{at}");
    }
}

#[test]
fn what_a_replica_has_prepared_is_prepared_once_for_the_client_when_the_batch_moves() {
    let cluster = cluster(&system_bin(), |_| {});
    let mut client = client(&cluster);
    for node in [&cluster.pg2, &cluster.pg3] {
        node.sql("SELECT pg_wal_replay_pause()");
    }
    // No replica has it yet, and nobody saw that.
    cluster.pg1.sql("ALTER TABLE kv ADD added int DEFAULT 5");
    let go = |name: &str| join(&[bind("", name), execute("", 0)]);
    let bytes = join(&[
        parse("first", "select k from kv where k = 1 /* moves. */"),
        parse("second", "select added from kv where k = 1 /* moves. */"),
        go("first"),
        go("second"),
        sync(),
    ]);
    assert_eq!(client.word(&bytes), "112DC2DCZI");
    assert_eq!(
        client.word(&join(&[go("second"), go("first"), sync()])),
        "2DC2DCZI"
    );
    let taken = join(&[parse("first", "select 1"), sync()]);
    assert_eq!(client.word(&taken), "E[42P05]ZI");
}
