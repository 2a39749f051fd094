//! The answers to a server's authentication requests.
//!
//! A server that starts SCRAM must finish it: AuthenticationOk before its signature is verified ends the login, or
//! anybody in between could play the server.

use tokio::task::spawn_blocking;

use super::dial::ServerLogin;
use crate::{
    credentials::Credentials,
    error::{Error, Kind, Result},
    net::{Stream, Target, tls::EndPoint},
    wire::{
        cursor::{Cursor, Malformed},
        frontend, md5,
        scram::{self, Failure, client},
    },
};

/// Mechanisms that a server may name.
const MAX_MECHANISMS: usize = 16;

/// Where the proof is.
enum State {
    Unasked,
    /// A password or md5 answer was sent.
    Answered,
    ScramFirst(client::AwaitFirst),
    ScramFinal(client::AwaitFinal),
    /// The server has proven itself.
    ScramDone,
    /// After an error, or while a step is under way.
    Spent,
}

pub(super) struct Prover<'a> {
    target: &'a Target,
    login: &'a ServerLogin,
    end_point: Option<EndPoint>,
    /// Whether others may read along.
    private: bool,
    state: State,
}

impl<'a> Prover<'a> {
    pub(super) fn new(target: &'a Target, stream: &Stream, login: &'a ServerLogin) -> Self {
        let loopback = stream.peer_addr().is_ok_and(|addr| addr.ip().is_loopback());
        Prover {
            target,
            login,
            end_point: stream.server_end_point(),
            private: stream.is_tls() || loopback,
            state: State::Unasked,
        }
    }

    /// Takes the body of an authentication message, appends the answer; true after AuthenticationOk.
    pub(super) async fn take(&mut self, body: &[u8], out: &mut Vec<u8>) -> Result<bool> {
        let mut cursor = Cursor::new(body);
        let code = cursor.i32().map_err(|m| self.malformed(m))?;
        let state = std::mem::replace(&mut self.state, State::Spent);
        self.state = match (code, state) {
            (0, State::Unasked | State::Answered | State::ScramDone) => {
                cursor.end().map_err(|m| self.malformed(m))?;
                return Ok(true);
            }
            (3, State::Unasked) => self.clear_text(out)?,
            (5, State::Unasked) => self.md5(cursor, out)?,
            (10, State::Unasked) => self.sasl(cursor, out)?,
            (11, State::ScramFirst(next)) => self.sasl_continue(next, cursor.rest(), out).await?,
            (12, State::ScramFinal(next)) => {
                next.server_final(cursor.rest())
                    .map_err(|f| self.failed(f))?;
                State::ScramDone
            }
            (0, _) => {
                let why = "the server ended the SCRAM exchange before proving itself";
                return Err(self.target.gone("the server broke the login", why));
            }
            (code, _) => return Err(self.cannot(format!("authentication request {code}"))),
        };
        Ok(false)
    }

    fn clear_text(&self, out: &mut Vec<u8>) -> Result<State> {
        let Credentials::Password(password) = &self.login.credentials else {
            return Err(self.cannot("asks for a plain password, which no one has".into()));
        };
        if !self.private {
            return Err(self.cannot("asks for a plain password without TLS".into()));
        }
        frontend::password(out, password.secret().reveal());
        Ok(State::Answered)
    }

    fn md5(&self, mut cursor: Cursor<'_>, out: &mut Vec<u8>) -> Result<State> {
        let salt = cursor.array().map_err(|m| self.malformed(m))?;
        cursor.end().map_err(|m| self.malformed(m))?;
        let answer = match &self.login.credentials {
            Credentials::Password(password) => {
                let hash = md5::hash(&self.login.user, password.secret().reveal());
                md5::answer(&hash, salt)
            }
            Credentials::Md5(hash) => md5::answer(hash.reveal(), salt),
            Credentials::Scram(_) | Credentials::None => None,
        };
        let answer = answer.ok_or_else(|| self.cannot("asks for md5".into()))?;
        frontend::password(out, &answer);
        Ok(State::Answered)
    }

    fn sasl(&self, cursor: Cursor<'_>, out: &mut Vec<u8>) -> Result<State> {
        match self.login.credentials {
            Credentials::Password(_) | Credentials::Scram(_) => {}
            Credentials::None | Credentials::Md5(_) => {
                return Err(self.cannot("asks for SCRAM".into()));
            }
        }
        let offered = mechanisms(cursor).map_err(|m| self.malformed(m))?;
        let end_point = self.end_point.as_ref().map(EndPoint::as_bytes);
        let start = client::Start::new(&offered, end_point, self.nonce()?);
        let start = start.map_err(|f| self.failed(f))?;
        let mechanism = start.mechanism();
        let (first, next) = start.first();
        frontend::sasl_initial_response(out, mechanism, &first);
        Ok(State::ScramFirst(next))
    }

    async fn sasl_continue(
        &self,
        next: client::AwaitFirst,
        message: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<State> {
        let challenge = next.server_first(message).map_err(|f| self.failed(f))?;
        let keys = self.keys(&challenge).await?;
        let (last, next) = challenge.answer(&keys);
        frontend::sasl_response(out, &last);
        Ok(State::ScramFinal(next))
    }

    /// PBKDF2, where it is due, off this thread: other sessions of the worker must not wait.
    async fn keys(&self, challenge: &client::Challenge) -> Result<std::sync::Arc<scram::Keys>> {
        let password = match &self.login.credentials {
            Credentials::Scram(keys) => return Ok(keys.clone()),
            Credentials::Password(password) => password.clone(),
            Credentials::None | Credentials::Md5(_) => {
                return Err(self.cannot("asks for SCRAM".into()));
            }
        };
        let (salt, iterations) = (challenge.salt.clone(), challenge.iterations);
        if let Some(keys) = password.known_keys(&salt, iterations) {
            return Ok(keys);
        }
        let derived = spawn_blocking(move || password.derive_keys(&salt, iterations)).await;
        derived.map_err(|e| Error::proxy(Kind::Internal, "PBKDF2 failed").detail(e.to_string()))
    }

    fn nonce(&self) -> Result<String> {
        let mut random = [0; scram::NONCE_BYTES];
        getrandom::fill(&mut random).map_err(|e| {
            Error::proxy(Kind::Internal, "no random numbers available").detail(e.to_string())
        })?;
        Ok(scram::nonce(random))
    }

    fn malformed(&self, malformed: Malformed) -> Error {
        self.target
            .gone("the server sent a malformed message", malformed)
    }

    fn failed(&self, failure: Failure) -> Error {
        let why = match failure {
            Failure::Malformed(Malformed(why))
            | Failure::ChannelBinding(why)
            | Failure::Server(why) => why,
            Failure::WrongProof => "wrong proof",
        };
        self.target.gone("the server broke the login", why)
    }

    /// The configuration of the proxy and that of the server do not fit.
    fn cannot(&self, why: String) -> Error {
        let message = "the proxy has no password that this server accepts";
        Error::server(Kind::NotAllowed, &self.target.name, message).detail(why)
    }
}

fn mechanisms(mut cursor: Cursor<'_>) -> std::result::Result<Vec<&[u8]>, Malformed> {
    let mut offered = Vec::new();
    while offered.len() < MAX_MECHANISMS {
        match cursor.cstr()? {
            b"" => return cursor.end().map(|()| offered),
            mechanism => offered.push(mechanism),
        }
    }
    Err(Malformed("too many SASL mechanisms"))
}
