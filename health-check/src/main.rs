//! `ralph-health-check`; everything is in the library, so that its parsers can be tried by others.

use std::process::ExitCode;

fn main() -> ExitCode {
    health_check::main()
}
