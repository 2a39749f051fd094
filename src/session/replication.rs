//! Replication connections: a server of their own on the primary, bytes passed unseen both ways.
//!
//! What is spoken after START_REPLICATION is COPY in both directions until one side ends, so there is nothing to
//! pool and nothing to look at.

use std::{rc::Rc, sync::Arc, task::Poll, time::Duration};

use tokio::io::{AsyncWriteExt, copy_bidirectional};

use super::{
    registry::{Entry, Signal},
    welcome::Admission,
};
use crate::{
    client::report,
    error::{Error, Kind, Result, Severity},
    net::{Stream, Target},
    server::{
        connection::Backend,
        dial::{self, Dialed, ServerLogin},
        pools,
    },
    wire::{TransactionStatus, backend},
};

/// A dial that takes longer has failed.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs a replication connection to its end.
pub(super) async fn run(mut admission: Admission) {
    match Box::pin(connect(&admission)).await {
        Ok((dialed, target)) => Box::pin(relay(admission, dialed, target)).await,
        Err(error) => {
            let mut out = Vec::new();
            report::error_response(&mut out, &error, Some(Severity::Fatal));
            let _ = admission.login.stream.write_all(&out).await;
            let _ = admission.login.stream.shutdown().await;
        }
    }
}

async fn connect(admission: &Admission) -> Result<(Dialed, Target)> {
    let context = &admission.context;
    let node = context
        .replication_node(&admission.listener)
        .ok_or_else(|| {
            Error::proxy(
                Kind::NoNode,
                "no node can serve a replication connection now",
            )
        })?;
    let login = ServerLogin {
        user: admission.login.user.clone(),
        database: admission.login.database.clone(),
        parameters: admission.login.parameters.clone(),
        credentials: admission.login.credentials.clone(),
        replication: admission.login.replication.clone(),
    };
    let connector = context.pools.settings().connector;
    let deadline = tokio::time::Instant::now() + DIAL_TIMEOUT;
    let target = pools::target(&node.config);
    let dialed = dial::dial(&target, &connector, &login, deadline).await?;
    Ok((dialed, target))
}

async fn relay(admission: Admission, dialed: Dialed, target: Target) {
    let Admission {
        context,
        mut login,
        id,
        draining,
        ..
    } = admission;
    let entry = context.registry.insert(id, context.pools.now());
    if draining {
        entry.send(Signal::Drain);
    }
    let (pid, key) = context.outside.issue_key(id, Some(dialed.pid), login.minor);
    let backend = Backend::new(Arc::new(target), dialed.pid, dialed.key);
    entry.hold(Some(Rc::new(backend)));
    let mut out = Vec::new();
    for (name, value) in &dialed.parameters {
        backend::parameter_status(&mut out, name, value);
    }
    backend::backend_key_data(&mut out, pid, &key);
    backend::ready_for_query(&mut out, TransactionStatus::Idle.as_byte());
    out.extend_from_slice(&dialed.unread);
    let mut server = dialed.stream;
    tokio::select! {
        _ = pump(&mut login.stream, &mut server, &out, &login.unread) => {}
        // Nothing that it streams is a transaction of its own: a drain need not wait for it.
        () = told_to_end(&entry) => {}
    }
    context.outside.revoke_key(pid, &key);
    context.registry.remove(id);
}

/// Returns when the worker asks the session to end.
async fn told_to_end(entry: &Entry) {
    std::future::poll_fn(|cx| {
        entry.watch(cx.waker());
        match entry.signal() {
            Signal::None => Poll::Pending,
            Signal::Drain | Signal::End => Poll::Ready(()),
        }
    })
    .await;
}

async fn pump(
    client: &mut Stream,
    server: &mut Stream,
    to_client: &[u8],
    to_server: &[u8],
) -> std::io::Result<()> {
    client.write_all(to_client).await?;
    client.flush().await?;
    server.write_all(to_server).await?;
    copy_bidirectional(client, server).await?;
    Ok(())
}
