//! What a guest writes on its console, kept.

use std::sync::{Arc, Mutex, MutexGuard};

use riad_vmm::Console;

/// What the guest wrote.
#[derive(Clone, Default)]
pub(crate) struct Output(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Output {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.bytes().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Output {
    pub(crate) fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap()
    }

    pub(crate) fn console(&self) -> Console {
        Console::new(Some(Box::new(self.clone())), None)
    }
}
