//! The program: see the crate's documentation for the map.

fn main() -> std::process::ExitCode {
    let args = std::env::args_os().skip(1);
    subsegment_tcp_speeds::commands::main(args).into()
}
