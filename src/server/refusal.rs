//! A server's ErrorResponse to a login as an [`Error`]: the client gets the server's own words, the proxy the kind.

use crate::{
    error::{Error, Kind},
    net::{Target, inbox::Message},
    wire::report::Report,
};

pub(super) fn refused(target: &Target, message: Message<'_>) -> Error {
    let Ok(report) = Report::parse(message.body) else {
        return target.gone(
            "the server sent a malformed message",
            "ErrorResponse during login",
        );
    };
    let said = format!("{} ({})", report.message, report.sqlstate_str());
    Error::server(
        kind(report.sqlstate_str()),
        &target.name,
        "the server refused the login",
    )
    .detail(said)
    .response(message.frame)
}

/// What a refusal means for the proxy. Class 28 is the user's matter, 22, 42 and 55 the request's (a setting that does
/// not exist, a database that takes no connections); only 57P03 and unknown ones speak of the node.
fn kind(sqlstate: &str) -> Kind {
    match sqlstate {
        "28P01" => Kind::BadPassword,
        "3D000" => Kind::UnknownDatabase,
        "53300" => Kind::Full,
        "57P03" => Kind::NoNode,
        code => match code.get(..2) {
            Some("28" | "22" | "42" | "55") => Kind::NotAllowed,
            _ => Kind::ServerGone,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refuse(body: &[u8]) -> Error {
        let target = Target {
            name: "pg1".into(),
            host: "::1".into(),
            address: None,
            port: 1,
        };
        let mut frame = vec![b'E', 0, 0, 0, 0];
        frame.extend_from_slice(body);
        refused(
            &target,
            Message {
                tag: b'E',
                body,
                frame: &frame,
            },
        )
    }

    #[test]
    fn the_sqlstate_decides_the_kind() {
        for (code, expected) in [
            ("28P01", Kind::BadPassword),
            ("28000", Kind::NotAllowed),
            ("3D000", Kind::UnknownDatabase),
            ("53300", Kind::Full),
            ("57P03", Kind::NoNode),
            ("42704", Kind::NotAllowed),
            ("57P01", Kind::ServerGone),
            ("XX000", Kind::ServerGone),
        ] {
            let error = refuse(format!("C{code}\0Mno\0\0").as_bytes());
            assert_eq!(error.kind, expected, "{code}");
            assert!(error.response.is_some());
        }
    }

    #[test]
    fn a_refusal_without_sqlstate_or_without_end_is_no_panic() {
        assert_eq!(refuse(b"\0").kind, Kind::ServerGone);
        let broken = refuse(b"C28P01");
        assert_eq!(broken.kind, Kind::ServerGone);
        assert!(broken.response.is_none());
    }
}
