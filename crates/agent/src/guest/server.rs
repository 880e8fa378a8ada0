//! The loop: everything the agent waits for, in one `poll(2)`.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use riad_agent::protocol::{BootTimes, Hello, ShutdownMode, VERSION};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_settime};

use super::endpoint::Endpoint;
use super::event_link::{EventLink, Order};
use super::reaper::Reaper;
use super::session::{Session, Source};

/// How many sessions there may be at once; more wait to be accepted. (Each takes up to five
/// descriptors of the usual 1024.)
const MOST_SESSIONS: usize = 128;

/// How long accepting rests after it failed for want of memory or descriptors.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// The agent at work.
#[derive(Debug)]
pub(crate) struct Server {
    endpoint: Endpoint,
    listener: OwnedFd,
    reaper: Reaper,
    events: EventLink,
    sessions: Vec<Session>,
    accept_rests_until: Option<Instant>,
}

/// Whose descriptor is ready.
#[derive(Debug, Clone, Copy)]
enum Owner {
    Reaper,
    Listener,
    Events,
    Session(usize, Source),
}

impl Server {
    /// Listens, and tells the host. `times.ready` is set here.
    ///
    /// # Errors
    /// There is no vsock device, or another agent listens already.
    pub(crate) fn new(endpoint: Endpoint, mut times: BootTimes) -> io::Result<Self> {
        let reaper = Reaper::new()?;
        let listener = endpoint.listen()?;
        times.ready = super::boot_nanos();
        let agent = env!("CARGO_PKG_VERSION").to_owned();
        let events = EventLink::new(endpoint.clone(), Hello { version: VERSION, agent, times });
        Ok(Self {
            endpoint,
            listener,
            reaper,
            events,
            sessions: Vec::new(),
            accept_rests_until: None,
        })
    }

    /// Serves until the host orders a shutdown.
    ///
    /// # Errors
    /// `poll(2)` itself failed.
    pub(crate) fn run(&mut self) -> io::Result<ShutdownMode> {
        let mut ready = Vec::new();
        loop {
            ready.clear();
            self.wait(&mut ready)?;
            for &(owner, events) in &ready {
                match owner {
                    Owner::Reaper => self.reap(),
                    Owner::Listener => self.accept(),
                    Owner::Events => {
                        for order in self.events.ready() {
                            match order {
                                Order::Shutdown(mode) => return Ok(mode),
                                Order::SetTime(nanos) => self.set_time(nanos),
                            }
                        }
                    }
                    Owner::Session(index, source) => {
                        if let Some(session) = self.sessions.get_mut(index) {
                            session.ready(source, events);
                        }
                    }
                }
            }
            self.settle();
        }
    }

    /// Sleeps until something is ready or a deadline has come.
    fn wait(&self, ready: &mut Vec<(Owner, PollFlags)>) -> io::Result<()> {
        let mut owners = vec![Owner::Reaper];
        let mut fds = vec![PollFd::from_borrowed_fd(self.reaper.fd(), PollFlags::IN)];
        if self.sessions.len() < MOST_SESSIONS && self.accept_rests_until.is_none() {
            owners.push(Owner::Listener);
            fds.push(PollFd::new(&self.listener, PollFlags::IN));
        }
        if let Some((fd, flags)) = self.events.interest() {
            owners.push(Owner::Events);
            fds.push(PollFd::from_borrowed_fd(fd, flags));
        }
        for (index, session) in self.sessions.iter().enumerate() {
            for (source, fd, flags) in session.interests() {
                owners.push(Owner::Session(index, source));
                fds.push(PollFd::from_borrowed_fd(fd, flags));
            }
        }
        let timeout = self.deadline().map(|deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            Timespec::try_from(left).unwrap_or_default()
        });
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let events = fds.iter().map(PollFd::revents);
        ready.extend(owners.into_iter().zip(events).filter(|(_, events)| !events.is_empty()));
        Ok(())
    }

    fn deadline(&self) -> Option<Instant> {
        let own = [self.reaper.deadline(), self.events.deadline(), self.accept_rests_until];
        let sessions = self.sessions.iter().map(Session::deadline);
        own.into_iter().chain(sessions).flatten().min()
    }

    fn reap(&mut self) {
        let sessions = &mut self.sessions;
        self.reaper.reap(|pid, exit| {
            if let Some(session) = sessions.iter_mut().find(|session| session.runs(pid)) {
                session.ended(exit);
            }
        });
    }

    fn accept(&mut self) {
        match self.endpoint.accept(&self.listener) {
            Ok(Some(connection)) => self.sessions.push(Session::new(connection)),
            Ok(None) => {}
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => {}
            Err(_) => self.accept_rests_until = Some(Instant::now() + ACCEPT_REST),
        }
    }

    fn set_time(&self, unix_nanos: u64) {
        if self.endpoint.owns_machine() {
            let nanos = i64::try_from(unix_nanos).unwrap_or(i64::MAX);
            let time =
                Timespec { tv_sec: nanos / 1_000_000_000, tv_nsec: (nanos % 1_000_000_000) as _ };
            // A guest that may not set its clock keeps the one it has.
            let _ = clock_settime(ClockId::Realtime, time);
        }
    }

    /// What is due by time, and the sessions that are over.
    fn settle(&mut self) {
        let now = Instant::now();
        self.events.connect_late(now);
        self.reaper.kill_late(now);
        self.accept_rests_until = self.accept_rests_until.filter(|until| *until > now);
        let Self { sessions, reaper, .. } = self;
        sessions.retain_mut(|session| {
            session.settle(now);
            if session.is_over()
                && let Some(pid) = session.survivor()
            {
                reaper.condemn(pid);
            }
            !session.is_over()
        });
    }

    /// What reaps, for the time after the loop.
    pub(crate) fn reaper(&mut self) -> &mut Reaper {
        &mut self.reaper
    }
}
