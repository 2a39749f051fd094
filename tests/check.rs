//! `pgsluice check` against a real primary and a streaming replica: what is unfit is named with what mends it.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

/// Of every wait here; machines are loaded.
const PATIENCE: Duration = Duration::from_secs(30);

/// The system's PostgreSQL: `PGSLUICE_TEST_PG_BIN`, or the newest that is installed.
fn system_bin() -> PathBuf {
    let given = std::env::var_os("PGSLUICE_TEST_PG_BIN").map(PathBuf::from);
    let found = pgsluice::cluster::Binaries::find(given.as_deref());
    found.unwrap_or_else(|e| panic!("{e}")).dir().to_owned()
}

/// PostgreSQL's programs; `PGSLUICE_TEST_PG_BINS` (colon-separated) names more installations.
fn installations() -> Vec<PathBuf> {
    let more = std::env::var("PGSLUICE_TEST_PG_BINS").unwrap_or_default();
    let more = more.split(':').filter(|dir| !dir.is_empty());
    std::iter::once(system_bin())
        .chain(more.map(PathBuf::from))
        .collect()
}

/// One PostgreSQL instance; stopped and removed on drop.
struct Server {
    bin: PathBuf,
    dir: tempfile::TempDir,
    port: u16,
}

impl Server {
    fn place(bin: &Path) -> Server {
        let dir = tempfile::Builder::new()
            .prefix("pgsluice-check-")
            .tempdir()
            .unwrap();
        if nix::unistd::geteuid().is_root() {
            let owner = nix::unistd::User::from_name("postgres").unwrap().unwrap();
            nix::unistd::chown(dir.path(), Some(owner.uid), Some(owner.gid)).unwrap();
        }
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        Server {
            bin: bin.to_owned(),
            dir,
            port,
        }
    }

    fn primary(bin: &Path) -> Server {
        let server = Server::place(bin);
        let args = "-D data -U postgres -A trust -N -E UTF8 --locale=C";
        server.run("initdb", args);
        server.start();
        server
    }

    fn replica(&self) -> Server {
        let server = Server::place(&self.bin);
        let args = format!(
            "-D data -h 127.0.0.1 -p {} -U postgres -R -X stream -c fast -N",
            self.port
        );
        server.run("pg_basebackup", &args);
        server.start();
        server
    }

    fn start(&self) {
        let options = format!(
            "-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off -c max_connections=30",
            self.port
        );
        let output = self
            .command("pg_ctl", "-D data -s -w -t 60 -l log start")
            .args(["-o", &options])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    fn sql(&self, sql: &str) {
        let output = self
            .command(
                "psql",
                &format!(
                    "-h 127.0.0.1 -p {} -U postgres -Xq -v ON_ERROR_STOP=1",
                    self.port
                ),
            )
            .args(["-c", sql])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    fn run(&self, program: &str, args: &str) {
        let output = self.command(program, args).output().unwrap();
        assert!(output.status.success(), "{program}: {output:?}");
    }

    /// A PostgreSQL program in this server's directory, not as root.
    fn command(&self, program: &str, args: &str) -> Command {
        let program = self.bin.join(program);
        let mut command = match nix::unistd::geteuid().is_root() {
            true => Command::new("setpriv"),
            false => Command::new(&program),
        };
        if nix::unistd::geteuid().is_root() {
            command
                .args([
                    "--reuid=postgres",
                    "--regid=postgres",
                    "--clear-groups",
                    "--",
                ])
                .arg(program);
        }
        command.args(args.split_whitespace());
        command
            .current_dir(self.dir.path())
            .env("LC_ALL", "C")
            .stdin(Stdio::null());
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self
            .command("pg_ctl", "-D data -s -w -m immediate stop")
            .output();
    }
}

/// A configuration for these servers, its listeners on ports that are free.
fn config(nodes: &[&Server], more: &str) -> tempfile::NamedTempFile {
    let mut text = "http.listen = \"off\"\n".to_owned();
    for route in ["primary", "replica"] {
        text += &format!("[[listener]]\nlisten = \"127.0.0.1:0\"\nroute = \"{route}\"\n");
    }
    for (index, node) in nodes.iter().enumerate() {
        let port = node.port;
        text += &format!(
            "[[node]]\nname = \"pg{}\"\nhost = \"127.0.0.1\"\nport = {port}\nmax_servers = 20\n",
            index + 1
        );
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), text + more).unwrap();
    file
}

fn check(config: &tempfile::NamedTempFile) -> (i32, String) {
    let output: Output = Command::new(env!("CARGO_BIN_EXE_pgsluice"))
        .args(["check", "-c", config.path().to_str().unwrap()])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    (output.status.code().unwrap(), said)
}

/// Checks until nothing stands against a start: a replica needs a moment to replay what was just granted.
fn check_until_ready(config: &tempfile::NamedTempFile) -> String {
    let since = Instant::now();
    loop {
        match check(config) {
            (0, said) => return said,
            (code, said) => assert!(since.elapsed() < PATIENCE, "{code}: {said}"),
        }
    }
}

#[test]
fn a_cluster_becomes_ready_by_the_sql_that_check_prints() {
    for bin in installations() {
        let primary = Server::primary(&bin);
        primary.sql("CREATE ROLE pgsluice LOGIN");
        primary.sql("CREATE ROLE pgsluice_auth LOGIN");
        let replica = primary.replica();
        let config = config(&[&primary, &replica], "[auth]\nuser = \"pgsluice_auth\"\n");

        let (code, said) = check(&config);
        assert_eq!(code, 1, "{said}");
        let grant = "GRANT pg_monitor TO \"pgsluice\";";
        assert_eq!(said.matches(grant).count(), 2, "{said}");
        primary.sql(grant);

        let from = said.find("BEGIN;").expect(&said);
        let to = said.find("COMMIT;").expect(&said) + "COMMIT;".len();
        primary.sql(&said[from..to]);

        let said = check_until_ready(&config);
        assert!(said.contains("primary: everything to pg1"), "{said}");
        assert!(
            said.contains("replica: reads to pg2; writes are refused with 25006"),
            "{said}"
        );
        assert!(said.contains("replica, timeline 1, "), "{said}");
    }
}

#[test]
fn two_clusters_in_one_configuration_are_told_apart() {
    let [one, other] = [(); 2].map(|()| Server::primary(&system_bin()));
    for server in [&one, &other] {
        server.sql("CREATE ROLE pgsluice LOGIN IN ROLE pg_monitor");
    }
    let config = config(
        &[&one, &other],
        "[[user]]\nname = \"app\"\npassword = \"hunter2\"\n",
    );
    let (code, said) = check(&config);
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("error: pg2: another cluster than pg1: system identifier "),
        "{said}"
    );
    assert!(
        said.contains("error: pg1, pg2 are writable on one timeline"),
        "{said}"
    );
}
