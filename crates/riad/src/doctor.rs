//! `riad doctor`: what this computer lacks, and what to do about it.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::process::ExitCode;

use riad_host::doctor::{Finding, Verdict, examine};

use crate::args::Format;
use crate::report::{Failure, json};
use crate::yaml;

pub(crate) fn doctor(format: Option<Format>) -> Result<ExitCode, Failure> {
    let findings = examine();
    let text = match format {
        Some(Format::Json) => json(&findings)?,
        Some(Format::Yaml) => yaml::text(&findings),
        Some(Format::Table) | None => table(&findings),
    };
    // A reader that has seen enough is no failure.
    let _ = io::stdout().write_all(text.as_bytes());
    let has_problem = findings.iter().any(|finding| finding.verdict == Verdict::Problem);
    Ok(ExitCode::from(u8::from(has_problem)))
}

fn table(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.subject.len()).max().unwrap_or(0);
    let mut text = String::new();
    for Finding { subject, verdict, found, advice } in findings {
        let mark = match verdict {
            Verdict::Ok => "ok     ",
            Verdict::Note => "note   ",
            Verdict::Problem => "PROBLEM",
        };
        let _ = writeln!(text, "{mark}  {subject:width$}  {found}");
        if let Some(advice) = advice {
            let _ = writeln!(text, "{:9}{:width$}  -> {advice}", "", "");
        }
    }
    text
}
