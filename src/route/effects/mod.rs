//! What a text leaves behind in its session beyond the current transaction, and what it does to that transaction.
//!
//! In transaction pooling a server may go to another client once it is idle, but only if nothing was left behind. So
//! the question here is not "what does this do" but "is it certain that nothing stays". A statement is free if its
//! verb is known and plain and every function that it calls by name is on the list of harmless built-ins
//! ([`super::functions`]); everything else gives a [`PinReason`]. A wrong pin costs a server, a wrong "free" shows one
//! client another's state, so each rule that takes something for *not* a call must hold for the whole grammar, of
//! every version.
//!
//! # What no text shows
//! Functions that are run without being named: by views, rules, triggers, row-level security, column defaults, domains,
//! casts and operators (unless written `OPERATOR(schema.+)`), and by a cursor or prepared statement opened earlier. Of
//! attribute notation, where `x.f` calls `f(x)` if `x` has no column `f`, only the built-in functions that are known to
//! leave something behind are seen. Overloads of built-in names, a `search_path` from a role's defaults
//! that puts `pg_temp` first, and sequences advanced by defaults ([`Kind::Write`] with `insert`) are not seen either.
//! All of these need the catalogue: [`effects_among`] asks what was read of it ([`super::catalogue`]) for the functions
//! that are called and for every name that may reach one, and reads the bodies of DO blocks.

mod call;
mod catalogue;
mod changes;
mod scan;
mod verb;

pub use changes::Changes;

use super::{
    Context,
    catalogue::{Catalogue, Known, Notes, plpgsql::Piece},
};

/// Why a session must keep its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PinReason {
    /// A change of settings that no list of names can hold: an UPDATE of pg_settings, a `set_config` of a name that is
    /// worked out, a search_path with pg_temp in it.
    Set,
    /// A SET after which texts are read otherwise: `standard_conforming_strings`, `client_encoding`.
    Reading,
    /// PREPARE, EXECUTE.
    Prepare,
    Listen,
    TempTable,
    HoldCursor,
    AdvisoryLock,
    /// currval, lastval: the session looks at what an earlier nextval left.
    Sequence,
    /// LOAD, or a function in C.
    Load,
    Setseed,
    ReplicationSlot,
    Backup,
    ReplicationOrigin,
    Dblink,
    Discard,
    /// DO, CALL, a script, or a statement that is not recognised.
    OpaqueStatement,
    /// A function that is on no list.
    OpaqueFunction,
}

impl PinReason {
    /// The label in metrics and in the console.
    pub fn as_str(self) -> &'static str {
        match self {
            PinReason::Set => "set",
            PinReason::Reading => "reading",
            PinReason::Prepare => "prepare",
            PinReason::Listen => "listen",
            PinReason::TempTable => "temp_table",
            PinReason::HoldCursor => "hold_cursor",
            PinReason::AdvisoryLock => "advisory_lock",
            PinReason::Sequence => "sequence",
            PinReason::Load => "load",
            PinReason::Setseed => "setseed",
            PinReason::ReplicationSlot => "replication_slot",
            PinReason::Backup => "backup",
            PinReason::ReplicationOrigin => "replication_origin",
            PinReason::Dblink => "dblink",
            PinReason::Discard => "discard",
            PinReason::OpaqueStatement => "opaque_statement",
            PinReason::OpaqueFunction => "opaque_function",
        }
    }
}

impl PinReason {
    /// Whether the server can be asked if it is gone.
    fn can_be_seen(self) -> bool {
        matches!(
            self,
            PinReason::Prepare
                | PinReason::Listen
                | PinReason::TempTable
                | PinReason::HoldCursor
                | PinReason::AdvisoryLock
                | PinReason::Discard
        )
    }
}

/// READ ONLY or READ WRITE, as asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    /// Nothing said: the session's default.
    #[default]
    Default,
    ReadOnly,
    ReadWrite,
}

/// What a statement does to the transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TxControl {
    #[default]
    None,
    Begin {
        access: Access,
        /// ISOLATION LEVEL SERIALIZABLE was asked for.
        serializable: bool,
    },
    Commit,
    CommitAndChain,
    Rollback,
    RollbackAndChain,
    Savepoint,
    Release,
    RollbackTo,
    PrepareTransaction,
    CommitPrepared,
    RollbackPrepared,
}

/// What kind of statement it is; for several statements the one that stands last here. EXPLAIN, with ANALYZE or without,
/// is what it explains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Kind {
    /// No statement at all.
    #[default]
    Empty,
    /// By its verb: not a proof that nothing is written.
    Read,
    /// SET, SHOW, BEGIN, LISTEN, LOCK and their like.
    Utility,
    CopyTo,
    /// INSERT, UPDATE, DELETE, MERGE, TRUNCATE, a row lock.
    Write {
        /// A row may be inserted, and a column's default may advance a sequence.
        insert: bool,
    },
    /// May run defaults that advance a sequence, too.
    CopyFrom,
    Ddl,
    /// EXECUTE of a statement prepared in SQL.
    Execute,
    Call,
    Do,
    /// Cannot run in a transaction block: VACUUM, CREATE DATABASE, CREATE INDEX CONCURRENTLY, COMMIT PREPARED.
    OutsideTransaction,
    /// Not recognised.
    Unknown,
}

/// How many statements a text has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Count {
    #[default]
    Zero,
    One,
    Many,
}

/// What a text leaves behind and does, over all its statements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Effects {
    /// Why the session must keep its server: the first reason that nobody can look for, else the first. None: nothing named in the text stays
    /// behind once the transaction is over.
    pub pin: Option<PinReason>,
    /// There are other reasons beside it.
    pub several_pins: bool,
    /// Settings that may be left changed. No reason to keep the server: they can be asked for and set on another.
    pub changes: Changes,
    /// May end what an earlier statement left: UNLISTEN, DROP, CLOSE, DEALLOCATE, DISCARD, pg_advisory_unlock.
    pub ends_state: bool,
    /// Of several statements, the last that controls the transaction.
    pub control: TxControl,
    pub kind: Kind,
    pub statements: Count,
    /// Calls nextval or setval by name.
    pub advances_sequence: bool,
    /// Asks for leave to write: READ WRITE, or changes (default_)transaction_read_only to anything but true, or may do
    /// so through a set_config whose setting is not a literal. RESET ALL and DISCARD ALL do not count: they go back to
    /// what the session was started with.
    pub read_write_request: bool,
    /// It pins nothing only by what the catalogue proves of the functions that it calls: true only as long as nothing
    /// is defined.
    pub relies_on_catalogue: bool,
    /// Defines something, which may change what the catalogue proves.
    pub changes_catalogue: bool,
}

/// What is known of names that are not built in.
#[derive(Debug, Clone, Copy)]
pub enum Names<'c> {
    /// Nothing: their functions pin.
    BuiltIn,
    Read {
        catalogue: &'c Catalogue,
        /// Nothing was defined since it was read. If something was, only what it says against a name counts.
        current: bool,
    },
    /// Names are noted down, to be judged later.
    Noted(&'c Notes<'c>),
}

impl Names<'_> {
    fn catalogue(&self) -> Option<&Catalogue> {
        match self {
            Names::Read { catalogue, .. } => Some(catalogue),
            _ => None,
        }
    }
}

impl Effects {
    /// For a text that cannot be read at all.
    const OPAQUE: Effects = Effects {
        pin: Some(PinReason::OpaqueStatement),
        several_pins: false,
        changes: Changes::NONE,
        ends_state: false,
        control: TxControl::None,
        kind: Kind::Unknown,
        statements: Count::Many,
        advances_sequence: false,
        read_write_request: false,
        relies_on_catalogue: false,
        changes_catalogue: true,
    };

    /// A reason to pin, where settings cannot be carried.
    pub(super) fn stays_behind(&self) -> Option<PinReason> {
        let changed = (!self.changes.is_none()).then_some(PinReason::Set);
        self.pin.or(changed)
    }

    /// May write to a table.
    pub(super) fn writes(&self) -> bool {
        self.kind >= Kind::Write { insert: false }
    }

    /// May call nextval, by name or through a column's default.
    pub(super) fn may_advance_sequence(&self) -> bool {
        let inserts = matches!(self.kind, Kind::Write { insert: true } | Kind::CopyFrom);
        self.advances_sequence || inserts
    }

    /// Takes over what a piece of a DO block does.
    fn absorb(&mut self, piece: &Effects) {
        // Settings are known by their place in the text that was read, and this was only a piece.
        if piece.stays_behind().is_some() {
            self.pin(PinReason::OpaqueStatement);
        }
        self.ends_state |= piece.ends_state;
        self.advances_sequence |= piece.may_advance_sequence();
        self.read_write_request |= piece.read_write_request;
        self.relies_on_catalogue |= piece.relies_on_catalogue;
        self.changes_catalogue |= piece.changes_catalogue;
    }

    /// Takes over what a function does whose name the catalogue knows.
    fn call(&mut self, function: Known) {
        self.relies_on_catalogue = true;
        self.advances_sequence |= function.advances_sequence;
        self.changes_catalogue |= function.changes_catalogue;
    }

    /// What nobody can look for counts before what can be seen to be gone.
    fn pin(&mut self, reason: PinReason) {
        self.several_pins |= self.pin.is_some_and(|before| before != reason);
        match self.pin {
            Some(before) if !before.can_be_seen() || reason.can_be_seen() => {}
            _ => self.pin = Some(reason),
        }
    }

    fn raise(&mut self, kind: Kind) {
        self.kind = self.kind.max(kind);
    }
}

/// Reads the text of a Query or Parse message. Takes time linear in its length and allocates nothing.
pub fn effects(text: &[u8], context: &Context) -> Effects {
    effects_among(text, context, Names::BuiltIn)
}

/// As [`effects`], with what is known of names that are not built in.
pub fn effects_among(text: &[u8], context: &Context, names: Names) -> Effects {
    if context.encoding == super::Encoding::Unsafe && !text.is_ascii() {
        return Effects::OPAQUE;
    }
    scan::Scan::new(text, context, names).run()
}

/// Reads a piece of a function's body.
pub(super) fn piece(piece: Piece, context: &Context, names: Names) -> Effects {
    scan::Scan::of_piece(piece, context, names, 0).run()
}

/// For property tests and fuzzing: reads a text in every way.
///
/// # Panics
/// If reading does, or counts a statement that is of no kind.
pub fn assert_readable(text: &[u8]) {
    for standard_conforming_strings in [true, false] {
        let context = Context {
            standard_conforming_strings,
            ..Context::default()
        };
        let read = effects(text, &context);
        let _ = super::settings::setting(text, &context);
        assert_eq!(read.kind == Kind::Empty, read.statements == Count::Zero);
    }
}
