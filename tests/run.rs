//! `pgsluice run`, the program itself: what systemd is told, what signals do, what the log says.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rustls::pki_types::CertificateDer;

#[path = "nodes/mod.rs"]
mod nodes;
use nodes::{PATIENCE, Server};

const SECRET: &str = "hunter2-never-to-be-seen";

/// The program, with everything that it has said on standard error.
struct Running {
    process: Child,
    log: Arc<Mutex<String>>,
}

impl Running {
    fn start(file: &Path, notify: Option<&Path>) -> Running {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgsluice"));
        command.args(["run", "-c"]).arg(file);
        command.env_remove("RUST_LOG").env_remove("NOTIFY_SOCKET");
        if let Some(socket) = notify {
            command.env("NOTIFY_SOCKET", socket);
        }
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let said = BufReader::new(process.stderr.take().unwrap());
        let log = Arc::<Mutex<String>>::default();
        let ear = log.clone();
        thread::spawn(move || {
            for line in said.lines().map_while(Result::ok) {
                ear.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        let running = Running { process, log };
        running.wait_said("\"listening\"", 1);
        running
    }

    fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    #[track_caller]
    fn wait_said(&self, text: &str, times: usize) {
        wait_until(text, || self.log().matches(text).count() >= times);
    }

    /// The events of the log; every line is one.
    fn events(&self) -> Vec<serde_json::Value> {
        let log = self.log();
        let parse =
            |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        log.lines().map(parse).collect()
    }

    /// Where it listens, in the order of the file.
    fn address(&self) -> SocketAddr {
        let events = self.events();
        let mut listening = events.iter().map(|event| &event["fields"]);
        let fields = listening.find(|fields| fields["message"] == "listening");
        fields.unwrap()["address"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.process.id() as i32), signal).unwrap();
    }

    #[track_caller]
    fn wait_end(&mut self) -> i32 {
        let mut ended = None;
        wait_until("the program ends", || {
            ended = self.process.try_wait().unwrap();
            ended.is_some()
        });
        ended.unwrap().code().unwrap_or(-1)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- log of the program\n{}", self.log());
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[track_caller]
fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A configuration for the node at `port`, logging JSON.
fn write_config(dir: &Path, port: u16) -> PathBuf {
    let file = dir.join("pgsluice.toml");
    let text = format!(
        "workers = 1\n[http]\nlisten = \"off\"\n[log]\nformat = \"json\"\n\
         [[listener]]\nlisten = \"127.0.0.1:0\"\nroute = \"primary\"\n\
         [[node]]\nname = \"pg1\"\nhost = \"127.0.0.1\"\nport = {port}\n\
         [probe]\nuser = \"prober\"\npassword = \"{SECRET}\"\n\
         [auth]\nmethod = \"trust\"\n\
         [[user]]\nname = \"app\"\npassword = \"{SECRET}\"\n"
    );
    write_private(&file, &text);
    file
}

fn write_private(file: &Path, text: &str) {
    fs::write(file, text).unwrap();
    fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}

/// Nobody listens there.
const NOBODY: u16 = 9;

#[test]
fn systemd_is_told_when_it_is_ready_and_when_it_stops() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let hear = || {
        let mut text = [0; 256];
        let len = socket.recv(&mut text).unwrap();
        String::from_utf8(text[..len].to_vec())
            .unwrap()
            .trim()
            .to_owned()
    };
    let mut running = Running::start(&write_config(dir.path(), NOBODY), Some(&path));
    assert_eq!(hear(), "READY=1");
    running.signal(Signal::SIGTERM);
    assert_eq!(hear(), "STOPPING=1");
    assert_eq!(running.wait_end(), 0);
}

#[test]
fn a_bad_file_at_a_reload_is_refused_with_its_reason_and_a_good_one_taken() {
    let dir = tempfile::tempdir().unwrap();
    let file = write_config(dir.path(), NOBODY);
    let mut running = Running::start(&file, None);
    let address = running.address();
    let good = fs::read_to_string(&file).unwrap();
    write_private(&file, &format!("{good}[pool]\nsiez = 3\n"));
    running.signal(Signal::SIGHUP);
    running.wait_said("reload refused, the old configuration stays", 1);
    running.wait_said("unknown key `siez` in `pool`", 1);
    TcpStream::connect(address).expect("it still listens");
    write_private(&file, &format!("{good}[pool]\nsize = 3\n"));
    running.signal(Signal::SIGHUP);
    running.wait_said("\"reloaded\"", 1);
    let events = running.events();
    let fields = |message: &str| {
        let mut all = events.iter().map(|event| event["fields"].clone());
        all.find(|f| f["message"] == message).unwrap()
    };
    assert_eq!(fields("reloaded")["live"], "[\"pool\"]");
    running.signal(Signal::SIGINT);
    assert_eq!(running.wait_end(), 0);
    assert!(!running.log().contains(SECRET), "{}", running.log());
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// A session inside a transaction.
fn begin<S: Read + Write>(mut stream: S) -> S {
    let mut startup = Vec::new();
    let login = [("user", "app"), ("database", "postgres")];
    pgsluice::wire::frontend::startup(&mut startup, 0, login);
    stream.write_all(&startup).unwrap();
    until(&mut stream, b"Z\0\0\0\x05I");
    ask(&mut stream, "BEGIN", b"Z\0\0\0\x05T");
    stream
}

fn ask(stream: &mut (impl Read + Write), sql: &str, answer: &[u8]) {
    let mut query = Vec::new();
    pgsluice::wire::frontend::query(&mut query, sql);
    stream.write_all(&query).unwrap();
    until(stream, answer);
}

/// Reads on until the peer has said `end`.
#[track_caller]
fn until(stream: &mut impl Read, end: &[u8]) {
    let mut heard = Vec::new();
    while !heard.windows(end.len()).any(|w| w == end) {
        let mut some = [0; 4096];
        let len = stream.read(&mut some).unwrap();
        assert!(len > 0, "ended after {}", heard.escape_ascii());
        heard.extend_from_slice(&some[..len]);
    }
}

#[test]
fn sigterm_lets_a_transaction_end_and_a_second_one_does_not() {
    let pg = Server::primary(&nodes::installations()[0]);
    pg.sql("CREATE ROLE app LOGIN");
    let dir = tempfile::tempdir().unwrap();
    let file = write_config(dir.path(), pg.port);

    let mut running = Running::start(&file, None);
    let mut session = begin(connect(running.address()));
    running.signal(Signal::SIGTERM);
    running.wait_said("draining", 1);
    ask(&mut session, "SELECT 1", b"Z\0\0\0\x05T");
    ask(&mut session, "COMMIT", b"57P01");
    assert_eq!(running.wait_end(), 0);

    let mut running = Running::start(&file, None);
    let mut session = begin(connect(running.address()));
    running.signal(Signal::SIGTERM);
    running.wait_said("draining", 1);
    ask(&mut session, "SELECT 1", b"Z\0\0\0\x05T");
    running.signal(Signal::SIGTERM);
    until(&mut session, b"57P01");
    assert_eq!(running.wait_end(), 0);
    assert!(!running.log().contains(SECRET), "{}", running.log());
}

type TlsStream = rustls::StreamOwned<rustls::ClientConnection, TcpStream>;

/// Certificate and key for 127.0.0.1, put where the configuration says; the certificate itself.
fn certify(dir: &Path) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    write_private(&dir.join("cert.pem"), &made.cert.pem());
    write_private(&dir.join("key.pem"), &made.signing_key.serialize_pem());
    made.cert.der().clone()
}

/// A connection over TLS to a listener that has just this certificate; None if it has another.
fn connect_tls(address: SocketAddr, certificate: &CertificateDer<'static>) -> Option<TlsStream> {
    let mut stream = connect(address);
    stream.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).unwrap();
    let mut answer = [0; 1];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, *b"S");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = address.ip().into();
    let mut connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    match connection.complete_io(&mut stream) {
        Ok(_) => Some(rustls::StreamOwned::new(connection, stream)),
        Err(error) => {
            assert!(error.to_string().contains("certificate"), "{error}");
            None
        }
    }
}

#[test]
fn certificates_are_read_again_at_a_reload_and_bad_ones_refused_whole() {
    let pg = Server::primary(&nodes::installations()[0]);
    pg.sql("CREATE ROLE app LOGIN");
    let dir = tempfile::tempdir().unwrap();
    let old = certify(dir.path());
    let file = write_config(dir.path(), pg.port);
    let text = fs::read_to_string(&file).unwrap();
    let text =
        format!("{text}[tls.client]\nmode = \"require\"\ncert = \"cert.pem\"\nkey = \"key.pem\"\n");
    write_private(&file, &text);
    let running = Running::start(&file, None);
    let address = running.address();
    let mut session = begin(connect_tls(address, &old).expect("the old certificate"));

    let new = certify(dir.path());
    assert!(
        connect_tls(address, &new).is_none(),
        "nobody has asked for it"
    );
    running.signal(Signal::SIGHUP);
    running.wait_said("\"reloaded\"", 1);
    let mut fresh = begin(connect_tls(address, &new).expect("the new certificate"));
    assert!(connect_tls(address, &old).is_none());
    ask(&mut session, "SELECT 1", b"Z\0\0\0\x05T");

    let key = fs::read_to_string(dir.path().join("key.pem")).unwrap();
    certify(dir.path());
    for (refused, (name, bad, why)) in [
        ("key.pem", &*key, "belong"),
        ("cert.pem", "nothing of the kind", "cert.pem"),
    ]
    .into_iter()
    .enumerate()
    {
        write_private(&dir.path().join(name), bad);
        // What is good in the file is not taken either.
        write_private(&file, &format!("{text}[pool]\nsize = 3\n"));
        running.signal(Signal::SIGHUP);
        running.wait_said("reload refused, the old configuration stays", refused + 1);
        running.wait_said(why, 1);
        connect_tls(address, &new).expect("the certificate that was good");
    }
    let newest = certify(dir.path());
    running.signal(Signal::SIGHUP);
    running.wait_said("\"reloaded\"", 2);
    running.wait_said("[\\\"pool\\\"]", 1);
    connect_tls(address, &newest).expect("the newest certificate");
    for session in [&mut session, &mut fresh] {
        ask(session, "COMMIT", b"Z\0\0\0\x05I");
    }
}

/// Exit code, and all that was said.
fn ctl_of(args: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgsluice"));
    let output = command.arg("ctl").args(args).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.code().unwrap(),
        String::from_utf8(said).unwrap(),
    )
}

#[test]
fn ctl_pauses_resumes_and_reloads_the_running_proxy() {
    let pg = Server::primary(&nodes::system_bin());
    pg.sql("CREATE ROLE app LOGIN");
    let dir = tempfile::tempdir().unwrap();
    let file = write_config(dir.path(), pg.port);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let http = free.local_addr().unwrap().to_string();
    drop(free);
    let grace = "[failover]\ngrace = \"100ms\"\n";
    let text = fs::read_to_string(&file).unwrap() + grace;
    write_private(&file, &text.replace("\"off\"", &format!("{http:?}")));
    let running = Running::start(&file, None);
    let config = ["-c", file.to_str().unwrap()];
    let ctl = |what: &str| ctl_of(&[config[0], config[1], what]);
    wait_until("there is a primary", || {
        ctl("status").1.contains("primary: pg1\n")
    });

    let mut session = begin(connect(running.address()));
    let (code, said) = ctl("pause");
    assert_eq!(code, 75, "{said}");
    assert!(said.contains("1 servers of pg1"), "{said}");
    let mut commit = Vec::new();
    pgsluice::wire::frontend::query(&mut commit, "commit");
    session.write_all(&commit).unwrap();
    let (code, said) = ctl("pause");
    assert_eq!((code, said.as_str()), (0, "paused: nothing runs on pg1\n"));
    assert_eq!(ctl("resume"), (0, "resumed\n".to_owned()));
    let drain = |node| ctl_of(&[config[0], config[1], "drain", node]);
    let (code, said) = drain("pg1");
    assert!(code == 1 && said.contains("it is the primary"), "{said}");
    let (code, said) = drain("none such");
    assert!(
        code == 1 && said.contains("none such: there is no node"),
        "{said}"
    );
    begin(connect(running.address()));

    let (code, said) = ctl("reload");
    assert_eq!((code, said.as_str()), (0, "reloaded: \n"));
    write_private(&file, "[pool]\nsiez = 3\n");
    let (code, said) = reload_by_address(&http);
    assert_eq!(code, 1);
    assert!(said.contains("unknown key `siez`"), "{said}");
    drop(running);
    let (code, said) = reload_by_address(&http);
    assert_eq!(code, 1);
    assert!(said.contains("cannot ask the proxy at"), "{said}");
}

/// Without the file, which is broken.
fn reload_by_address(http: &str) -> (i32, String) {
    ctl_of(&["--http", http, "reload"])
}
