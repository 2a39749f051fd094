//! One real PostgreSQL with every kind of authentication, shared by the tests that run at the same time.

use std::{
    fs,
    io::Write,
    net::TcpListener,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{Arc, Mutex, Weak},
};

use nix::unistd::{Gid, Uid, User, chown};
use pgsluice::net::Target;
use rcgen::{CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

const HBA: &str = "
local   all all                    trust
hostssl all certified all          cert
hostnossl all tlsonly all          reject
hostssl all plainonly all          reject
host    all md5user   all          md5
host    all clear     all          password
host    all trusted   all          trust
host    all all       all          scram-sha-256
host    replication all all        scram-sha-256
";

const ROLES: &str = "
CREATE ROLE app LOGIN PASSWORD 'secret';
CREATE ROLE tlsonly LOGIN PASSWORD 'secret';
CREATE ROLE plainonly LOGIN PASSWORD 'secret';
CREATE ROLE clear LOGIN PASSWORD 'secret';
CREATE ROLE trusted LOGIN;
CREATE ROLE certified LOGIN;
CREATE ROLE nologin PASSWORD 'secret';
CREATE ROLE expired LOGIN PASSWORD 'secret' VALID UNTIL '2001-01-01';
CREATE ROLE forever LOGIN PASSWORD 'secret' VALID UNTIL 'infinity';
CREATE ROLE boss LOGIN SUPERUSER PASSWORD 'secret';
CREATE ROLE streamer LOGIN REPLICATION PASSWORD 'secret';
CREATE ROLE lookup LOGIN PASSWORD 'lookup secret';
SET password_encryption = md5;
CREATE ROLE md5user LOGIN PASSWORD 'secret';
";

static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());

pub struct Cluster {
    dir: tempfile::TempDir,
    owner: Option<(Uid, Gid)>,
    pub port: u16,
    /// Some builds of PostgreSQL have none: there, what needs it is left out.
    pub has_tls: bool,
}

/// The cluster, made if no other test holds it.
pub fn cluster() -> Arc<Cluster> {
    let mut shared = SHARED.lock().unwrap_or_else(|e| e.into_inner());
    if let Some(cluster) = shared.upgrade() {
        return cluster;
    }
    let cluster = Arc::new(Cluster::make());
    *shared = Arc::downgrade(&cluster);
    cluster
}

impl Cluster {
    fn make() -> Self {
        // PostgreSQL refuses to run as root.
        let owner = Uid::effective().is_root().then(|| {
            let user = User::from_name("postgres")
                .unwrap()
                .expect("a user postgres");
            (user.uid, user.gid)
        });
        let cluster = Cluster {
            dir: tempfile::tempdir().unwrap(),
            owner,
            port: free_port(),
            has_tls: has_tls(),
        };
        cluster.own(cluster.dir.path());
        cluster.certificates();
        cluster.initdb();
        cluster.pg(
            "pg_ctl",
            &[
                "start",
                "-w",
                "-D",
                &cluster.path("data"),
                "-l",
                &cluster.path("log"),
            ],
        );
        cluster.sql(ROLES);
        cluster.sql(&pgsluice::client::verifier::lookup_sql("lookup"));
        cluster
    }

    pub fn path(&self, name: &str) -> String {
        self.file(name).to_str().unwrap().to_owned()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn target(&self) -> Target {
        Target {
            name: "pg1".into(),
            host: "127.0.0.1".into(),
            address: None,
            port: self.port,
        }
    }

    fn own(&self, path: &Path) {
        if let Some((uid, gid)) = self.owner {
            chown(path, Some(uid), Some(gid)).unwrap();
        }
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.file(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        self.own(&path);
    }

    /// A CA, a certificate for server and proxy, one for the client "certified", one with Ed25519, another CA.
    fn certificates(&self) {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "test CA");
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        self.write("ca.crt", &ca.pem());
        let hosts = vec!["localhost".to_owned(), "127.0.0.1".into()];
        for (name, common_name, hosts) in [
            ("server", "server", hosts.clone()),
            ("proxy", "proxy", hosts.clone()),
            ("certified", "certified", vec![]),
        ] {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(hosts).unwrap();
            params
                .distinguished_name
                .push(DnType::CommonName, common_name);
            self.write(
                &format!("{name}.crt"),
                &params.signed_by(&key, &ca).unwrap().pem(),
            );
            self.write(&format!("{name}.key"), &key.serialize_pem());
        }
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let ed25519 = CertificateParams::new(hosts)
            .unwrap()
            .self_signed(&key)
            .unwrap();
        self.write("ed25519.crt", &ed25519.pem());
        self.write("ed25519.key", &key.serialize_pem());
    }

    fn initdb(&self) {
        self.pg(
            "initdb",
            &[
                "-D",
                &self.path("data"),
                "-U",
                "postgres",
                "--no-sync",
                "-A",
                "trust",
            ],
        );
        let settings = format!(
            "port = {}\nlisten_addresses = '127.0.0.1,127.0.0.2,::1'\nunix_socket_directories = '{}'\nfsync = off\nssl = {}\n\
             ssl_cert_file = '{}'\nssl_key_file = '{}'\nssl_ca_file = '{}'\nmax_connections = 50\n",
            self.port,
            self.dir.path().display(),
            if self.has_tls { "on" } else { "off" },
            self.path("server.crt"),
            self.path("server.key"),
            self.path("ca.crt"),
        );
        self.write("data/postgresql.auto.conf", &settings);
        let rules = HBA
            .lines()
            .filter(|rule| self.has_tls || !rule.starts_with("hostssl"));
        self.write("data/pg_hba.conf", &rules.collect::<Vec<_>>().join("\n"));
    }

    /// Runs one of PostgreSQL's programs as its owner.
    fn pg(&self, program: &str, arguments: &[&str]) -> Output {
        let bin = bin();
        let mut command = Command::new(format!("{bin}/{program}"));
        command.args(arguments).current_dir(self.dir.path());
        if let Some((uid, gid)) = self.owner {
            command.uid(uid.as_raw()).gid(gid.as_raw());
        }
        // The server inherits pg_ctl's output: a pipe would never end.
        let log = fs::File::create(self.file("program.log")).unwrap();
        let status = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let output = status.output().unwrap();
        let said = fs::read_to_string(self.file("program.log")).unwrap_or_default();
        assert!(output.status.success(), "{program}: {said}");
        output
    }

    /// As superuser over the local socket.
    pub fn sql(&self, sql: &str) {
        let sql = format!("SET client_min_messages = warning; {sql}");
        let mut psql = Command::new("psql")
            .args([
                "-X",
                "-q",
                "-v",
                "ON_ERROR_STOP=1",
                "-U",
                "postgres",
                "-d",
                "postgres",
            ])
            .args([
                "-h",
                self.dir.path().to_str().unwrap(),
                "-p",
                &self.port.to_string(),
            ])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        psql.stdin
            .take()
            .unwrap()
            .write_all(sql.as_bytes())
            .unwrap();
        assert!(psql.wait().unwrap().success(), "{sql}");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let data = self.path("data");
        if self.file("data/postmaster.pid").exists() {
            self.pg("pg_ctl", &["stop", "-m", "immediate", "-D", &data]);
        }
    }
}

/// The system's PostgreSQL: `PGSLUICE_TEST_PG_BIN`, or the newest that is installed.
fn bin() -> String {
    let given = std::env::var_os("PGSLUICE_TEST_PG_BIN").map(std::path::PathBuf::from);
    let found = pgsluice::cluster::Binaries::find(given.as_deref());
    found
        .unwrap_or_else(|e| panic!("{e}"))
        .dir()
        .display()
        .to_string()
}

fn has_tls() -> bool {
    let config = Command::new(format!("{}/pg_config", bin()))
        .arg("--configure")
        .output();
    String::from_utf8_lossy(&config.unwrap().stdout).contains("openssl")
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}
