//! The `riad` command: arguments in, words out. One short file a verb; what a verb does is in
//! `riad-host`.

mod args;
mod boot;
mod completion;
mod console;
mod cp;
mod create;
mod delete;
mod disk;
mod doctor;
mod events;
mod exec;
mod forward;
mod image;
mod ip;
mod logs;
mod ls;
mod make_image;
mod net;
mod provision;
mod rename;
mod report;
mod run;
mod session;
mod set;
mod signals;
mod ssh_config;
mod start;
mod stats;
mod status;
mod stop;
mod sweep;
mod switch;
mod terminal;
mod top;
mod vm;
mod wait;
mod why;
mod yaml;

use std::process::ExitCode;
use std::time::Instant;

use args::{Cli, Verb};
use report::Failure;

/// Riad's own crates, where `--verbose` looks.
const OWN: [&str; 10] = [
    "riad",
    "riad_agent",
    "riad_cpu_soft",
    "riad_devices",
    "riad_disk",
    "riad_host",
    "riad_image",
    "riad_machine",
    "riad_network",
    "riad_vmm",
];

fn main() -> ExitCode {
    let began = Instant::now();
    terminal::restore_on_panic();
    let cli = match args::parse() {
        Ok(cli) => cli,
        Err(status) => return status,
    };
    log(cli.verbose);
    match verb(cli, began) {
        Ok(status) => status,
        Err(failure) => {
            terminal::restore();
            failure.print();
            ExitCode::from(failure.status())
        }
    }
}

fn verb(cli: Cli, began: Instant) -> Result<ExitCode, Failure> {
    let Cli { verbose: _, format, verb } = cli;
    match verb {
        Verb::Run(args) => run::run(args, format, began),
        Verb::Create(args) => create::create(args),
        Verb::Start(args) => start::start(args),
        Verb::Stop(args) => stop::stop(args),
        Verb::Restart(args) => stop::restart(args),
        Verb::Delete(args) => delete::delete(args),
        Verb::Ls(args) => ls::ls(args, format),
        Verb::Info(args) => ls::info(args, format),
        Verb::Stats(args) => stats::stats(args, format),
        Verb::Top(args) => top::top(args, format),
        Verb::Events(args) => events::events(args, format),
        Verb::Exec(args) => exec::exec(args),
        Verb::Shell(args) => exec::shell(args),
        Verb::Cp(args) => cp::cp(args),
        Verb::Console(args) => console::console(args),
        Verb::Logs(args) => logs::logs(args),
        Verb::Wait(args) => wait::wait(args),
        Verb::Ip(args) => ip::ip(args, format),
        Verb::SshConfig(args) => ssh_config::ssh_config(args),
        Verb::Forward(verb) => forward::forward(verb, format),
        Verb::Why(args) => why::why(args, format),
        Verb::Set(args) => set::set(args, format),
        Verb::Protect(args) => set::protect(args, true),
        Verb::Unprotect(args) => set::protect(args, false),
        Verb::Provision(args) => provision::provision(args),
        Verb::Rename(args) => rename::rename(args),
        Verb::Clone(args) => rename::clone(args),
        Verb::Vm { folder } => vm::vm(folder),
        Verb::Switch { directory } => switch::switch(&directory),
        Verb::Boot(args) => boot::boot(args),
        Verb::Disk(verb) => disk::disk(verb, format),
        Verb::Net(verb) => net::net(verb, format),
        Verb::Image(verb) => image::image(verb, format),
        Verb::Doctor => doctor::doctor(format),
        Verb::Completion { shell } => completion::completion(shell),
        Verb::Complete(args) => completion::complete(args),
        Verb::MakeImage { parent } => make_image::make_image(parent),
        Verb::Sweep { status } => Ok(sweep::sweep(status)),
    }
}

/// What Riad says about itself goes to standard error, when asked for.
fn log(verbose: u8) {
    use tracing_subscriber::EnvFilter;
    let level = match verbose {
        0 => None,
        1 => Some("info"),
        2 => Some("debug"),
        _ => Some("trace"),
    };
    let filter = match (level, std::env::var("RIAD_LOG")) {
        // Riad's own crates; what others say only when something is wrong.
        (Some(level), _) => EnvFilter::new(
            OWN.iter().fold("warn".to_owned(), |filter, own| format!("{filter},{own}={level}")),
        ),
        (None, Ok(directives)) => EnvFilter::new(directives),
        (None, Err(_)) => return,
    };
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter).init();
}
