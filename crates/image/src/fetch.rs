//! Downloads over HTTP into a cache in which a file's name is its hash.
//!
//! A file appears in the cache whole, verified and on disk, or not at all. What is found there is
//! verified again before it is used, so a damaged cache mends itself.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use crate::apt::AptConf;
use crate::error::disk_full_advice;
use crate::hash::sha256_of;
use crate::packages::is_sha256;

/// How many downloads run at once.
const PARALLEL: usize = 4;
/// How often a download is tried.
const ATTEMPTS: u32 = 3;
/// What the name of an unfinished download begins with.
pub(crate) const PARTIAL_PREFIX: &str = ".partial-";

/// A download failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The server could not be reached or answered with an error.
    #[error(
        "cannot download {url}: {reason}; check the network, and the mirror given by `--mirror`"
    )]
    Http {
        /// What was asked for.
        url: String,
        /// Why not.
        reason: String,
    },
    /// The server does not have the file.
    #[error(
        "the mirror does not have {url} (404); it may be in the middle of an update, or hold \
         another release: try again, or name another mirror with `--mirror`"
    )]
    NotFound {
        /// What was asked for.
        url: String,
    },
    /// The file is not the one the index speaks of.
    #[error(
        "{url} is not what the package index says: expected {expected}, got {found}; the mirror is \
         being updated, or something between it and this host changes files: try again, or name \
         another mirror with `--mirror`"
    )]
    Mismatch {
        /// What was asked for.
        url: String,
        /// Size and hash expected.
        expected: String,
        /// Size and hash found.
        found: String,
    },
    /// The cache cannot be written.
    #[error("cannot {action} {}: {source}{}", path.display(), disk_full_advice(source))]
    Cache {
        /// What was being done, as a verb phrase.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// A file to have in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Where to get it; the next address is tried when the server does not have the one before.
    pub urls: Vec<String>,
    /// Its SHA-256, 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// Its size in bytes.
    pub size: u64,
    /// What its name in the cache ends with, such as `.deb`.
    pub suffix: &'static str,
    /// What to call it in front of the user.
    pub label: String,
}

impl Job {
    fn cached_at(&self, directory: &Path) -> PathBuf {
        directory.join(format!("{}{}", self.sha256, self.suffix))
    }

    fn describe(&self) -> String {
        format!("{} bytes with SHA-256 {}", self.size, self.sha256)
    }
}

/// Speaks HTTP, through the proxies that apt's configuration or the environment name.
#[derive(Debug)]
pub struct Fetcher {
    conf: AptConf,
    /// One agent for each proxy in use.
    agents: Mutex<HashMap<Option<String>, ureq::Agent>>,
}

impl Fetcher {
    /// A fetcher that uses the proxies of apt's configuration.
    #[must_use]
    pub fn new(conf: AptConf) -> Self {
        Self { conf, agents: Mutex::new(HashMap::new()) }
    }

    fn agent(&self, url: &str) -> Result<ureq::Agent, FetchError> {
        let setting = self.conf.proxy_for(url).map(str::to_owned);
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(agent) = agents.get(&setting) {
            return Ok(agent.clone());
        }
        let proxy = match setting.as_deref() {
            None => ureq::Proxy::try_from_env(),
            Some("DIRECT") => None,
            Some(address) => Some(ureq::Proxy::new(address).map_err(|error| FetchError::Http {
                url: url.to_owned(),
                reason: format!(
                    "the proxy {address} of apt's configuration is no address: {error}"
                ),
            })?),
        };
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .proxy(proxy)
            .timeout_resolve(Some(Duration::from_secs(20)))
            .timeout_connect(Some(Duration::from_secs(20)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .timeout_per_read(Some(Duration::from_secs(60)))
            .accept_encoding("identity")
            .user_agent(concat!("riad/", env!("CARGO_PKG_VERSION")))
            .build()
            .into();
        agents.insert(setting, agent.clone());
        Ok(agent)
    }

    fn open(&self, url: &str) -> Result<impl Read + use<>, FetchError> {
        match self.agent(url)?.get(url).call() {
            Ok(response) => Ok(response.into_body().into_reader()),
            Err(ureq::Error::StatusCode(404 | 410)) => {
                Err(FetchError::NotFound { url: url.to_owned() })
            }
            Err(error) => Err(FetchError::Http { url: url.to_owned(), reason: error.to_string() }),
        }
    }

    /// Downloads a file of at most `limit` bytes into memory.
    ///
    /// # Errors
    ///
    /// It cannot be had, or is larger.
    pub fn get(&self, url: &str, limit: u64) -> Result<Vec<u8>, FetchError> {
        let failed = |reason: String| FetchError::Http { url: url.to_owned(), reason };
        retry(|| {
            let mut bytes = Vec::new();
            let read = self.open(url)?.take(limit.saturating_add(1)).read_to_end(&mut bytes);
            read.map_err(|error| failed(error.to_string()))?;
            if bytes.len() as u64 > limit {
                return Err(failed(format!("it is larger than {limit} bytes")));
            }
            Ok(bytes)
        })
    }

    /// Makes sure that a file is in the cache and whole; tells its path. `progress` is told how
    /// many bytes came in, less those of attempts that failed.
    ///
    /// # Errors
    ///
    /// It cannot be had, is not what the index says, or cannot be written.
    pub fn ensure(
        &self,
        job: &Job,
        directory: &Path,
        progress: &mut dyn FnMut(i64),
    ) -> Result<PathBuf, FetchError> {
        let path = job.cached_at(directory);
        if !is_sha256(&job.sha256) {
            return Err(FetchError::Mismatch {
                url: job.label.clone(),
                expected: "a SHA-256".to_owned(),
                found: job.sha256.clone(),
            });
        }
        if is_whole(&path, job) {
            progress(i64::try_from(job.size).unwrap_or(i64::MAX));
            return Ok(path);
        }
        let mut last = None;
        for url in &job.urls {
            match retry(|| self.download(url, job, directory, &path, progress)) {
                Ok(()) => return Ok(path),
                // A stale file under one address may be right under another.
                Err(error @ (FetchError::NotFound { .. } | FetchError::Mismatch { .. })) => {
                    last = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| FetchError::NotFound { url: job.label.clone() }))
    }

    fn download(
        &self,
        url: &str,
        job: &Job,
        directory: &Path,
        path: &Path,
        progress: &mut dyn FnMut(i64),
    ) -> Result<(), FetchError> {
        let cache = |action| {
            let path = path.to_owned();
            move |source| FetchError::Cache { action, path, source }
        };
        let mut partial = tempfile::Builder::new()
            .prefix(PARTIAL_PREFIX)
            .tempfile_in(directory)
            .map_err(cache("create"))?;
        let mut written = 0i64;
        let mut write_error = None;
        // One byte more than expected is enough to know that it is not the file.
        let body = self.open(url)?.take(job.size.saturating_add(1));
        let result = sha256_of(body, |piece| {
            partial.write_all(piece).map_err(|error| {
                let copy = io::Error::new(error.kind(), error.to_string());
                write_error = Some(error);
                copy
            })?;
            let n = i64::try_from(piece.len()).unwrap_or(i64::MAX);
            written += n;
            progress(n);
            Ok(())
        });
        if let Some(error) = write_error {
            return Err(cache("write")(error));
        }
        let failure = match result {
            Ok((sha256, size)) if sha256 == job.sha256 && size == job.size => {
                partial.as_file().sync_all().map_err(cache("write"))?;
                partial.persist(path).map_err(|error| cache("create")(error.error))?;
                return Ok(());
            }
            Ok((sha256, size)) => FetchError::Mismatch {
                url: url.to_owned(),
                expected: job.describe(),
                found: format!("{size} bytes with SHA-256 {sha256}"),
            },
            Err(error) => FetchError::Http { url: url.to_owned(), reason: error.to_string() },
        };
        progress(-written);
        Err(failure)
    }

    /// Makes sure that all files are in the cache, several at a time. `progress` is told the bytes
    /// that are there so far and what just arrived.
    ///
    /// # Errors
    ///
    /// The first failure; downloads that are under way are given up, whole files stay.
    pub fn ensure_all(
        &self,
        jobs: &[Job],
        directory: &Path,
        progress: &mut dyn FnMut(u64, &str),
    ) -> Result<Vec<PathBuf>, FetchError> {
        enum Report {
            Bytes(i64),
            Arrived(usize, PathBuf),
            Failed(FetchError),
        }
        fs::create_dir_all(directory).map_err(|source| FetchError::Cache {
            action: "create",
            path: directory.to_owned(),
            source,
        })?;
        let next = AtomicUsize::new(0);
        let stop = AtomicBool::new(false);
        let (send, receive) = mpsc::channel();
        let mut paths: Vec<Option<PathBuf>> = vec![None; jobs.len()];
        let mut failure = None;
        thread::scope(|scope| {
            for _ in 0..PARALLEL.min(jobs.len()) {
                let (send, next, stop) = (send.clone(), &next, &stop);
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        let Some(job) = jobs.get(at) else { break };
                        let mut bytes = |n| {
                            let _ = send.send(Report::Bytes(n));
                        };
                        let report = match self.ensure(job, directory, &mut bytes) {
                            Ok(path) => Report::Arrived(at, path),
                            Err(error) => {
                                stop.store(true, Ordering::Relaxed);
                                Report::Failed(error)
                            }
                        };
                        if send.send(report).is_err() {
                            break;
                        }
                    }
                });
            }
            drop(send);
            let mut have = 0i64;
            let mut label = "";
            for report in receive {
                match report {
                    Report::Bytes(n) => have = have.saturating_add(n),
                    Report::Arrived(at, path) => {
                        paths[at] = Some(path);
                        label = &jobs[at].label;
                    }
                    Report::Failed(error) => {
                        failure.get_or_insert(error);
                        continue;
                    }
                }
                progress(u64::try_from(have).unwrap_or(0), label);
            }
        });
        match failure {
            Some(error) => Err(error),
            None => {
                File::open(directory).and_then(|d| d.sync_all()).map_err(|source| {
                    FetchError::Cache { action: "write", path: directory.to_owned(), source }
                })?;
                Ok(paths.into_iter().flatten().collect())
            }
        }
    }
}

/// Whether the cache has the file, as it should be. What is damaged is removed.
fn is_whole(path: &Path, job: &Job) -> bool {
    let Ok(file) = File::open(path) else { return false };
    let whole = file.metadata().is_ok_and(|m| m.len() == job.size)
        && sha256_of(file, |_| Ok(())).is_ok_and(|(sha256, _)| sha256 == job.sha256);
    if !whole {
        tracing::warn!(path = %path.display(), "a cached download is damaged and fetched again");
        let _ = fs::remove_file(path);
    }
    whole
}

/// Tries a download several times, but not what another try cannot mend.
fn retry<T>(mut attempt: impl FnMut() -> Result<T, FetchError>) -> Result<T, FetchError> {
    let mut tries = 1;
    loop {
        match attempt() {
            Err(FetchError::Http { url, reason }) if tries < ATTEMPTS => {
                tracing::info!(url, reason, tries, "a download failed and is tried again");
            }
            Err(FetchError::Mismatch { url, .. }) if tries < ATTEMPTS => {
                tracing::info!(url, tries, "a download was damaged and is tried again");
            }
            result => return result,
        }
        thread::sleep(Duration::from_millis(300 * u64::from(tries * tries)));
        tries += 1;
    }
}

#[cfg(test)]
#[path = "fetch_test.rs"]
mod tests;
