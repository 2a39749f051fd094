//! Writers for the messages that a client sends: our side of a login to a server. Each appends one whole message.

use super::{
    cancel_key::CancelKey,
    startup::{CANCEL_CODE, PROTOCOL_3, SSL_CODE},
};

/// Appends a message without a type byte (startup phase): length, and what `body` appends.
fn packet(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let length_at = out.len();
    out.extend_from_slice(&[0; 4]);
    body(out);
    // Far below 4 GiB: all variable parts came through limits.
    let length = (out.len() - length_at) as u32;
    out[length_at..length_at + 4].copy_from_slice(&length.to_be_bytes());
}

fn frame(out: &mut Vec<u8>, tag: u8, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag);
    packet(out, body);
}

fn cstr(out: &mut Vec<u8>, text: &str) {
    // A zero inside would end the field early and let the rest pass as something else.
    out.extend(text.bytes().take_while(|b| *b != 0));
    out.push(0);
}

/// StartupMessage of protocol 3.`minor`; `parameters` in order, `user` among them.
pub fn startup<'a>(
    out: &mut Vec<u8>,
    minor: u16,
    parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
) {
    packet(out, |out| {
        out.extend_from_slice(&(PROTOCOL_3 | u32::from(minor)).to_be_bytes());
        for (name, value) in parameters {
            cstr(out, name);
            cstr(out, value);
        }
        out.push(0);
    });
}

pub fn ssl_request(out: &mut Vec<u8>) {
    packet(out, |out| out.extend_from_slice(&SSL_CODE.to_be_bytes()));
}

pub fn cancel_request(out: &mut Vec<u8>, pid: i32, key: &CancelKey) {
    packet(out, |out| {
        out.extend_from_slice(&CANCEL_CODE.to_be_bytes());
        out.extend_from_slice(&pid.to_be_bytes());
        out.extend_from_slice(key.as_bytes());
    });
}

/// PasswordMessage: a plain password, or the md5 answer.
pub fn password(out: &mut Vec<u8>, password: &str) {
    frame(out, b'p', |out| cstr(out, password));
}

pub fn sasl_initial_response(out: &mut Vec<u8>, mechanism: &str, data: &[u8]) {
    frame(out, b'p', |out| {
        cstr(out, mechanism);
        out.extend_from_slice(&(data.len() as u32).to_be_bytes());
        out.extend_from_slice(data);
    });
}

pub fn sasl_response(out: &mut Vec<u8>, data: &[u8]) {
    frame(out, b'p', |out| out.extend_from_slice(data));
}

pub fn query(out: &mut Vec<u8>, sql: &str) {
    query_bytes(out, sql.as_bytes());
}

/// As [`query`], for a text in the client's encoding. It must not hold a zero byte.
pub fn query_bytes(out: &mut Vec<u8>, sql: &[u8]) {
    frame(out, b'Q', |out| {
        out.extend_from_slice(sql);
        out.push(0);
    });
}

/// Parse of a statement without parameter types.
pub fn parse(out: &mut Vec<u8>, name: &str, sql: &str) {
    frame(out, b'P', |out| {
        cstr(out, name);
        cstr(out, sql);
        out.extend_from_slice(&[0, 0]);
    });
}

/// Parse whose text and parameter types stand in `rest` as they did in another one.
pub fn parse_again(out: &mut Vec<u8>, name: &[u8], rest: &[u8]) {
    frame(out, b'P', |out| {
        out.extend_from_slice(name);
        out.push(0);
        out.extend_from_slice(rest);
    });
}

/// Bind of the unnamed statement, which has no parameters, to `portal`; results as text.
pub fn bind_unnamed(out: &mut Vec<u8>, portal: &[u8]) {
    frame(out, b'B', |out| {
        out.extend_from_slice(portal);
        out.extend_from_slice(&[0; 8]);
    });
}

/// Bind of a statement without parameters to the unnamed portal.
pub fn bind(out: &mut Vec<u8>, name: &[u8]) {
    frame(out, b'B', |out| {
        out.push(0);
        out.extend_from_slice(name);
        out.extend_from_slice(&[0; 7]);
    });
}

/// Bind of a statement without parameters to a portal of the same name.
pub fn bind_own(out: &mut Vec<u8>, name: &[u8]) {
    frame(out, b'B', |out| {
        for part in [name, &[0], name, &[0; 7]] {
            out.extend_from_slice(part);
        }
    });
}

/// Execute of a portal, all of it.
pub fn execute(out: &mut Vec<u8>, portal: &[u8]) {
    frame(out, b'E', |out| {
        out.extend_from_slice(portal);
        out.extend_from_slice(&[0; 5]);
    });
}

/// Close of a portal, whose name has no zero in it.
pub fn close_portal(out: &mut Vec<u8>, name: &[u8]) {
    frame(out, b'C', |out| {
        out.push(b'P');
        out.extend_from_slice(name);
        out.push(0);
    });
}

/// Describe of a prepared statement, whose name has no zero in it.
pub fn describe_statement(out: &mut Vec<u8>, name: &[u8]) {
    frame(out, b'D', |out| {
        out.push(b'S');
        out.extend_from_slice(name);
        out.push(0);
    });
}

/// Close of a prepared statement, whose name has no zero in it.
pub fn close_statement(out: &mut Vec<u8>, name: &[u8]) {
    frame(out, b'C', |out| {
        out.push(b'S');
        out.extend_from_slice(name);
        out.push(0);
    });
}

pub fn flush(out: &mut Vec<u8>) {
    frame(out, b'H', |_| {});
}

pub fn sync(out: &mut Vec<u8>) {
    frame(out, b'S', |_| {});
}

pub fn terminate(out: &mut Vec<u8>) {
    frame(out, b'X', |_| {});
}
