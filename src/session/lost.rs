//! Answers in place of a server that the session has lost, or could not get.
//!
//! PostgreSQL's own rules, played without it: an error skips to the next Sync; a failed transaction answers 25P02 to
//! everything but its end. The session goes on with another server as soon as the client is told that it is idle.

use super::{
    Link, Session,
    catalogue::Judged,
    outcome::Flight,
    registry::Activity,
    relay::{End, Step},
    statement::{Control, Statement},
};
use crate::{
    client::report,
    error::{Error, Kind, Severity},
    route::effects::Names,
    wire::{TransactionStatus, backend, cursor::Cursor, frame::Frame, pipeline::Pipeline},
};

/// What the client still has to be told.
#[derive(Debug)]
pub(super) struct Lost {
    /// Not told yet.
    error: Option<Error>,
    /// What ReadyForQuery will say.
    status: TransactionStatus,
    batch: Batch,
}

/// Where in an extended batch the client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Batch {
    Normal,
    /// After an error: everything up to Sync goes unanswered.
    Skip,
    /// A statement that ends the transaction was parsed.
    Ending,
}

impl Session {
    /// No server could be had for the client's next message: that message fails, the session goes on.
    pub(super) fn refuse_next(&mut self, error: Error) {
        self.context.counters.count_error(error.kind);
        let status = match self.opening_fails() {
            true => TransactionStatus::Failed,
            false => TransactionStatus::Idle,
        };
        self.link = Link::Lost(Box::new(Lost {
            error: Some(error),
            status,
            batch: Batch::Normal,
        }));
    }

    /// The transaction was lost with its server. What `pipeline` still owes is answered now; with nothing owed, the
    /// client is told at its next statement.
    pub(super) fn fail_transaction(&mut self, error: Error, pipeline: &Pipeline) {
        self.context.counters.count_error(error.kind);
        self.flight = Flight::Nothing;
        let mut lost = Lost {
            error: Some(error),
            status: TransactionStatus::Failed,
            batch: Batch::Normal,
        };
        for _ in 0..pipeline.owed_ready() {
            lost.tell_error(&mut self.out);
            backend::ready_for_query(&mut self.out, lost.status.as_byte());
        }
        if pipeline.has_open_batch() {
            lost.tell_error(&mut self.out);
            lost.batch = Batch::Skip;
        }
        self.link = Link::Lost(Box::new(lost));
    }

    /// A cancel has hit the settings before what was sent behind them, as `pipeline` owes it: that fails of it, or if
    /// nothing was, the client's next message.
    pub(super) fn fail_cancelled(&mut self, pipeline: &Pipeline) {
        self.flight = Flight::Nothing;
        self.end_keeping();
        let error = Error::client(
            Kind::Cancelled,
            "canceling statement while the session's settings were set on its server",
        );
        if pipeline.owed_to_client() == 0 {
            return self.refuse_next(error);
        }
        self.context.counters.count_error(error.kind);
        for _ in 0..pipeline.owed_ready() {
            report::error_response(&mut self.out, &error, Some(Severity::Error));
            backend::ready_for_query(&mut self.out, TransactionStatus::Idle.as_byte());
        }
        if pipeline.has_open_batch() {
            report::error_response(&mut self.out, &error, Some(Severity::Error));
            self.skip_to_sync();
        }
    }

    /// The client was told an error, and no server is held: it is owed nothing up to its Sync.
    pub(super) fn skip_to_sync(&mut self) {
        self.link = Link::Lost(Box::new(Lost {
            error: None,
            status: TransactionStatus::Idle,
            batch: Batch::Skip,
        }));
    }

    /// Answers the client's next message.
    pub(super) fn answer_for_lost(&mut self, frame: Frame) -> Result<(), Step> {
        let control = self.control_of(frame);
        let subject = self.body(frame).first().copied();
        let Link::Lost(lost) = &mut self.link else {
            return Ok(());
        };
        let out = &mut self.out;
        match frame.tag {
            b'X' => return Err(Step::Ended(End::ClientGone)),
            b'S' => lost.sync(out),
            _ if lost.batch == Batch::Skip => {}
            b'Q' => lost.query(control, out),
            b'F' => lost.query(Control::None, out),
            b'P' => lost.parse(control, out),
            b'B' => lost.bind(control, out),
            b'C' => lost.step(b'3', out),
            b'D' => lost.describe(subject, out),
            b'E' => lost.execute(out),
            _ => {}
        }
        let is_ending = lost.batch == Batch::Ending;
        if lost.is_over(frame.tag) {
            self.link = Link::Free;
            let now = self.context.pools.now();
            self.entry.set_activity(Activity::Idle, now);
        }
        match frame.tag {
            b'P' if is_ending => self.remember_unparsed(frame),
            b'C' if is_ending => self.forget_unparsed(frame),
            _ => {}
        }
        self.drop_frame(frame);
        Ok(())
    }

    fn control_of(&self, frame: Frame) -> Control {
        let mut cursor = Cursor::new(self.body(frame));
        let text = match frame.tag {
            b'Q' => cursor.cstr(),
            b'P' => cursor.cstr().and_then(|_name| cursor.cstr()),
            b'B' => {
                let name = cursor.cstr().and_then(|_portal| cursor.cstr());
                return self.ending_of_named(name.unwrap_or_default());
            }
            _ => return Control::None,
        };
        text.map_or(Control::None, |text| {
            Statement::of(text, &self.reading, Names::BuiltIn, Judged::NOT).ending()
        })
    }
}

impl Lost {
    /// The loss itself once, then what PostgreSQL says in a failed transaction.
    fn tell_error(&mut self, out: &mut Vec<u8>) {
        let error = self.error.take().unwrap_or_else(|| {
            Error::proxy(
                Kind::FailedTransaction,
                "current transaction is aborted, commands ignored until end of transaction block",
            )
        });
        report::error_response(out, &error, Some(Severity::Error));
    }

    fn is_over(&self, tag: u8) -> bool {
        let is_listening = self.batch != Batch::Skip;
        self.status == TransactionStatus::Idle && is_listening && matches!(tag, b'Q' | b'F' | b'S')
    }

    fn ready(&self, out: &mut Vec<u8>) {
        backend::ready_for_query(out, self.status.as_byte());
    }

    fn sync(&mut self, out: &mut Vec<u8>) {
        if self.status == TransactionStatus::Idle && self.error.is_some() {
            self.tell_error(out);
        }
        self.batch = Batch::Normal;
        self.ready(out);
    }

    fn query(&mut self, control: Control, out: &mut Vec<u8>) {
        match (control, &self.error) {
            (Control::Rollback, _) | (Control::Commit, None) if self.is_failed() => {
                self.end_transaction(out);
            }
            // The COMMIT of a transaction that is gone fails, and leaves none.
            (Control::Commit, Some(_)) => {
                self.tell_error(out);
                self.status = TransactionStatus::Idle;
            }
            _ => self.tell_error(out),
        }
        self.ready(out);
    }

    fn is_failed(&self) -> bool {
        self.status == TransactionStatus::Failed
    }

    fn end_transaction(&mut self, out: &mut Vec<u8>) {
        backend::command_complete(out, "ROLLBACK");
        self.error = None;
        self.status = TransactionStatus::Idle;
    }

    fn parse(&mut self, control: Control, out: &mut Vec<u8>) {
        self.prepare(control, b'1', out);
    }

    /// Of a statement that was parsed before, or of that of this batch.
    fn bind(&mut self, control: Control, out: &mut Vec<u8>) {
        match control {
            Control::None => self.step(b'2', out),
            _ => self.prepare(control, b'2', out),
        }
    }

    /// Only a statement that ends the transaction can be parsed or bound.
    fn prepare(&mut self, control: Control, reply: u8, out: &mut Vec<u8>) {
        match (control, &self.error) {
            (Control::Rollback, _) | (Control::Commit, None) if self.is_failed() => {
                backend::bare(out, reply);
                self.batch = Batch::Ending;
            }
            (Control::Commit, Some(_)) => {
                self.fail(out);
                self.status = TransactionStatus::Idle;
            }
            _ => self.fail(out),
        }
    }

    fn fail(&mut self, out: &mut Vec<u8>) {
        self.tell_error(out);
        self.batch = Batch::Skip;
    }

    /// A message that only an ending statement's batch may have.
    fn step(&mut self, reply: u8, out: &mut Vec<u8>) {
        match self.batch {
            Batch::Ending => backend::bare(out, reply),
            _ => self.fail(out),
        }
    }

    fn describe(&mut self, subject: Option<u8>, out: &mut Vec<u8>) {
        if self.batch == Batch::Ending && subject == Some(b'S') {
            backend::no_parameters(out);
        }
        self.step(b'n', out);
    }

    fn execute(&mut self, out: &mut Vec<u8>) {
        match self.batch {
            Batch::Ending => self.end_transaction(out),
            _ => self.fail(out),
        }
    }
}
