//! `riad doctor`: what this computer lacks, and what to do about it.

use std::fmt::Write as _;
use std::process::ExitCode;

use riad_host::doctor::{Finding, Verdict, examine};

use crate::args::Format;
use crate::report::{Failure, show_as};

pub(crate) fn doctor(format: Option<Format>) -> Result<ExitCode, Failure> {
    let findings = examine();
    show_as(&findings, format, || table(&findings))?;
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
