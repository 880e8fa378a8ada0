//! Virtio devices behind their transport, with a driver that does anything.
//!
//! A case is a list of operations on the function's registers and on guest memory. A generated one
//! goes through a real driver's set-up, with some of its numbers wrong, and then offers buffers.

use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

use riad_devices::MsiTarget;
use riad_devices::pci::PciDevice;
use riad_devices::virtio::{
    Blk, Console, HostEntropy, Net, Rng, VirtioDevice, VirtioPci, Vsock, VsockHandle,
};
use riad_disk::MemDisk;
use riad_memory::{Gpa, GuestMemory};
use riad_network::link::MAX_FRAME;
use riad_network::pair::Pair;
use riad_network::{Cable, Link, header};

use super::{Target, no_seeds};
use crate::input::Input;
use crate::random::Random;

/// The block device.
pub(super) const BLK: Target =
    target("virtio-blk", "the block device and its driver", blk, make_blk);
/// The entropy source.
pub(super) const RNG: Target =
    target("virtio-rng", "the entropy source and its driver", rng, make_rng);
/// The console.
pub(super) const CONSOLE: Target =
    target("virtio-console", "the console and its driver", console, make_console);
/// The network card.
pub(super) const NET: Target =
    target("virtio-net", "the network card and its driver", net, make_net);
/// The socket device.
pub(super) const VSOCK: Target =
    target("virtio-vsock", "the socket device and its driver", vsock, make_vsock);

const fn target(
    name: &'static str,
    what: &'static str,
    run: fn(&[u8]) -> u64,
    generate: fn(&mut Random) -> Vec<u8>,
) -> Target {
    let seeds = no_seeds;
    Target { name, what, unit: "steps", run, seeds, generate: Some(generate), words: &[] }
}

/// Bytes of guest memory.
const MEMORY: u64 = 1 << 20;
/// Where a queue's three parts are: a run of these for each queue.
const QUEUE_STRIDE: u64 = 0x1_0000;
const AVAILABLE: u64 = 0x4000;
const USED: u64 = 0x8000;
/// Where buffers are.
const BUFFERS: u64 = 0x8_0000;
/// Operations in a case.
const MOST_OPERATIONS: usize = 400;
/// How long a device gets for what it was offered. Its thread may have to wake up on another
/// processor first, which takes some 100 µs.
const BREATH: Duration = Duration::from_micros(200);
/// Breaths in a row that may come to nothing; a device that rightly gives nothing back is not
/// waited for again and again.
const BREATHS: u32 = 3;
/// How long a device gets in the end when it has given nothing back so far: a busy host may not
/// have let it begin.
const LAST_BREATH: Duration = Duration::from_millis(1);

/// Operations, by their byte.
mod operation {
    pub(super) const BAR_WRITE: u8 = 0;
    pub(super) const BAR_READ: u8 = 1;
    pub(super) const CONFIG_WRITE: u8 = 2;
    pub(super) const CONFIG_READ: u8 = 3;
    pub(super) const MEMORY_WRITE: u8 = 4;
    pub(super) const SET_UP: u8 = 5;
    pub(super) const DESCRIPTOR: u8 = 6;
    pub(super) const OFFER: u8 = 7;
    pub(super) const HOST: u8 = 8;
    pub(super) const HOLD: u8 = 9;
    pub(super) const SAVE: u8 = 10;
    /// One more than the last: that one lets the device run.
    pub(super) const COUNT: u8 = 12;
}

/// Messages that nobody gets.
struct Nobody;

impl MsiTarget for Nobody {
    fn send(&self, _address: u64, _data: u32) {}
}

/// The host's side of a device.
enum HostSide {
    None,
    Console(riad_devices::virtio::ConsoleHandle),
    Net(riad_devices::virtio::NetHandle, Pair),
    Vsock(VsockHandle, Vec<std::sync::mpsc::Receiver<std::os::unix::net::UnixStream>>),
}

fn blk(bytes: &[u8]) -> u64 {
    let Ok(disk) = MemDisk::new(64 << 10) else { return 0 };
    drive(Box::new(Blk::new(Arc::new(disk), "fuzz")), HostSide::None, bytes)
}

fn rng(bytes: &[u8]) -> u64 {
    drive(Box::new(Rng::new(Box::new(HostEntropy))), HostSide::None, bytes)
}

fn console(bytes: &[u8]) -> u64 {
    let (device, handle) = Console::new(Box::new(std::io::sink()));
    drive(Box::new(device), HostSide::Console(handle), bytes)
}

fn net(bytes: &[u8]) -> u64 {
    let Ok([link, peer]) = Pair::new([[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]], 1500) else {
        return 0;
    };
    let (device, handle) = Net::new(Cable::new(link));
    drive(Box::new(device), HostSide::Net(handle, peer), bytes)
}

fn vsock(bytes: &[u8]) -> u64 {
    let (device, handle) = Vsock::new(3);
    let listeners = [1024, 1].iter().filter_map(|port| handle.listen(*port).ok()).collect();
    drive(Box::new(device), HostSide::Vsock(handle, listeners), bytes)
}

/// Runs a case against a device. Tells how many buffers came back.
fn drive(device: Box<dyn VirtioDevice>, mut host: HostSide, bytes: &[u8]) -> u64 {
    let Ok(memory) = GuestMemory::new(&[(Gpa(0), MEMORY)]) else { return 0 };
    let Ok(pci) = VirtioPci::new(device, memory.clone(), Arc::new(Nobody)) else { return 0 };
    // Memory decoding and bus mastering.
    pci.config_write(4, &6u16.to_le_bytes());
    let mut input = Input::new(bytes);
    let mut lungs = Lungs::new(&memory);
    for _ in 0..MOST_OPERATIONS {
        if input.is_empty() {
            break;
        }
        step(&pci, &memory, &mut host, &mut lungs, &mut input);
    }
    lungs.breathe_out();
    pci.pause();
    let _ = pci.save();
    used(&memory).into_iter().map(u64::from).sum()
}

/// How many buffers came back on each queue, where a well-behaved driver has them.
fn used(memory: &GuestMemory) -> [u16; 4] {
    [0, 1, 2, 3].map(|queue| memory.read_u16(Gpa(queue * QUEUE_STRIDE + USED + 2)).unwrap_or(0))
}

/// Time for the device's thread.
struct Lungs<'m> {
    memory: &'m GuestMemory,
    /// What had come back the last time somebody looked.
    seen: [u16; 4],
    /// Something was offered.
    offered: bool,
    /// Breaths in a row that came to nothing.
    fruitless: u32,
}

impl<'m> Lungs<'m> {
    fn new(memory: &'m GuestMemory) -> Self {
        Self { memory, seen: used(memory), offered: false, fruitless: 0 }
    }

    /// Lets the device's thread run until something came back, or for a while.
    fn breathe(&mut self) {
        let patience = if self.fruitless < BREATHS { BREATH } else { Duration::ZERO };
        self.fruitless =
            if self.wait(patience, std::thread::yield_now) { 0 } else { self.fruitless + 1 };
    }

    /// The last breath: a longer one when something was offered and nothing ever came back.
    fn breathe_out(&mut self) {
        self.breathe();
        if self.offered && self.seen == [0; 4] {
            // Not by yielding: whoever keeps the processor busy would be first in the queue.
            self.wait(LAST_BREATH, || std::thread::sleep(BREATH));
        }
    }

    /// Waits until something came back, and tells whether it did.
    fn wait(&mut self, patience: Duration, pause: impl Fn()) -> bool {
        let start = Instant::now();
        loop {
            pause();
            // First the clock: this thread may have been away for long, and the device not.
            let over = start.elapsed() >= patience;
            let now = used(self.memory);
            if now != self.seen {
                self.seen = now;
                return true;
            }
            if over {
                return false;
            }
        }
    }
}

fn step(
    pci: &VirtioPci,
    memory: &GuestMemory,
    host: &mut HostSide,
    lungs: &mut Lungs<'_>,
    input: &mut Input<'_>,
) {
    let mut data = [0; 8];
    match input.u8() % operation::COUNT {
        operation::BAR_WRITE => {
            let (at, len) = place(input);
            pci.bar_write(0, at, &input.u64().to_le_bytes()[..len]);
        }
        operation::BAR_READ => {
            let (at, len) = place(input);
            pci.bar_read(0, at, &mut data[..len]);
        }
        operation::CONFIG_WRITE => {
            let len = input.pick(&[1, 2, 4]);
            let at = input.u16() & 0xfff;
            pci.config_write(at, &input.u32().to_le_bytes()[..len]);
        }
        operation::CONFIG_READ => {
            let len = input.pick(&[1, 2, 4]);
            pci.config_read(input.u16() & 0xfff, &mut data[..len]);
            let _ = pci.bars();
        }
        operation::MEMORY_WRITE => {
            let at = Gpa(u64::from(input.u32()) % (MEMORY + 16));
            let len = usize::from(input.u8());
            let _ = memory.write(at, input.take(len));
        }
        operation::SET_UP => set_up(pci, input),
        operation::DESCRIPTOR => {
            let queue = u64::from(input.u8() % 8) * QUEUE_STRIDE;
            let at = queue + 16 * u64::from(input.u16() % 1024);
            let _ = memory.write(Gpa(at), input.take(16));
        }
        operation::OFFER => {
            offer(pci, memory, input);
            lungs.offered = true;
            lungs.breathe();
        }
        operation::HOST => match host {
            HostSide::None => {}
            HostSide::Console(handle) => {
                let len = usize::from(input.u8());
                let _ = handle.push(input.take(len));
                handle.resize(input.u16(), input.u16());
            }
            HostSide::Net(handle, peer) => exchange(handle, peer, input),
            HostSide::Vsock(handle, listeners) => talk(handle, listeners, input),
        },
        operation::HOLD => {
            pci.pause();
            pci.resume();
        }
        operation::SAVE => {
            let _ = pci.save();
        }
        _ => lungs.breathe(),
    }
}

/// A place in the BAR, and how many bytes there. Most are in the common structure.
fn place(input: &mut Input<'_>) -> (u64, usize) {
    let len = input.pick(&[1, 2, 4, 8]);
    let at = match input.u8() % 8 {
        0..=4 => u64::from(input.u8() % 0x48),
        5 => 0x1000 * u64::from(input.u8() % 8) + u64::from(input.u8()),
        6 => u64::from(input.u16()),
        _ => input.u64(),
    };
    (at, len)
}

/// The set-up of a driver (virtio 1.3, 3.1.1), with what the case has it get wrong.
fn set_up(pci: &VirtioPci, input: &mut Input<'_>) {
    let write = |at: u64, value: u64, len: usize| pci.bar_write(0, at, &value.to_le_bytes()[..len]);
    let wrong = input.u8();
    let features = input.u32();
    write(0x14, 0, 1);
    write(0x14, 3, 1);
    for half in 0..2u64 {
        write(0, half, 4);
        let mut offered = [0; 4];
        pci.bar_read(0, 4, &mut offered);
        let accepted = if wrong & 1 != 0 { u32::MAX } else { u32::from_le_bytes(offered) };
        let accepted = if half == 0 { accepted & features } else { accepted };
        write(8, half, 4);
        write(0xc, accepted.into(), 4);
    }
    write(0x14, 11, 1);
    let mut queues = [0; 2];
    pci.bar_read(0, 0x12, &mut queues);
    let size_shift = input.u8() % 10;
    for queue in 0..u64::from(u16::from_le_bytes(queues)).min(8) {
        write(0x16, queue, 2);
        let size = if wrong & 2 != 0 { input.u16().into() } else { 1 << size_shift };
        write(0x18, size, 2);
        write(0x1a, if wrong & 8 != 0 { queue } else { 0xffff }, 2);
        let base = if wrong & 4 != 0 { input.u64() } else { queue * QUEUE_STRIDE };
        for (register, part) in [(0x20, 0), (0x28, AVAILABLE), (0x30, USED)] {
            write(register, base.wrapping_add(part), 8);
        }
        write(0x1c, 1, 2);
    }
    write(0x14, 15, 1);
}

/// Offers heads on a queue, and notifies.
fn offer(pci: &VirtioPci, memory: &GuestMemory, input: &mut Input<'_>) {
    let queue = input.u8() % 8;
    let ring = u64::from(queue) * QUEUE_STRIDE + AVAILABLE;
    let size = 1u16 << (input.u8() % 10);
    let count = u16::from(input.u8() % 8) + 1;
    let mut index = memory.read_u16(Gpa(ring + 2)).unwrap_or(0);
    for _ in 0..count {
        let _ = memory.write_u16(Gpa(ring + 4 + 2 * u64::from(index % size)), input.u16());
        index = index.wrapping_add(1);
    }
    // Now and then an index that no driver would have.
    let index = if input.u8() == 0xff { input.u16() } else { index };
    let _ = memory.write_u16(Gpa(ring + 2), index);
    pci.bar_write(0, 0x3000 + 4 * u64::from(queue), &u16::from(queue).to_le_bytes());
}

/// The network at the other end of the card's cable: it checks what it gets, and sends anything.
fn exchange(handle: &riad_devices::virtio::NetHandle, peer: &mut Pair, input: &mut Input<'_>) {
    let what = input.u8();
    if what.is_multiple_of(16) {
        handle.plug(what & 16 == 0);
    }
    let mut room = vec![0; MAX_FRAME];
    while let Some((offload, len)) = peer.receive(&mut room) {
        assert!(len >= 14 && offload.fits(len), "a network was given a malformed frame");
    }
    let mut bytes = [0; header::LEN];
    for (byte, given) in bytes.iter_mut().zip(input.take(header::LEN)) {
        *byte = *given;
    }
    let len = input.u16();
    // A network that breaks its word, now and then: the card must not believe it.
    let checked = if what & 1 == 0 { len.into() } else { MAX_FRAME };
    if let Some(offload) = header::decode(&bytes, checked) {
        let mut frame = vec![what; usize::from(len).min(MAX_FRAME)];
        for (byte, given) in frame.iter_mut().zip(input.take(14)) {
            *byte = *given;
        }
        peer.send(&offload, &frame);
    }
    let _ = handle.counters();
}

/// The host's programs at the other end of the guest's connections.
fn talk(
    handle: &VsockHandle,
    listeners: &mut Vec<std::sync::mpsc::Receiver<std::os::unix::net::UnixStream>>,
    input: &mut Input<'_>,
) {
    match input.u8() % 4 {
        0 => drop(handle.connect(input.u32(), std::time::Duration::ZERO)),
        1 => drop(listeners.pop()),
        _ => {
            let mut buffer = [0; 512];
            for mut stream in listeners.iter().filter_map(|listener| listener.try_recv().ok()) {
                if stream.set_nonblocking(true).is_ok() {
                    let _ = std::io::Write::write(&mut stream, &buffer);
                    let _ = stream.read(&mut buffer);
                }
            }
        }
    }
}

/// Writes cases.
struct Script<'r> {
    bytes: Vec<u8>,
    random: &'r mut Random,
    shift: u8,
}

impl<'r> Script<'r> {
    /// A script that begins with a driver's set-up.
    fn new(random: &'r mut Random) -> Self {
        let wrong = if random.one_in(6) { random.byte() } else { 0 };
        let features = if random.one_in(2) { u32::MAX } else { random.bits() as u32 };
        let shift = random.below(9) as u8;
        let mut bytes = vec![operation::SET_UP, wrong];
        bytes.extend(features.to_le_bytes());
        bytes.push(shift);
        if wrong & 6 != 0 {
            bytes.extend(random.bytes(32));
        }
        Self { bytes, random, shift }
    }

    fn memory(&mut self, at: u64, content: &[u8]) {
        for (content, at) in content.chunks(255).zip((at..).step_by(255)) {
            self.bytes.push(operation::MEMORY_WRITE);
            self.bytes.extend((at as u32).to_le_bytes());
            self.bytes.push(content.len() as u8);
            self.bytes.extend(content);
        }
    }

    /// A chain of descriptors: address, bytes, whether the device writes.
    fn chain(&mut self, queue: u8, parts: &[(u64, u32, bool)]) {
        let size = 1u16 << self.shift;
        let head = self.random.below(usize::from(size)) as u16;
        for (place, (at, len, write)) in (0u16..).zip(parts) {
            let more = usize::from(place) + 1 < parts.len();
            let index = head.wrapping_add(place) % size;
            let next = head.wrapping_add(place + 1) % size;
            let mut flags = u16::from(more) | u16::from(*write) << 1;
            let (mut at, mut len) = (*at, *len);
            if self.random.one_in(16) {
                match self.random.below(4) {
                    0 => at = self.random.edge(),
                    1 => len = self.random.edge() as u32,
                    2 => flags ^= 1 << self.random.below(3),
                    _ => flags = self.random.byte().into(),
                }
            }
            self.bytes.extend([operation::DESCRIPTOR, queue]);
            self.bytes.extend(index.to_le_bytes());
            self.bytes.extend(at.to_le_bytes());
            self.bytes.extend(len.to_le_bytes());
            self.bytes.extend(flags.to_le_bytes());
            self.bytes.extend(next.to_le_bytes());
        }
        self.bytes.extend([operation::OFFER, queue, self.shift, 0]);
        self.bytes.extend(head.to_le_bytes());
        let odd = if self.random.one_in(32) { 0xff } else { 0 };
        self.bytes.push(odd);
        if odd != 0 {
            self.bytes.extend(self.random.bytes(2));
        }
    }

    /// Some operation that has nothing to do with the device.
    fn other(&mut self) {
        let operation = self.random.byte() % operation::COUNT;
        self.bytes.push(operation);
        let count = self.random.below(12);
        self.bytes.extend(self.random.bytes(count));
    }

    fn buffer(&mut self) -> u64 {
        BUFFERS + 0x1000 * self.random.below(64) as u64
    }

    fn len(&mut self) -> u32 {
        match self.random.below(4) {
            0 => self.random.below(16) as u32,
            1 => self.random.edge() as u32,
            _ => 512 << self.random.below(5),
        }
    }

    fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

fn make_blk(random: &mut Random) -> Vec<u8> {
    let mut script = Script::new(random);
    for _ in 0..script.random.below(12) {
        let kind = [0u32, 1, 4, 8, 11, 13, 2, 7][script.random.below(8)];
        let sector = if script.random.one_in(4) {
            script.random.edge()
        } else {
            script.random.below(128) as u64
        };
        let header = script.buffer();
        let mut content = kind.to_le_bytes().to_vec();
        content.extend(0u32.to_le_bytes());
        content.extend(sector.to_le_bytes());
        script.memory(header, &content);
        let (data, len) = (script.buffer(), script.len());
        if kind > 8 {
            // A range: sector, sectors, flags.
            let mut range = sector.to_le_bytes().to_vec();
            range.extend((len >> 9).to_le_bytes());
            range.extend([script.random.byte() & 3, 0, 0, 0]);
            script.memory(data, &range);
        }
        let status = script.buffer();
        let write = kind == 0 || kind == 8;
        let len = if kind > 8 { 16 } else { len };
        match script.random.below(4) {
            0 => script.chain(0, &[(header, 16, false), (status, 1, true)]),
            1 => script.chain(
                0,
                &[(header, 16, false), (data, len, write), (data, len, write), (status, 1, true)],
            ),
            _ => script.chain(0, &[(header, 16, false), (data, len, write), (status, 1, true)]),
        }
        if script.random.one_in(6) {
            script.other();
        }
    }
    script.finish()
}

fn make_rng(random: &mut Random) -> Vec<u8> {
    let mut script = Script::new(random);
    for _ in 0..script.random.below(12) {
        let (at, len) = (script.buffer(), script.len());
        let second = script.buffer();
        match script.random.below(3) {
            0 => script.chain(0, &[(at, len, true), (second, len, true)]),
            1 => script.chain(0, &[(at, len, false), (second, len, true)]),
            _ => script.chain(0, &[(at, len, true)]),
        }
        if script.random.one_in(6) {
            script.other();
        }
    }
    script.finish()
}

fn make_console(random: &mut Random) -> Vec<u8> {
    let mut script = Script::new(random);
    for _ in 0..script.random.below(12) {
        let (at, len) = (script.buffer(), script.len());
        let receive = script.random.one_in(2);
        script.chain(u8::from(!receive), &[(at, len, receive)]);
        if script.random.one_in(3) {
            script.bytes.extend([operation::HOST, 5]);
            script.bytes.extend(b"words");
            script.bytes.extend(script.random.bytes(4));
        }
        if script.random.one_in(6) {
            script.other();
        }
    }
    script.finish()
}

fn make_net(random: &mut Random) -> Vec<u8> {
    let mut script = Script::new(random);
    for _ in 0..script.random.below(16) {
        let (at, data) = (script.buffer(), script.buffer());
        let len = script.len();
        match script.random.below(4) {
            // Room for frames: small buffers that are merged, and large ones.
            0 => script.chain(0, &[(at, len % 0x2000, true)]),
            1 => {
                // A command, its data (two tables may follow), and room for the answer.
                let mut content = vec![script.random.below(7) as u8, script.random.below(7) as u8];
                let usual = [1, 0, 0, 0, 2, 2, 2, 2, 2, 2, 0, 0, 0, 0];
                if script.random.one_in(2) {
                    content.extend(usual);
                } else {
                    content.extend(script.random.bytes(10));
                }
                script.memory(at, &content);
                let used = if script.random.one_in(2) {
                    content.len() as u32
                } else {
                    script.random.below(24) as u32
                };
                script.chain(2, &[(at, used, false), (data, 1, true)]);
            }
            2 => {
                let mut content = [0; header::LEN];
                if script.random.one_in(2) {
                    let numbers = [script.len(), script.len(), script.len(), script.len()];
                    content[0] = script.random.byte() & 3;
                    content[1] = [0, 1, 4, 5, 0x81, 3][script.random.below(6)];
                    for (place, number) in content[2..10].chunks_mut(2).zip(numbers) {
                        place.copy_from_slice(&(number as u16).to_le_bytes());
                    }
                }
                script.memory(at, &content);
                let first = header::LEN as u32;
                match script.random.below(3) {
                    0 => script.chain(1, &[(at, first.wrapping_add(len), false)]),
                    1 => script.chain(1, &[(at, first, false), (data, len, false)]),
                    _ => script.chain(
                        1,
                        &[(at, first + 14, false), (data, len, false), (data, len, false)],
                    ),
                }
            }
            _ => {
                script.bytes.extend([operation::HOST, script.random.byte()]);
                let odd = script.random.one_in(3);
                let head =
                    if odd { script.random.bytes(header::LEN) } else { vec![0; header::LEN] };
                script.bytes.extend(head);
                script.bytes.extend((len as u16).to_le_bytes());
                script.bytes.extend([0xff; 6]);
                script.bytes.extend(script.random.bytes(8));
            }
        }
        if script.random.one_in(6) {
            script.other();
        }
    }
    script.finish()
}

fn make_vsock(random: &mut Random) -> Vec<u8> {
    let mut script = Script::new(random);
    // Room for the host's packets.
    for _ in 0..script.random.below(4) {
        let at = script.buffer();
        script.chain(0, &[(at, 4096, true)]);
    }
    for _ in 0..script.random.below(12) {
        let at = script.buffer();
        let len =
            if script.random.one_in(4) { script.len() } else { script.random.below(64) as u32 };
        let odd = script.random.one_in(8);
        let random = &mut *script.random;
        let mut any = |usual: u64| if odd && random.one_in(3) { random.edge() } else { usual };
        let (src, dst) = (any(3), any(2));
        let src_port = any(5) as u32;
        let dst_port = any(1024) as u32;
        let (len, kind) = (any(len.into()) as u32, any(1) as u16);
        let op = random.below(9) as u16;
        let (flags, alloc, forwarded) =
            (random.byte() & 3, random.edge() as u32, random.edge() as u32);
        let mut header = src.to_le_bytes().to_vec();
        header.extend(dst.to_le_bytes());
        header.extend([src_port, dst_port, len].iter().flat_map(|word| word.to_le_bytes()));
        header.extend(kind.to_le_bytes());
        header.extend(op.to_le_bytes());
        header.extend(
            [u32::from(flags), alloc, forwarded].iter().flat_map(|word| word.to_le_bytes()),
        );
        script.memory(at, &header);
        let data = script.buffer();
        match script.random.below(3) {
            0 => script.chain(1, &[(at, 44, false)]),
            1 => script.chain(1, &[(at, 44 + len % 64, false)]),
            _ => script.chain(1, &[(at, 44, false), (data, len, false)]),
        }
        if script.random.one_in(3) {
            script.bytes.extend([operation::HOST, 2]);
        }
        if script.random.one_in(6) {
            script.other();
        }
    }
    script.finish()
}
