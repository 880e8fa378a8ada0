//! One stream between guest and host: credit, half-close, and the host's socket.
//!
//! The host's end is a Unix socket pair whose other end a program holds. Bytes for the guest stay
//! in the socket until there is room in the guest, so the kernel bounds them. Bytes for the host
//! go to the socket at once, and what it does not take waits here, within the credit given to the
//! guest ([`BUF_ALLOC`]).

use std::collections::VecDeque;
use std::io::{self, Read as _};
use std::os::unix::net::UnixStream;

use rustix::io::Errno;
use rustix::net::{SendFlags, send};

use super::handle::Outcome;
use super::packet::{
    Header, PAYLOAD_MAX, SHUTDOWN_BOTH, SHUTDOWN_RECEIVE, SHUTDOWN_SEND, TYPE_STREAM, op,
};

/// Bytes of credit the guest has for one connection.
pub(super) const BUF_ALLOC: u32 = 256 << 10;
/// The guest is told about new credit when it knows of less than this.
const CREDIT_LOW: u32 = BUF_ALLOC / 2;

/// Ports that name a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    pub(super) host_port: u32,
    pub(super) guest_port: u32,
}

/// What the guest did wrong; the answer is RST.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Violation(pub(super) &'static str);

/// How far a connection is.
enum Stage {
    /// REQUEST goes, or has gone, to the guest; RESPONSE or RST is to come.
    Asking(Outcome),
    /// Both sides know of it.
    Open,
    /// The guest's side is gone; what it sent still goes to the host.
    Draining,
}

/// Packets to be sent besides payload.
#[derive(Debug, Clone, Copy, Default)]
struct Due {
    request: bool,
    response: bool,
    credit_update: bool,
    credit_request: bool,
}

/// One connection.
pub(super) struct Connection {
    pub(super) key: Key,
    stage: Stage,
    stream: UnixStream,
    due: Due,
    /// In the mux's queue of connections that may have something for the guest.
    pub(super) queued: bool,

    /// Bytes from the guest the socket has not taken.
    to_host: VecDeque<u8>,
    /// Bytes received from the guest, and passed on to the socket, modulo 2^32.
    received: u32,
    forwarded: u32,
    /// `forwarded` as the guest last heard it.
    advertised: u32,

    /// Bytes sent to the guest, modulo 2^32, and its side of credit.
    sent: u32,
    guest_alloc: u32,
    guest_forwarded: u32,

    /// The socket may have bytes (or its end) for us; it may take some.
    readable: bool,
    writable: bool,
    /// The host sends no more; receives no more.
    host_send_done: bool,
    host_receive_done: bool,
    /// SHUTDOWN flags the guest has sent, and has been sent.
    guest_shutdown: u32,
    told_shutdown: u32,
}

impl Connection {
    /// A connection the host asks for.
    pub(super) fn asking(key: Key, stream: UnixStream, outcome: Outcome) -> Self {
        let due = Due { request: true, ..Due::default() };
        Self::new(key, stream, Stage::Asking(outcome), due)
    }

    /// A connection the guest asked for with `header`, accepted.
    pub(super) fn accepted(key: Key, stream: UnixStream, header: &Header) -> Self {
        let due = Due { response: true, ..Due::default() };
        let mut this = Self::new(key, stream, Stage::Open, due);
        this.note_credit(header);
        this
    }

    fn new(key: Key, stream: UnixStream, stage: Stage, due: Due) -> Self {
        Self {
            key,
            stage,
            stream,
            due,
            queued: false,
            to_host: VecDeque::new(),
            received: 0,
            forwarded: 0,
            advertised: 0,
            sent: 0,
            guest_alloc: 0,
            guest_forwarded: 0,
            readable: true,
            writable: true,
            host_send_done: false,
            host_receive_done: false,
            guest_shutdown: 0,
            told_shutdown: 0,
        }
    }

    /// The device's end of the socket pair.
    pub(super) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// The socket became readable, writable, or lost its other end.
    pub(super) fn host_ready(&mut self, readable: bool, writable: bool, gone: bool) {
        self.readable |= readable || gone;
        self.writable |= writable;
        if gone {
            self.host_stopped_receiving();
        }
    }

    /// Every packet says how much room the guest has (section 5.10.6.3).
    pub(super) fn note_credit(&mut self, header: &Header) {
        self.guest_alloc = header.buf_alloc;
        self.guest_forwarded = header.fwd_cnt;
        if self.credit() > 0 {
            self.due.credit_request = false;
        }
    }

    /// RESPONSE.
    pub(super) fn on_response(&mut self) -> Result<(), Violation> {
        match std::mem::replace(&mut self.stage, Stage::Open) {
            Stage::Asking(outcome) if !self.due.request => {
                outcome.connected();
                Ok(())
            }
            _ => Err(Violation("a response to nothing")),
        }
    }

    /// CREDIT_REQUEST.
    pub(super) fn on_credit_request(&mut self) {
        self.due.credit_update = true;
    }

    /// SHUTDOWN.
    pub(super) fn on_shutdown(&mut self, flags: u32) -> Result<(), Violation> {
        self.must_be_open()?;
        self.guest_shutdown |= flags & SHUTDOWN_BOTH;
        if self.guest_shutdown & SHUTDOWN_RECEIVE != 0 {
            // The host's writes fail from now on. A socket that is gone is as good as shut.
            let _ = self.stream.shutdown(std::net::Shutdown::Read);
        }
        self.finish_sending_to_host();
        Ok(())
    }

    /// RW: takes `payload`, which the guest had credit for, or did not.
    pub(super) fn on_payload(&mut self, payload: &[u8]) -> Result<(), Violation> {
        self.must_be_open()?;
        if self.guest_shutdown & SHUTDOWN_SEND != 0 {
            return Err(Violation("payload after the end"));
        }
        let in_buffer = self.received.wrapping_sub(self.forwarded);
        let len = payload.len() as u64;
        if u64::from(in_buffer) + len > u64::from(BUF_ALLOC) {
            return Err(Violation("payload without credit"));
        }
        self.received = self.received.wrapping_add(len as u32);
        if self.host_receive_done {
            self.forward(payload.len());
            return Ok(());
        }
        let mut rest = payload;
        if self.to_host.is_empty() {
            let taken = self.write_to_host(payload);
            rest = payload.get(taken..).unwrap_or(&[]);
        }
        if self.host_receive_done {
            self.forward(rest.len());
        } else {
            self.to_host.extend(rest);
        }
        Ok(())
    }

    /// Gives the socket what waits for it. Returns whether anything moved.
    pub(super) fn flush_to_host(&mut self) -> bool {
        let mut moved = false;
        while self.writable && !self.to_host.is_empty() {
            let waiting = std::mem::take(&mut self.to_host);
            let taken = self.write_to_host(waiting.as_slices().0);
            if self.host_receive_done {
                self.forward(waiting.len() - taken);
                return true;
            }
            self.to_host = waiting;
            self.to_host.drain(..taken);
            moved |= taken > 0;
        }
        self.finish_sending_to_host();
        moved
    }

    /// The guest's side is gone. Returns whether the connection must stay to drain.
    pub(super) fn guest_gone(&mut self) -> bool {
        // Dropping the outcome of a connection still asked for refuses it.
        self.stage = Stage::Draining;
        self.guest_shutdown = SHUTDOWN_BOTH;
        self.finish_sending_to_host();
        let _ = self.stream.shutdown(std::net::Shutdown::Read);
        !self.to_host.is_empty()
    }

    /// Whether the guest's side is gone and nothing is left for the host.
    pub(super) fn drained(&self) -> bool {
        matches!(self.stage, Stage::Draining) && self.to_host.is_empty()
    }

    /// Whether the guest's side is gone.
    pub(super) fn is_draining(&self) -> bool {
        matches!(self.stage, Stage::Draining)
    }

    /// Whether the guest will neither send nor receive any more: the answer is RST, which ends the
    /// connection (section 5.10.6.5).
    pub(super) fn guest_is_done(&self) -> bool {
        matches!(self.stage, Stage::Open) && self.guest_shutdown == SHUTDOWN_BOTH
    }

    /// Whether the program on the host has closed its end altogether.
    pub(super) fn host_is_done(&self) -> bool {
        self.host_send_done && self.host_receive_done
    }

    /// Whether a program on the host lost patience before the guest answered.
    pub(super) fn given_up(&self) -> bool {
        matches!(self.stage, Stage::Asking(_)) && self.host_receive_done
    }

    /// Whether there may be a packet for the guest.
    pub(super) fn wants_guest(&self) -> bool {
        if self.due.request {
            return true;
        }
        if !matches!(self.stage, Stage::Open) {
            return false;
        }
        let Due { request: _, response, credit_update, credit_request } = self.due;
        response
            || credit_update
            || credit_request
            || self.shutdown_due() != self.told_shutdown
            || self.payload_possible()
    }

    /// The next packet for the guest, with at most `room` bytes of payload, which are put into
    /// `buffer`. `None` when there is none after all.
    pub(super) fn next_packet(&mut self, room: usize, buffer: &mut [u8]) -> Option<Header> {
        if std::mem::take(&mut self.due.request) {
            return Some(self.header(op::REQUEST));
        }
        if !matches!(self.stage, Stage::Open) {
            return None;
        }
        if std::mem::take(&mut self.due.response) {
            return Some(self.header(op::RESPONSE));
        }
        if self.payload_possible() && room > 0 {
            let most = room.min(PAYLOAD_MAX).min(self.credit() as usize).min(buffer.len());
            let len = self.read_from_host(buffer.get_mut(..most).unwrap_or_default());
            if len > 0 {
                self.sent = self.sent.wrapping_add(len as u32);
                if self.credit() == 0 {
                    self.due.credit_request = true;
                }
                return Some(Header { len: len as u32, ..self.header(op::RW) });
            }
        }
        let shutdown = self.shutdown_due();
        if shutdown != self.told_shutdown {
            self.told_shutdown = shutdown;
            return Some(Header { flags: shutdown, ..self.header(op::SHUTDOWN) });
        }
        if std::mem::take(&mut self.due.credit_request) {
            return Some(self.header(op::CREDIT_REQUEST));
        }
        if std::mem::take(&mut self.due.credit_update) {
            return Some(self.header(op::CREDIT_UPDATE));
        }
        None
    }

    /// A header without payload. The guest hears of its credit with it.
    fn header(&mut self, op: u16) -> Header {
        self.advertised = self.forwarded;
        self.due.credit_update = false;
        Header {
            src_port: self.key.host_port,
            dst_port: self.key.guest_port,
            kind: TYPE_STREAM,
            op,
            buf_alloc: BUF_ALLOC,
            fwd_cnt: self.forwarded,
            ..Header::default()
        }
    }

    fn must_be_open(&self) -> Result<(), Violation> {
        if matches!(self.stage, Stage::Open) {
            Ok(())
        } else {
            Err(Violation("traffic before the connection is made"))
        }
    }

    /// Bytes the guest still has room for.
    fn credit(&self) -> u32 {
        let in_flight = self.sent.wrapping_sub(self.guest_forwarded);
        self.guest_alloc.saturating_sub(in_flight)
    }

    fn payload_possible(&self) -> bool {
        self.readable
            && !self.host_send_done
            && self.guest_shutdown & SHUTDOWN_RECEIVE == 0
            && self.credit() > 0
    }

    /// SHUTDOWN flags that hold for the host's side.
    fn shutdown_due(&self) -> u32 {
        let mut flags = 0;
        if self.host_send_done {
            flags |= SHUTDOWN_SEND;
        }
        if self.host_receive_done {
            flags |= SHUTDOWN_RECEIVE;
        }
        flags
    }

    /// Bytes read into `buffer`; 0 when there are none, or no more.
    fn read_from_host(&mut self, buffer: &mut [u8]) -> usize {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => {
                    self.host_send_done = true;
                    return 0;
                }
                Ok(len) => return len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.readable = false;
                    self.host_send_done |= error.kind() != io::ErrorKind::WouldBlock;
                    return 0;
                }
            }
        }
    }

    /// Writes as much as the socket takes, and counts it as forwarded.
    fn write_to_host(&mut self, bytes: &[u8]) -> usize {
        let mut done = 0;
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
            match send(&self.stream, rest, SendFlags::NOSIGNAL) {
                Ok(0) => break,
                Ok(len) => done += len,
                Err(Errno::INTR) => {}
                Err(error) => {
                    self.writable = false;
                    if error != Errno::AGAIN {
                        self.host_stopped_receiving();
                    }
                    break;
                }
            }
        }
        self.forward(done);
        done
    }

    fn forward(&mut self, len: usize) {
        self.forwarded = self.forwarded.wrapping_add(len as u32);
        let known = BUF_ALLOC.saturating_sub(self.received.wrapping_sub(self.advertised));
        if known < CREDIT_LOW && self.forwarded != self.advertised {
            self.due.credit_update = true;
        }
    }

    /// Nobody reads the host's end any more: what is for it is dropped.
    fn host_stopped_receiving(&mut self) {
        self.host_receive_done = true;
        let dropped = std::mem::take(&mut self.to_host).len();
        self.forward(dropped);
    }

    /// The guest has said it sends no more, and everything is passed on: so the host sees the end.
    fn finish_sending_to_host(&mut self) {
        if self.guest_shutdown & SHUTDOWN_SEND != 0 && self.to_host.is_empty() {
            let _ = self.stream.shutdown(std::net::Shutdown::Write);
        }
    }
}
