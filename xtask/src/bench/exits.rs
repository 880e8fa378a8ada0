//! `cargo xtask bench exits`: how often processors leave the guest for Riad's process, by kind; on the
//! software engine, how often they come to a device.
//!
//! Each load runs in a machine of its own that is booted for it. What a boot alone takes is the first
//! column, and is taken off the others. An exit costs a microsecond or two where the processor
//! virtualises, whatever Riad then does, so their number says what there is to win.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::target_directory;
use crate::Error;
use crate::cargo::{cargo, run};

/// Loads: a name, and what the guest runs. `SINK` and `SOURCE` are ports of the host's.
const LOADS: [(&str, &str); 5] = [
    ("boot", "true"),
    // 64 MiB in requests of a page, one after the other, past the guest's page cache.
    ("block-4k", "dd if=/dev/vda of=/dev/null bs=4k count=16384 iflag=direct status=none"),
    ("block-1m", "dd if=/dev/vda of=/dev/null bs=1M count=64 iflag=direct status=none"),
    // 64 MiB each way.
    ("net-send", "exec bash -c 'head -c 64M /dev/zero >/dev/tcp/host.riad.internal/SINK'"),
    ("net-receive", "exec bash -c 'cat </dev/tcp/host.riad.internal/SOURCE >/dev/null'"),
];
/// What a guest on the network is sent, bytes.
const SENT: u64 = 64 << 20;

/// Exits by kind.
type Exits = BTreeMap<String, u64>;

/// Counts exits.
pub(crate) fn exits(words: &[&str]) -> Result<(), Error> {
    let (mut riad, mut engine, mut image) = (None, "auto", "debian");
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        match *word {
            "--riad" => riad = Some(PathBuf::from(value()?)),
            "--engine" => engine = value()?,
            "--image" => image = value()?,
            _ => return Err(format!("bench exits has no option {word}").into()),
        }
    }
    let riad = match riad {
        Some(riad) => riad,
        None => {
            run(cargo(&["build", "--release", "--package", "riad"]))?;
            target_directory()?.join("release/riad")
        }
    };
    let sink = serve(|mut guest| io::copy(&mut guest, &mut io::sink()))?;
    let source = serve(|mut guest| io::copy(&mut io::repeat(0).take(SENT), &mut guest))?;
    let mut columns = Vec::new();
    for (name, load) in LOADS {
        let load = load.replace("SINK", &sink.to_string()).replace("SOURCE", &source.to_string());
        let net = format!("user,host={sink},host={source}");
        let exits = one(&riad, engine, image, &net, &load)?;
        if exits.is_empty() {
            return Err(format!("engine {engine} does not count exits").into());
        }
        columns.push((name, exits));
    }
    print!("{}", table(&columns));
    Ok(())
}

/// Serves callers on the host's loopback, one after the other, for as long as the bench runs. Gives the
/// port.
fn serve(each: impl Fn(TcpStream) -> io::Result<u64> + Send + 'static) -> Result<u16, Error> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        // A caller that is gone early is told by its own load.
        listener.incoming().flatten().for_each(|guest| drop(each(guest)));
    });
    Ok(port)
}

/// Boots a machine for a load, and gives all its exits.
fn one(riad: &Path, engine: &str, image: &str, net: &str, load: &str) -> Result<Exits, Error> {
    let mut command = Command::new(riad);
    command.args(["run", "--cpus", "1", "--memory", "512M", "--engine", engine, "--net", net]);
    command.arg("--timings=json");
    let output = command.args([image, "--", "sh", "-c", load]).output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("riad run failed: {}", errors.trim()).into());
    }
    let timings = errors.lines().find_map(|line| serde_json::from_str::<Value>(line).ok());
    let exits = timings.as_ref().and_then(|timings| timings.get("exits"));
    let exits = exits.and_then(Value::as_object).into_iter().flatten();
    Ok(exits.map(|(kind, count)| (kind.clone(), count.as_u64().unwrap_or(0))).collect())
}

/// A line for each kind; every column but the first without what the first has.
fn table(columns: &[(&str, Exits)]) -> String {
    let kinds: BTreeSet<&String> = columns.iter().flat_map(|(_, exits)| exits.keys()).collect();
    let mut text = format!("{:22}", "kind");
    for (name, _) in columns {
        text += &format!(" {name:>12}");
    }
    text.push('\n');
    let count = |at: usize, kind: &String| columns[at].1.get(kind).copied().unwrap_or(0);
    for kind in kinds {
        text += &format!("{kind:22}");
        for at in 0..columns.len() {
            let without = if at == 0 { 0 } else { count(0, kind) };
            text += &format!(" {:>12}", count(at, kind).saturating_sub(without));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Exits, table};

    #[test]
    fn what_a_boot_takes_is_taken_off_the_loads() {
        let exits = |mmio, eoi| Exits::from([("mmio".to_owned(), mmio), ("eoi".to_owned(), eoi)]);
        let text = table(&[("boot", exits(100, 7)), ("block", exits(150, 5))]);
        let rows: Vec<Vec<_>> =
            text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(
            rows,
            [vec!["kind", "boot", "block"], vec!["eoi", "7", "0"], vec!["mmio", "100", "50"]]
        );
    }
}
