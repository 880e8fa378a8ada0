//! The machine's console, from the host's side: where its output goes, its last lines, and what is
//! typed on it.
//!
//! A guest may use the first serial port (`console=ttyS0`) or the virtio console (`console=hvc0`),
//! or first one and then the other. To the host they are one console: what is typed goes to the one
//! that spoke last.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use riad_devices::serial::SerialHost;

/// Lines that are remembered.
const LINES: usize = 200;
/// Bytes of a line that are remembered.
const LINE: usize = 1024;

/// Called with each finished line.
pub type ConsoleLine = Box<dyn FnMut(&str) + Send>;

/// A serial console. Cloning shares it.
#[derive(Clone)]
pub struct Console {
    inner: Arc<(Mutex<Inner>, Condvar)>,
}

struct Inner {
    lines: VecDeque<String>,
    current: Vec<u8>,
    sink: Option<Box<dyn Write + Send>>,
    on_line: Option<ConsoleLine>,
    /// Counts invitations to type.
    ready: u64,
    /// The virtio console spoke last.
    virtio: bool,
}

impl std::fmt::Debug for Console {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Console").finish_non_exhaustive()
    }
}

impl Console {
    /// A console that copies its output to `sink` and calls `on_line` with each finished line.
    #[must_use]
    pub fn new(sink: Option<Box<dyn Write + Send>>, on_line: Option<ConsoleLine>) -> Self {
        let inner = Inner {
            lines: VecDeque::new(),
            current: Vec::new(),
            sink,
            on_line,
            ready: 0,
            virtio: false,
        };
        Self { inner: Arc::new((Mutex::new(inner), Condvar::new())) }
    }

    /// The last lines, at most `count`, oldest first; an unfinished one counts.
    #[must_use]
    pub fn tail(&self, count: usize) -> Vec<String> {
        let inner = self.lock();
        let unfinished = (!inner.current.is_empty()).then(|| text(&inner.current));
        let all: Vec<_> = inner.lines.iter().cloned().chain(unfinished).collect();
        all[all.len().saturating_sub(count)..].to_vec()
    }

    /// Waits until the guest has read what was typed, or for `patience`.
    pub fn wait_for_room(&self, patience: Duration) {
        let inner = self.lock();
        let seen = inner.ready;
        let waited = self.inner.1.wait_timeout_while(inner, patience, |inner| inner.ready == seen);
        drop(waited);
    }

    /// Whether the virtio console spoke last.
    pub(crate) fn is_virtio(&self) -> bool {
        self.lock().virtio
    }

    /// Where the virtio console's output goes.
    pub(crate) fn virtio_sink(&self) -> Box<dyn Write + Send> {
        Box::new(VirtioWire(self.clone()))
    }

    /// The serial port's end.
    pub(crate) fn host(&self) -> Box<dyn SerialHost> {
        Box::new(Wire(self.clone()))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Inner {
    fn output(&mut self, bytes: &[u8]) {
        if let Some(sink) = &mut self.sink {
            // A terminal that is gone must not stop the machine.
            let _ = sink.write_all(bytes).and_then(|()| sink.flush());
        }
        for &byte in bytes {
            self.remember(byte);
        }
    }

    fn remember(&mut self, byte: u8) {
        match byte {
            b'\n' => {
                let line = text(&self.current);
                self.current.clear();
                if let Some(on_line) = &mut self.on_line {
                    on_line(&line);
                }
                if self.lines.len() == LINES {
                    self.lines.pop_front();
                }
                self.lines.push_back(line);
            }
            b'\r' => {}
            _ if self.current.len() < LINE => self.current.push(byte),
            _ => {}
        }
    }
}

struct Wire(Console);

impl SerialHost for Wire {
    fn transmit(&mut self, byte: u8) {
        let mut inner = self.0.lock();
        inner.virtio = false;
        inner.output(&[byte]);
    }

    fn receive_ready(&mut self) {
        self.0.lock().ready += 1;
        self.0.inner.1.notify_all();
    }
}

struct VirtioWire(Console);

impl Write for VirtioWire {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut inner = self.0.lock();
        inner.virtio = true;
        inner.output(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
