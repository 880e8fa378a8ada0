//! The calls that set a tap device up (`linux/if_tun.h`, `linux/sockios.h`).

#![expect(
    unsafe_code,
    reason = "ioctl(2) of tap devices and interfaces, which rustix does not wrap"
)]

use std::ffi::{c_int, c_uint};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::ioctl::{self, IntegerSetter, Opcode, Setter, Updater, opcode};
use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice};

use crate::link::Accepts;

const TUNSETIFF: Opcode = opcode::write::<c_int>(b'T', 202);
const TUNSETOFFLOAD: Opcode = opcode::write::<c_uint>(b'T', 208);
const TUNSETVNETHDRSZ: Opcode = opcode::write::<c_int>(b'T', 216);
const SIOCGIFFLAGS: Opcode = 0x8913;
const SIOCSIFFLAGS: Opcode = 0x8914;
const SIOCGIFMTU: Opcode = 0x8921;
const SIOCSIFMTU: Opcode = 0x8922;
const SIOCBRADDIF: Opcode = 0x89a2;

const IFF_UP: u16 = 1;
const IFF_TAP: u16 = 2;
const IFF_NO_PI: u16 = 0x1000;
const IFF_VNET_HDR: u16 = 0x4000;

const TUN_F_CSUM: c_uint = 1;
const TUN_F_TSO4: c_uint = 2;
const TUN_F_TSO6: c_uint = 4;
const TUN_F_TSO_ECN: c_uint = 8;

/// `struct ifreq`: a name, and a union of 24 bytes.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct Request {
    name: [u8; 16],
    value: [u8; 24],
}

impl Request {
    /// About the interface `name`, at most 15 bytes.
    fn new(name: &str) -> Self {
        let mut request = Self { name: [0; 16], value: [0; 24] };
        for (byte, given) in request.name.iter_mut().take(15).zip(name.bytes()) {
            *byte = given;
        }
        request
    }

    fn put<const N: usize>(&mut self, bytes: [u8; N]) {
        self.value.iter_mut().zip(bytes).for_each(|(byte, given)| *byte = given);
    }

    fn int(&self) -> c_int {
        let [a, b, c, d, ..] = self.value;
        c_int::from_ne_bytes([a, b, c, d])
    }

    fn name(&self) -> String {
        let name = self.name.split(|byte| *byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(name).into_owned()
    }

    /// Asks, or tells, the kernel.
    fn call<const OPCODE: Opcode>(&mut self, on: impl AsFd) -> Result<(), Errno> {
        // SAFETY: every OPCODE that this module has takes a `struct ifreq`, which it may write to;
        // `Request` is one, in layout and size.
        unsafe { ioctl::ioctl(on, Updater::<OPCODE, Self>::new(self)) }
    }
}

/// Any socket: interfaces are asked after through one.
fn socket() -> Result<OwnedFd, Errno> {
    rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
}

/// The device that makes tap devices.
pub(crate) fn open_tun() -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
    rustix::fs::open("/dev/net/tun", flags, Mode::empty())
}

/// Makes `device` the tap device `name`, whose frames have a header of `header_len` bytes. Returns
/// the name that it got.
pub(crate) fn attach(device: &OwnedFd, name: &str, header_len: usize) -> Result<String, Errno> {
    let mut request = Request::new(name);
    request.put((IFF_TAP | IFF_NO_PI | IFF_VNET_HDR).to_ne_bytes());
    request.call::<TUNSETIFF>(device)?;
    let len = c_int::try_from(header_len).map_err(|_| Errno::INVAL)?;
    // SAFETY: this call reads an int.
    unsafe { ioctl::ioctl(device, Setter::<TUNSETVNETHDRSZ, c_int>::new(len))? };
    Ok(request.name())
}

/// Tells the kernel which frames the device's reader takes.
pub(crate) fn set_offloads(device: &OwnedFd, accepts: Accepts) -> Result<(), Errno> {
    let Accepts { checksum, tcp4, tcp6, ecn, udp: _ } = accepts;
    let large = checksum && (tcp4 || tcp6);
    let bits = [
        (checksum, TUN_F_CSUM),
        (checksum && tcp4, TUN_F_TSO4),
        (checksum && tcp6, TUN_F_TSO6),
        (large && ecn, TUN_F_TSO_ECN),
    ];
    let bits = bits.iter().filter(|(on, _)| *on).fold(0, |bits, (_, bit)| bits | bit);
    // SAFETY: this call takes its argument by value.
    unsafe { ioctl::ioctl(device, IntegerSetter::<TUNSETOFFLOAD>::new_usize(bits as usize)) }
}

/// Turns an interface on.
pub(crate) fn set_up(name: &str) -> Result<(), Errno> {
    let socket = socket()?;
    let mut request = Request::new(name);
    request.call::<SIOCGIFFLAGS>(&socket)?;
    let [low, high, ..] = request.value;
    let flags = u16::from_ne_bytes([low, high]);
    if flags & IFF_UP != 0 {
        return Ok(());
    }
    request.put((flags | IFF_UP).to_ne_bytes());
    request.call::<SIOCSIFFLAGS>(&socket)
}

/// An interface's MTU.
pub(crate) fn mtu(name: &str) -> Result<u32, Errno> {
    let mut request = Request::new(name);
    request.call::<SIOCGIFMTU>(&socket()?)?;
    Ok(u32::try_from(request.int()).unwrap_or(0))
}

/// Gives an interface an MTU.
pub(crate) fn set_mtu(name: &str, mtu: u32) -> Result<(), Errno> {
    let mut request = Request::new(name);
    request.put(mtu.to_ne_bytes());
    request.call::<SIOCSIFMTU>(&socket()?)
}

/// Makes the interface `name` a port of `bridge`.
pub(crate) fn join_bridge(name: &str, bridge: &str) -> Result<(), Errno> {
    let socket = socket()?;
    let index = netdevice::name_to_index(&socket, name)?;
    let mut request = Request::new(bridge);
    request.put(index.to_ne_bytes());
    request.call::<SIOCBRADDIF>(&socket)
}
