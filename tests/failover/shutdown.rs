//! The primary is stopped by its operator.

use std::thread;

use pgsluice::topology::Health;

use crate::{
    nodes::installations,
    proxied::{Cluster, WRITES, WRITES_SESSION},
};

#[test]
fn a_smart_shutdown_ends_when_open_transactions_have_ended() {
    for bin in installations() {
        let cluster = Cluster::start(&bin);
        let open = |listener| cluster.proxied.session(listener);
        let (idle, in_transaction, pinned) = (open(WRITES), open(WRITES), open(WRITES_SESSION));
        in_transaction.sql("begin");
        in_transaction.sql("insert into t values (1)");
        idle.sql("insert into t values (2)");
        pinned.sql("insert into t values (3)");
        thread::scope(|scope| {
            let stopping = scope.spawn(|| cluster.pg1.ctl(&["stop", "-m", "smart"]));
            cluster.proxied.wait_health("pg1", Health::Draining);
            let told = pinned.wait_end().unwrap();
            assert!(told.is("FATAL", "57P01"), "{told:?}");
            let held = idle.start("insert into t values (4)");
            in_transaction.sql("insert into t values (5)");
            assert!(!stopping.is_finished());
            in_transaction.sql("commit");
            stopping.join().unwrap();
            cluster.proxied.wait_health("pg1", Health::Down);
            assert!(held.poll().is_none());
            cluster.pg1.start();
            held.wait().unwrap();
        });
        in_transaction.sql("insert into t values (6)");
        let ids = "select string_agg(id::text, ' ' order by id) from t";
        assert_eq!(cluster.pg1.sql(ids), "1 2 3 4 5 6");
    }
}
