//! The PostgreSQL protocol without I/O: bytes and facts in, steps out.
//!
//! Nothing here knows a socket, a clock, a log or the configuration. Everything a peer sends is checked before it is
//! used: no index, no allocation and no loop depends on an unchecked length.

pub mod backend;
pub mod buffer;
pub mod cancel_key;
pub mod cursor;
pub mod frame;
pub mod frontend;
#[doc(hidden)]
pub mod fuzz;
pub mod md5;
pub mod options;
pub mod pipeline;
pub mod rename;
pub mod report;
pub mod scram;
pub mod startup;

/// What PostgreSQL reports in ReadyForQuery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionStatus {
    /// `I`: no transaction.
    Idle,
    /// `T`: in a transaction block.
    Transaction,
    /// `E`: in a failed transaction block.
    Failed,
}

impl TransactionStatus {
    /// From ReadyForQuery's one byte.
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            b'I' => Some(TransactionStatus::Idle),
            b'T' => Some(TransactionStatus::Transaction),
            b'E' => Some(TransactionStatus::Failed),
            _ => None,
        }
    }

    pub fn as_byte(self) -> u8 {
        match self {
            TransactionStatus::Idle => b'I',
            TransactionStatus::Transaction => b'T',
            TransactionStatus::Failed => b'E',
        }
    }
}

/// A peer broke the protocol. The text names what was wrong and may be shown to that peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Violation {
    /// A type byte that the sender may not use here.
    UnknownType(u8),
    /// A length word below 4 or above what this type may have.
    BadLength { tag: u8, len: u32 },
    /// A message that nothing asked for.
    Unexpected(u8),
    /// A message whose body is not what its type says.
    Malformed(u8),
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Violation::UnknownType(tag) => write!(f, "invalid message type {tag}"),
            Violation::BadLength { tag, len } => {
                write!(f, "invalid length {len} of a message of type {tag}")
            }
            Violation::Unexpected(tag) => write!(f, "unexpected message of type {tag}"),
            Violation::Malformed(tag) => write!(f, "malformed message of type {tag}"),
        }
    }
}

impl std::error::Error for Violation {}
