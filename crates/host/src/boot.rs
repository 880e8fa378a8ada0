//! From a configuration to a machine whose agent answers.

use std::io::Write;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use riad_agent::client::{
    ClientError, ControlEvent, ControlReceiver, ControlSender, Events, SessionEnd, SessionIo,
    run_session,
};
use riad_agent::protocol::{BootTimes, ExecRequest, PORT, ShutdownMode};
use riad_vmm::{Console, Devices, Ending, Guest, Keyboard, Meter, Vm, VmConfig, VsockHandle};

use crate::jumps::{Jumps, LOOK};
use crate::limits::Limits;
use crate::timings::{Counts, StageTime, Stopwatch};
use crate::watch::{self, News, Teller};
use crate::{ConsoleTail, Error, Stage, printable};

/// Lines of the console that an error carries.
const TAIL: usize = 20;

/// How long a machine that panicked may go on, to write down why.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// A machine whose agent answers.
pub(crate) struct Booted {
    vm: Vm,
    console: Console,
    vsock: VsockHandle,
    /// Kept open: the agent would call again.
    events: Events,
    news: Receiver<News>,
    teller: Teller,
    limits: Limits,
    /// It was told to stop before it could be.
    stop_wanted: bool,
}

/// A machine on its way there.
pub(crate) struct Booting {
    vm: Vm,
    console: Console,
    vsock: VsockHandle,
    news: Receiver<News>,
    teller: Teller,
    limits: Limits,
    stage: Stage,
    stop_wanted: bool,
}

/// How the life of a machine that may restart itself came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    /// The guest powered off.
    PoweredOff,
    /// The guest restarts.
    Reset,
    /// Somebody pulled the plug.
    Unplugged,
}

impl Booted {
    /// Builds a machine with a vsock, starts it, and waits for its agent. `config`'s first disk is
    /// the root file system. `stage` is called as stages begin. The console's output goes to `sink`
    /// too.
    pub(crate) fn boot(
        config: VmConfig,
        guest: &Guest,
        sink: Option<Box<dyn Write + Send>>,
        limits: Limits,
        stage: &mut dyn FnMut(Stage),
    ) -> Result<Self, Error> {
        Booting::start(config, guest, sink, limits)?.finish(stage)
    }

    /// Serves until the machine's end, and calls `stopping` when it was told to stop.
    ///
    /// # Errors
    /// The guest died.
    pub(crate) fn serve(&mut self, stopping: &mut dyn FnMut()) -> Result<Over, Error> {
        let stage = Stage::Running;
        let began = Instant::now();
        let mut jumps = Jumps::new(wall(), began.elapsed());
        loop {
            if std::mem::take(&mut self.stop_wanted) {
                stopping();
                if let Err(source) = self.events.shutdown(ShutdownMode::PowerOff) {
                    tracing::warn!(%source, "the agent does not take the order to stop");
                }
            }
            if jumps.look(wall(), began.elapsed()) {
                self.tell_time();
            }
            match receive(&self.news, Instant::now().checked_add(LOOK)) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(News::Ended(Ending::PowerOff)) => return Ok(Over::PoweredOff),
                Ok(News::Ended(Ending::Reset)) => return Ok(Over::Reset),
                Ok(News::Unplug) => return Ok(Over::Unplugged),
                Ok(News::Stop) => self.stop_wanted = true,
                Ok(death @ (News::Ended(_) | News::Panic(_) | News::Fatal(_))) => {
                    return Err(last_words(death, stage, &self.console, &self.news));
                }
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    let (source, console) = (ClientError::Gone, tail(&self.console));
                    return Err(Error::Agent { stage, source, console });
                }
            }
        }
    }

    /// The host's clock jumped: the guest's is set to it.
    fn tell_time(&self) {
        let nanos = u64::try_from(wall().as_nanos()).unwrap_or(u64::MAX);
        match self.events.set_time(nanos) {
            Ok(()) => tracing::info!("the host's clock jumped, and the guest's was set to it"),
            Err(source) => tracing::warn!(%source, "the agent does not take the time"),
        }
    }

    /// Says where the time went from the kernel's first instruction to now.
    pub(crate) fn account(&self, watch: &mut Stopwatch) {
        let times = self.boot_times();
        let between = |from: u64, to: u64| Duration::from_nanos(to.saturating_sub(from));
        watch.ended_with(
            Stage::Kernel,
            &[
                StageTime {
                    stage: Stage::Userland,
                    time: between(times.started, times.root_mounted),
                },
                StageTime { stage: Stage::Agent, time: between(times.root_mounted, times.ready) },
            ],
        );
    }

    /// When the guest did what, by its own clock.
    fn boot_times(&self) -> BootTimes {
        self.events.hello().times
    }

    /// Runs a command to its end. When the machine dies, the session does.
    pub(crate) fn session(
        &mut self,
        request: &ExecRequest,
        io: SessionIo<'_>,
        (sender, receiver): (&ControlSender, &ControlReceiver),
    ) -> Result<SessionEnd, Error> {
        let patience = self.limits.of(Stage::Command).unwrap_or(Duration::MAX);
        let stream = match self.vsock.connect(PORT, patience) {
            Ok(stream) => stream,
            Err(source) => {
                let (stage, console) = (Stage::Command, tail(&self.console));
                return Err(Error::Unreachable { stage, source, console });
            }
        };
        let (news, teller) = (&mut self.news, &self.teller);
        let (result, death) = std::thread::scope(|scope| {
            let watcher = scope.spawn(move || {
                let death = until_session_is_over(news);
                if death.is_some() {
                    // Full only when the session has other reasons to end.
                    let _ = sender.send(ControlEvent::Abort);
                }
                death
            });
            let result = run_session(stream, request, io, Some(receiver));
            teller.tell(News::SessionOver);
            (result, watcher.join().unwrap_or_default())
        });
        match (result, death) {
            // A command that ended with the machine has ended all the same.
            (Ok(end), _) => Ok(end),
            (Err(error @ ClientError::NotStarted(_)), _) => Err(Error::NotStarted(error)),
            (Err(_), Some(death)) => Err(self.died(death)),
            (Err(ClientError::Aborted), None) => Err(Error::Aborted),
            // The guest's end of the stream may go before the news of why.
            (Err(source), None) => Err(match self.late_death() {
                Some(death) => self.died(death),
                None => {
                    let (stage, console) = (Stage::Command, tail(&self.console));
                    Error::Agent { stage, source, console }
                }
            }),
        }
    }

    /// The machine's death, if it is on its way.
    fn late_death(&self) -> Option<News> {
        let deadline = Instant::now().checked_add(LAST_WORDS);
        loop {
            match receive(&self.news, deadline) {
                Ok(death @ (News::Panic(_) | News::Fatal(_) | News::Ended(_))) => {
                    return Some(death);
                }
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    }

    /// The error for a machine that died under its command.
    fn died(&self, death: News) -> Error {
        last_words(death, Stage::Command, &self.console, &self.news)
    }

    /// Has the guest write its file systems and power off.
    pub(crate) fn power_off(self) -> Result<(), Error> {
        let stage = Stage::Teardown;
        let agent = |source| Error::Agent { stage, source, console: tail(&self.console) };
        self.events.shutdown(ShutdownMode::PowerOff).map_err(agent)?;
        let limit = self.limits.of(stage).unwrap_or(Duration::MAX);
        let deadline = Instant::now().checked_add(limit);
        loop {
            match receive(&self.news, deadline) {
                Ok(News::Ended(Ending::PowerOff)) => return Ok(()),
                Ok(news @ (News::Ended(_) | News::Panic(_) | News::Fatal(_))) => {
                    return Err(last_words(news, stage, &self.console, &self.news));
                }
                Ok(_) => {}
                Err(_) => return Err(late(stage, limit, &self.console)),
            }
        }
    }

    /// Stops the machine dead. Gives what its engine counted.
    pub(crate) fn stop(self) -> Counts {
        self.vm.pause();
        Counts { instructions: self.vm.instructions(), exits: self.vm.exits() }
    }

    /// The limits it runs under.
    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }
}

impl Booting {
    /// Builds a machine with a vsock, and starts it.
    pub(crate) fn start(
        mut config: VmConfig,
        guest: &Guest,
        sink: Option<Box<dyn Write + Send>>,
        limits: Limits,
    ) -> Result<Self, Error> {
        let (teller, news) = watch::channel();
        let console = Console::new(sink, Some(teller.console_line()));
        config.vsock = true;
        if let Some(root) = config.disks.first_mut() {
            *root = teller.observe(root.clone());
        }
        let mut vm = Vm::start(&config, guest, &console).map_err(Error::vm(&guest.kernel_name))?;
        teller.attend(&mut vm, limits)?;
        let Some(vsock) = vm.vsock().cloned() else {
            let source = std::io::ErrorKind::NotConnected.into();
            return Err(Error::Host { what: "a vsock", source });
        };
        let (stage, stop_wanted) = (Stage::Kernel, false);
        Ok(Self { vm, console, vsock, news, teller, limits, stage, stop_wanted })
    }

    /// The way to type on its console.
    pub(crate) fn keyboard(&self) -> Keyboard {
        self.vm.keyboard()
    }

    /// What it uses.
    pub(crate) fn meter(&self) -> Meter {
        self.vm.meter()
    }

    /// Its network cards and disks, the root's first.
    pub(crate) fn devices(&self) -> Devices {
        self.vm.devices()
    }

    /// Its console.
    pub(crate) fn console(&self) -> &Console {
        &self.console
    }

    /// The way to its agent, once that answers.
    pub(crate) fn vsock(&self) -> &VsockHandle {
        &self.vsock
    }

    /// The way to tell it to stop.
    pub(crate) fn teller(&self) -> &Teller {
        &self.teller
    }

    /// Waits until the agent has introduced itself.
    pub(crate) fn finish(mut self, begins: &mut dyn FnMut(Stage)) -> Result<Booted, Error> {
        let events = self.wait(begins)?;
        let Self { vm, console, vsock, news, teller, limits, stage: _, stop_wanted } = self;
        Ok(Booted { vm, console, vsock, events, news, teller, limits, stop_wanted })
    }

    fn wait(&mut self, begins: &mut dyn FnMut(Stage)) -> Result<Events, Error> {
        begins(self.stage);
        let mut deadline = self.deadline();
        loop {
            let next = match receive(&self.news, deadline) {
                Ok(News::DiskRead) => Stage::Userland,
                Ok(News::Connected) => Stage::Agent,
                Ok(News::Hello(hello)) => {
                    return hello.map_err(|source| Error::Agent {
                        stage: Stage::Agent,
                        source,
                        console: tail(&self.console),
                    });
                }
                Ok(News::SessionOver) => continue,
                Ok(News::Stop) => {
                    self.stop_wanted = true;
                    continue;
                }
                Ok(News::Unplug) => return Err(Error::Aborted),
                Ok(death) => {
                    return Err(last_words(death, self.stage, &self.console, &self.news));
                }
                Err(_) => {
                    let limit = self.limits.of(self.stage).unwrap_or_default();
                    return Err(late(self.stage, limit, &self.console));
                }
            };
            if next > self.stage {
                self.stage = next;
                deadline = self.deadline();
                begins(next);
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.limits.of(self.stage).and_then(|limit| Instant::now().checked_add(limit))
    }
}

/// The host's wall clock, since the Unix epoch.
fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn receive(news: &Receiver<News>, deadline: Option<Instant>) -> Result<News, RecvTimeoutError> {
    match deadline {
        None => news.recv().map_err(|_| RecvTimeoutError::Disconnected),
        Some(deadline) => news.recv_timeout(deadline.saturating_duration_since(Instant::now())),
    }
}

/// Waits for a session's end (`None`) or the machine's.
fn until_session_is_over(news: &mut Receiver<News>) -> Option<News> {
    loop {
        match news.recv() {
            Ok(News::SessionOver) | Err(_) => return None,
            Ok(death @ (News::Panic(_) | News::Fatal(_) | News::Ended(_))) => return Some(death),
            Ok(_) => {}
        }
    }
}

/// The error for a machine that dies, once it has written down why.
fn last_words(death: News, stage: Stage, console: &Console, news: &Receiver<News>) -> Error {
    if !matches!(death, News::Ended(_)) {
        let deadline = Instant::now().checked_add(LAST_WORDS);
        while let Ok(more) = receive(news, deadline) {
            if matches!(more, News::Ended(_)) {
                break;
            }
        }
    }
    let console = tail(console);
    match death {
        News::Panic(message) => Error::Panic { stage, message, console },
        News::Fatal(message) => Error::Fatal { stage, message, console },
        News::Ended(ending) => Error::Ended { stage, ending, console },
        News::DiskRead
        | News::Connected
        | News::Hello(_)
        | News::SessionOver
        | News::Stop
        | News::Unplug => Error::Agent { stage, source: ClientError::Gone, console },
    }
}

fn late(stage: Stage, limit: Duration, console: &Console) -> Error {
    Error::Late { stage, limit: limit.as_secs(), console: tail(console) }
}

fn tail(console: &Console) -> ConsoleTail {
    ConsoleTail(console.tail(TAIL).iter().map(|line| printable(line)).collect())
}
