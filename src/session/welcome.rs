//! From a login to a session: what the client is told before its first ReadyForQuery.

use std::{pin::Pin, rc::Rc, sync::Arc};

use super::{
    Inbound, Link, Session,
    aim::Aim,
    book::Prepared,
    catalogue::Reliance,
    checkout::checkout,
    context::Context,
    kept::Kept,
    outcome::Flight,
    pins::Pins,
    registry::{Activity, SESSION_MODE, Signal},
    replication,
    schema::SchemaTrace,
    sequences::SequenceState,
    split::Split,
    statement,
    unnamed::Unnamed,
};
use crate::{
    client::Login,
    config::{Listener, PoolMode, Route},
    error::Result,
    route,
    server::{
        connection::{Parameters, Server},
        pool::Pool,
        profile::{Access, Profile},
        reset::discard_all,
        settings::Settings,
    },
    wire::{TransactionStatus, backend},
};

/// A client that has logged in.
pub struct Admission {
    pub context: Rc<Context>,
    pub listener: Arc<Listener>,
    pub login: Box<Login>,
    /// Unique in the process, never 0.
    pub id: u64,
    /// The worker drains: the session is told so at once.
    pub draining: bool,
}

/// A session from its login to its end.
pub fn start(admission: Admission) -> Pin<Box<dyn Future<Output = ()>>> {
    if admission.login.replication.is_some() {
        return Box::pin(replication::run(admission));
    }
    let minor = admission.login.minor;
    // A future that owned the session would have room for it twice.
    let mut session = Box::new(Session::new(admission));
    Box::pin(async move { session.run(minor).await })
}

impl Session {
    fn new(admission: Admission) -> Self {
        let Admission {
            context,
            listener,
            login,
            id,
            draining,
        } = admission;
        let Login {
            stream,
            unread,
            user,
            database,
            parameters,
            credentials,
            ..
        } = *login;
        let mut profile = Profile {
            database,
            user,
            parameters,
            access: Access::Full,
            credentials,
        };
        let home = match listener.mode {
            PoolMode::Transaction => profile.take_application(),
            PoolMode::Session => Settings::default(),
        };
        let settings = home.clone();
        let identity = context.identity(profile, home);
        let entry = context.registry.insert(id, context.pools.now());
        if draining {
            entry.send(Signal::Drain);
        }
        let from_client = (!unread.is_empty()).then(|| {
            let mut buffer = context.blocks.take();
            buffer.append(&unread);
            buffer
        });
        let split = match listener.mode {
            PoolMode::Transaction => Split::of(&listener),
            // One server for all of it.
            PoolMode::Session => None,
        };
        Session {
            context,
            listener,
            identity,
            entry,
            client: stream,
            inbound: Inbound::Open,
            from_client,
            to_client: None,
            out: Vec::new(),
            link: Link::Free,
            told: Rc::default(),
            pins: Pins::default(),
            settings,
            application: Default::default(),
            unsettled: None,
            question: None,
            dressing: Default::default(),
            flight: Flight::Nothing,
            kept: Kept::Nothing,
            unnamed: Unnamed::default(),
            prepared: Prepared::default(),
            schema: SchemaTrace::default(),
            sets: super::marks::Sets::None,
            reliance: Reliance::default(),
            change: None,
            sequences: SequenceState::default(),
            split,
            reading: route::Context::default(),
            hold: 0,
            server_fatal: false,
            key: None,
        }
    }

    /// ParameterStatus of a real server, BackendKeyData, ReadyForQuery.
    pub(super) async fn welcome(&mut self, minor: u16) -> Result<()> {
        let pid = match self.listener.mode {
            PoolMode::Session => Some(self.take_session_server().await?),
            PoolMode::Transaction => {
                let known = self.known_parameters().await?;
                self.told = self.as_told(&known);
                self.identity.database().first_read().await;
                None
            }
        };
        self.reading = statement::reading(&self.told);
        self.tell_all_parameters();
        let (pid, key) = self.context.outside.issue_key(self.entry.id, pid, minor);
        backend::backend_key_data(&mut self.out, pid, &key);
        self.key = Some(Box::new((pid, key)));
        backend::ready_for_query(&mut self.out, TransactionStatus::Idle.as_byte());
        self.entry
            .set_activity(Activity::Idle, self.context.pools.now());
        Ok(())
    }

    /// A session listener's session has one server, from here to its end. Says the server's own pid.
    async fn take_session_server(&mut self) -> Result<i32> {
        let (mut server, pool) = self.login_server().await?;
        let is_fresh = server.settings.is_empty() && server.statements.is_empty();
        if !is_fresh && let Err(error) = discard_all(&mut server).await {
            pool.close(server);
            return Err(error);
        }
        let pid = server.backend.pid;
        self.told = server.parameters.clone();
        self.hold(server, pool);
        self.pins.keep_for_life(SESSION_MODE);
        self.publish_pin();
        Ok(pid)
    }

    /// What servers of this login say at theirs: known, or asked of one.
    async fn known_parameters(&mut self) -> Result<Rc<Parameters>> {
        if let Some(known) = self.context.welcome(&self.identity, &self.listener) {
            return Ok(known);
        }
        let (server, pool) = self.login_server().await?;
        // What it was set to since is another session's.
        let told = pool.welcome().unwrap_or_else(|| server.parameters.clone());
        pool.checkin(server);
        Ok(told)
    }

    async fn login_server(&self) -> Result<(Box<Server>, Rc<Pool>)> {
        checkout(
            &self.context,
            &self.identity,
            &self.listener,
            self.entry.id,
            &self.settings,
            Aim::Listener,
            None,
        )
        .await
    }

    fn tell_all_parameters(&mut self) {
        let route = self.listener.route;
        for (name, value) in &self.told.0 {
            let value = told_by_route(route, name).unwrap_or(value);
            backend::parameter_status(&mut self.out, name, value);
        }
        if tells_hot_standby(&self.told)
            && let Some(standby) = told_by_route(route, "in_hot_standby")
        {
            backend::parameter_status(&mut self.out, "in_hot_standby", standby);
        }
    }
}

/// What differs by node is told by the listener's route, whichever node serves: by these two, libpq's
/// `target_session_attrs` tells primaries from standbys, and what can write from what cannot. Where writes can go, the
/// second is the session's own setting (its role's, or a SET), and true.
pub(super) fn told_by_route(route: Route, name: &str) -> Option<&'static str> {
    match (name, route) {
        ("in_hot_standby", Route::Primary | Route::Split) => Some("off"),
        ("in_hot_standby" | "default_transaction_read_only", Route::Replica) => Some("on"),
        _ => None,
    }
}

/// Servers tell `in_hot_standby` since version 14.
fn tells_hot_standby(parameters: &Parameters) -> bool {
    let version = parameters.value("server_version").unwrap_or_default();
    statement::major(version).is_some_and(|major| major >= 14)
}
