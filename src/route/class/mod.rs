//! Where a statement may run: a *proven read* anywhere, everything else on the primary.
//!
//! The proof is one of names, and made twice. [`effects`](super::effects) has shown that no statement of the text writes,
//! locks, changes the session or calls what is not known. Then every word and operator is held to what is known against
//! it ([`scan`]): a built-in function that needs the primary ([`super::primary`]), an object that a replica does not have.
//! And so is all that a parser finds ([`named`]), which also knows a relation from a column: what cannot be parsed is no
//! proven read, nor is what the parser sees to write, lock or name an unknown relation. Bodies of functions are read by their
//! words only, where a column with the name of an unlogged table counts as the table.
//!
//! What is not understood goes to the primary. Pure, like all of [`super`].

mod command;
mod hint;
mod named;
mod scan;
mod within;

use std::collections::HashSet;

use super::{
    Context,
    catalogue::{
        Reads,
        plpgsql::Piece,
        reads::{Cause, Role},
    },
    effects::{Effects, Kind, Names, PinReason, TxControl, effects_among},
    keyword::Keyword,
    lexer::Token,
    parse,
};
pub use command::command_of_write;
use hint::{Hint, hint};
use scan::{Known, Scan};
pub use within::may_run_within;

/// Where a text may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Primary,
    /// A proven read.
    Anywhere,
}

impl Place {
    pub fn as_str(self) -> &'static str {
        match self {
            Place::Primary => "primary",
            Place::Anywhere => "anywhere",
        }
    }
}

/// Why a text has its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A proven read.
    Read,
    /// INSERT, UPDATE, DELETE, MERGE, TRUNCATE, COPY FROM, or a definition.
    Write,
    /// FOR UPDATE and its like.
    Locking,
    /// SELECT … INTO.
    Into,
    Transaction,
    /// SET, SHOW, `set_config`, `current_setting`.
    Setting,
    /// A statement about the session or its server: LISTEN, FETCH, VACUUM, EXECUTE.
    Utility,
    Function,
    Relation,
    Sequence,
    Temp,
    Unlogged,
    Foreign,
    Operator,
    /// The client's own comment says so.
    Hint,
    /// The configuration says so.
    Rule,
    /// A relation or function whose database was not read yet, or is being changed.
    NoCatalogue,
    /// Not recognised.
    Unknown,
}

impl Reason {
    /// The label in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Read => "read",
            Reason::Write => "write",
            Reason::Locking => "locking",
            Reason::Into => "into",
            Reason::Transaction => "transaction",
            Reason::Setting => "setting",
            Reason::Utility => "utility",
            Reason::Function => "function",
            Reason::Relation => "relation",
            Reason::Sequence => "sequence",
            Reason::Temp => "temp",
            Reason::Unlogged => "unlogged",
            Reason::Foreign => "foreign",
            Reason::Operator => "operator",
            Reason::Hint => "hint",
            Reason::Rule => "rule",
            Reason::NoCatalogue => "no_catalogue",
            Reason::Unknown => "unknown",
        }
    }
}

/// Where a text may run, and what decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Class {
    pub place: Place,
    pub reason: Reason,
    /// The function, relation or word that decided, folded.
    pub object: Option<Box<str>>,
}

impl Class {
    pub const READ: Class = Class {
        place: Place::Anywhere,
        reason: Reason::Read,
        object: None,
    };

    /// On the primary, for this reason.
    pub const fn primary(reason: Reason) -> Self {
        Class {
            place: Place::Primary,
            reason,
            object: None,
        }
    }

    fn by(reason: Reason, object: &[u8]) -> Self {
        let object = String::from_utf8_lossy(object);
        Class {
            object: Some(object.into()),
            ..Class::primary(reason)
        }
    }
}

/// The class of the text of a Query or Parse message; of several statements the strongest decides. `effects` are those
/// of the same text, read with the same names.
///
/// A hint wins over rules, and rules over the proof. A replica's hint, or rule for a statement, makes up for a missing proof, but not for what the
/// text itself shows to write, to leave something behind or to control the transaction.
pub fn class_of(text: &[u8], effects: &Effects, context: &Context, names: Names) -> Class {
    let ruled = || match names {
        Names::Read { catalogue, .. } => catalogue.reads.place_of(text, context),
        _ => None,
    };
    let (class, reason) = match hint(text) {
        Some(Hint::Primary) => return Class::primary(Reason::Hint),
        Some(Hint::Replica) => (proven(text, effects, context, names), Reason::Hint),
        None => match ruled() {
            None => return proven(text, effects, context, names),
            Some(Place::Primary) => return Class::primary(Reason::Rule),
            Some(Place::Anywhere) => (proven(text, effects, context, names), Reason::Rule),
        },
    };
    let may_be_lifted = reads_by_verb(effects) && by_marks(effects).is_none();
    match class.place {
        Place::Primary if may_be_lifted && !is_session_bound(&class) => Class {
            reason,
            ..Class::READ
        },
        _ => class,
    }
}

/// Whether the client says of the text that it may run on a replica.
pub fn is_for_replica(text: &[u8]) -> bool {
    hint(text) == Some(Hint::Replica)
}

/// SHOW and FETCH read the state of the session that the primary holds.
fn is_session_bound(class: &Class) -> bool {
    class.reason == Reason::Utility
}

fn proven(text: &[u8], effects: &Effects, context: &Context, names: Names) -> Class {
    let reads = match names {
        Names::Read {
            catalogue,
            current: true,
        } => Some(&catalogue.reads),
        _ => None,
    };
    let known = || reads.map_or(Known::BuiltIn, Known::Read);
    if !reads_by_verb(effects) {
        return Class::primary(by_kind(text, effects, context));
    }
    let Some(facts) = parse::read(text, context) else {
        // The words may know why; if not, nobody does.
        let class = judge(effects, Scan::new(text, context, known()));
        return match class.place {
            Place::Anywhere => Class::primary(Reason::Unknown),
            Place::Primary => class,
        };
    };
    let class = judge(effects, Scan::beside_facts(text, context, known()));
    match class.place {
        Place::Anywhere => named::against(&facts, &known()).unwrap_or(class),
        Place::Primary if is_unread(&class, effects, reads) => Class::primary(Reason::NoCatalogue),
        Place::Primary => class,
    }
}

/// A function that nobody knows, because nothing was read.
fn is_unread(class: &Class, effects: &Effects, reads: Option<&Reads>) -> bool {
    let is_unknown = class.reason == Reason::Unknown && reads.is_none();
    is_unknown && effects.pin == Some(PinReason::OpaqueFunction)
}

/// The class of a piece of a function's body, but for what it names: that is told to `note`.
pub(super) fn of_piece<'t>(
    piece: Piece<'t>,
    effects: &Effects,
    context: &Context,
    allowed: &'t HashSet<Box<[u8]>>,
    note: &'t mut dyn FnMut(Token, &[u8], Role),
) -> Class {
    let (Piece::Expression(text) | Piece::Statement(text)) = piece;
    let scan = Scan::of_piece(piece, context, Known::Noted { note, allowed });
    match reads_by_verb(effects) {
        true => judge(effects, scan),
        false => Class::primary(by_kind(text, effects, context)),
    }
}

fn reads_by_verb(effects: &Effects) -> bool {
    matches!(effects.kind, Kind::Empty | Kind::Read | Kind::CopyTo)
}

/// Of a text whose verbs all read.
fn judge(effects: &Effects, scan: Scan) -> Class {
    let class = scan.run();
    match by_marks(effects) {
        // The text names what is to blame, or else nobody knows it.
        Some(reason) if class.place == Place::Anywhere => Class::primary(reason),
        _ => class,
    }
}

/// A name, and what it reaches if that is something else.
fn within(name: &[u8], cause: &Cause) -> Class {
    if *name == *cause.object {
        return Class::by(cause.reason, name);
    }
    let object = [name, b" (", &cause.object, b")"].concat();
    Class::by(cause.reason, &object)
}

/// Of a text with a verb that does not read.
fn by_kind(text: &[u8], effects: &Effects, context: &Context) -> Reason {
    match effects.kind {
        _ if effects.control != TxControl::None => Reason::Transaction,
        Kind::Utility => match scan::first_word(text, context) {
            Some(Keyword::Set | Keyword::Reset) => Reason::Setting,
            _ => Reason::Utility,
        },
        Kind::Write { .. } | Kind::CopyFrom | Kind::Ddl => scan::kind_of_write(text, context),
        Kind::Execute | Kind::Call | Kind::Do | Kind::OutsideTransaction => Reason::Utility,
        Kind::Empty | Kind::Read | Kind::CopyTo | Kind::Unknown => Reason::Unknown,
    }
}

/// Of a text whose verbs all read.
fn by_marks(effects: &Effects) -> Option<Reason> {
    let reason = match effects.pin {
        Some(PinReason::Set | PinReason::Reading) => Reason::Setting,
        Some(PinReason::TempTable) => Reason::Temp,
        Some(PinReason::Sequence) => Reason::Sequence,
        Some(PinReason::OpaqueStatement | PinReason::OpaqueFunction | PinReason::Discard) => {
            Reason::Unknown
        }
        Some(PinReason::Prepare | PinReason::Listen | PinReason::HoldCursor) => Reason::Utility,
        Some(
            PinReason::AdvisoryLock
            | PinReason::Load
            | PinReason::Setseed
            | PinReason::ReplicationSlot
            | PinReason::Backup
            | PinReason::ReplicationOrigin
            | PinReason::Dblink,
        ) => Reason::Function,
        None if effects.control != TxControl::None => Reason::Transaction,
        None if effects.advances_sequence => Reason::Sequence,
        None if !effects.changes.is_none() => Reason::Setting,
        None if effects.read_write_request => Reason::Setting,
        None if effects.ends_state => Reason::Function,
        None if effects.changes_catalogue => Reason::Function,
        None => return None,
    };
    Some(reason)
}

/// Classes any bytes by what is built in: what is fuzzed, and what tests feed.
///
/// # Panics
/// If that does, gives another class a second time, or takes for a read what a write follows.
pub fn assert_classified(text: &[u8]) {
    let written = [text, b"\n;delete from t"].concat();
    for standard_conforming_strings in [true, false] {
        let context = Context {
            server_major: 18,
            standard_conforming_strings,
            ..Context::default()
        };
        let class = |text: &[u8]| {
            let effects = effects_among(text, &context, Names::BuiltIn);
            class_of(text, &effects, &context, Names::BuiltIn)
        };
        let once = class(text);
        assert_eq!(once, class(text));
        if once.place == Place::Anywhere {
            assert_eq!(class(&written).place, Place::Primary);
        }
    }
}

#[cfg(test)]
mod tests;
