//! A secret is written in one of three ways: `password`, `password_file` or `password_env`.

use std::{fs, ops::Range, os::unix::fs::PermissionsExt, path::Path};

use super::Context;
use crate::config::{
    Secret,
    problem::{Problem, Show},
    value::Given,
};

/// A password file holds one line.
const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// The three ways, as written.
pub(super) struct Ways<'a> {
    pub plain: &'a Given<Secret>,
    pub file: &'a Given<String>,
    pub env: &'a Given<String>,
}

impl Ways<'_> {
    fn spans(&self) -> Vec<Range<usize>> {
        let spans = [
            self.plain.as_ref().map(|it| it.span()),
            self.file.as_ref().map(|it| it.span()),
            self.env.as_ref().map(|it| it.span()),
        ];
        spans.into_iter().flatten().collect()
    }

    pub fn is_given(&self) -> bool {
        !self.spans().is_empty()
    }
}

impl Context<'_, '_> {
    /// The secret, by whichever way it is given. `table` is the dotted name of its table.
    pub(super) fn secret(&mut self, ways: &Ways, table: &str) -> Option<Secret> {
        if let [_, second, ..] = ways.spans().as_slice() {
            let key = format!("{table}.password");
            let problem = Problem::new(&key, format!("`{key}` is given more than once"))
                .expected("one of `password`, `password_file`, `password_env`");
            self.report.error(second.clone(), Show::Key, problem);
            return None;
        }
        if let Some(plain) = ways.plain {
            let key = format!("{table}.password");
            return self.sound(plain.get_ref().clone(), plain.span(), &key, "it");
        }
        if let Some(file) = ways.file {
            return self.secret_file(
                file.get_ref(),
                file.span(),
                &format!("{table}.password_file"),
            );
        }
        let env = ways.env.as_ref()?;
        self.secret_env(env.get_ref(), env.span(), &format!("{table}.password_env"))
    }

    fn secret_env(&mut self, name: &str, span: Range<usize>, key: &str) -> Option<Secret> {
        let Some(value) = (self.env)(name) else {
            let message = format!("`{key}`: the environment variable is not set");
            let problem = Problem::new(key, message)
                .expected("the name of a variable that holds the password");
            self.error(span, problem);
            return None;
        };
        self.sound(Secret::new(value), span, key, "the variable")
    }

    fn secret_file(&mut self, name: &str, span: Range<usize>, key: &str) -> Option<Secret> {
        let path = self.path(name);
        match read_secret(&path) {
            Ok(secret) => {
                self.private(&path, span.clone(), key);
                self.sound(secret, span, key, "the file")
            }
            Err(why) => {
                let message = format!("`{key}`: cannot read `{}`: {why}", path.display());
                self.error(span, Problem::new(key, message).expected("a readable file"));
                None
            }
        }
    }

    fn sound(
        &mut self,
        secret: Secret,
        span: Range<usize>,
        key: &str,
        what: &str,
    ) -> Option<Secret> {
        if !secret.reveal().is_empty() && !secret.reveal().contains('\0') {
            return Some(secret);
        }
        let problem = Problem::new(key, format!("`{key}`: {what} is empty")).expected("a password");
        self.report.error(span, Show::Key, problem);
        None
    }

    /// Warns about a file with a secret in it that other users may read.
    pub(super) fn private(&mut self, path: &Path, span: Range<usize>, key: &str) {
        let Ok(status) = fs::metadata(path) else {
            return;
        };
        if status.permissions().mode() & 0o007 != 0 {
            let message = format!(
                "`{key}`: other users may read or change `{}`",
                path.display()
            );
            let problem = Problem::new(key, message);
            let help = format!("chmod 600 {}", path.display());
            self.report.warning(span, problem.help(help));
        }
    }
}

/// One line; the line feed at the end does not count.
fn read_secret(path: &Path) -> Result<Secret, String> {
    let size = fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > MAX_SECRET_BYTES {
        return Err(format!("larger than {MAX_SECRET_BYTES} bytes"));
    }
    let text =
        zeroize::Zeroizing::new(fs::read_to_string(path).map_err(|error| error.to_string())?);
    Ok(Secret::new(text.trim_end_matches(['\r', '\n'])))
}
