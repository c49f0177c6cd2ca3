//! Dispatches `passive`; the other commands join at the merge.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    match args.next() {
        Some(word) if word == "passive" => {
            let stop = crossbeam_channel::never();
            ExitCode::from(subsegment_tcp_speeds::node::passive::run(args, stop))
        }
        _ => ExitCode::from(2),
    }
}
