//! What a session needs to know of a statement's text: a digest of [`crate::route::effects`].

use std::rc::Rc;

use super::{catalogue::Judged, marks::Marks};
use crate::{
    route::{
        Context, Encoding,
        class::{Class, Place, Reason, class_of, is_for_replica, may_run_within},
        effects::{self, Access, Count, Effects, Kind, Names, PinReason, TxControl, effects_among},
        lexer::Lexer,
    },
    server::{connection::Parameters, settings::normalised},
};

/// How a statement moves the transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// Not at all: alone it is its own transaction.
    None,
    Begin,
    /// Whatever may make work permanent: COMMIT, END, PREPARE TRANSACTION, COMMIT PREPARED, CALL and DO (which may
    /// commit inside), and any text of several statements or of unknown kind.
    Commit,
    /// ROLLBACK or ABORT of the whole transaction.
    Rollback,
}

/// What is left of a statement that was its own transaction, when its server is shut down in the middle of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remains {
    /// Nothing: it may be run again as it is.
    Nothing,
    /// Nothing in the database. But it has read from its client, or written elsewhere.
    Outside,
    /// It may have committed parts of its work.
    Parts,
}

/// What a statement does with `currval` and `lastval`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sequences {
    Untouched,
    /// It may call nextval, by itself or through a column's default.
    Advances,
    /// It asks for what an earlier statement of the session left.
    Reads,
}

/// Settings that a statement may leave changed, by their plain names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    pub names: Box<[Box<str>]>,
    /// All that the session has set, too.
    pub resets_all: bool,
}

impl Changes {
    /// None if a name is not plain.
    fn of(changes: &effects::Changes, text: &[u8]) -> Option<Self> {
        let names: Option<_> = changes.names(text).map(normalised).collect();
        Some(Changes {
            names: names?,
            resets_all: changes.resets_all(),
        })
    }
}

/// The digest of one Query or Parse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// What it leaves behind in the server's session, if it may leave anything.
    pub pin: Option<&'static str>,
    /// There are other reasons beside it.
    pub several_pins: bool,
    /// Settings that it may leave changed.
    pub changes: Option<Rc<Changes>>,
    /// May end what an earlier statement left behind.
    pub ends_state: bool,
    pub control: Control,
    pub remains: Remains,
    /// Exactly one statement, and that a COMMIT, END, ROLLBACK or ABORT of the whole transaction.
    pub ends_transaction: bool,
    pub sequences: Sequences,
    /// CREATE, DROP or ALTER DATABASE: needs idle servers out of the way.
    pub alters_database: bool,
    /// Asks for READ WRITE, which a listener that is read-only by force refuses.
    pub wants_write: bool,
    /// What it means for prepared statements.
    pub marks: Marks,
    /// By what of the catalogue this was judged.
    pub judged: Judged,
    /// It pins nothing only because that proves so.
    pub relies_on_catalogue: bool,
    /// It may change what the catalogue proves.
    pub changes_catalogue: bool,
    /// Where it may run; None where nobody asks.
    pub class: Option<Class>,
    /// Its hint says so, whether or not that was needed.
    pub wants_replica: bool,
    /// It may run in a read-only transaction on a replica though it is no proven read.
    pub moves_within: bool,
    pub begins: Begins,
}

/// What transaction a statement opens that does nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begins {
    No,
    ReadOnly,
    /// What the session's default says.
    Default,
}

impl Statement {
    /// A text that is too long to be looked at.
    pub const TOO_LONG: Statement = Statement {
        pin: Some("long_statement"),
        several_pins: false,
        changes: None,
        ends_state: false,
        control: Control::Commit,
        remains: Remains::Parts,
        ends_transaction: false,
        sequences: Sequences::Advances,
        alters_database: false,
        wants_write: true,
        marks: Marks::UNKNOWN,
        judged: Judged::NOT,
        relies_on_catalogue: false,
        changes_catalogue: true,
        class: Some(Class::primary(Reason::Unknown)),
        wants_replica: false,
        moves_within: false,
        begins: Begins::No,
    };

    /// `judged`: by what `names` was told.
    pub fn of(text: &[u8], context: &Context, names: Names, judged: Judged) -> Self {
        let effects = effects_among(text, context, names);
        Statement::digest(text, &effects, context, judged)
    }

    /// The same with its class.
    pub fn classed(text: &[u8], context: &Context, names: Names, judged: Judged) -> Self {
        let effects = effects_among(text, context, names);
        Statement {
            class: Some(class_of(text, &effects, context, names)),
            wants_replica: is_for_replica(text),
            moves_within: may_run_within(text, &effects, context, names),
            ..Statement::digest(text, &effects, context, judged)
        }
    }

    fn digest(text: &[u8], effects: &Effects, context: &Context, judged: Judged) -> Self {
        let control = control(effects);
        let alone = effects.statements == Count::One;
        let ends = matches!(effects.control, TxControl::Commit | TxControl::Rollback);
        let pin = effects.pin.map(PinReason::as_str);
        let (pin, changes) = match effects.changes.is_none() {
            true => (pin, None),
            false => match Changes::of(&effects.changes, text) {
                Some(changes) => (pin, Some(Rc::new(changes))),
                None => (pin.or(Some(PinReason::Set.as_str())), None),
            },
        };
        Statement {
            pin,
            several_pins: effects.several_pins,
            changes,
            ends_state: effects.ends_state,
            control,
            remains: remains(effects),
            ends_transaction: alone && ends,
            sequences: sequences(effects),
            alters_database: is_ddl(effects.kind) && names_database(text, context),
            wants_write: effects.read_write_request,
            marks: Marks::of(text, effects, context),
            judged,
            relies_on_catalogue: effects.relies_on_catalogue && effects.pin.is_none(),
            changes_catalogue: effects.changes_catalogue,
            class: None,
            wants_replica: false,
            moves_within: false,
            begins: begins(effects),
        }
    }

    /// A read by somebody's word alone: nobody knows what running it twice does.
    pub fn is_hinted(&self) -> bool {
        let class = self.class.as_ref();
        class.is_some_and(|class| matches!(class.reason, Reason::Hint | Reason::Rule))
    }

    /// A proven read, or one by somebody's word, which leaves nothing behind.
    pub fn is_read(&self) -> bool {
        matches!(&self.class, Some(class) if class.place == Place::Anywhere) && self.pin.is_none()
    }

    /// [`Control::Commit`] or [`Control::Rollback`] if that is all there is, else None.
    pub fn ending(&self) -> Control {
        match self.ends_transaction {
            true => self.control,
            false => Control::None,
        }
    }
}

fn begins(effects: &Effects) -> Begins {
    match (effects.control, effects.statements) {
        (
            TxControl::Begin {
                access,
                serializable: false,
            },
            Count::One,
        ) => match access {
            Access::ReadOnly => Begins::ReadOnly,
            Access::Default => Begins::Default,
            Access::ReadWrite => Begins::No,
        },
        _ => Begins::No,
    }
}

fn control(effects: &Effects) -> Control {
    if effects.statements == Count::Many {
        return Control::Commit;
    }
    match effects.control {
        TxControl::Begin { .. } => Control::Begin,
        TxControl::Rollback => Control::Rollback,
        TxControl::Savepoint | TxControl::Release | TxControl::RollbackTo => Control::None,
        TxControl::None => match effects.kind {
            Kind::Call | Kind::Do | Kind::Execute | Kind::Unknown => Control::Commit,
            _ => Control::None,
        },
        TxControl::Commit
        | TxControl::CommitAndChain
        | TxControl::RollbackAndChain
        | TxControl::PrepareTransaction
        | TxControl::CommitPrepared
        | TxControl::RollbackPrepared => Control::Commit,
    }
}

fn remains(effects: &Effects) -> Remains {
    match effects.kind {
        Kind::Empty | Kind::Read | Kind::Utility | Kind::Write { .. } | Kind::Ddl => {
            Remains::Nothing
        }
        // From the client or to it, or to a program on the server: the text alone does not tell.
        Kind::CopyFrom | Kind::CopyTo => Remains::Outside,
        Kind::Call | Kind::Do | Kind::Execute | Kind::OutsideTransaction | Kind::Unknown => {
            Remains::Parts
        }
    }
}

fn sequences(effects: &Effects) -> Sequences {
    let inserts = matches!(effects.kind, Kind::Write { insert: true } | Kind::CopyFrom);
    if effects.pin == Some(PinReason::Sequence) {
        Sequences::Reads
    } else if effects.advances_sequence || inserts {
        Sequences::Advances
    } else {
        Sequences::Untouched
    }
}

fn is_ddl(kind: Kind) -> bool {
    matches!(kind, Kind::Ddl | Kind::OutsideTransaction | Kind::Unknown)
}

/// `CREATE DATABASE …`, `DROP DATABASE …`, `ALTER DATABASE …`.
fn names_database(text: &[u8], context: &Context) -> bool {
    let mut lexer = Lexer::new(text, context.standard_conforming_strings);
    let mut word = || lexer.next_token().map_or(&[][..], |token| token.text(text));
    let verb = word();
    let is_verb = |known: &&str| verb.eq_ignore_ascii_case(known.as_bytes());
    ["create", "drop", "alter"].iter().any(is_verb) && word().eq_ignore_ascii_case(b"database")
}

/// How a session's texts are to be read, by what its server told.
pub fn reading(told: &Parameters) -> Context {
    let version = told.value("server_version").unwrap_or_default();
    Context {
        standard_conforming_strings: told.value("standard_conforming_strings") != Some("off"),
        encoding: Encoding::of(told.value("client_encoding").unwrap_or_default().as_bytes()),
        server_major: major(version).unwrap_or_default(),
    }
}

/// The leading number of `server_version`: 15 in `15.18 (Debian …)`, 19 in `19beta1`.
pub fn major(server_version: &str) -> Option<u8> {
    let digits = server_version.split(|c: char| !c.is_ascii_digit()).next();
    digits?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Statement {
        Statement::of(
            text.as_bytes(),
            &Context::default(),
            Names::BuiltIn,
            Judged::NOT,
        )
    }

    #[test]
    fn what_may_commit_is_never_taken_for_what_cannot() {
        for (text, expected) in [
            ("select 1", Control::None),
            ("begin", Control::Begin),
            ("commit", Control::Commit),
            ("end", Control::Commit),
            ("rollback", Control::Rollback),
            ("rollback to s", Control::None),
            ("rollback and chain", Control::Commit),
            ("prepare transaction 'x'", Control::Commit),
            ("commit prepared 'x'", Control::Commit),
            ("call p()", Control::Commit),
            ("do $$begin end$$", Control::Commit),
            ("insert into t values (1); commit", Control::Commit),
            ("rollback; select 1", Control::Commit),
        ] {
            assert_eq!(of(text).control, expected, "{text}");
        }
        assert_eq!(of("commit").ending(), Control::Commit);
        assert_eq!(of("commit; select 1").ending(), Control::None);
        assert_eq!(of("rollback to s").ending(), Control::None);
    }

    #[test]
    fn only_what_is_rolled_back_whole_leaves_nothing() {
        for (text, expected) in [
            ("insert into t values (1)", Remains::Nothing),
            (
                "with w as (delete from t returning a) select * from w",
                Remains::Nothing,
            ),
            ("create index i on t (a)", Remains::Nothing),
            ("select 1", Remains::Nothing),
            ("copy t from stdin", Remains::Outside),
            ("copy t to program 'mail'", Remains::Outside),
            ("create index concurrently i on t (a)", Remains::Parts),
            ("drop index concurrently i", Remains::Parts),
            ("reindex table concurrently t", Remains::Parts),
            ("vacuum t", Remains::Parts),
            ("create database d", Remains::Parts),
            ("alter system set work_mem = 1", Remains::Parts),
            ("commit prepared 'x'", Remains::Parts),
            ("call p()", Remains::Parts),
            ("do $$begin end$$", Remains::Parts),
            ("execute x", Remains::Parts),
            ("frobnicate", Remains::Parts),
        ] {
            assert_eq!(of(text).remains, expected, "{text}");
        }
    }

    #[test]
    fn statements_that_need_idle_servers_out_of_the_way_are_seen() {
        assert!(of("/* x */ DROP DATABASE d").alters_database);
        assert!(of("create database d template e").alters_database);
        assert!(of("ALTER DATABASE d RENAME TO e").alters_database);
        assert!(!of("create table database (a int)").alters_database);
        assert!(!of("select 'drop database d'").alters_database);
    }

    #[test]
    fn the_version_is_read_from_what_servers_say() {
        assert_eq!(major("15.18 (Debian 15.18-0+deb12u1)"), Some(15));
        assert_eq!(major("19beta1"), Some(19));
        assert_eq!(major(""), None);
    }
}
