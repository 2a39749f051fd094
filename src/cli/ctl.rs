//! `pgsluice ctl`: has a running proxy on this machine do something, over its HTTP port.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::ExitCode,
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::config::Config;

/// Paused, but transactions that were open have not ended in time (EX_TEMPFAIL of sysexits.h).
pub const BUSY: u8 = 75;
/// Between two looks at a node that is drained.
const DRAIN_STEP: Duration = Duration::from_millis(20);
/// For one request and its answer.
const TIMEOUT: Duration = Duration::from_secs(15);
/// No answer of the proxy's is longer.
const MAX_ANSWER: u64 = 16 * 1024 * 1024;

#[derive(clap::Args)]
pub struct CtlArgs {
    /// The running proxy's configuration file, which says where its HTTP port is
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where its HTTP port is
    #[arg(long, value_name = "ADDRESS:PORT", conflicts_with = "config")]
    http: Option<SocketAddr>,
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Show the nodes and what the proxy thinks of them
    Status,
    /// Read the configuration file again
    Reload,
    /// Begin no transaction on the primary; returns when those that were open have ended (75: some have not, in time)
    Pause,
    /// Let transactions begin again
    Resume,
    /// Take a replica out of rotation, for maintenance; returns when nothing runs there (75: something does, in time)
    Drain {
        /// Its name, as `status` shows it
        node: String,
    },
    /// Take it back in
    Undrain {
        /// Its name, as `status` shows it
        node: String,
    },
}

pub fn run(args: CtlArgs) -> ExitCode {
    let proxy = match args.find() {
        Ok(proxy) => proxy,
        Err(code) => return code,
    };
    let done = match args.what {
        What::Status => proxy.status(),
        What::Reload => proxy.reload(),
        What::Pause => proxy.pause(),
        What::Resume => proxy.resume(),
        What::Drain { node } => proxy.drain(&node),
        What::Undrain { node } => proxy.undrain(&node),
    };
    done.unwrap_or_else(|error| {
        eprintln!("pgsluice: {error}");
        ExitCode::from(super::FAILURE)
    })
}

impl CtlArgs {
    fn find(&self) -> Result<RunningProxy, ExitCode> {
        let listen = match (&self.config, self.http) {
            (_, Some(http)) => Some(http),
            (Some(file), None) => super::load(file)?.config.http.listen,
            (None, None) => Config::default().http.listen,
        };
        match listen {
            Some(mut http) => {
                if http.ip().is_unspecified() {
                    let here: [u8; 4] = [127, 0, 0, 1];
                    http.set_ip(here.into());
                }
                Ok(RunningProxy { http })
            }
            None => {
                eprintln!("pgsluice: the proxy has no HTTP port: [http] listen is off");
                Err(ExitCode::from(super::USAGE))
            }
        }
    }
}

/// As in a URL's query.
fn escape(name: &str) -> String {
    let escaped = name.bytes().map(|byte| match byte {
        b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'.' | b'_' => (byte as char).to_string(),
        _ => format!("%{byte:02X}"),
    });
    escaped.collect()
}

/// Where a running proxy is asked.
struct RunningProxy {
    http: SocketAddr,
}

impl RunningProxy {
    fn status(&self) -> Result<ExitCode, String> {
        let topology = self.ask("GET", "/api/v1/topology")?;
        let of = |node: &Value, key: &str| match &node[key] {
            Value::String(text) => text.clone(),
            Value::Null => "-".to_owned(),
            other => other.to_string(),
        };
        println!("primary: {}", of(&topology, "primary"));
        for alarm in topology["alarms"].as_array().into_iter().flatten() {
            println!("alarm: {}", alarm.as_str().unwrap_or_default());
        }
        for node in topology["nodes"].as_array().into_iter().flatten() {
            let place = format!("{}:{}", of(node, "host"), of(node, "port"));
            let (name, role, health) = (of(node, "name"), of(node, "role"), of(node, "health"));
            let (reason, lag) = (of(node, "reason"), of(node, "lag_bytes"));
            let behind = match node["staleness_ms"].as_u64() {
                Some(millis) => {
                    humantime::format_duration(Duration::from_millis(millis)).to_string()
                }
                None => "-".to_owned(),
            };
            println!(
                "{name:<16} {place:<24} {role:<8} {health:<9} {reason:<20} lag {lag} behind {behind}"
            );
        }
        Ok(ExitCode::SUCCESS)
    }

    fn reload(&self) -> Result<ExitCode, String> {
        let done = self.ask("POST", "/api/v1/reload")?;
        let list = |key: &str| {
            let keys = done[key].as_array().into_iter().flatten();
            keys.filter_map(Value::as_str)
                .collect::<Vec<_>>()
                .join(", ")
        };
        println!("reloaded: {}", list("live"));
        if !list("restart").is_empty() {
            println!("needs a restart: {}", list("restart"));
        }
        Ok(ExitCode::SUCCESS)
    }

    fn pause(&self) -> Result<ExitCode, String> {
        let began = Instant::now();
        let mut paused = self.ask("POST", "/api/v1/pause")?;
        let grace = Duration::from_millis(paused["grace_ms"].as_u64().unwrap_or(0));
        let again = format!("/api/v1/pause?generation={}", paused["generation"]);
        while paused["busy"].as_u64() != Some(0) && began.elapsed() < grace {
            paused = self.ask("POST", &again)?;
        }
        let node = paused["paused"].as_str().unwrap_or_default();
        if paused["busy"].as_u64() == Some(0) {
            println!("paused: nothing runs on {node}");
            return Ok(ExitCode::SUCCESS);
        }
        let (busy, grace) = (&paused["busy"], humantime::format_duration(grace));
        eprintln!("pgsluice: paused, but after {grace} {busy} servers of {node} are still in use");
        Ok(ExitCode::from(BUSY))
    }

    fn resume(&self) -> Result<ExitCode, String> {
        self.ask("POST", "/api/v1/resume")?;
        println!("resumed");
        Ok(ExitCode::SUCCESS)
    }

    fn drain(&self, node: &str) -> Result<ExitCode, String> {
        let path = format!("/api/v1/drain?node={}", escape(node));
        let began = Instant::now();
        loop {
            let drained = self.ask("POST", &path)?;
            let grace = Duration::from_millis(drained["grace_ms"].as_u64().unwrap_or(0));
            if drained["busy"].as_u64() == Some(0) {
                println!("drained: nothing runs on {node}");
                return Ok(ExitCode::SUCCESS);
            }
            if began.elapsed() >= grace {
                let (busy, grace) = (&drained["busy"], humantime::format_duration(grace));
                eprintln!(
                    "pgsluice: drained, but after {grace} {busy} servers of {node} are still in use"
                );
                return Ok(ExitCode::from(BUSY));
            }
            sleep(DRAIN_STEP);
        }
    }

    fn undrain(&self, node: &str) -> Result<ExitCode, String> {
        self.ask("POST", &format!("/api/v1/undrain?node={}", escape(node)))?;
        println!("{node} is back in rotation as soon as it answers");
        Ok(ExitCode::SUCCESS)
    }

    fn ask(&self, method: &str, path: &str) -> Result<Value, String> {
        let answer = self
            .exchange(method, path)
            .map_err(|e| format!("cannot ask the proxy at {}: {e}", self.http))?;
        let text = String::from_utf8_lossy(&answer);
        let no_proxy = || format!("what answers at {} is no pgsluice", self.http);
        let (head, body) = text.split_once("\r\n\r\n").ok_or_else(no_proxy)?;
        let value: Value = serde_json::from_str(body).map_err(|_| no_proxy())?;
        match head.split(' ').nth(1) {
            Some("200") => Ok(value),
            _ => Err(value["error"].as_str().map_or_else(no_proxy, str::to_owned)),
        }
    }

    fn exchange(&self, method: &str, path: &str) -> io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect_timeout(&self.http, TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let host = self.http;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nX-Pgsluice: ctl\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )?;
        let mut answer = Vec::new();
        stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
        Ok(answer)
    }
}
