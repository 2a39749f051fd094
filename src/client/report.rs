//! Errors as the client sees them.

use crate::{
    error::{Error, Severity},
    wire::backend::{self, Fields},
};

/// Appends the ErrorResponse for `error`: the server's own if there is one, else ours with the kind's SQLSTATE.
/// `severity` overrides the kind's (every error ends a login).
pub fn error_response(out: &mut Vec<u8>, error: &Error, severity: Option<Severity>) {
    if let Some(frame) = &error.response {
        out.extend_from_slice(frame);
        return;
    }
    let fields = Fields {
        severity: severity.unwrap_or(error.kind.severity()).as_str(),
        sqlstate: error.kind.sqlstate(),
        message: &error.message,
        hint: error.hint.as_deref(),
        routine: None,
    };
    backend::error_response(out, fields);
}

/// A startup packet refused with an SQLSTATE that no kind has.
pub(super) fn refusal(sqlstate: &str, message: String, hint: Option<&str>) -> Error {
    let mut frame = Vec::new();
    let fields = Fields {
        severity: Severity::Fatal.as_str(),
        sqlstate,
        message: &message,
        hint,
        routine: None,
    };
    backend::error_response(&mut frame, fields);
    Error::violation(message).response(&frame)
}
