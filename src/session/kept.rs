//! A copy of what the client has sent since its server was taken, as long as nothing of it has been answered.
//!
//! Messages are renamed and rewritten as they pass, so the client's own block is no copy. It is made in a block of the
//! worker's free list, and given back with the first answer: a waiting session has none. What does not fit is not kept.
//!
//! A copy is good for one thing: what the old primary has certainly rolled back is run once more on the new one.

use super::{
    Session,
    outcome::{Flight, Repeat},
};
use crate::{
    config::Route,
    wire::{
        buffer::Buffer,
        cursor::Cursor,
        frame::{self, Frame, HEADER_LEN, Sender},
        pipeline::Pipeline,
        report::Report,
    },
};

/// See the module's header.
#[derive(Debug, Default)]
pub(super) enum Kept {
    /// There is no copy, or no longer a whole one.
    #[default]
    Nothing,
    Copy(Box<Buffer>),
    /// What is under way is being run for the second time: there is no third.
    Again,
}

/// What a copy holds, if that is one statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    /// A simple Query.
    Query,
    /// So many messages of one batch that are answered each, with no more than one Execute among them.
    Batch(usize),
}

impl Session {
    /// A server was taken: what is sent to it from now on is kept.
    #[inline]
    pub(super) fn begin_to_keep(&mut self) {
        let is_wanted = !matches!(self.kept, Kept::Again)
            && self.route_held() != Route::Replica
            && !self.pins.is_pinned()
            && self.context.config.borrow().failover.replay_aborted;
        if is_wanted {
            self.forget_kept();
            self.kept = Kept::Copy(self.context.blocks.take());
        }
    }

    /// The client's next message is about to be passed.
    #[inline]
    pub(super) fn keep(&mut self, frame: Frame) {
        let (Kept::Copy(kept), Some(buffer)) = (&mut self.kept, &self.from_client) else {
            return;
        };
        let Some(message) = buffer.unseen().get(..frame.len) else {
            return self.forget_kept();
        };
        if kept.room().len() < message.len() {
            self.context.blocks.enlarge(kept);
        }
        if !kept.put(message) {
            self.forget_kept();
        }
    }

    /// The message that was kept last was not passed after all: it will come again.
    pub(super) fn keep_not(&mut self, frame: Frame) {
        if let Kept::Copy(kept) = &mut self.kept {
            kept.take_back(frame.len);
        }
    }

    /// All that was sent has been answered.
    #[inline]
    pub(super) fn end_keeping(&mut self) {
        self.forget_kept();
        self.kept = Kept::Nothing;
    }

    /// The copy is of no more use.
    #[inline]
    pub(super) fn forget_kept(&mut self) {
        match std::mem::take(&mut self.kept) {
            Kept::Copy(mut kept) => {
                kept.clear();
                self.context.blocks.give_back(kept);
            }
            other => self.kept = other,
        }
    }

    /// The server has said something beside an answer. A primary that shuts down says so to those whose commit waits for
    /// a replica: what they wrote is there.
    pub(super) fn noticed(&mut self, frame: Frame) {
        if self.flight != Flight::Single {
            return;
        }
        let sqlstate = Report::parse_start(self.reply_body(frame)).sqlstate;
        if sqlstate.is_none_or(|code| matches!(&code, b"57P01" | b"57P02")) {
            self.note_flight(Flight::MayCommit);
        }
        self.forget_kept();
    }

    /// Whether what is under way may be run once more; `pipeline` is what the lost server still owes.
    pub(super) fn repeat(&self, pipeline: &Pipeline) -> Repeat {
        let Kept::Copy(kept) = &self.kept else {
            return Repeat::Never;
        };
        let Some(unit) = unit(kept.unseen()) else {
            return Repeat::Several;
        };
        let is_whole = |buffer: &Buffer| !buffer.is_inside_frame();
        let shown = self.to_client.as_ref().map_or(&[][..], |b| b.pending());
        match self.from_client.as_deref().is_some_and(is_whole)
            && is_unseen(unit, shown, pipeline.owed_to_client(), pipeline.has_begun())
        {
            true => Repeat::Once,
            false => Repeat::Never,
        }
    }

    /// Puts the copy back before what the client has sent since, as if nothing of it had been looked at.
    pub(super) fn rewind(&mut self, pipeline: &Pipeline) {
        if let Kept::Copy(kept) = std::mem::replace(&mut self.kept, Kept::Again) {
            self.take_back_names(kept.unseen(), pipeline);
            self.put_back(kept);
        }
    }

    /// The same for a server that has executed and answered nothing of it. False where it must not be sent again, since
    /// there is no copy, or it holds more than one statement.
    pub(super) fn begins_again(&mut self) -> bool {
        let Kept::Copy(kept) = &self.kept else {
            return false;
        };
        let is_one = kept.unseen().is_empty() || unit(kept.unseen()).is_some();
        let is_cut = self
            .from_client
            .as_ref()
            .is_some_and(|b| b.is_inside_frame());
        if !is_one || is_cut {
            return false;
        }
        if let Kept::Copy(kept) = std::mem::replace(&mut self.kept, Kept::Again) {
            self.flight = Flight::Nothing;
            self.put_back(kept);
        }
        true
    }

    fn put_back(&mut self, mut kept: Box<Buffer>) {
        if let Some(answers) = &mut self.to_client {
            answers.abandon();
        }
        if let Some(mut rest) = self.from_client.take() {
            kept.append(rest.unseen());
            rest.clear();
            self.context.blocks.give_back(rest);
        }
        self.from_client = Some(kept);
    }

    /// Statements that the lost server had prepared by their names are prepared anew.
    fn take_back_names(&mut self, copy: &[u8], pipeline: &Pipeline) {
        let answered = messages(copy)
            .count()
            .saturating_sub(pipeline.owed_to_client());
        for (tag, body) in messages(copy).take(answered) {
            let name = Cursor::new(body).cstr().unwrap_or_default();
            if tag == b'P' && !name.is_empty() {
                self.prepared.remove(name);
            }
        }
    }
}

/// None if it is anything but one statement or one batch of one.
fn unit(copy: &[u8]) -> Option<Unit> {
    if let [(b'Q', _)] = messages(copy).take(2).collect::<Vec<_>>()[..] {
        return Some(Unit::Query);
    }
    let (mut count, mut executes, mut is_bound, mut is_over) = (0, 0, false, false);
    for (tag, _) in messages(copy) {
        if is_over || !matches!(tag, b'P' | b'B' | b'D' | b'C' | b'E' | b'S') {
            return None;
        }
        // What was bound before it would be another statement the second time.
        if tag == b'P' && is_bound {
            return None;
        }
        is_bound |= tag == b'B';
        count += 1;
        executes += usize::from(tag == b'E');
        is_over = tag == b'S';
    }
    (executes <= 1).then_some(Unit::Batch(count))
}

/// Whether the answers in `shown`, which the client has not got yet, are all that there were, and none says that
/// something was done. `owed`: messages not answered; `has_begun`: the first of them in part.
fn is_unseen(unit: Unit, shown: &[u8], owed: usize, has_begun: bool) -> bool {
    let answers = || frames(shown, Sender::Backend).map(|(tag, _)| tag);
    match unit {
        Unit::Query => match has_begun {
            true => answers().eq([b'T']),
            false => answers().next().is_none(),
        },
        Unit::Batch(messages) => {
            let is_harmless =
                answers().all(|tag| matches!(tag, b'1' | b'2' | b'3' | b'n' | b't' | b'T'));
            let ended = answers().filter(|tag| *tag != b't').count();
            let is_in_part = answers().last() == Some(b't');
            is_harmless && ended + owed == messages && is_in_part == has_begun
        }
    }
}

/// What the client sent: type and body of each message.
pub(super) fn messages(copy: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    frames(copy, Sender::Frontend)
}

/// Type and body of each whole frame.
fn frames(mut bytes: &[u8], sender: Sender) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let frame = frame::peek(bytes, sender).ok()??;
        let (whole, rest) = bytes.split_at_checked(frame.len)?;
        bytes = rest;
        Some((frame.tag, whole.get(HEADER_LEN..)?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Messages of these types, with a body where one is needed.
    fn copy(tags: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        for tag in tags.bytes() {
            let body: &[u8] = match tag {
                b'Q' => b"select 1\0",
                b'Z' => b"I",
                b'S' | b'H' | b'1' | b'2' | b'3' | b'n' => b"",
                _ => b"x\0",
            };
            bytes.push(tag);
            bytes.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
            bytes.extend_from_slice(body);
        }
        bytes
    }

    #[test]
    fn one_statement_is_told_from_several() {
        for (tags, expected) in [
            ("Q", Some(Unit::Query)),
            ("PBDES", Some(Unit::Batch(5))),
            ("BES", Some(Unit::Batch(3))),
            ("PDS", Some(Unit::Batch(3))),
            ("PBE", Some(Unit::Batch(3))),
            ("QQ", None),
            ("PBEES", None),
            ("PBEBES", None),
            ("PBESPBES", None),
            ("PBESQ", None),
            ("BEPS", None),
            ("Qd", None),
            ("PBHES", None),
            ("F", None),
        ] {
            assert_eq!(unit(&copy(tags)), expected, "{tags}");
        }
    }

    #[test]
    fn what_the_client_has_seen_a_part_of_is_not_run_again() {
        let batch = Unit::Batch(5);
        for (unit, shown, owed, has_begun, expected) in [
            (Unit::Query, "", 1, false, true),
            (Unit::Query, "T", 1, true, true),
            // The description is out already, or more than that has come.
            (Unit::Query, "", 1, true, false),
            (Unit::Query, "TD", 1, true, false),
            (Unit::Query, "C", 1, true, false),
            (Unit::Query, "N", 1, false, false),
            (batch, "", 5, false, true),
            (batch, "1", 4, false, true),
            (batch, "12", 3, false, true),
            (batch, "12T", 2, false, true),
            (batch, "12n", 2, false, true),
            (batch, "1t", 4, true, true),
            (batch, "1tT", 3, false, true),
            // One of the two is out.
            (batch, "2", 3, false, false),
            (batch, "", 4, false, false),
            (batch, "1", 4, true, false),
            (batch, "12TD", 2, true, false),
            (batch, "12TC", 1, false, false),
            (batch, "1N2", 3, false, false),
        ] {
            let answers = copy(shown);
            assert_eq!(
                is_unseen(unit, &answers, owed, has_begun),
                expected,
                "{unit:?} {shown} {owed} {has_begun}"
            );
        }
        // Half a message is out.
        let answers = copy("12");
        assert!(!is_unseen(batch, &answers[3..], 3, false));
    }
}
