//! Whether a peer has fallen silent: its system does not even acknowledge what was sent to it.
//!
//! Keepalive does not see that, since it rests while anything is unacknowledged, and Linux goes on sending for a quarter
//! of an hour. What the kernel knows of a connection tells such a peer from one that is only slow to read: the window
//! of the latter is closed, but its system answers whenever it is probed.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
    time::Duration,
};

use nix::libc;

/// An answer to what was sent last may still be on its way for so long.
const ROUND_TRIP: Duration = Duration::from_secs(1);
/// Unanswered probes of a closed window; each answer begins the count anew.
const PROBES: u8 = 3;

/// Whether what was sent to the peer has not been acknowledged for `patience`. False if the kernel does not say, and while the peer
/// answers that it takes no more for now.
pub fn is_silent(stream: &impl AsFd, patience: Duration) -> bool {
    tcp_info(stream).is_ok_and(|info| match info.tcpi_snd_wnd {
        0 => is_unanswered(&info, patience),
        _ => is_sent_in_vain(&info, patience),
    })
}

/// The peer's window is open, and the same was sent to it again and again. Whatever else comes from it does not count: where
/// only the way there is cut, it goes on sending what it was not seen to have been acknowledged.
fn is_sent_in_vain(info: &libc::tcp_info, patience: Duration) -> bool {
    let doublings = info.tcpi_backoff;
    // The time to the next attempt doubles with each: before the last one, all of them had taken as long but for the first.
    let next = Duration::from_micros(info.tcpi_rto.into());
    let first = next / 1_u32.checked_shl(doublings.into()).unwrap_or(u32::MAX);
    doublings > 0 && next - first + since_sent(info) >= patience
}

/// The peer's window was closed when it last spoke: its system answers whenever that is probed, by sending again what it was
/// closed over, or else by probes.
fn is_unanswered(info: &libc::tcp_info, patience: Duration) -> bool {
    let answered = Duration::from_millis(info.tcpi_last_ack_recv.into());
    let sent = since_sent(info);
    let is_due = info.tcpi_unacked > 0 && sent >= ROUND_TRIP && answered >= sent + ROUND_TRIP;
    answered >= patience && (is_due || info.tcpi_probes >= PROBES)
}

fn since_sent(info: &libc::tcp_info) -> Duration {
    Duration::from_millis(info.tcpi_last_data_sent.into())
}

fn tcp_info(stream: &impl AsFd) -> io::Result<libc::tcp_info> {
    // SAFETY: it consists of numbers, for which zero is a value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut len = size_of::<libc::tcp_info>() as libc::socklen_t;
    let socket = stream.as_fd().as_raw_fd();
    // SAFETY: the socket is borrowed, thus open; the kernel writes at most `len` bytes to `info`, which is as long.
    let failed = unsafe {
        libc::getsockopt(
            socket,
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut len,
        )
    };
    match failed {
        0 => Ok(info),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
        time::Instant,
    };

    use socket2::{SockFilter, SockRef};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(1);

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        near.set_nodelay(true).unwrap();
        (near, far)
    }

    /// Its kernel drops whatever comes for it, as a network might.
    fn cut_off(peer: &TcpStream) {
        let drop_all = SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, 0);
        SockRef::from(peer).attach_filter(&[drop_all]).unwrap();
    }

    /// Writes until the peer's window is closed.
    fn fill(near: &mut TcpStream) {
        near.set_nonblocking(true).unwrap();
        let chunk = [0; 65_536];
        while near.write(&chunk).is_ok() {}
    }

    #[track_caller]
    fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !condition() {
            assert!(Instant::now() < deadline, "never {what}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn a_peer_that_the_network_took_away_is_silent() {
        let (mut near, mut far) = pair();
        near.write_all(b"x").unwrap();
        far.read_exact(&mut [0]).unwrap();
        assert!(!is_silent(&near, PATIENCE));
        cut_off(&far);
        near.write_all(b"x").unwrap();
        wait_until("silent", || is_silent(&near, PATIENCE));
        assert!(!is_silent(&near, PATIENCE * 60));
    }

    #[test]
    fn a_peer_that_gets_nothing_is_silent_although_it_still_sends() {
        let (mut near, mut far) = pair();
        cut_off(&far);
        far.write_all(b"y").unwrap();
        near.read_exact(&mut [0]).unwrap();
        near.write_all(b"x").unwrap();
        wait_until("silent", || is_silent(&near, PATIENCE));
    }

    #[test]
    fn a_peer_that_was_taken_away_with_its_window_closed_is_silent() {
        let (mut near, far) = pair();
        fill(&mut near);
        cut_off(&far);
        wait_until("silent", || is_silent(&near, PATIENCE));
    }

    #[test]
    fn a_peer_that_reads_nothing_and_answers_is_not_silent() {
        let (mut near, _far) = pair();
        fill(&mut near);
        let probed = |info: libc::tcp_info| info.tcpi_backoff >= 4;
        wait_until("probed for longer than the patience", || {
            assert!(!is_silent(&near, PATIENCE));
            probed(tcp_info(&near).unwrap())
        });
    }

    #[test]
    fn a_peer_of_which_nothing_is_awaited_is_not_silent() {
        let (near, _far) = pair();
        wait_until("idle for longer than the patience", || {
            let idle = tcp_info(&near).unwrap().tcpi_last_ack_recv;
            Duration::from_millis(idle.into()) > PATIENCE
        });
        assert!(!is_silent(&near, PATIENCE));
    }

    #[test]
    fn what_an_idle_connection_lost_a_moment_ago_makes_nobody_silent() {
        let (mut near, far) = pair();
        wait_until("idle for longer than the patience", || {
            let idle = tcp_info(&near).unwrap().tcpi_last_ack_recv;
            Duration::from_millis(idle.into()) > PATIENCE * 2
        });
        cut_off(&far);
        near.write_all(b"x").unwrap();
        wait_until("sent again", || {
            tcp_info(&near).unwrap().tcpi_retransmits > 0
        });
        assert!(!is_silent(&near, PATIENCE * 2));
    }
}
