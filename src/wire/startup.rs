//! The first packet of a connection: startup, TLS or GSS request, cancel.
//!
//! Also decides which minor version is spoken. What PostgreSQL refuses is refused here with its words.

use super::{
    cancel_key::CancelKey,
    cursor::{Cursor, Malformed},
};

/// The longest packet, its length field not counted (PostgreSQL's MAX_STARTUP_PACKET_LENGTH).
pub const MAX_STARTUP: usize = 10_000;
pub const PROTOCOL_3: u32 = 3 << 16;
pub const CANCEL_CODE: u32 = 1234 << 16 | 5678;
pub const SSL_CODE: u32 = 1234 << 16 | 5679;
pub const GSS_CODE: u32 = 1234 << 16 | 5680;
/// The newest minor version that we speak.
pub const NEWEST_MINOR: u16 = 2;
/// First byte of a TLS handshake record: a client that starts with TLS at once.
pub const TLS_HANDSHAKE: u8 = 0x16;

/// A first packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Startup {
    Ssl,
    Gss,
    Cancel { pid: i32, key: CancelKey },
    Session(Session),
}

/// A StartupMessage of protocol 3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The minor version asked for.
    pub minor: u16,
    /// Name and value in the packet's order, `_pq_.` options not among them.
    pub parameters: Vec<(Box<str>, Box<str>)>,
    /// Names of `_pq_.` options; we know none.
    pub protocol_options: Vec<Box<str>>,
}

/// Why a first packet is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    Malformed(Malformed),
    /// Neither 3.x nor a request that is allowed here (0A000).
    Version {
        major: u16,
        minor: u16,
    },
}

impl From<Malformed> for Refused {
    fn from(malformed: Malformed) -> Self {
        Refused::Malformed(malformed)
    }
}

/// What may still come: each encryption is asked for once at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowed {
    pub ssl: bool,
    pub gss: bool,
}

/// The length of the packet's rest, from its first four bytes.
pub fn body_len(header: [u8; 4]) -> Result<usize, Malformed> {
    let len = u32::from_be_bytes(header).checked_sub(4);
    len.and_then(|len| usize::try_from(len).ok())
        .filter(|len| (4..=MAX_STARTUP).contains(len))
        .ok_or(Malformed("invalid length of startup packet"))
}

impl Session {
    /// The minor version spoken from now on.
    pub fn spoken_minor(&self) -> u16 {
        self.minor.min(NEWEST_MINOR)
    }

    /// Whether the client must be told what we speak (NegotiateProtocolVersion).
    pub fn needs_negotiation(&self) -> bool {
        self.minor > NEWEST_MINOR || !self.protocol_options.is_empty()
    }

    /// The last value given for `name`, as in PostgreSQL.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.parameters.iter().rev().find(|(n, _)| **n == *name);
        found.map(|(_, value)| &**value)
    }
}

/// Reads a packet's rest (what follows the length).
pub fn parse(body: &[u8], allowed: Allowed) -> Result<Startup, Refused> {
    let mut cursor = Cursor::new(body);
    match cursor.u32()? {
        CANCEL_CODE => Ok(cancel(cursor)?),
        SSL_CODE if allowed.ssl => Ok(cursor.end().map(|()| Startup::Ssl)?),
        GSS_CODE if allowed.gss => Ok(cursor.end().map(|()| Startup::Gss)?),
        version if version & 0xffff_0000 == PROTOCOL_3 => {
            Ok(Startup::Session(session(version as u16, cursor)?))
        }
        version => Err(Refused::Version {
            major: (version >> 16) as u16,
            minor: version as u16,
        }),
    }
}

fn cancel(mut cursor: Cursor<'_>) -> Result<Startup, Malformed> {
    let pid = cursor.i32()?;
    let key = CancelKey::new(cursor.rest()).ok_or(Malformed("invalid length of cancel request"))?;
    Ok(Startup::Cancel { pid, key })
}

fn session(minor: u16, mut cursor: Cursor<'_>) -> Result<Session, Malformed> {
    let mut session = Session {
        minor,
        parameters: Vec::new(),
        protocol_options: Vec::new(),
    };
    // Each turn takes bytes of a packet of at most MAX_STARTUP.
    loop {
        let name = text(cursor.cstr().map_err(|_| LAYOUT)?)?;
        if name.is_empty() {
            return cursor.end().map(|()| session).map_err(|_| LAYOUT);
        }
        let value = cursor.cstr().map_err(|_| LAYOUT)?;
        session.take(name, value)?;
    }
}

const LAYOUT: Malformed =
    Malformed("invalid startup packet layout: expected terminator as last byte");

impl Session {
    fn take(&mut self, name: &str, value: &[u8]) -> Result<(), Malformed> {
        if name.starts_with("_pq_.") {
            self.protocol_options.push(name.into());
            return Ok(());
        }
        // Some clients put a window title in their local encoding here; it must not keep them out.
        let value = match name {
            "application_name" => String::from_utf8_lossy(value).into(),
            _ => text(value)?.into(),
        };
        self.parameters.push((name.into(), value));
        Ok(())
    }
}

fn text(bytes: &[u8]) -> Result<&str, Malformed> {
    std::str::from_utf8(bytes).map_err(|_| Malformed("invalid UTF-8 in startup packet"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::frontend;

    const ALL: Allowed = Allowed {
        ssl: true,
        gss: true,
    };

    fn packet(version: u32, rest: &[u8]) -> Vec<u8> {
        [&version.to_be_bytes()[..], rest].concat()
    }

    fn session_of(body: &[u8]) -> Session {
        match parse(body, ALL) {
            Ok(Startup::Session(session)) => session,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_we_write_is_what_we_read() {
        let mut out = Vec::new();
        frontend::startup(&mut out, 2, [("user", "u"), ("work_mem", "")]);
        let header = out[..4].try_into().unwrap();
        assert_eq!(body_len(header).unwrap(), out.len() - 4);
        let session = session_of(&out[4..]);
        assert_eq!(session.minor, 2);
        assert_eq!(session.parameter("user"), Some("u"));
        assert_eq!(session.parameter("work_mem"), Some(""));
        let key = CancelKey::new(&[1; 32]).unwrap();
        let mut out = Vec::new();
        frontend::cancel_request(&mut out, -5, &key);
        assert_eq!(parse(&out[4..], ALL), Ok(Startup::Cancel { pid: -5, key }));
        let mut out = Vec::new();
        frontend::ssl_request(&mut out);
        assert_eq!(out, b"\0\0\0\x08\x04\xd2\x16\x2f");
        assert_eq!(parse(&out[4..], ALL), Ok(Startup::Ssl));
    }

    #[test]
    fn lengths_outside_the_limit_are_refused() {
        for (len, fits) in [
            (0u32, false),
            (3, false),
            (7, false),
            (8, true),
            (10_004, true),
            (10_005, false),
            (u32::MAX, false),
            (0x8000_0000, false),
        ] {
            assert_eq!(body_len(len.to_be_bytes()).is_ok(), fits, "{len}");
        }
    }

    #[test]
    fn a_packet_cut_anywhere_is_refused() {
        let whole = packet(PROTOCOL_3, b"user\0u\0database\0d\0\0");
        for len in 0..whole.len() {
            assert!(
                matches!(parse(&whole[..len], ALL), Err(Refused::Malformed(_))),
                "{len}"
            );
        }
        assert!(parse(&whole, ALL).is_ok());
        assert!(parse(&[&whole[..], b"x"].concat(), ALL).is_err());
    }

    #[test]
    fn newer_minors_and_unknown_protocol_options_are_negotiated() {
        for (minor, options, spoken, negotiate) in [
            (0, &b""[..], 0, false),
            (1, b"", 1, false),
            (2, b"", 2, false),
            (9999, b"", 2, true),
            (0, b"_pq_.test\0on\0", 0, true),
        ] {
            let rest = [b"user\0u\0", options, b"\0"].concat();
            let session = session_of(&packet(PROTOCOL_3 | minor, &rest));
            assert_eq!(session.spoken_minor(), spoken, "{minor}");
            assert_eq!(session.needs_negotiation(), negotiate, "{minor}");
            assert_eq!(session.parameters.len(), 1);
        }
    }

    #[test]
    fn other_majors_and_a_second_encryption_request_are_unsupported_versions() {
        let once = Allowed {
            ssl: false,
            gss: false,
        };
        for (code, allowed) in [
            (2 << 16, ALL),
            (4 << 16, ALL),
            (1, ALL),
            (SSL_CODE, once),
            (GSS_CODE, once),
        ] {
            let refused = parse(&packet(code, b""), allowed);
            assert!(matches!(refused, Err(Refused::Version { .. })), "{code:x}");
        }
        assert_eq!(parse(&packet(GSS_CODE, b""), ALL), Ok(Startup::Gss));
    }

    #[test]
    fn only_application_name_may_be_other_than_utf8() {
        let name = session_of(&packet(PROTOCOL_3, b"application_name\0a\xff\0\0"));
        assert_eq!(name.parameter("application_name"), Some("a\u{fffd}"));
        assert!(parse(&packet(PROTOCOL_3, b"user\0a\xff\0\0"), ALL).is_err());
    }

    #[test]
    fn cancel_keys_outside_4_to_256_bytes_are_refused() {
        for (len, fits) in [
            (0, false),
            (3, false),
            (4, true),
            (32, true),
            (256, true),
            (257, false),
        ] {
            let rest = [&7i32.to_be_bytes()[..], &vec![1; len]].concat();
            assert_eq!(
                parse(&packet(CANCEL_CODE, &rest), ALL).is_ok(),
                fits,
                "{len}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(code in prop_oneof![
            Just(PROTOCOL_3), Just(PROTOCOL_3 | 9999), Just(SSL_CODE), Just(CANCEL_CODE), any::<u32>()
        ], rest in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&packet(code, &rest), ALL);
        }
    }
}
