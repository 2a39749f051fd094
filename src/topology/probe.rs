//! The probe of one node: a task that lives as long as the node is configured.
//!
//! It keeps one connection and asks it every `probe.interval`. Once a second, and whenever a worker reports that a
//! server ended, it also dials anew, since a server that shuts down smartly still answers on old connections. It only
//! tells facts; what they mean is the judge's. All waits are bounded by `probe.timeout`.

use std::{
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{sleep, sleep_until, timeout},
};

use super::{
    facts::{Answer, Dial, Fact},
    link::{self, Link, Login},
    watch::Reporter,
};
use crate::{
    config::{self, Config},
    error,
};

/// Between fresh dials beside a link that answers.
const KNOCK_INTERVAL: Duration = Duration::from_secs(1);

/// After a dial beside the link that failed: is it so, or was it chance?
const KNOCK_AGAIN: Duration = Duration::from_millis(100);

/// Between dials for a new link. A node that is back is seen within the longest; a server that refuses logins must not
/// have its log filled.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(160);
const LONGEST_PAUSE_REFUSED: Duration = Duration::from_millis(1280);

/// A link that lived this long ends the back-off.
const STEADY: Duration = Duration::from_secs(1);

/// Reports of workers bring no more dials than one in this time.
const SHORTEST_PAUSE: Duration = FIRST_PAUSE;

/// How probes log in, and their times. Replaced whole by a reload.
pub(super) struct Settings {
    pub login: Login,
    interval: Duration,
    /// While sessions wait for a fresh replica.
    busy_interval: Duration,
    timeout: Duration,
    /// Between two lookups of host names.
    pub lookup_interval: Duration,
}

impl Settings {
    pub fn new(config: &Config) -> error::Result<Self> {
        Ok(Settings {
            login: Login::new(config)?,
            interval: config.probe.interval,
            busy_interval: config.probe.busy_interval,
            timeout: config.probe.timeout,
            lookup_interval: config.probe.lookup_interval,
        })
    }

    /// How long a node may be silent: one unanswered probe, and then one unanswered dial.
    pub fn patience(&self) -> Duration {
        self.timeout.saturating_mul(2)
    }
}

/// Probes `node` for ever. `wake` asks for a look now.
///
/// A bug that ends the inner task must not leave the node's last good word standing: it counts as a lost link, and as
/// one more failed dial with each new try.
pub(super) async fn run(
    node: config::Node,
    settings: Arc<ArcSwap<Settings>>,
    wake: Arc<Notify>,
    reporter: Reporter,
) {
    let probe = Arc::new(Probe {
        node: Arc::new(node),
        settings,
        wake,
        reporter,
    });
    loop {
        // A set, since it ends what is in it when it is dropped.
        let mut task = JoinSet::new();
        task.spawn(probe.clone().watch_node());
        let ended = task.join_next().await;
        tracing::error!(node = probe.node.name, ?ended, "a probe ended: a bug");
        probe.reporter.tell(Fact::LinkLost);
        probe.reporter.tell(Fact::Dial(Dial::Broken));
        sleep(LONGEST_PAUSE).await;
    }
}

struct Probe {
    node: Arc<config::Node>,
    settings: Arc<ArcSwap<Settings>>,
    wake: Arc<Notify>,
    reporter: Reporter,
}

impl Probe {
    async fn watch_node(self: Arc<Self>) {
        let mut pause = Pause::new();
        loop {
            match self.dial().await {
                Ok(link) => pause.after_link(self.watch_link(link).await),
                Err(dial) => pause.after_failure(dial),
            }
            self.rest(pause.next).await;
        }
    }

    async fn dial(&self) -> Result<Link, Dial> {
        let settings = self.settings.load_full();
        let dialled = timeout(settings.timeout, Link::dial(&self.node, &settings.login));
        let outcome = match dialled.await {
            Ok(Ok(link)) => Ok(link),
            Ok(Err(error)) => Err(self.failure(&error)),
            Err(_) => Err(Dial::TimedOut),
        };
        let dial = outcome.as_ref().err().copied().unwrap_or(Dial::Accepted);
        self.reporter.tell(Fact::Dial(dial));
        outcome
    }

    fn failure(&self, error: &tokio_postgres::Error) -> Dial {
        let dial = link::failed_dial(error);
        tracing::debug!(node = self.node.name, ?dial, %error, "a probe could not log in");
        dial
    }

    /// Asks on the link until it ends; returns how long it lived.
    async fn watch_link(&self, mut link: Link) -> Duration {
        let born = Instant::now();
        let mut visit = Visit::new();
        while let ControlFlow::Continue(()) = self.step(&mut link, &mut visit).await {}
        self.reporter.tell(Fact::LinkLost);
        // A server that shuts down waits for this goodbye; a frozen one must not make us wait.
        let _ = timeout(SHORTEST_PAUSE, link.close()).await;
        born.elapsed()
    }

    /// Waits for the next thing to do, and does it. Breaks when the link is of no more use.
    async fn step(&self, link: &mut Link, visit: &mut Visit) -> ControlFlow<()> {
        tokio::select! {
            () = sleep_until(visit.next_ask.into()) => self.ask(link, visit).await,
            () = sleep_until(visit.next_knock.into()) => self.start_knock(visit),
            () = self.wake.notified() => {
                visit.hurry();
                ControlFlow::Continue(())
            }
            Some(Ok(dial)) = visit.knock.join_next() => self.handle_knock(dial, link, visit).await,
            () = self.reporter.hurry() => {
                let busy_interval = self.settings.load().busy_interval;
                visit.next_ask = visit.next_ask.min(visit.asked + busy_interval);
                ControlFlow::Continue(())
            }
            () = self.reporter.sampled() => {
                visit.next_ask = Instant::now();
                ControlFlow::Continue(())
            }
            () = link.ended() => ControlFlow::Break(()),
        }
    }

    async fn ask(&self, link: &mut Link, visit: &mut Visit) -> ControlFlow<()> {
        let settings = self.settings.load_full();
        visit.asked = Instant::now();
        visit.next_ask = visit.asked + settings.interval;
        match timeout(settings.timeout, link.ask()).await {
            Ok(Ok(answer)) => {
                self.tell_answer(answer);
                if self.reporter.must_hurry() {
                    visit.next_ask = visit.asked + settings.busy_interval;
                }
                ControlFlow::Continue(())
            }
            Ok(Err(_)) | Err(_) => ControlFlow::Break(()),
        }
    }

    fn tell_answer(&self, answer: Answer) {
        self.reporter.note_latency(answer.asked.elapsed());
        self.reporter.tell(Fact::Answer(answer));
    }

    /// At most one knock is under way.
    fn start_knock(&self, visit: &mut Visit) -> ControlFlow<()> {
        visit.next_knock = Instant::now() + KNOCK_INTERVAL;
        if visit.knock.is_empty() {
            let (node, settings) = (self.node.clone(), self.settings.load_full());
            visit.knock.spawn(async move {
                match timeout(settings.timeout, link::knock(&node, &settings.login)).await {
                    Ok(Ok(())) => Dial::Accepted,
                    Ok(Err(error)) => link::failed_dial(&error),
                    Err(_) => Dial::TimedOut,
                }
            });
        }
        ControlFlow::Continue(())
    }

    async fn handle_knock(
        &self,
        dial: Dial,
        link: &mut Link,
        visit: &mut Visit,
    ) -> ControlFlow<()> {
        self.reporter.tell(Fact::Dial(dial));
        match dial {
            Dial::Accepted | Dial::Full | Dial::LoginRefused => ControlFlow::Continue(()),
            // If the link still answers now, the server is shutting down and waits for us too.
            Dial::NotNow => {
                let _ = self.ask(link, visit).await;
                ControlFlow::Break(())
            }
            Dial::Refused | Dial::Broken | Dial::TimedOut => {
                visit.next_knock = Instant::now() + KNOCK_AGAIN;
                ControlFlow::Continue(())
            }
        }
    }

    /// Between two dials. A worker's report cuts it short.
    async fn rest(&self, pause: Duration) {
        if pause.is_zero() {
            return;
        }
        sleep(SHORTEST_PAUSE).await;
        tokio::select! {
            () = sleep(pause.saturating_sub(SHORTEST_PAUSE)) => {}
            () = self.wake.notified() => {}
        }
    }
}

/// What is due on a link.
struct Visit {
    /// When the last question was asked.
    asked: Instant,
    next_ask: Instant,
    next_knock: Instant,
    knock: JoinSet<Dial>,
}

impl Visit {
    fn new() -> Self {
        let now = Instant::now();
        Visit {
            asked: now,
            next_ask: now,
            next_knock: now + KNOCK_INTERVAL,
            knock: JoinSet::new(),
        }
    }

    /// Ask and knock now, but not more often than is decent.
    fn hurry(&mut self) {
        let now = Instant::now();
        self.next_ask = now;
        self.next_knock = self.next_knock.min(now + SHORTEST_PAUSE);
    }
}

/// The back-off between dials.
struct Pause {
    next: Duration,
}

impl Pause {
    fn new() -> Self {
        Pause {
            next: Duration::ZERO,
        }
    }

    /// A lost link is replaced at once, unless links keep getting lost.
    fn after_link(&mut self, lived: Duration) {
        if lived >= STEADY {
            self.next = Duration::ZERO;
        } else {
            self.grow(LONGEST_PAUSE);
        }
    }

    fn after_failure(&mut self, dial: Dial) {
        match dial {
            Dial::LoginRefused | Dial::Full => self.grow(LONGEST_PAUSE_REFUSED),
            _ => self.grow(LONGEST_PAUSE),
        }
    }

    fn grow(&mut self, longest: Duration) {
        self.next = (self.next * 2).clamp(FIRST_PAUSE, longest);
    }
}
