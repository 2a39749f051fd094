//! What fuzz targets run, kept beside the code so that plain tests run it too: each takes any bytes, and panics where
//! `wire` breaks a promise. Not part of the public interface.

use std::collections::VecDeque;

use super::{
    buffer::Buffer,
    cursor::Cursor,
    frame::{self, Sender},
    pipeline::{Pipeline, Sent, Show, Ticket},
    report::Report,
    scram::{client, server},
    startup::{self, Allowed},
};

/// Small, so that frames pass through it in parts.
const BLOCK: usize = 64;

/// Relays `bytes` frame by frame, read in pieces as the first byte says: what comes out is what went in, up to the first
/// message that is refused.
pub fn relay(bytes: &[u8]) {
    let Some((&piece, stream)) = bytes.split_first() else {
        return;
    };
    let piece = usize::from(piece % 40) + 1;
    let mut buffer = Buffer::new(vec![0; BLOCK].into_boxed_slice());
    let (mut rest, mut out) = (stream, Vec::new());
    // Each turn takes a byte in, or a byte out, or is the last.
    loop {
        let n = read_piece(&mut buffer, rest, piece);
        rest = rest.split_at(n).1;
        let scanned = pass_frames(&mut buffer);
        out.extend_from_slice(buffer.pending());
        let sent = buffer.pending().len();
        buffer.sent(sent);
        if scanned.is_err() || (n == 0 && sent == 0) {
            break;
        }
    }
    assert!(stream.starts_with(&out), "other bytes came out");
    assert_eq!(out.len() + buffer.unseen().len() + rest.len(), stream.len());
}

fn read_piece(buffer: &mut Buffer, rest: &[u8], piece: usize) -> usize {
    let room = buffer.room();
    let n = room.len().min(rest.len()).min(piece);
    if let (Some(to), Some(from)) = (room.get_mut(..n), rest.get(..n)) {
        to.copy_from_slice(from);
    }
    buffer.fill(n);
    n
}

fn pass_frames(buffer: &mut Buffer) -> Result<(), super::Violation> {
    while !buffer.is_inside_frame() {
        match frame::peek(buffer.unseen(), Sender::Frontend)? {
            Some(frame) => buffer.pass(frame.len),
            None => return Ok(()),
        }
    }
    Ok(())
}

/// A first packet, with its length.
pub fn startup(bytes: &[u8]) {
    let mut cursor = Cursor::new(bytes);
    let Ok(len) = cursor.array().map(startup::body_len) else {
        return;
    };
    let body = cursor.rest();
    if len.is_ok_and(|len| len == body.len()) {
        let _ = startup::parse(
            body,
            Allowed {
                ssl: true,
                gss: true,
            },
        );
    }
    let refused = startup::parse(
        body,
        Allowed {
            ssl: false,
            gss: false,
        },
    );
    assert!(!matches!(
        refused,
        Ok(startup::Startup::Ssl | startup::Startup::Gss)
    ));
}

/// SCRAM messages to both roles: nobody proves anything with random bytes.
pub fn scram(bytes: &[u8]) {
    let verifier = super::scram::Verifier::mock(b"salt", 4096, [7; 32]);
    let (first, last) = bytes.split_at(bytes.len() / 2);
    if let Ok(start) = server::Start::new(&verifier, None, b"SCRAM-SHA-256")
        && let Ok((_, next)) = start.client_first(first, "nonce")
    {
        assert!(next.client_final(last).is_err(), "a proof of random bytes");
    }
    if let Ok(start) = client::Start::new(&[b"SCRAM-SHA-256"], None, "nonce".into()) {
        let (_, next) = start.first();
        let _ = next.server_first(bytes);
    }
}

/// An ErrorResponse's body.
pub fn report(bytes: &[u8]) {
    if let Ok(report) = Report::parse(bytes) {
        assert_eq!(report.sqlstate_str().len(), 5);
    }
}

/// A conversation of random messages with [`Model`], whose replies come whenever the bytes say: all are expected, tickets
/// end as their messages do, and who is free has nothing open.
pub fn pipeline(bytes: &[u8]) {
    let (mut pipeline, mut model) = (Pipeline::default(), Model::default());
    for (&byte, number) in bytes.iter().zip(1..) {
        match byte % 12 {
            0..8 => {
                let sent = MESSAGES[usize::from(byte % 8)];
                let has_ticket = matches!(sent, Sent::Parse | Sent::Close);
                let has_ticket = has_ticket && pipeline.is_listening();
                let ticket = Ticket::new(number).filter(|_| has_ticket);
                pipeline.send_ticketed(sent, Show::Client, ticket);
                model.send(sent, byte >> 4, ticket);
            }
            _ => hear(&mut pipeline, &mut model, usize::from(byte >> 4)),
        }
    }
    hear(&mut pipeline, &mut model, usize::MAX);
    assert!(
        !pipeline.is_free() || model.is_at_rest(),
        "free too early: {model:?}"
    );
    assert!(pipeline.is_quiet(), "still waits: {pipeline:?}");
}

const MESSAGES: [Sent; 8] = [
    Sent::Query,
    Sent::Parse,
    Sent::Bind,
    Sent::DescribePortal,
    Sent::Execute,
    Sent::Close,
    Sent::Sync,
    Sent::Flush,
];

fn hear(pipeline: &mut Pipeline, model: &mut Model, count: usize) {
    for _ in 0..count {
        let Some(Said { tag, ticket }) = model.said.pop_front() else {
            return;
        };
        match tag {
            b'1' | b'3' => assert_eq!(pipeline.head_ticket(), ticket),
            b'E' => assert_eq!(pipeline.last_lost_ticket(), ticket),
            _ => {}
        }
        let heard = pipeline.receive(tag, (tag == b'Z').then_some(b'I'));
        assert!(
            heard.is_ok(),
            "{} was not expected: {pipeline:?}",
            char::from(tag)
        );
        let is_waiting = !model.said.is_empty() || !model.is_at_rest();
        assert!(!pipeline.is_free() || !is_waiting, "free too early");
    }
}

/// PostgreSQL's main loop, as far as it decides what is answered.
#[derive(Debug, Default)]
struct Model {
    said: VecDeque<Said>,
    mode: Mode,
    /// Begun, and not ended by Sync.
    in_batch: Batch,
}

#[derive(Debug)]
struct Said {
    tag: u8,
    /// Of the message that is answered; of an error, the last that it threw away.
    ticket: Option<Ticket>,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Mode {
    #[default]
    Listening,
    SkippingToSync,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Batch {
    #[default]
    None,
    Open,
}

impl Model {
    fn is_at_rest(&self) -> bool {
        self.mode == Mode::Listening && self.in_batch == Batch::None
    }

    /// `luck` decides whether the message fails, and how it is answered.
    fn send(&mut self, sent: Sent, luck: u8, ticket: Option<Ticket>) {
        match (sent, &self.mode) {
            (Sent::Sync, _) => {
                (self.mode, self.in_batch) = (Mode::Listening, Batch::None);
                self.say(b"Z", None);
            }
            (_, Mode::SkippingToSync) => self.throw_away(ticket),
            (Sent::Flush, _) => {}
            (Sent::Query, _) => {
                self.in_batch = Batch::None;
                let answers: [&[u8]; 4] = [b"TDDCZ", b"EZ", b"IZ", b"CTDEZ"];
                self.say(answers[usize::from(luck % 4)], None);
            }
            (_, _) if luck.is_multiple_of(4) => {
                (self.mode, self.in_batch) = (Mode::SkippingToSync, Batch::Open);
                self.say(b"E", ticket);
            }
            (sent, _) => {
                self.in_batch = Batch::Open;
                self.say(success(sent, luck), ticket);
            }
        }
    }

    /// By the error that was said last, and was not heard yet: else the message would have no ticket.
    fn throw_away(&mut self, ticket: Option<Ticket>) {
        let mut errors = self.said.iter_mut().filter(|said| said.tag == b'E');
        if let (Some(error), Some(_)) = (errors.next_back(), ticket) {
            error.ticket = ticket;
        }
    }

    fn say(&mut self, tags: &[u8], ticket: Option<Ticket>) {
        let said = tags.iter().map(|&tag| Said { tag, ticket });
        self.said.extend(said);
    }
}

fn success(sent: Sent, luck: u8) -> &'static [u8] {
    match sent {
        Sent::Parse => b"1",
        Sent::Bind => b"2",
        Sent::Close => b"3",
        Sent::DescribePortal if luck.is_multiple_of(2) => b"T",
        Sent::DescribePortal => b"n",
        Sent::Execute if luck.is_multiple_of(2) => b"NDDC",
        _ => b"Ds",
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// Bytes that are often a message: types and small lengths.
    fn messages() -> impl Strategy<Value = Vec<u8>> {
        let message =
            (prop::sample::select(&b"QPBDECHSFdcfXy"[..]), 0..90usize).prop_map(|(tag, len)| {
                let announced = (len as u32 + 4).to_be_bytes();
                [&[tag], &announced[..], &vec![tag; len]].concat()
            });
        vec(message, 0..20).prop_map(|messages| messages.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..Default::default() })]

        #[test]
        fn any_frames_pass_a_small_buffer_unchanged(piece: u8, bytes in messages()) {
            relay(&[&[piece], &bytes[..]].concat());
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in vec(any::<u8>(), 0..400)) {
            relay(&bytes);
            startup(&bytes);
            scram(&bytes);
            report(&bytes);
        }

        #[test]
        fn texts_that_look_like_scram_are_read_without_panic(text in "[nyp]?,?a?=?,n=[a-z]{0,3},r=[!-~]{0,30},?[a-z]?=?[a-zA-Z0-9=,+/]{0,60}") {
            scram(text.as_bytes());
        }

        #[test]
        fn the_pipeline_follows_the_main_loop_whatever_is_sent(bytes in vec(any::<u8>(), 0..200)) {
            pipeline(&bytes);
        }
    }

    #[test]
    fn startup_packets_of_any_length_field_are_read_without_panic() {
        for len in [0, 3, 4, 8, 10_004, 0x8000_0000, u32::MAX] {
            for body in [&b""[..], b"\0\x03\0\0user\0\0", b"\x04\xd2\x16\x2f"] {
                startup(&[&len.to_be_bytes()[..], body].concat());
            }
        }
    }
}
