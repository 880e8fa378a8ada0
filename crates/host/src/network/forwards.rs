//! A named machine's forwards: while it runs and for its next starts.

use std::os::fd::AsFd;
use std::path::Path;

use riad_network::user::{self, Listen};

use super::{Network, NetworkError, NetworkStatus, Publish};
use crate::Error;
use crate::journal::Event;
use crate::machines::{Folder, MachineError};
use crate::process::Connection;

impl Folder {
    /// Forwards to the machine: at once if it runs, and from its next start on in any case. Gives the
    /// forward, with the port that was free in place of 0 where there is one now.
    ///
    /// The socket is opened here, by who asks: the machine's process may not.
    ///
    /// # Errors
    /// The host does not let it listen, or the machine has a network that forwards nothing.
    pub fn add_forward(&self, publish: &Publish) -> Result<Publish, Error> {
        let _lock = self.lock()?;
        let mut config = self.config()?;
        if !matches!(config.network, Network::User(_)) {
            return Err(NetworkError::NoForwards(config.network.to_string()).into());
        }
        let is_known = |known: &Publish| known.listens() == publish.listens();
        if config.publish.iter().any(is_known) && !publish.picks_a_port() {
            return Err(MachineError::ForwardExists {
                name: self.name().clone(),
                at: publish.listens(),
            }
            .into());
        }
        let mut added = publish.clone();
        if self.is_alive()? {
            let mut forward = publish.forward().clone();
            let socket = user::listen(&mut forward.listen).map_err(NetworkError::from)?;
            added = forward.into();
            Connection::open(self)?.forward(&added, socket.as_fd())?;
        }
        config.publish.push(added.clone());
        self.write_config(&config)?;
        self.record(&Event::ForwardAdded { forward: added.to_string() });
        Ok(added)
    }

    /// Forwards no more what `word` names: a forward, or where it listens. Connections that were made
    /// go on.
    ///
    /// # Errors
    /// There is no such forward.
    pub fn remove_forward(&self, word: &str) -> Result<Publish, Error> {
        let _lock = self.lock()?;
        let mut config = self.config()?;
        let mut removed = None;
        if self.is_alive()? {
            let now = Connection::open(self)?.network()?.forwards;
            if let Some(found) = now.into_iter().find(|now| now.forward.is_called(word)) {
                Connection::open(self)?.unforward(found.id)?;
                if let Listen::Unix(path) = &found.forward.forward().listen {
                    remove_socket(path);
                }
                removed = Some(found.forward);
            }
        }
        let known = |is: &dyn Fn(&Publish) -> bool| config.publish.iter().position(is);
        // One that picks its port has another now.
        let known = known(&|known| known.is_called(word))
            .or_else(|| known(&|known| removed.as_ref().is_some_and(|now| known.becomes(now))));
        if let Some(at) = known {
            let known = config.publish.remove(at);
            self.write_config(&config)?;
            removed.get_or_insert(known);
        }
        if let Some(forward) = &removed {
            self.record(&Event::ForwardRemoved { forward: forward.to_string() });
        }
        removed.ok_or_else(|| {
            let (name, word) = (self.name().clone(), word.to_owned());
            MachineError::NoSuchForward { name, word }.into()
        })
    }

    /// The machine's forwards: those that listen now, or if it is off, those that will.
    ///
    /// # Errors
    /// The machine's process, or its folder, cannot be read.
    pub fn forwards(&self) -> Result<Vec<Publish>, Error> {
        match self.is_alive()? {
            true => {
                let NetworkStatus { forwards, .. } = Connection::open(self)?.network()?;
                Ok(forwards.into_iter().map(|status| status.forward).collect())
            }
            false => Ok(self.config()?.publish),
        }
    }
}

/// Removes a socket's file, which its process may not.
fn remove_socket(path: &Path) {
    use std::os::unix::fs::FileTypeExt;
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    if is_socket {
        let _ = std::fs::remove_file(path);
    }
}
