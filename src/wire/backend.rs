//! Writers for the messages that a server sends during login, and for errors at any time. Each appends one whole frame.

use super::cancel_key::CancelKey;

/// Appends a frame: type byte, length, and what `body` appends.
fn frame(out: &mut Vec<u8>, tag: u8, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag);
    let length_at = out.len();
    out.extend_from_slice(&[0; 4]);
    body(out);
    // A frame of ours is far below 2 GiB: all variable parts came through limits.
    let length = (out.len() - length_at) as u32;
    out[length_at..length_at + 4].copy_from_slice(&length.to_be_bytes());
}

fn cstr(out: &mut Vec<u8>, text: &[u8]) {
    // A zero inside would end the field early and let the rest pass as further fields.
    out.extend(text.iter().take_while(|b| **b != 0));
    out.push(0);
}

fn authentication(out: &mut Vec<u8>, code: i32, body: &[u8]) {
    frame(out, b'R', |out| {
        out.extend_from_slice(&code.to_be_bytes());
        out.extend_from_slice(body);
    });
}

pub fn authentication_ok(out: &mut Vec<u8>) {
    authentication(out, 0, &[]);
}

pub fn authentication_md5(out: &mut Vec<u8>, salt: [u8; 4]) {
    authentication(out, 5, &salt);
}

/// AuthenticationSASL: the mechanisms offered, best first.
pub fn authentication_sasl(out: &mut Vec<u8>, mechanisms: &[&str]) {
    let mut body = Vec::new();
    for mechanism in mechanisms {
        cstr(&mut body, mechanism.as_bytes());
    }
    body.push(0);
    authentication(out, 10, &body);
}

pub fn authentication_sasl_continue(out: &mut Vec<u8>, data: &[u8]) {
    authentication(out, 11, data);
}

pub fn authentication_sasl_final(out: &mut Vec<u8>, data: &[u8]) {
    authentication(out, 12, data);
}

pub fn backend_key_data(out: &mut Vec<u8>, pid: i32, key: &CancelKey) {
    frame(out, b'K', |out| {
        out.extend_from_slice(&pid.to_be_bytes());
        out.extend_from_slice(key.as_bytes());
    });
}

pub fn parameter_status(out: &mut Vec<u8>, name: &str, value: &str) {
    frame(out, b'S', |out| {
        cstr(out, name.as_bytes());
        cstr(out, value.as_bytes());
    });
}

pub fn command_complete(out: &mut Vec<u8>, tag: &str) {
    frame(out, b'C', |out| cstr(out, tag.as_bytes()));
}

/// ParameterDescription of a statement without parameters.
pub fn no_parameters(out: &mut Vec<u8>) {
    frame(out, b't', |out| out.extend_from_slice(&[0, 0]));
}

/// A message that is nothing but its type: ParseComplete, BindComplete, CloseComplete, NoData, …
pub fn bare(out: &mut Vec<u8>, tag: u8) {
    frame(out, tag, |_| {});
}

/// `status`: `b'I'`, `b'T'` or `b'E'`.
pub fn ready_for_query(out: &mut Vec<u8>, status: u8) {
    frame(out, b'Z', |out| out.push(status));
}

/// Says that minor version `minor` of protocol 3 is spoken, and which `_pq_.` options are not known.
pub fn negotiate_protocol_version(out: &mut Vec<u8>, minor: u16, unknown: &[Box<str>]) {
    frame(out, b'v', |out| {
        // The whole version, major too: what PostgreSQL sends and libpq expects, whatever the manual says.
        out.extend_from_slice(&(3u32 << 16 | u32::from(minor)).to_be_bytes());
        out.extend_from_slice(&(unknown.len() as u32).to_be_bytes());
        for name in unknown {
            cstr(out, name.as_bytes());
        }
    });
}

/// The fields of an ErrorResponse that we make.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a> {
    /// ERROR or FATAL (fields S and V).
    pub severity: &'a str,
    /// Five characters (field C).
    pub sqlstate: &'a str,
    pub message: &'a str,
    pub hint: Option<&'a str>,
    /// Field R, where drivers look at it.
    pub routine: Option<&'a str>,
}

pub fn error_response(out: &mut Vec<u8>, fields: Fields<'_>) {
    frame(out, b'E', |out| write_fields(out, fields));
}

/// A NOTICE of our own.
pub fn notice(out: &mut Vec<u8>, message: &str) {
    let fields = Fields {
        severity: "NOTICE",
        sqlstate: "00000",
        message,
        hint: None,
        routine: None,
    };
    frame(out, b'N', |out| write_fields(out, fields));
}

fn write_fields(out: &mut Vec<u8>, fields: Fields<'_>) {
    let named = [
        (b'S', Some(fields.severity)),
        (b'V', Some(fields.severity)),
        (b'C', Some(fields.sqlstate)),
        (b'M', Some(fields.message)),
        (b'H', fields.hint),
        (b'R', fields.routine),
    ];
    for (name, value) in named {
        let Some(value) = value else { continue };
        out.push(name);
        cstr(out, value.as_bytes());
    }
    out.push(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out);
        out
    }

    #[test]
    fn frames_are_byte_for_byte_postgresqls() {
        let key = CancelKey::new(&[1, 2, 3, 4]).unwrap();
        let table: [(Vec<u8>, &[u8]); 7] = [
            (written(authentication_ok), b"R\0\0\0\x08\0\0\0\0"),
            (
                written(|o| authentication_md5(o, *b"salt")),
                b"R\0\0\0\x0c\0\0\0\x05salt",
            ),
            (
                written(|o| authentication_sasl(o, &["A", "B"])),
                b"R\0\0\0\x0d\0\0\0\x0aA\0B\0\0",
            ),
            (
                written(|o| backend_key_data(o, 258, &key)),
                b"K\0\0\0\x0c\0\0\x01\x02\x01\x02\x03\x04",
            ),
            (
                written(|o| parameter_status(o, "a", "b")),
                b"S\0\0\0\x08a\0b\0",
            ),
            (written(|o| ready_for_query(o, b'I')), b"Z\0\0\0\x05I"),
            (
                written(|o| negotiate_protocol_version(o, 2, &["_pq_.x".into()])),
                b"v\0\0\0\x13\0\x03\0\x02\0\0\0\x01_pq_.x\0",
            ),
        ];
        for (got, want) in table {
            assert_eq!(got, want);
        }
    }

    #[test]
    fn a_zero_byte_in_a_message_cannot_add_fields() {
        let fields = Fields {
            severity: "FATAL",
            sqlstate: "28P01",
            message: "no\0Cxxxxx",
            hint: None,
            routine: None,
        };
        let frame = written(|o| error_response(o, fields));
        assert_eq!(&frame[5..], b"SFATAL\0VFATAL\0C28P01\0Mno\0\0");
    }
}
