//! Clears what a session has left on its server, before another gets it.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::{connection::Server, settings::Settings};
use crate::{
    error::{Error, Kind, Result},
    wire::{
        TransactionStatus,
        buffer::Buffer,
        cursor::Cursor,
        frame::{self, HEADER_LEN, Sender},
        frontend,
        pipeline::{Sent, Show},
    },
};

/// A reset that takes longer is given up, and the server closed.
const RESET_TIMEOUT: Duration = Duration::from_secs(5);
/// Enough for every answer to DISCARD ALL but a long notice, which ends the reset.
const REPLY_LEN: usize = 32 * 1024;

/// Runs DISCARD ALL. The server must be free (no transaction, nothing owed).
///
/// # Errors
/// The server failed, or said something else than success: it must be closed.
pub async fn discard_all(server: &mut Server) -> Result<()> {
    let reset = timeout(RESET_TIMEOUT, run(server)).await;
    reset.unwrap_or_else(|_| Err(broken(server, "no answer to a reset")))
}

async fn run(server: &mut Server) -> Result<()> {
    let mut query = Vec::new();
    frontend::query(&mut query, "DISCARD ALL");
    let io = |server: &Server, error: std::io::Error| broken(server, error.to_string());
    if let Err(error) = server.stream.write_all(&query).await {
        return Err(io(server, error));
    }
    if let Err(error) = server.stream.flush().await {
        return Err(io(server, error));
    }
    server.pipeline.send(Sent::Query, Show::Swallow);
    let mut buffer = Buffer::new(vec![0; REPLY_LEN].into_boxed_slice());
    while !server.pipeline.is_quiet() {
        match server.stream.read(buffer.room()).await {
            Ok(0) => return Err(broken(server, "it ended during a reset")),
            Ok(n) => buffer.fill(n),
            Err(error) => return Err(io(server, error)),
        }
        receive(server, &mut buffer)?;
    }
    match server.pipeline.status() {
        TransactionStatus::Idle => {
            server.settings = Settings::default();
            server.statements.clear();
            Ok(())
        }
        _ => Err(broken(server, "a transaction was open at a reset")),
    }
}

fn receive(server: &mut Server, buffer: &mut Buffer) -> Result<()> {
    loop {
        let peeked = frame::peek(buffer.unseen(), Sender::Backend);
        let Some(frame) = peeked.map_err(|v| broken(server, v.to_string()))? else {
            return Ok(());
        };
        let Some(body) = buffer.unseen().get(HEADER_LEN..frame.len) else {
            return Ok(());
        };
        match frame.tag {
            b'E' => return Err(broken(server, "it refused a reset")),
            b'S' if !set_parameter(server, body) => {
                return Err(broken(server, "too many parameters"));
            }
            _ => {}
        }
        let first = body.first().copied();
        let received = server.pipeline.receive(frame.tag, first);
        received.map_err(|v| broken(server, v.to_string()))?;
        buffer.discard(frame.len);
    }
}

/// False if the server tells more than it may.
fn set_parameter(server: &mut Server, body: &[u8]) -> bool {
    let mut cursor = Cursor::new(body);
    match (cursor.text(), cursor.text()) {
        (Ok(name), Ok(value)) => std::rc::Rc::make_mut(&mut server.parameters).set(name, value),
        _ => true,
    }
}

fn broken(server: &Server, detail: impl Into<String>) -> Error {
    let node = &server.backend.target.name;
    Error::server(Kind::ServerGone, node, "a server could not be reset").detail(detail)
}
