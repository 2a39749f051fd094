//! The program: arguments to exit code.

fn main() -> std::process::ExitCode {
    pgsluice::cli::main()
}
