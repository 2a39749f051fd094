//! What a listener that only reads refuses by itself: as a replica does, which hears nothing of it.

use std::net::SocketAddr;

use pgsluice::topology::Health;

use crate::{
    cluster, installations,
    proxied::{Cluster, READS, READS_NEVER, Session, wait_until},
    times_ran,
};

/// They write whatever happens.
const WRITES: [&str; 36] = [
    "insert into kv values (101, 0)",
    "INSERT INTO kv SELECT 101, 0 RETURNING k;",
    "-- a comment\nupdate kv set v = 1 where false",
    "delete from only kv where k = 1",
    "merge into kv using (values (1)) s (k) on kv.k = s.k when matched then delete",
    "truncate kv",
    "create table made (a int)",
    "create table if not exists kv (a int)",
    "create unlogged table made (a int)",
    "create table made (a int, b int generated always as (a + 1) stored)",
    "create table made as select 1 as a",
    "create temp table made on commit drop as select 1 as a",
    "create index on kv (v)",
    "create unique index i on kv (v)",
    "create or replace view v as select 1 as a",
    "create materialized view v as select 1 as a",
    "refresh materialized view v",
    "create schema s",
    "create sequence s",
    "create function f() returns int language sql as 'select 1'",
    "create procedure p() language sql as 'select 1'",
    "create type e as enum ('a')",
    "create domain d as int",
    "alter table kv add column w int",
    "alter table kv rename column v to w",
    "alter table kv rename constraint kv_pkey to other",
    "alter index kv_pkey rename to other",
    "alter view v rename column a to b",
    "alter sequence s restart",
    "alter type e add value 'b'",
    "alter type e rename attribute a to b",
    "alter function f() stable",
    "drop table kv",
    "drop table if exists missing",
    "drop materialized view v",
    "drop function f()",
];

/// What a replica may do, or knows better.
const OTHERS: [&str; 9] = [
    "explain (costs off) insert into kv values (101, 0)",
    "explain (costs off, analyze) insert into kv values (101, 0)",
    "with a as (insert into kv values (101, 0) returning k) select * from a",
    "with a as (select 101) insert into kv select * from a",
    "select * from kv for update",
    "select 1 into made",
    "select 1; insert into kv values (101, 0)",
    "copy kv from stdin",
    "prepare p as insert into kv values (101, 0)",
];

/// Not by way of the proxy.
fn direct(cluster: &Cluster) -> Session {
    Session::open(SocketAddr::from(([127, 0, 0, 1], cluster.pg2.port)))
}

fn times_on_replicas(cluster: &Cluster, marker: &str) -> usize {
    times_ran(&cluster.pg2, marker) + times_ran(&cluster.pg3, marker)
}

#[test]
fn what_surely_writes_is_refused_as_a_replica_does_without_one() {
    for bin in installations() {
        let cluster = cluster(&bin, |_| {});
        let (session, replica) = (cluster.proxied.session(READS), direct(&cluster));
        for (number, sql) in WRITES.into_iter().enumerate() {
            let marker = format!("/* refused {number}. */");
            let told = session.try_sql(&format!("{sql} {marker}")).unwrap_err();
            let own = replica.try_sql(sql).unwrap_err();
            assert!(told.is("ERROR", "25006") && told.hint.is_some(), "{told:?}");
            assert_eq!((told.code(), &told.text), (own.code(), &own.text), "{sql}");
            assert_eq!(times_on_replicas(&cluster, &marker), 0, "{sql}");
        }
        assert_eq!(session.sql("select 1"), "1");
        let counted = "pgsluice_errors_total{kind=\"read_only\"}";
        wait_until("all are counted", || {
            cluster.proxied.labelled_metric(counted) == WRITES.len() as u64
        });
    }
}

#[test]
fn what_may_not_write_or_is_not_alone_a_replica_answers() {
    let cluster = cluster(&installations()[0], |_| {});
    for (number, sql) in OTHERS.into_iter().enumerate() {
        let (session, replica) = (cluster.proxied.session(READS), direct(&cluster));
        let marker = format!("/* left {number}. */");
        let told = session.try_sql(&format!("{sql} {marker}"));
        let own = replica.try_sql(sql);
        assert_eq!(
            told.map_err(|told| told.text),
            own.map_err(|own| own.text),
            "{sql}"
        );
        assert!(times_on_replicas(&cluster, &marker) > 0, "{sql}");
    }
    // In a transaction the replica must know that it has failed.
    let session = cluster.proxied.session(READS);
    session.sql("begin");
    let write = "insert into kv values (101, 0) /* within. */";
    assert_eq!(session.try_sql(write).unwrap_err().code(), "25006");
    assert!(times_on_replicas(&cluster, "/* within. */") > 0);
    assert_eq!(session.try_sql("select 1").unwrap_err().code(), "25P02");
    session.sql("rollback");
    assert_eq!(session.sql("select 1"), "1");
}

#[test]
fn without_a_replica_a_write_waits_for_none() {
    let cluster = cluster(&installations()[0], |_| {});
    let session = cluster.proxied.session(READS_NEVER);
    for (replica, name) in [(&cluster.pg2, "pg2"), (&cluster.pg3, "pg3")] {
        replica.ctl(&["stop", "-m", "fast"]);
        cluster.proxied.wait_health(name, Health::Down);
    }
    let told = session
        .try_sql("insert into kv values (101, 0)")
        .unwrap_err();
    assert!(told.is("ERROR", "25006"), "{told:?}");
}
