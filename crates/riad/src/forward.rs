//! `riad forward`: what of a machine can be reached from this computer.

use std::process::ExitCode;

use riad_host::machines::Machines;
use riad_host::network::Publish;
use serde::Serialize;

use crate::args::{Format, ForwardVerb};
use crate::report::{Failure, columns, show_as};

/// A forward as a program is told of it; keys are only ever added.
#[derive(Debug, Serialize)]
struct Shown {
    forward: Publish,
    listens: String,
    guest_port: u16,
}

pub(crate) fn forward(verb: ForwardVerb, format: Option<Format>) -> Result<ExitCode, Failure> {
    let machines = Machines::open()?;
    match verb {
        ForwardVerb::Add { name, forwards } => {
            let folder = machines.get(&name)?;
            for forward in &forwards {
                let added = folder.add_forward(forward)?;
                eprintln!("riad: {} goes to port {} of {name}", added.listens(), port(&added));
            }
        }
        ForwardVerb::Rm { name, forwards } => {
            let folder = machines.get(&name)?;
            for word in &forwards {
                folder.remove_forward(word)?;
            }
        }
        ForwardVerb::Ls { name } => {
            let forwards = machines.get(&name)?.forwards()?;
            let shown: Vec<Shown> = forwards
                .into_iter()
                .map(|forward| Shown {
                    listens: forward.listens(),
                    guest_port: port(&forward),
                    forward,
                })
                .collect();
            show_as(&shown, format, || table(&shown))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn port(forward: &Publish) -> u16 {
    forward.forward().port
}

fn table(shown: &[Shown]) -> String {
    let line = |shown: &Shown| [shown.listens.clone(), shown.guest_port.to_string()];
    let head = ["LISTENS".to_owned(), "GUEST PORT".to_owned()];
    columns(&std::iter::once(head).chain(shown.iter().map(line)).collect::<Vec<_>>())
}
