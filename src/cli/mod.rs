//! The command line: one file per subcommand, and the exit codes that all of them share.

use std::{
    ffi::OsString,
    io::{self, IsTerminal, Write},
    path::Path,
    process::ExitCode,
};

use clap::{CommandFactory, Parser, Subcommand};

use crate::config::{ConfigErrors, Loaded, Problem};

pub mod check;
pub mod ctl;
pub mod demo;
mod logs;
pub mod route;
pub mod run;

/// Something failed while running: a node that cannot be reached, an address that is taken.
pub const FAILURE: u8 = 1;
/// The command line or the configuration is wrong (EX_USAGE of sysexits.h).
pub const USAGE: u8 = 64;

/// A PostgreSQL proxy: one port for the primary, one for the replicas, and it follows failovers by itself.
#[derive(Parser)]
#[command(name = "pgsluice", version, arg_required_else_help = true)]
#[command(
    disable_help_subcommand = true,
    after_help = "Try it:  pgsluice demo\n         psql -h localhost -p 5000 -U postgres     writes, on the primary\n         psql -h localhost -p 5001 -U postgres     reads, on the replicas"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a primary and two replicas here and now, with the proxy in front
    Demo(demo::DemoArgs),
    /// Check a configuration and the cluster that it names; change nothing
    Check(check::CheckArgs),
    /// Say of SQL where it would run, and why
    Route(route::RouteArgs),
    /// Run the proxy
    Run(run::RunArgs),
    /// Have a running proxy on this machine do something
    Ctl(ctl::CtlArgs),
    /// Print the completions of a shell
    #[command(hide = true)]
    Completions { shell: clap_complete::Shell },
    /// Print the manual page, as roff
    #[command(hide = true)]
    Man,
}

/// Parses the arguments of the process and runs what they say.
pub fn main() -> ExitCode {
    run_with(std::env::args_os())
}

fn run_with(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    match Cli::try_parse_from(args) {
        Ok(cli) => cli.command.run(),
        Err(error) => {
            // Nothing is left to do if the terminal is gone.
            let _ = error.print();
            match error.use_stderr() {
                true => ExitCode::from(USAGE),
                false => ExitCode::SUCCESS,
            }
        }
    }
}

impl Command {
    fn run(self) -> ExitCode {
        match self {
            Command::Demo(args) => demo::run(args),
            Command::Check(args) => check::run(args),
            Command::Route(args) => route::run(args),
            Command::Run(args) => run::run(args),
            Command::Ctl(args) => ctl::run(args),
            Command::Completions { shell } => {
                let mut out = Vec::new();
                clap_complete::generate(shell, &mut Cli::command(), "pgsluice", &mut out);
                print_all(&out)
            }
            Command::Man => man(),
        }
    }
}

fn man() -> ExitCode {
    let mut out = Vec::new();
    match clap_mangen::Man::new(Cli::command()).render(&mut out) {
        Ok(()) => print_all(&out),
        Err(_) => ExitCode::from(FAILURE),
    }
}

fn print_all(bytes: &[u8]) -> ExitCode {
    match io::stdout().write_all(bytes) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(FAILURE),
    }
}

/// Loads a configuration file, prints its warnings, and on errors prints them and gives the exit code.
pub fn load(path: &Path) -> Result<Loaded, ExitCode> {
    let loaded = crate::config::load(path).map_err(|errors| refuse(&errors))?;
    print_warnings(&loaded.warnings);
    Ok(loaded)
}

/// Prints what is wrong with a configuration on standard error; the exit code says the same.
pub fn refuse(errors: &ConfigErrors) -> ExitCode {
    let count = errors.problems.len();
    let what = if count == 1 { "error" } else { "errors" };
    eprintln!(
        "{}\n\npgsluice: {count} {what} in the configuration",
        errors.render(colored())
    );
    ExitCode::from(USAGE)
}

fn print_warnings(warnings: &[Problem]) {
    for warning in warnings {
        eprintln!("{}\n", warning.render_warning(colored()));
    }
}

/// Colours on a terminal, unless NO_COLOR is set.
fn colored() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|it| it.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
