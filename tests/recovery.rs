//! Clusters that were not taken down in order: what is left behind, and how a later start goes on from it.

mod common;

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
};

use common::{Pg, per_version, wait_until};
use pgsluice::cluster::{Account, Builder, Cluster, Error, Place};

/// A directory that the servers' user can reach.
fn scratch() -> tempfile::TempDir {
    let dir = tempfile::Builder::new()
        .prefix("pgsluice-test-")
        .tempdir_in("/tmp")
        .unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(dir.path(), open).unwrap();
    Account::choose().unwrap().check_reach(dir.path()).unwrap();
    dir
}

fn kept(pg: &Pg, dir: &Path) -> Builder {
    pg.builder().replicas(1).place(Place::Kept(dir.to_owned()))
}

/// What a start says, besides the cluster.
fn start_and_listen(builder: Builder) -> (Cluster, String) {
    let said = Arc::new(Mutex::new(String::new()));
    let ear = said.clone();
    let builder = builder.progress(move |line| {
        let mut said = ear.lock().unwrap();
        said.push_str(line);
        said.push('\n');
    });
    let cluster = builder
        .start()
        .unwrap_or_else(|e| panic!("{e}\n{}", said.lock().unwrap()));
    let said = said.lock().unwrap().clone();
    (cluster, said)
}

fn count(cluster: &Cluster, node: &str) -> Option<String> {
    cluster
        .node(node)
        .unwrap()
        .value("SELECT count(*) FROM t")
        .unwrap()
}

per_version! {
    fn a_kept_cluster_starts_again_with_its_newest_primary(pg) {
        let dir = scratch();
        let cluster = kept(&pg, dir.path()).start().unwrap();
        cluster.primary().sql("CREATE TABLE t AS SELECT 1 AS a").unwrap();
        cluster.wait_caught_up().unwrap();
        cluster.primary().kill().unwrap();
        cluster.promote("pg2").unwrap();
        cluster.primary().sql("INSERT INTO t VALUES (2)").unwrap();
        drop(cluster);
        let (cluster, said) = start_and_listen(kept(&pg, dir.path()));
        assert_eq!(cluster.primary().name(), "pg2", "{said}");
        cluster.wait_caught_up().unwrap();
        assert_eq!(count(&cluster, "pg1").as_deref(), Some("2"));
        assert!(cluster.node("pg1").unwrap().in_recovery().unwrap());
    }

    fn a_copy_that_was_interrupted_is_made_again(pg) {
        let dir = scratch();
        drop(kept(&pg, dir.path()).start().unwrap());
        // As after a kill -9 during pg_basebackup.
        let record = dir.path().join("cluster.json");
        let text = fs::read_to_string(&record).unwrap();
        let (before, after) = text.rsplit_once("\"made\"").unwrap();
        fs::write(&record, format!("{before}\"making\"{after}")).unwrap();
        fs::remove_file(dir.path().join("pg2/PG_VERSION")).unwrap();
        fs::remove_dir_all(dir.path().join("pg2/base")).unwrap();
        let (cluster, said) = start_and_listen(kept(&pg, dir.path()));
        assert!(said.contains("pg2: its copy was never finished"), "{said}");
        assert!(said.contains("slot on pg1 exists already"), "{said}");
        cluster.primary().sql("CREATE TABLE t AS SELECT 1 AS a").unwrap();
        cluster.wait_caught_up().unwrap();
        assert_eq!(count(&cluster, "pg2").as_deref(), Some("1"));
    }
}

#[test]
fn a_damaged_replica_is_copied_anew() {
    let (pg, dir) = (Pg::any(), scratch());
    drop(kept(&pg, dir.path()).start().unwrap());
    fs::remove_file(dir.path().join("pg2/global/pg_control")).unwrap();
    let (cluster, said) = start_and_listen(kept(&pg, dir.path()));
    assert!(said.contains("pg2: is copied anew"), "{said}");
    assert!(cluster.node("pg2").unwrap().in_recovery().unwrap());
}

#[test]
fn a_port_that_was_taken_meanwhile_is_named_and_replaced() {
    let (pg, dir) = (Pg::any(), scratch());
    let cluster = kept(&pg, dir.path()).start().unwrap();
    let port = cluster.primary().port();
    drop(cluster);
    let _thief = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let (cluster, said) = start_and_listen(kept(&pg, dir.path()));
    assert_ne!(cluster.primary().port(), port);
    let holder = format!("pg1: its port {port} is taken by");
    let me = format!("(process {})", std::process::id());
    assert!(said.contains(&holder) && said.contains(&me), "{said}");
}

#[test]
fn too_few_wal_senders_are_said_before_anything_is_copied() {
    let pg = Pg::any();
    let builder = pg.builder().replicas(1).set("max_wal_senders", "1");
    let error = builder.start().err().unwrap();
    assert!(
        matches!(
            error,
            Error::NotEnough {
                setting: "max_wal_senders",
                ..
            }
        ),
        "{error}"
    );
    assert!(
        error.to_string().contains("--set max_wal_senders="),
        "{error}"
    );
}

#[test]
fn a_server_that_cannot_start_shows_its_log() {
    let error = Pg::any()
        .builder()
        .replicas(0)
        .set("no_such_setting", "1")
        .start()
        .err()
        .unwrap();
    let text = error.to_string();
    assert!(
        text.contains("pg1 did not start") && text.contains("\"no_such_setting\""),
        "{text}"
    );
}

#[test]
fn a_directory_of_another_version_is_refused() {
    Pg::v18().run(|new| {
        let (old, dir) = (Pg::any(), scratch());
        if old.binaries().major() == new.binaries().major() {
            return;
        }
        drop(kept(&old, dir.path()).replicas(0).start().unwrap());
        let error = kept(&new, dir.path()).start().err().unwrap();
        assert!(matches!(error, Error::OtherVersion { .. }), "{error}");
    });
}

#[test]
fn a_kept_directory_cannot_be_used_twice() {
    let (pg, dir) = (Pg::any(), scratch());
    let _cluster = kept(&pg, dir.path()).replicas(0).start().unwrap();
    let error = kept(&pg, dir.path()).start().err().unwrap();
    assert!(matches!(error, Error::InUse { .. }), "{error}");
}

// ---- Owners that are killed

const OWNER: &str = "PGSLUICE_TEST_OWNER";

/// Not a test by itself: the process that [`Owner`] starts and kills. It ends with its parent, too.
#[test]
fn owner_of_a_cluster() {
    let Some(place) = std::env::var_os(OWNER).map(PathBuf::from) else {
        return;
    };
    let builder = Pg::any().builder().replicas(1);
    let cluster = match place.ends_with("kept") {
        true => builder.place(Place::Kept(place)),
        false => builder.place(Place::Temporary(place)),
    };
    let cluster = cluster.start().unwrap();
    cluster.node("pg2").unwrap().freeze();
    let pids = cluster.nodes().into_iter().filter_map(|node| node.pid());
    let pids: Vec<String> = pids.map(|pid| pid.to_string()).collect();
    println!("\nREADY {} {}", cluster.dir().display(), pids.join(" "));
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

/// A process that owns a cluster of two, the replica frozen.
struct Owner {
    process: Child,
    cluster: PathBuf,
    pids: Vec<String>,
}

impl Owner {
    fn start(place: &Path) -> Owner {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["owner_of_a_cluster", "--exact", "--nocapture"])
            .env(OWNER, place)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut ready = lines
            .map_while(Result::ok)
            .filter(|line| line.starts_with("READY "));
        let ready = ready
            .next()
            .expect("the owner ended before its cluster was ready");
        let words: Vec<String> = ready.split(' ').skip(1).map(str::to_owned).collect();
        Owner {
            process,
            cluster: words[0].clone().into(),
            pids: words[1..].to_vec(),
        }
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

fn runs(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest.chars().next());
    !matches!(state, None | Some(None | Some('Z')))
}

#[test]
fn servers_end_when_their_owner_is_killed_and_a_kept_directory_starts_again() {
    let (pg, dir) = (Pg::any(), scratch());
    let place = dir.path().join("kept");
    let mut owner = Owner::start(&place);
    assert!(owner.pids.iter().all(|pid| runs(pid)));
    owner.kill();
    wait_until("the primary has ended", || !runs(&owner.pids[0]));
    // The frozen one ends too, but may take some seconds: the next start finds it still there, or only its lock file.
    let (cluster, said) = start_and_listen(kept(&pg, &place));
    assert!(!runs(&owner.pids[1]), "{said}");
    let found = ["a server of an earlier run", "was not shut down in order"];
    let found = found
        .iter()
        .any(|what| said.contains(&format!("pg2: {what}")));
    assert!(found, "{said}");
    cluster
        .primary()
        .sql("CREATE TABLE t AS SELECT 1 AS a")
        .unwrap();
    cluster.wait_caught_up().unwrap();
}

#[test]
fn a_temporary_cluster_whose_owner_was_killed_is_removed_by_the_next_one() {
    let (pg, dir) = (Pg::any(), scratch());
    let mut owner = Owner::start(dir.path());
    owner.kill();
    assert!(owner.cluster.exists());
    let place = Place::Temporary(dir.path().to_owned());
    let next = pg.builder().replicas(0).place(place).start().unwrap();
    assert!(!owner.cluster.exists());
    wait_until("all servers have ended", || {
        !owner.pids.iter().any(|pid| runs(pid))
    });
    drop(next);
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        0,
        "nothing is left"
    );
}
