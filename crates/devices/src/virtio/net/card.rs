//! The card's work: frames between the queues and the link.
//!
//! A turn moves frames until none moves any more, both ways in turn, and tells the driver once a
//! batch. While it is at work, the driver is asked not to notify. A frame that waits for buffers of
//! the guest's is held here, one at a time; the rest waits in the link, which has its own bounds.

use std::io::{Read as _, Write as _};
use std::sync::Arc;

use riad_memory::GuestMemory;
use riad_network::link::{MAX_FRAME, now};
use riad_network::{Cable, Link, Mac, Offload, header};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::control::{self, Answer};
use super::handle::Shared;
use super::{CONTROL, RECEIVE, TRANSMIT, accepts, feature};
use crate::pci::lock;
use crate::virtio::chain::Chain;
use crate::virtio::worker::{Control, Task};
use crate::virtio::{Activation, Queue, QueueError, SharedQueue, VirtioInterrupt};

/// Frames moved in one direction before the other gets a turn and the driver is told.
const BATCH: usize = 64;
/// Commands served in a turn; they are rare.
const COMMANDS: usize = 16;

/// The worker's task.
pub(super) struct Card {
    cable: Cable,
    shared: Arc<Shared>,
    memory: GuestMemory,
    interrupt: Arc<dyn VirtioInterrupt>,
    features: u64,
    receive: Option<SharedQueue>,
    transmit: Option<SharedQueue>,
    control: Option<SharedQueue>,
    /// The guest is to be asked to announce itself.
    announce: bool,
    /// The link was told what the guest accepts.
    introduced: bool,
    frame: Box<[u8]>,
    /// A frame in `frame` that waits for the guest's buffers: what it asks for, and its length.
    waiting: Option<(Offload, usize)>,
    /// Buffers that the guest had for it, which were too few.
    too_few: u16,
    /// Chains whose room is used again; the first few hold what is being filled.
    chains: Vec<Chain>,
    outgoing: Box<[u8]>,
    broken: bool,
}

/// How it went with a frame for the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Delivery {
    Done,
    /// The guest's buffers would never take it.
    Lost,
    /// The guest has to make buffers available first.
    Starved,
}

fn room() -> Box<[u8]> {
    vec![0; MAX_FRAME].into_boxed_slice()
}

impl Card {
    pub(super) fn new(
        cable: &Cable,
        shared: &Arc<Shared>,
        activation: &Activation,
        announce: bool,
    ) -> Self {
        Self {
            cable: cable.clone(),
            shared: Arc::clone(shared),
            memory: activation.memory.clone(),
            interrupt: Arc::clone(&activation.interrupt),
            features: activation.features,
            receive: activation.queue(usize::from(RECEIVE)),
            transmit: activation.queue(usize::from(TRANSMIT)),
            control: activation
                .queue(usize::from(CONTROL))
                .filter(|_| activation.has(feature::CTRL_VQ)),
            announce,
            introduced: false,
            frame: room(),
            waiting: None,
            too_few: 0,
            chains: Vec::new(),
            outgoing: room(),
            broken: false,
        }
    }

    fn mergeable(&self) -> bool {
        self.features & feature::MRG_RXBUF != 0
    }

    /// Moves frames until none moves.
    fn work(&mut self, control: &Control, link: &mut dyn Link) -> Result<(), QueueError> {
        if !self.introduced {
            self.introduced = true;
            self.tell_link(link);
        }
        if std::mem::take(&mut self.announce) {
            self.shared.driven().announce = true;
            self.interrupt.config();
        }
        self.quiet(true)?;
        while !control.interrupted() {
            // First of all, so that the link knows how late it is when it gets frames.
            link.turn(now());
            if self.shared.saw_link(link.up()) {
                self.interrupt.config();
            }
            let mut moved = self.commands(link)?;
            moved |= self.send(control, link)?;
            moved |= self.deliver(control, link)?;
            if !moved && !self.quiet(false)? {
                break;
            }
        }
        Ok(())
    }

    /// Asks the driver not to notify, or to do so again. Returns whether there is something already
    /// that it need not notify for.
    fn quiet(&mut self, quiet: bool) -> Result<bool, QueueError> {
        let mut more = false;
        // Buffers to receive into are news only to a frame that waits for more of them.
        let receive = self.receive.as_ref().filter(|_| quiet || self.waiting.is_some());
        let (transmit, control) = (self.transmit.as_ref(), self.control.as_ref());
        for (queue, known) in [(receive, self.too_few), (transmit, 0), (control, 0)] {
            let Some(queue) = queue else { continue };
            let mut queue = lock(queue);
            if quiet {
                queue.disable_notifications()?;
            } else {
                more |= queue.enable_notifications_beyond(known)?;
            }
        }
        Ok(more)
    }

    fn tell_link(&self, link: &mut dyn Link) {
        let on = self.shared.driven().offloads.unwrap_or(feature::GUEST_OFFLOADS);
        link.accepts(accepts(self.features & on));
    }

    /// The control queue. Returns whether anything came.
    fn commands(&mut self, link: &mut dyn Link) -> Result<bool, QueueError> {
        let Some(queue) = self.control.clone() else { return Ok(false) };
        let mut queue = lock(&queue);
        let mut came = false;
        for _ in 0..COMMANDS {
            let Some(chain) = queue.pop()? else { break };
            came = true;
            let mut reader = chain.reader(&self.memory);
            let len = usize::try_from(reader.remaining()).unwrap_or(usize::MAX);
            let command = self.outgoing.get_mut(..len).filter(|_| len <= control::MOST_BYTES);
            let answer = match command.map(|command| (reader.read_exact(command), command)) {
                Some((Ok(()), command)) => {
                    control::run(&mut self.shared.driven(), self.features, command)
                }
                _ => Answer::Error,
            };
            let mut writer = chain.writer(&self.memory);
            // A driver that left no room for the answer does not want it.
            let _ = writer.write_all(&[answer as u8]);
            let written = writer.written();
            queue.add_used(chain, written)?;
            self.tell_link(link);
        }
        if queue.publish()? {
            self.interrupt.queue(CONTROL);
        }
        Ok(came)
    }

    /// Guest to link: up to [`BATCH`] frames. Returns whether any came.
    fn send(&mut self, control: &Control, link: &mut dyn Link) -> Result<bool, QueueError> {
        let Some(queue) = &self.transmit else { return Ok(false) };
        let mut queue = lock(queue);
        let up = self.shared.up();
        let mut chain = self.chains.pop().unwrap_or_default();
        let mut came = false;
        for _ in 0..BATCH {
            if control.interrupted() || !queue.pop_into(&mut chain)? {
                break;
            }
            came = true;
            match take(&chain, &self.memory, &mut self.outgoing).filter(|_| up) {
                Some((offload, frame)) => {
                    self.shared.tally.sent.went(frame.len());
                    link.send(&offload, frame);
                }
                None => self.shared.tally.sent.lost(),
            }
            queue.give_back(&chain, 0)?;
        }
        self.chains.push(chain);
        if queue.publish()? {
            self.interrupt.queue(TRANSMIT);
        }
        Ok(came)
    }

    /// Link to guest: up to [`BATCH`] frames. Returns whether any went.
    fn deliver(&mut self, control: &Control, link: &mut dyn Link) -> Result<bool, QueueError> {
        let Some(queue) = self.receive.clone() else { return Ok(false) };
        let mut queue = lock(&queue);
        let up = self.shared.up();
        let mut went = false;
        for _ in 0..BATCH {
            if control.interrupted() {
                break;
            }
            let next = self.waiting.take().or_else(|| link.receive(&mut self.frame));
            let Some((offload, len)) = next else { break };
            went = true;
            if !up || !self.wanted(&offload, len) {
                self.shared.tally.received.lost();
                continue;
            }
            match self.deliver_one(&mut queue, &offload, len)? {
                Delivery::Done => self.shared.tally.received.went(len),
                Delivery::Lost => self.shared.tally.received.lost(),
                Delivery::Starved => {
                    self.waiting = Some((offload, len));
                    went = false;
                    break;
                }
            }
        }
        if queue.publish()? {
            self.interrupt.queue(RECEIVE);
        }
        Ok(went)
    }

    /// Whether a frame from the link is one the guest may be given, and wants.
    fn wanted(&self, offload: &Offload, len: usize) -> bool {
        let Some(to) = self.frame.get(..len).and_then(|frame| frame.first_chunk::<6>()) else {
            return false;
        };
        let driven = self.shared.driven();
        let on = driven.offloads.unwrap_or(feature::GUEST_OFFLOADS);
        offload.fits(len)
            && accepts(self.features & on).allow(offload)
            && driven.filter.wants(driven.mac, *to)
    }

    /// Puts the frame of `len` bytes into the guest's next buffer, or its next few (section
    /// 5.1.6.4).
    fn deliver_one(
        &mut self,
        queue: &mut Queue,
        offload: &Offload,
        len: usize,
    ) -> Result<Delivery, QueueError> {
        let needed = (header::LEN + len) as u64;
        let most = if self.mergeable() { queue.size() } else { 1 };
        let mut taken: u16 = 0;
        let mut capacity = 0;
        while capacity < needed && taken < most {
            let at = usize::from(taken);
            if at == self.chains.len() {
                self.chains.push(Chain::default());
            }
            let Some(chain) = self.chains.get_mut(at) else { break };
            if !queue.pop_into(chain)? {
                queue.unpop_last(taken);
                self.too_few = taken;
                return Ok(Delivery::Starved);
            }
            taken += 1;
            capacity += chain.writer(&self.memory).remaining();
        }
        let chains = self.chains.get(..usize::from(taken)).unwrap_or_default();
        let frame = self.frame.get(..len).unwrap_or_default();
        let header = header::encode(offload, taken);
        // The header lies in one buffer, whatever the guest does.
        let first = chains.first().map_or(0, |chain| chain.writer(&self.memory).remaining());
        if capacity < needed || first < header::LEN as u64 {
            // Buffers that can take nothing are given back empty, or they would stay in the way.
            for chain in chains {
                queue.give_back(chain, 0)?;
            }
            return Ok(Delivery::Lost);
        }
        let mut left = frame;
        let mut front: &[u8] = &header;
        for chain in chains {
            let mut writer = chain.writer(&self.memory);
            // What does not fit goes into the next buffer; together they have the room.
            let _ = writer.write_all(std::mem::take(&mut front));
            let (here, rest) = left.split_at(left.len().min(writer.remaining() as usize));
            let _ = writer.write_all(here);
            left = rest;
            queue.give_back(chain, writer.written())?;
        }
        Ok(Delivery::Done)
    }
}

/// Copies a frame from the guest out of its buffer, and says what is to be done to it; `None` when
/// it is malformed.
fn take<'f>(
    chain: &Chain,
    memory: &GuestMemory,
    room: &'f mut [u8],
) -> Option<(Offload, &'f [u8])> {
    let mut reader = chain.reader(memory);
    let header = reader.array::<{ header::LEN }>()?;
    let len = usize::try_from(reader.remaining()).ok()?;
    let frame = room.get_mut(..len)?;
    reader.read_exact(frame).ok()?;
    let offload = header::decode(&header, len)?;
    (len >= size_of::<Mac>() * 2 + 2).then_some((offload, &*frame))
}

impl Task for Card {
    fn turn(&mut self, control: &Control) {
        if self.broken {
            return;
        }
        let cable = self.cable.clone();
        if let Err(error) = self.work(control, &mut *cable.link()) {
            self.broken = true;
            self.interrupt.fail(&error);
        }
    }

    fn wait(&mut self, control: &Control) {
        if self.broken {
            control.wait_for_kick();
            return;
        }
        let link = self.cable.link();
        let patience = link.deadline().map(|deadline| deadline.saturating_sub(now()));
        let patience = patience.and_then(|patience| Timespec::try_from(patience).ok());
        let kick = control.kick_fd();
        let mut fds = [PollFd::new(&kick, PollFlags::IN), PollFd::new(&kick, PollFlags::empty())];
        let descriptor = link.descriptor();
        let fds = match &descriptor {
            Some(descriptor) => {
                fds[1] = PollFd::new(descriptor, PollFlags::IN);
                &mut fds[..]
            }
            None => &mut fds[..1],
        };
        // Interrupted or refused: the next turn looks around, which is harmless.
        let _ = poll(fds, patience.as_ref());
        if fds.first().is_some_and(|kick| kick.revents().contains(PollFlags::IN)) {
            control.clear_kick();
        }
    }
}
