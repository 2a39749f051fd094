//! The thread that starts servers, so that they die with us.
//!
//! Linux tells a child when the *thread* that made it ends (PR_SET_PDEATHSIG), so servers are started from one thread
//! that lives as long as its cluster. However this process ends, kill -9 too, its servers then get SIGQUIT, upon which
//! PostgreSQL shuts down at once.

use std::{
    io,
    os::unix::process::CommandExt,
    process::{Child, Command},
    sync::mpsc::{Sender, SyncSender, channel, sync_channel},
    thread::JoinHandle,
};

use nix::{
    sys::{prctl, signal::Signal},
    unistd::{Pid, getpid, getppid},
};

struct Order {
    command: Command,
    reply: SyncSender<io::Result<Child>>,
}

/// Owner of the thread; dropping it ends the thread, and with it every server that still runs.
pub(super) struct Keeper {
    orders: Option<Sender<Order>>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    pub(super) fn start() -> io::Result<Keeper> {
        let (orders, inbox) = channel::<Order>();
        let work = move || {
            for mut order in inbox {
                // Whoever ordered is waiting: a failed send means that it has panicked.
                let _ = order.reply.send(order.command.spawn());
            }
        };
        let thread = std::thread::Builder::new().name("keeper".into());
        Ok(Keeper {
            orders: Some(orders),
            thread: Some(thread.spawn(work)?),
        })
    }

    /// Starts `command` as a child that dies with us, in a process group of its own: Ctrl-C in a terminal reaches us
    /// alone, and we end servers in order.
    pub(super) fn spawn(&self, mut command: Command) -> io::Result<Child> {
        command.process_group(0);
        die_with_parent(&mut command);
        let gone = || io::Error::other("the thread that starts servers is gone");
        let (reply, answer) = sync_channel(1);
        let orders = self.orders.as_ref().ok_or_else(gone)?;
        orders.send(Order { command, reply }).map_err(|_| gone())?;
        answer.recv().map_err(|_| gone())?
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.orders.take();
        if let Some(thread) = self.thread.take() {
            // Its only way to fail is a panic, and then it has ended too.
            let _ = thread.join();
        }
    }
}

fn die_with_parent(command: &mut Command) {
    let parent = getpid();
    let bind = move || bind_to(parent);
    // SAFETY: between fork and exec only async-signal-safe calls may be made: these are prctl and getppid, and nothing
    // allocates.
    unsafe { command.pre_exec(bind) };
}

/// Runs in the child, after the change of user (which would reset the signal).
fn bind_to(parent: Pid) -> io::Result<()> {
    prctl::set_pdeathsig(Signal::SIGQUIT)?;
    // The parent may have died before the line above.
    match getppid() == parent {
        true => Ok(()),
        false => Err(io::Error::from_raw_os_error(
            nix::errno::Errno::ECHILD as i32,
        )),
    }
}
