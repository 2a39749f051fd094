//! Asks a client for its proof, and decides whether its user may be here.
//!
//! Nothing that a client learns before its proof is good tells whether the user exists: unknown users, users without a
//! password, and expired ones go through the same exchange and get the same 28P01 as a wrong password.

use std::sync::Arc;

use tokio::io::AsyncWriteExt;

use super::{
    Context,
    request::Request,
    users::{self, Account, Plain, Stored},
};
use crate::{
    config::AuthMethod,
    credentials::Credentials,
    error::{Error, Kind, Result, client_io},
    net::{
        Inbox, Stream,
        inbox::{Broken, Message},
        tls,
    },
    wire::{
        backend,
        cursor::{Cursor, Malformed},
        md5,
        scram::{self, DEFAULT_ITERATIONS, Failure, Verifier, server},
    },
};

/// The longest authentication message (PostgreSQL's PG_MAX_AUTH_TOKEN_LENGTH).
const MAX_MESSAGE: usize = 65_535;

/// Up to and with AuthenticationOk.
pub(super) async fn authenticate(
    stream: &mut Stream,
    inbox: &mut Inbox,
    ctx: &Context,
    request: &Request,
) -> Result<Credentials> {
    let account = ctx.account(&request.user).await?;
    let mut exchange = Exchange {
        stream,
        inbox,
        ctx,
        user: &request.user,
    };
    let credentials = exchange.prove(account.as_ref().map(|a| &a.stored)).await?;
    admit(ctx, request, account.as_ref())?;
    exchange.send(backend::authentication_ok).await?;
    Ok(credentials)
}

impl Context {
    async fn account(&self, user: &str) -> Result<Option<Account>> {
        match (self.users.find(user), &self.lookup) {
            (Some(account), _) => Ok(Some(account)),
            (None, Some(lookup)) => lookup.ask(user).await,
            (None, None) => Ok(None),
        }
    }

    /// The iteration count that real users have, for those who are none.
    fn mock_iterations(&self) -> u32 {
        let looked_up = self.lookup.as_ref().map(|lookup| lookup.iterations());
        looked_up.unwrap_or(DEFAULT_ITERATIONS)
    }
}

/// After the proof: may this user be here?
fn admit(ctx: &Context, request: &Request, account: Option<&Account>) -> Result<()> {
    let user = &request.user;
    let peer = request.peer.ip();
    let allowed = || users::is_allowed(&ctx.allow, user, &request.database, peer);
    let refuse = |message: String| Err(Error::client(Kind::NotAllowed, message));
    let Some(account) = account else {
        // Reached only without a proof (trust, cert): nothing says that this is not a superuser.
        return match allowed() {
            true => Ok(()),
            false => refuse(format!("role \"{user}\" does not exist")),
        };
    };
    match account.attributes {
        None => Ok(()),
        Some(role) if !role.can_login => {
            refuse(format!("role \"{user}\" is not permitted to log in"))
        }
        Some(role) if (role.superuser || role.replication) && !allowed() => refuse(format!(
            "role \"{user}\" is a superuser or replication role and may not log in through the proxy"
        )),
        Some(_) => Ok(()),
    }
}

struct Exchange<'a> {
    stream: &'a mut Stream,
    inbox: &'a mut Inbox,
    ctx: &'a Context,
    user: &'a str,
}

impl Exchange<'_> {
    async fn prove(&mut self, stored: Option<&Stored>) -> Result<Credentials> {
        let stored = stored.unwrap_or(&Stored::Nothing);
        match (self.ctx.method, stored) {
            (AuthMethod::Trust, _) => Ok(stored.credentials()),
            (AuthMethod::Cert, _) => self.certificate().map(|()| stored.credentials()),
            (AuthMethod::Md5, Stored::Plain(plain)) => {
                let hash = md5::hash(self.user, plain.password.secret().reveal());
                self.md5(&hash).await.map(|()| stored.credentials())
            }
            (AuthMethod::Md5, Stored::Md5(hash)) => {
                self.md5(hash.reveal()).await.map(|()| stored.credentials())
            }
            // A SCRAM verifier where md5 is configured: SCRAM, as in PostgreSQL.
            (AuthMethod::Md5 | AuthMethod::ScramSha256, Stored::Scram(verifier)) => {
                self.scram(verifier).await
            }
            (AuthMethod::ScramSha256, Stored::Plain(plain)) => {
                let verifier = derive(plain).await?;
                self.scram(&verifier).await?;
                Ok(stored.credentials())
            }
            (AuthMethod::Md5 | AuthMethod::ScramSha256, Stored::Nothing | Stored::Md5(_)) => {
                self.mock().await
            }
        }
    }

    /// Ends in 28P01 whatever the client answers.
    async fn mock(&mut self) -> Result<Credentials> {
        let verifier = self.ctx.users.mock(self.user, self.ctx.mock_iterations())?;
        self.scram(&verifier).await?;
        Err(wrong_password(self.user))
    }

    fn certificate(&self) -> Result<()> {
        let certificate = self.stream.peer_certificate().ok_or(Error::client(
            Kind::NotAllowed,
            "connection requires a valid client certificate",
        ))?;
        match tls::common_name(certificate) {
            Some(name) if name == self.user => Ok(()),
            _ => Err(Error::client(
                Kind::NotAllowed,
                format!(
                    "certificate authentication failed for user \"{}\"",
                    self.user
                ),
            )),
        }
    }

    async fn md5(&mut self, hash: &str) -> Result<()> {
        let mut salt = [0; 4];
        users::fill(&mut salt)?;
        self.send(|out| backend::authentication_md5(out, salt))
            .await?;
        let expected = md5::answer(hash, salt);
        let body = self.receive("expected password response").await?;
        let mut cursor = Cursor::new(&body);
        let given = cursor.cstr().map_err(violation)?;
        cursor.end().map_err(violation)?;
        match expected {
            Some(expected) if md5::matches(&expected, given) => Ok(()),
            _ => Err(wrong_password(self.user)),
        }
    }

    async fn scram(&mut self, verifier: &Verifier) -> Result<Credentials> {
        let end_point = match (&self.ctx.tls, self.stream.is_tls()) {
            (Some(acceptor), true) => acceptor.end_point().map(|e| e.as_bytes()),
            _ => None,
        };
        let user = self.user;
        let failed = |failure| scram_failure(failure, user);
        let offered = server::mechanisms(end_point);
        self.send(|out| backend::authentication_sasl(out, offered))
            .await?;
        let initial = self.receive("expected SASL response").await?;
        let (mechanism, first) = initial_response(&initial).map_err(violation)?;
        let start = server::Start::new(verifier, end_point, mechanism).map_err(failed)?;
        let first = match first {
            Some(first) => first.to_vec(),
            // Allowed by SASL: the client waits for an empty challenge first.
            None => self.challenge(&[]).await?,
        };
        let nonce = fresh_nonce()?;
        let (server_first, next) = start.client_first(&first, &nonce).map_err(failed)?;
        let client_final = self.challenge(&server_first).await?;
        let proven = next.client_final(&client_final).map_err(failed)?;
        self.send(|out| backend::authentication_sasl_final(out, &proven.server_final))
            .await?;
        Ok(Credentials::Scram(Arc::new(proven.keys)))
    }

    async fn challenge(&mut self, data: &[u8]) -> Result<Vec<u8>> {
        self.send(|out| backend::authentication_sasl_continue(out, data))
            .await?;
        self.receive("expected SASL response").await
    }

    async fn send(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        let mut out = Vec::new();
        write(&mut out);
        self.stream.write_all(&out).await.map_err(client_io)?;
        self.stream.flush().await.map_err(client_io)
    }

    /// The body of the client's answer.
    async fn receive(&mut self, expected: &'static str) -> Result<Vec<u8>> {
        match self.inbox.next(self.stream, MAX_MESSAGE).await {
            Ok(Message {
                tag: b'p', body, ..
            }) => Ok(body.to_vec()),
            Ok(Message { tag: b'X', .. }) => Err(Error::client(
                Kind::ServerGone,
                "the client ended the connection",
            )),
            Ok(message) => Err(Error::violation(format!(
                "{expected}, got message type {}",
                message.tag
            ))),
            Err(Broken::Io(error)) => Err(client_io(error)),
            Err(Broken::Closed) => Err(Error::client(
                Kind::ServerGone,
                "the client ended the connection",
            )),
            Err(Broken::Malformed(malformed)) => Err(violation(malformed)),
            Err(Broken::TooLong) => Err(Error::client(
                Kind::TooLarge,
                "authentication message is too long",
            )),
        }
    }
}

/// SASLInitialResponse: mechanism, and data unless the client waits for a challenge first.
fn initial_response(body: &[u8]) -> std::result::Result<(&[u8], Option<&[u8]>), Malformed> {
    let mut cursor = Cursor::new(body);
    let mechanism = cursor.cstr()?;
    let data = match cursor.i32()? {
        -1 => None,
        len => {
            let len = usize::try_from(len).map_err(|_| Malformed("invalid message format"))?;
            Some(cursor.bytes(len)?)
        }
    };
    cursor.end().map(|()| (mechanism, data))
}

/// Off this thread the first time: a worker's other sessions must not wait for PBKDF2.
async fn derive(plain: &Arc<Plain>) -> Result<Arc<Verifier>> {
    if let Some(verifier) = plain.known_verifier() {
        return Ok(verifier);
    }
    let plain = plain.clone();
    let derived = tokio::task::spawn_blocking(move || plain.derive_verifier()).await;
    derived.map_err(|e| Error::proxy(Kind::Internal, "PBKDF2 failed").detail(e.to_string()))
}

fn fresh_nonce() -> Result<String> {
    let mut random = [0; scram::NONCE_BYTES];
    users::fill(&mut random)?;
    Ok(scram::nonce(random))
}

fn violation(malformed: Malformed) -> Error {
    Error::violation(malformed.0)
}

fn wrong_password(user: &str) -> Error {
    let message = format!("password authentication failed for user \"{user}\"");
    Error::client(Kind::BadPassword, message)
}

fn scram_failure(failure: Failure, user: &str) -> Error {
    match failure {
        Failure::Malformed(malformed) => violation(malformed),
        Failure::WrongProof => wrong_password(user),
        Failure::ChannelBinding(why) | Failure::Server(why) => Error::client(Kind::NotAllowed, why),
    }
}
