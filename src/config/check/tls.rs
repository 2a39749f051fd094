//! `[tls.client]` and `[tls.server]`: what belongs together, and files that can be used.

use std::{ops::Range, path::PathBuf};

use super::{Context, given};
use crate::config::{
    AuthMethod, Tls, TlsMode, TlsSide,
    problem::Problem,
    raw,
    tls::{self, Trouble},
    value::Given,
};

impl Context<'_, '_> {
    pub(super) fn tls(&mut self, raw: raw::Tls, method: AuthMethod) -> Tls {
        let default = Tls::default();
        // A certificate is given to be used.
        let client_mode = match raw.client.cert {
            Some(_) => TlsMode::Prefer,
            None => default.client.mode,
        };
        let tls = Tls {
            client: self.side(&raw.client, "tls.client", client_mode),
            server: self.side(&raw.server, "tls.server", default.server.mode),
        };
        self.client_needs(&raw.client, &tls.client, method);
        tls
    }

    fn side(&mut self, raw: &raw::TlsSide, key: &str, mode: TlsMode) -> TlsSide {
        let side = TlsSide {
            mode: given(&raw.mode, mode),
            cert: self.file(&raw.cert),
            key: self.file(&raw.key),
            ca: self.file(&raw.ca),
        };
        match (&raw.cert, &raw.key) {
            (Some(cert), None) => self.missing(
                cert.span(),
                &format!("{key}.key"),
                "the certificate's private key",
            ),
            (None, Some(at)) => self.missing(
                at.span(),
                &format!("{key}.cert"),
                "the certificate of this private key",
            ),
            (Some(cert), Some(at)) => self.pair(&side, key, cert.span(), at.span()),
            (None, None) => {}
        }
        if let (Some(at), Some(path)) = (&raw.ca, &side.ca)
            && let Err(why) = tls::authorities(path)
        {
            self.unusable(at.span(), &format!("{key}.ca"), path, &why);
        }
        side
    }

    fn file(&self, given: &Given<String>) -> Option<PathBuf> {
        given.as_ref().map(|it| self.path(it.get_ref()))
    }

    fn pair(&mut self, side: &TlsSide, key: &str, cert_at: Range<usize>, key_at: Range<usize>) {
        let (Some(cert), Some(private)) = (&side.cert, &side.key) else {
            return;
        };
        self.private(private, key_at.clone(), &format!("{key}.key"));
        match tls::pair(cert, private) {
            Ok(()) => {}
            Err(Trouble::Cert(why)) => self.unusable(cert_at, &format!("{key}.cert"), cert, &why),
            Err(Trouble::Key(why)) => self.unusable(key_at, &format!("{key}.key"), private, &why),
            Err(Trouble::Mismatch) => {
                let message = format!("`{key}.key` does not belong to `{key}.cert`");
                let problem = Problem::new(format!("{key}.key"), message);
                self.error(
                    key_at,
                    problem.expected("the private key of the first certificate"),
                );
            }
        }
    }

    fn unusable(&mut self, span: Range<usize>, key: &str, path: &std::path::Path, why: &str) {
        let message = format!("`{key}`: cannot use `{}`: {why}", path.display());
        self.error(
            span,
            Problem::new(key, message).expected("a readable PEM file"),
        );
    }

    /// Modes that need files, and the login method that needs a mode.
    fn client_needs(&mut self, raw: &raw::TlsSide, side: &TlsSide, method: AuthMethod) {
        let mode = raw.mode.as_ref().map_or(0..0, |it| it.span());
        let verifies = matches!(side.mode, TlsMode::VerifyCa | TlsMode::VerifyFull);
        if side.mode != TlsMode::Disable && raw.cert.is_none() && raw.key.is_none() {
            self.missing(
                mode.clone(),
                "tls.client.cert",
                "a certificate for this mode, with its key",
            );
        }
        if verifies && raw.ca.is_none() {
            self.missing(
                mode,
                "tls.client.ca",
                "the authority of the clients' certificates",
            );
        }
        if method == AuthMethod::Cert && !verifies {
            let problem = Problem::new(
                "auth.method",
                "`auth.method` = \"cert\" without clients' certificates",
            )
            .help("set mode = \"verify-ca\" or \"verify-full\", cert, key and ca in [tls.client]");
            self.report.error_nowhere(problem);
        }
    }
}
