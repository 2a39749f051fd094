//! What calling a built-in function by its name leaves behind in the session.
//!
//! A name is judged, not a function: a user's overload of a built-in name (`public.lower(mytype)`) can't be told from
//! the text, nor can a built-in that a hostile `search_path` hides. Both need the catalogue.

use super::{effects::PinReason, function_table::HARMLESS};

/// What is known of a function's name, written without a schema or as `pg_catalog.name`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Built in, and leaves nothing behind.
    Harmless,
    /// nextval, setval: leaves a current value behind, which only currval and lastval show.
    AdvancesSequence,
    /// `set_config`: depends on its arguments.
    SetConfig,
    /// Releases what an earlier call took: `pg_advisory_unlock`.
    EndsState,
    Pins(PinReason),
    /// On no list.
    Unknown,
}

/// Whether a function of this OID only reads or writes large objects, whose descriptors end with their transaction:
/// lo_open, lo_close, loread, lowrite and their like (catalog/pg_proc.dat, alike in every version).
pub fn is_large_object(oid: u32) -> bool {
    matches!(oid, 715 | 952..=958 | 964 | 1004 | 3170..=3172)
}

/// Whether a name as written, quoted or not, might be one of those that leave something behind: cheap, and often wrong.
#[inline]
pub(super) fn may_leave_something(name: &[u8]) -> bool {
    let name = name.strip_prefix(b"\"").unwrap_or(name);
    let starts = |prefix: &[u8]| {
        let start = name.get(..prefix.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    match name.first().map(|first| first | 0x20) {
        Some(b'p') => starts(b"pg_"),
        Some(b's') => starts(b"setseed"),
        Some(b'c') => starts(b"currval"),
        Some(b'n') => starts(b"nextval"),
        Some(b'd') => starts(b"dblink"),
        Some(b't') => starts(b"ts_stat"),
        _ => false,
    }
}

/// Built in, and runs SQL that it is given or makes up itself.
pub(super) fn runs_sql(name: &[u8]) -> bool {
    let known: [&[u8]; 7] = [
        b"query_to_xml",
        b"cursor_to_xml",
        b"table_to_xml",
        b"schema_to_xml",
        b"database_to_xml",
        b"ts_stat",
        b"ts_rewrite",
    ];
    let name = name.strip_prefix(b"\"").unwrap_or(name);
    known.iter().any(|known| {
        let start = name.get(..known.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(known))
    })
}

/// Whether a built-in function of this name may leave something behind but a sequence's value.
pub fn is_harmful(name: &str, server_major: u8) -> bool {
    match verdict(name.as_bytes(), server_major) {
        Verdict::SetConfig | Verdict::Pins(_) => true,
        Verdict::Harmless | Verdict::AdvancesSequence | Verdict::EndsState => false,
        Verdict::Unknown => runs_sql(name.as_bytes()),
    }
}

/// The longest name that is looked up; PostgreSQL's own limit.
const MAX_NAME: usize = 63;

/// Judges a name that is folded to lower case already, or was quoted.
pub fn verdict(name: &[u8], server_major: u8) -> Verdict {
    let Ok(name) = std::str::from_utf8(name) else {
        return Verdict::Unknown;
    };
    match since(name) {
        Some(since) if since <= server_major => Verdict::Harmless,
        Some(_) => Verdict::Unknown,
        None => by_hand(name),
    }
}

/// The first version that has this harmless function.
fn since(name: &str) -> Option<u8> {
    let mut slot = hash(name.as_bytes());
    while SLOT[slot] != EMPTY {
        let (known, since) = HARMLESS[SLOT[slot] as usize];
        if known == name {
            return Some(since);
        }
        slot = (slot + 1) % SLOTS;
    }
    None
}

/// More than four times as many slots as names; a power of two.
const SLOTS: usize = 8192;
const EMPTY: u16 = u16::MAX;
/// Indexes of [`HARMLESS`], hashed by the compiler: a query with five calls should not pay for five binary searches.
static SLOT: [u16; SLOTS] = slots();

const fn slots() -> [u16; SLOTS] {
    let mut table = [EMPTY; SLOTS];
    let mut index = 0;
    while index < HARMLESS.len() {
        let mut slot = hash(HARMLESS[index].0.as_bytes());
        while table[slot] != EMPTY {
            slot = (slot + 1) % SLOTS;
        }
        table[slot] = index as u16;
        index += 1;
    }
    table
}

/// FNV-1a, folded.
const fn hash(name: &[u8]) -> usize {
    let mut hash = 0x811C_9DC5u32;
    let mut pos = 0;
    while pos < name.len() {
        hash = (hash ^ name[pos] as u32).wrapping_mul(0x0100_0193);
        pos += 1;
    }
    (hash ^ (hash >> 15)) as usize % SLOTS
}

/// As [`verdict`], for a name as written without quotes.
pub fn verdict_folded(name: &[u8], server_major: u8) -> Verdict {
    let mut folded = [0u8; MAX_NAME];
    let Some(folded) = folded.get_mut(..name.len()) else {
        return Verdict::Unknown;
    };
    folded.copy_from_slice(name);
    folded.make_ascii_lowercase();
    verdict(folded, server_major)
}

/// The names that [`HARMLESS`] leaves out and that deserve a reason of their own.
fn by_hand(name: &str) -> Verdict {
    let reason = match name {
        "set_config" => return Verdict::SetConfig,
        "nextval" | "setval" => return Verdict::AdvancesSequence,
        "currval" | "lastval" => PinReason::Sequence,
        "setseed" => PinReason::Setseed,
        "pg_start_backup" | "pg_stop_backup" => PinReason::Backup,
        _ if name.starts_with("dblink") => PinReason::Dblink,
        _ if name.starts_with("pg_") => return by_prefix(&name["pg_".len()..]),
        _ => return Verdict::Unknown,
    };
    Verdict::Pins(reason)
}

/// Of what is left of a `pg_` name.
fn by_prefix(rest: &str) -> Verdict {
    let reason = match rest {
        "advisory_unlock" | "advisory_unlock_shared" | "advisory_unlock_all" => {
            return Verdict::EndsState;
        }
        _ if rest.starts_with("advisory_") || rest.starts_with("try_advisory_") => {
            PinReason::AdvisoryLock
        }
        _ if rest.starts_with("backup_") => PinReason::Backup,
        _ if rest.starts_with("replication_origin_") => PinReason::ReplicationOrigin,
        _ if rest.starts_with("logical_slot_") || rest.contains("replication_slot") => {
            PinReason::ReplicationSlot
        }
        _ => return Verdict::Unknown,
    };
    Verdict::Pins(reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_holds_none_of_the_names_judged_by_hand() {
        assert!(HARMLESS.is_sorted_by(|a, b| a.0 < b.0));
        for (name, first) in HARMLESS {
            assert_eq!(since(name), Some(*first), "{name}");
        }
        for name in [
            "set_config",
            "nextval",
            "setval",
            "currval",
            "lastval",
            "setseed",
            "pg_advisory_lock",
            "pg_try_advisory_lock_shared",
            "pg_advisory_unlock_all",
            "pg_backup_start",
            "query_to_xml",
            "table_to_xml",
            "ts_stat",
            "ts_rewrite",
            "pg_create_logical_replication_slot",
            "pg_replication_origin_session_setup",
            "fmgr_c_validator",
            "pg_logical_slot_get_changes",
        ] {
            assert_ne!(verdict(name.as_bytes(), 18), Verdict::Harmless, "{name}");
        }
    }

    #[test]
    fn names_are_judged_by_version_and_folded_unless_quoted() {
        assert_eq!(verdict_folded(b"Count", 15), Verdict::Harmless);
        assert_eq!(verdict(b"Count", 15), Verdict::Unknown);
        assert_eq!(verdict(b"uuidv7", 17), Verdict::Unknown);
        assert_eq!(verdict(b"uuidv7", 18), Verdict::Harmless);
        assert_eq!(verdict(b"pg_advisory_xact_lock", 15), Verdict::Harmless);
        assert_eq!(
            verdict(b"pg_try_advisory_lock", 15),
            Verdict::Pins(PinReason::AdvisoryLock)
        );
        assert_eq!(
            verdict(b"dblink_connect", 15),
            Verdict::Pins(PinReason::Dblink)
        );
        assert_eq!(verdict_folded(&[b'a'; 64], 15), Verdict::Unknown);
        assert_eq!(verdict_folded(b"lower\xff", 15), Verdict::Unknown);
    }
}
