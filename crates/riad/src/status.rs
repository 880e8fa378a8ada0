//! What riad is waiting for, on one line of standard error that is gone when the wait is over. Not a
//! terminal, it gets a line now and then while an image is built, and nothing else.

use std::io::{IsTerminal, Write};
use std::process::Command;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use riad_host::images::BuildStage;
use riad_host::{Observer, Progress, Size, Stage, printable};

use crate::signals::{Doing, Signals};

/// The least time between two lines of one stage of a build, where there is no terminal.
const SELDOM: Duration = Duration::from_secs(30);

/// Shows how far things are.
pub(crate) struct Status {
    bar: Option<ProgressBar>,
    signals: Signals,
    image: String,
    /// The stage of the build that was last told, and when.
    told: Option<(BuildStage, Instant)>,
}

impl Status {
    /// `quiet` leaves the line out: something else is shown on the terminal.
    pub(crate) fn new(signals: Signals, image: &str, quiet: bool) -> Self {
        let bar = (!quiet && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            bar.set_style(style("{spinner} {msg} {elapsed}"));
            bar
        });
        Self { bar, signals, image: image.to_owned(), told: None }
    }

    /// Removes the line.
    pub(crate) fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    /// Shows what is waited for.
    pub(crate) fn show(&self, text: &str) {
        if let Some(bar) = &self.bar {
            // The bar of a build becomes a spinner again.
            bar.set_style(style("{spinner} {msg} {elapsed}"));
            bar.unset_length();
            bar.set_message(text.to_owned());
            bar.enable_steady_tick(Duration::from_millis(120));
        }
    }

    fn say(&self, text: &str) {
        let line = format!("riad: {text}");
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{line}")),
            None => eprintln!("{line}"),
        }
    }

    /// A line, if it is time for one.
    fn say_seldom(&mut self, progress: &Progress) {
        let Progress { stage, done, total, message, warning: _ } = progress;
        let label = stage.label();
        let image = &self.image;
        let text = match &self.told {
            Some((told, when)) if told == stage => {
                if when.elapsed() < SELDOM {
                    return;
                }
                let (done, total) = if stage.counts_bytes() {
                    (Size(*done).to_string(), Size(*total).to_string())
                } else {
                    (done.to_string(), total.to_string())
                };
                format!("image {image}: {label}: {done} of {total}, {}", printable(message))
            }
            _ => format!("image {image}: {label}"),
        };
        self.say(&text);
        self.told = Some((*stage, Instant::now()));
    }
}

impl Observer for Status {
    fn stage(&mut self, stage: Stage) {
        if stage != Stage::Image {
            self.signals.now(Doing::Waiting);
        }
        self.show(stage.name());
    }

    fn builder(&self) -> Option<Command> {
        // Without it, this process makes the image.
        let mut program = Command::new(std::env::current_exe().ok()?);
        program.arg("make-image").arg(std::process::id().to_string());
        Some(program)
    }

    fn builds(&mut self, process: Option<u32>) {
        self.signals.now(Doing::Building(process));
    }

    fn alone(&mut self, then: &mut dyn FnMut()) {
        if let Some(bar) = &self.bar {
            bar.disable_steady_tick();
        }
        self.signals.alone(then);
        self.show(Stage::Machine.name());
    }

    fn image(&mut self, progress: &Progress) {
        self.signals.builds();
        if progress.warning {
            self.say(&format!("warning: {}", printable(&progress.message)));
            return;
        }
        let Some(bar) = &self.bar else {
            self.say_seldom(progress);
            return;
        };
        let is_new = self.told.is_none_or(|(stage, _)| stage != progress.stage);
        let has_length = progress.total > 0;
        if is_new || bar.length().is_some() != has_length {
            self.told = Some((progress.stage, Instant::now()));
            let counts = match (has_length, progress.stage.counts_bytes()) {
                (false, _) => "",
                (true, false) => "[{bar:24}] {pos}/{len} ",
                (true, true) => "[{bar:24}] {bytes}/{total_bytes} ",
            };
            bar.set_style(style(&format!(
                "{{spinner}} image: {{prefix}} {counts}{{wide_msg}} {{elapsed}}"
            )));
            bar.set_prefix(progress.stage.label());
            bar.enable_steady_tick(Duration::from_millis(120));
        }
        if has_length {
            bar.set_length(progress.total);
            bar.set_position(progress.done.min(progress.total));
        } else {
            bar.unset_length();
        }
        bar.set_message(printable(&progress.message));
    }
}

impl Drop for Status {
    fn drop(&mut self) {
        self.clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_spinner())
        .progress_chars("=> ")
}

/// Removes what a status line may have left on the terminal, from outside of it.
pub(crate) fn wipe() {
    let mut stderr = std::io::stderr();
    if stderr.is_terminal() {
        // ECMA-48: CR, then erase to the end of the line.
        let _ = stderr.write_all(b"\r\x1b[K");
    }
}
