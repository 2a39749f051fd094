//! Read-only transactions on replicas: where they open, what may run in them, what ends them.

use pgsluice::config::ReadTransactions;

use crate::{
    Cluster, ON_PRIMARY, ON_REPLICA, SPLIT, cluster, installations, ran,
    raw::{Client, bind, describe, execute, flush, parse, query, run, sync, word},
    times_ran, wait_fresh, wait_until,
};

fn open(bin: &std::path::Path) -> (Cluster, Client) {
    let cluster = cluster(bin, |config| {
        config.reads.transactions = ReadTransactions::Replica;
    });
    let client = client(&cluster);
    (cluster, client)
}

/// A client whom every replica has served.
fn client(cluster: &Cluster) -> Client {
    let mut client = Client::connect(cluster.proxied.addresses[SPLIT], "postgres", "app");
    let before = |server| times_ran(server, "/* warm up. */");
    let (pg2, pg3) = (before(&cluster.pg2), before(&cluster.pg3));
    wait_until("every replica has served", || {
        wait_fresh(cluster);
        client.ok("select v from kv where k = 1 /* warm up. */");
        before(&cluster.pg2) > pg2 && before(&cluster.pg3) > pg3
    });
    client
}

fn join(parts: &[Vec<u8>]) -> Vec<u8> {
    parts.concat()
}

/// Runs the statements, and says what was told of each.
fn told(client: &mut Client, statements: &[&str]) -> Vec<String> {
    let each = statements.iter();
    each.map(|sql| client.word(&query(sql))).collect()
}

#[test]
fn read_only_transactions_run_on_replicas_and_nothing_in_them_does_what_counts_on_the_primary() {
    for bin in installations() {
        let (cluster, mut client) = open(&bin);
        let whole = [
            ("begin read only", "CZT"),
            ("select v from kv where k = 1 /* ro. */", "TDCZT"),
            ("savepoint s", "CZT"),
            ("select 1/0 /* ro. */", "E[22012]ZE"),
            ("rollback to s", "CZT"),
            (
                "declare c cursor for select k from kv order by k /* ro. */",
                "CZT",
            ),
            ("fetch 2 from c", "TDDCZT"),
            ("close c", "CZT"),
            ("set local work_mem = '2MB'", "CZT"),
            ("set statement_timeout = '1min'", "CZT"),
            ("show transaction_read_only", "TDCZT"),
            (
                "copy (select k from kv where k < 3) to stdout /* ro. */",
                "HddcCZT",
            ),
            ("explain route select 1", "TDCZT"),
            ("commit and chain", "CZT"),
            ("select count(*) from kv /* ro. */", "TDCZT"),
            ("commit", "CZI"),
        ];
        wait_fresh(&cluster);
        for (sql, expected) in whole {
            assert_eq!(client.word(&query(sql)), expected, "{sql}");
        }
        assert_eq!(ran(&cluster, "/* ro. */"), ON_REPLICA);
        assert_eq!(client.value("show statement_timeout"), "1min");
        let refused = [
            "select pg_advisory_xact_lock(1)",
            "select pg_stat_reset()",
            "select txid_current()",
            "update kv set v = 1",
            "select v from kv for update",
            "set transaction read write",
            "set transaction_read_only = off",
            "set transaction isolation level serializable",
            "declare c cursor with hold for select 1",
            "declare c cursor for select txid_current()",
            "prepare x as select 1",
            "listen x",
            "lock table kv in share mode",
            "prepare transaction 'x'",
            "show in_hot_standby",
            "show pgsluice.lsn",
            "select 1; commit",
            "begin; commit",
            "do $$begin end$$",
            "nonsense",
        ];
        for (number, sql) in refused.into_iter().enumerate() {
            wait_fresh(&cluster);
            let first = format!("select {number} from kv where k = 1 /* first {number}. */");
            let word = told(
                &mut client,
                &["begin read only", &first, sql, "select 1", "rollback"],
            );
            let expected = ["CZT", "TDCZT", "E[25006]ZE", "E[25P02]ZE", "CZI"];
            assert_eq!(word, expected, "{sql}");
            let marker = format!("/* first {number}. */");
            assert_eq!(ran(&cluster, &marker), ON_REPLICA, "{sql}");
        }
        // What was not for a replica does not begin there again.
        wait_fresh(&cluster);
        let first = "select 0 from kv where k = 1 /* first 0. */";
        let word = told(
            &mut client,
            &["begin read only", first, refused[0], "rollback"],
        );
        assert_eq!(word, ["CZT", "TDCZT", "TDCZT", "CZI"]);
        assert_eq!(ran(&cluster, "/* first 0. */"), (true, true));
        assert_eq!(
            told(&mut client, &["update kv set v = v where k = 1"]),
            ["CZI"]
        );
    }
}

#[test]
fn transactions_open_on_the_primary_unless_they_are_read_only_and_begin_with_a_read() {
    let (cluster, mut client) = open(&crate::system_bin());
    let cases: [(&[&str], _); 11] = [
        (&["begin"], ON_PRIMARY),
        (&["begin read write"], ON_PRIMARY),
        (
            &["begin isolation level serializable, read only"],
            ON_PRIMARY,
        ),
        (&["begin read only; select 1"], ON_PRIMARY),
        (
            &[
                "begin read only",
                "set transaction isolation level serializable",
            ],
            ON_PRIMARY,
        ),
        (
            &["begin read only", "select txid_current_if_assigned()"],
            ON_PRIMARY,
        ),
        (&["begin read only"], ON_REPLICA),
        (
            &["/* x */ start transaction isolation level repeatable read, read only;"],
            ON_REPLICA,
        ),
        (
            &["set default_transaction_read_only = on", "begin"],
            ON_REPLICA,
        ),
        (&["start transaction read write"], ON_PRIMARY),
        (
            &["set default_transaction_isolation = serializable", "begin"],
            ON_PRIMARY,
        ),
    ];
    for (number, (before, expected)) in cases.into_iter().enumerate() {
        for sql in before {
            wait_fresh(&cluster);
            client.ok(sql);
        }
        let marker = format!("/* open {number}. */");
        client.ok(&format!("select v from kv where k = 1 {marker}"));
        client.ok("commit");
        assert_eq!(ran(&cluster, &marker), expected, "{before:?}");
    }
    client.ok("reset all");
    // With nothing in it.
    assert_eq!(
        told(&mut client, &["begin read only", "commit"]),
        ["CZT", "CZI"]
    );
    let written = told(
        &mut client,
        &["begin read only", "update kv set v = 1", "rollback"],
    );
    assert_eq!(written, ["CZT", "E[25006]ZE", "CZI"]);
}

#[test]
fn read_only_transactions_in_the_extended_protocol_open_on_replicas() {
    let (cluster, mut client) = open(&crate::system_bin());
    let read = |marker: &str| format!("select v from kv where k = 1 /* {marker}. */");
    let go = |name: &str| join(&[bind("", name), describe(b'P', ""), execute("", 0)]);
    let begin = join(&[parse("", "BEGIN READ ONLY"), bind("", ""), execute("", 0)]);
    assert_eq!(
        client.word(&join(&[parse("w", "update kv set v = v"), sync()])),
        "1ZI"
    );
    // As JDBC sends it.
    wait_fresh(&cluster);
    let batch = join(&[begin, parse("r", &read("jdbc")), go("r"), sync()]);
    assert_eq!(client.word(&batch), "12C12TDCZT");
    assert_eq!(client.word(&join(&[go("r"), sync()])), "2TDCZT");
    assert_eq!(ran(&cluster, "/* jdbc. */"), ON_REPLICA);
    assert_eq!(client.word(&join(&[go("w"), sync()])), "2nE[25006]ZE");
    let end = join(&[run("rollback"), sync()]);
    assert_eq!(client.word(&end), "12CZI");
    assert_eq!(client.word(&join(&[go("w"), sync()])), "2nCZI");
    // As asyncpg does.
    wait_fresh(&cluster);
    assert_eq!(client.word(&query("BEGIN READ ONLY;")), "CZT");
    client.send(&join(&[
        parse("a", &read("asyncpg")),
        describe(b'S', "a"),
        flush(),
    ]));
    let answers = [client.next(), client.next(), client.next()];
    assert_eq!(word(&answers), "1tT");
    assert_eq!(client.word(&join(&[go("a"), sync()])), "2TDCZT");
    let refused = join(&[
        parse("", "update kv set v = v"),
        bind("", ""),
        execute("", 0),
        sync(),
    ]);
    assert_eq!(client.word(&refused), "12E[25006]ZE");
    assert_eq!(client.word(&query("ROLLBACK;")), "CZI");
    assert_eq!(ran(&cluster, "/* asyncpg. */"), ON_REPLICA);
    // What was refused there is a statement like any other here.
    assert_eq!(client.word(&join(&[parse("", "select 1"), sync()])), "1ZI");
    assert_eq!(client.word(&query("BEGIN READ ONLY")), "CZT");
    assert_eq!(client.word(&join(&[go("a"), sync()])), "2TDCZT");
    let call = crate::raw::frame(b'F', &[0, 0, 0x03, 0xbc, 0, 0, 0, 0, 0, 0]);
    assert_eq!(client.word(&call), "E[25006]ZE");
    assert_eq!(client.word(&query("ROLLBACK")), "CZI");
}

#[test]
fn a_replica_that_is_lost_fails_its_transactions_and_their_sessions_go_on() {
    let (cluster, _) = open(&crate::system_bin());
    for (stop, open_batch) in [("fast", false), ("immediate", false), ("fast", true)] {
        let mut client = client(&cluster);
        wait_fresh(&cluster);
        let marker = format!("/* lost {stop} {open_batch}. */");
        client.ok("begin read only");
        client.ok(&format!("select v from kv where k = 1 {marker}"));
        let mut replicas = [&cluster.pg2, &cluster.pg3].into_iter();
        let replica = replicas
            .find(|replica| times_ran(replica, &marker) > 0)
            .unwrap();
        if open_batch {
            client.send(&join(&[run("select 1"), flush()]));
            assert_eq!(word(&[(); 4].map(|()| client.next())), "12DC");
        }
        replica.ctl(&["stop", "-m", stop]);
        let told = match open_batch {
            false => told(&mut client, &["select 1", "select 1", "rollback"]),
            true => vec![
                client.word(&sync()),
                client.word(&query("select 1")),
                client.word(&query("rollback")),
            ],
        };
        // The server may have said why.
        let told = told.iter().map(|word| word.trim_start_matches('N'));
        assert_eq!(
            told.collect::<Vec<_>>(),
            ["E[40001]ZE", "E[25P02]ZE", "CZI"],
            "{stop} {open_batch}"
        );
        client.ok("update kv set v = v where k = 1");
        replica.start();
    }
}
