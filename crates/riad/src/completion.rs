//! `riad completion`: a few lines for a shell, which ask `riad complete` what could come next. So names
//! of machines and images are those that there are, and the lines never grow old.

use std::process::ExitCode;

use clap::{Arg, Command, CommandFactory};
use riad_host::images::{self, public_name};
use riad_host::machines::Machines;

use crate::args::{Cli, CompleteArgs, Shell};
use crate::report::{Failure, show};

/// For bash. Words are cut at `=` and `:` by readline, and put together again here; of what comes
/// back, readline wants what follows its last cut.
const BASH: &str = r#"_riad() {
    local IFS=$'\n' word=$2 words
    words=("${COMP_LINE:0:COMP_POINT}")
    COMPREPLY=($(riad complete --line "$words" 2>/dev/null))
    if [[ $word != *[:=]* && ${words##* } == *[:=]* ]]; then
        local before=${words##* }
        before=${before%"${before##*[:=]}"}
        COMPREPLY=("${COMPREPLY[@]#"$before"}")
    fi
    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[/:=] ]] && compopt -o nospace
    [[ ${#COMPREPLY[@]} -eq 0 ]] && compopt -o default
}
complete -F _riad riad
"#;

const ZSH: &str = r#"#compdef riad
_riad() {
    local -a candidates
    candidates=("${(@f)$(riad complete --line "${LBUFFER}" 2>/dev/null)}")
    candidates=(${candidates:#})
    if (( ${#candidates} )); then
        compadd -Q -- $candidates
    else
        _files
    fi
}
if [[ ${funcstack[1]} == _riad ]]; then _riad "$@"; else compdef _riad riad; fi
"#;

const FISH: &str = r#"complete -c riad -f -a '(riad complete --line (commandline -cp) 2>/dev/null; or __fish_complete_path (commandline -ct))'
"#;

pub(crate) fn completion(shell: Shell) -> Result<ExitCode, Failure> {
    show(match shell {
        Shell::Bash => BASH,
        Shell::Zsh => ZSH,
        Shell::Fish => FISH,
    });
    Ok(ExitCode::SUCCESS)
}

/// `riad complete`: what the last word of a line could become, a candidate a line. The status is 1
/// when there is nothing to say, so that a shell may look for files.
pub(crate) fn complete(args: CompleteArgs) -> Result<ExitCode, Failure> {
    let mut cli = Cli::command();
    // Knows the options that every verb has.
    cli.build();
    let candidates = candidates(&cli, &words(&args.line), &mut names);
    show(&candidates.iter().map(|candidate| format!("{candidate}\n")).collect::<String>());
    Ok(ExitCode::from(u8::from(candidates.is_empty())))
}

/// What names there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Names {
    Machines,
    Images,
    Disks,
    Networks,
}

/// The names there are; none where they cannot be read, for nothing may be said here.
fn names(which: Names) -> Vec<String> {
    match which {
        Names::Machines => {
            let names = Machines::open().and_then(|machines| machines.names());
            names.unwrap_or_default().iter().map(ToString::to_string).collect()
        }
        Names::Disks => {
            let disks = Machines::open().and_then(|machines| machines.disks());
            disks.unwrap_or_default().iter().map(|(name, _)| name.to_string()).collect()
        }
        Names::Networks => {
            let networks = Machines::open().and_then(|machines| machines.networks());
            networks.unwrap_or_default().iter().map(|(name, _)| name.to_string()).collect()
        }
        Names::Images => {
            let listed = images::list().unwrap_or_default();
            let names = listed.iter().flat_map(|image| &image.names);
            names.map(|name| public_name(name)).chain(["debian".to_owned()]).collect()
        }
    }
}

/// The words of a line, the last of which is being typed: empty after a space. Quotes hold words
/// together as in a shell, and are left out.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let (mut quote, mut is_open) = (None, false);
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        let Some(word) = words.last_mut() else { break };
        match (quote, character) {
            (Some(q), c) if c == q => quote = None,
            (Some(_), c) => word.push(c),
            (None, '"' | '\'') => {
                quote = Some(character);
                is_open = true;
            }
            (None, '\\') => word.extend(characters.next()),
            (None, c) if c.is_whitespace() => {
                if !word.is_empty() || is_open {
                    words.push(String::new());
                    is_open = false;
                }
            }
            (None, c) => word.push(c),
        }
    }
    words
}

/// What the last word could become.
fn candidates(
    cli: &Command,
    words: &[String],
    names: &mut dyn FnMut(Names) -> Vec<String>,
) -> Vec<String> {
    let Some((last, before)) = words.split_last() else { return Vec::new() };
    let mut command = cli;
    let mut path = Vec::new();
    // The option that waits for its value, and how many words are no options.
    let (mut waiting, mut positions) = (None, 0);
    // The first word is riad itself.
    for word in before.iter().skip(1) {
        if waiting.take().is_some() {
            continue;
        }
        if word == "--" {
            // What follows is a command in a guest.
            return Vec::new();
        }
        if let Some(option) = option(command, word) {
            let is_whole = word.contains('=') || !takes_value(option);
            waiting = (!is_whole).then_some(option);
        } else if !word.starts_with('-') {
            match command.find_subcommand(word) {
                // What comes before it, such as a machine's name, is there.
                Some(sub) if positions == command.get_positionals().count() => {
                    (command, positions) = (sub, 0);
                    path.push(word.as_str());
                }
                _ => positions += 1,
            }
        }
    }
    let mut found = Vec::new();
    if let Some(option) = waiting {
        found = values(option, &path, names);
    } else if let Some((name, _)) = last.split_once('=').filter(|_| last.starts_with("--")) {
        let values = option(command, name).map(|option| values(option, &path, names));
        found.extend(values.into_iter().flatten().map(|value| format!("{name}={value}")));
    } else if last.starts_with('-') {
        let shown = command.get_arguments().filter(|arg| !arg.is_hide_set());
        found.extend(shown.filter_map(Arg::get_long).map(|long| format!("--{long}")));
    } else {
        if positions == command.get_positionals().count() {
            let shown = command.get_subcommands().filter(|sub| !sub.is_hide_set());
            found.extend(shown.map(|sub| sub.get_name().to_owned()));
        }
        let arguments: Vec<_> =
            command.get_positionals().filter(|arg| !arg.is_last_set()).collect();
        // The last may be there many times.
        let argument =
            arguments.get(positions).or_else(|| arguments.last().filter(|arg| is_many(arg)));
        found.extend(argument.into_iter().flat_map(|arg| values(arg, &path, names)));
    }
    found.retain(|candidate| candidate.starts_with(last.as_str()));
    found.sort();
    found.dedup();
    found
}

/// The option that a word names: `--long`, `--long=VALUE`, `-s`.
fn option<'a>(command: &'a Command, word: &str) -> Option<&'a Arg> {
    let name = word.split('=').next().unwrap_or(word);
    command.get_arguments().find(|arg| match name.strip_prefix("--") {
        Some(long) => arg.get_long() == Some(long),
        None => match name.strip_prefix('-') {
            Some(short) => arg.get_short().is_some_and(|s| short.chars().eq([s])),
            None => false,
        },
    })
}

fn takes_value(option: &Arg) -> bool {
    let is_optional = option.is_require_equals_set();
    option.get_action().takes_values() && !is_optional
}

fn is_many(argument: &Arg) -> bool {
    argument.get_num_args().is_some_and(|range| range.max_values() > 1)
}

/// What an argument could be.
fn values(
    argument: &Arg,
    path: &[&str],
    names: &mut dyn FnMut(Names) -> Vec<String>,
) -> Vec<String> {
    let possible = argument.get_possible_values();
    if !possible.is_empty() {
        let shown = possible.iter().filter(|value| !value.is_hide_set());
        return shown.map(|value| value.get_name().to_owned()).collect();
    }
    match (path, argument.get_id().as_str()) {
        // A name that is not to be taken yet.
        (["create", ..], "name")
        | (["disk", "create"], "disk")
        | (["net", "create"], "network")
        | (_, "new") => Vec::new(),
        (["net", ..] | ["create"], "network" | "networks") => names(Names::Networks),
        (["disk", ..], "disk" | "disks") => names(Names::Disks),
        (["image", "build" | "import"], _) => Vec::new(),
        (["image", ..], "name" | "names") | (_, "image") => names(Names::Images),
        (["cp"], "paths") => {
            names(Names::Machines).into_iter().map(|name| format!("{name}:")).collect()
        }
        (_, "name" | "names") => names(Names::Machines),
        _ => Vec::new(),
    }
}

#[cfg(test)]
#[path = "completion_test.rs"]
mod tests;
