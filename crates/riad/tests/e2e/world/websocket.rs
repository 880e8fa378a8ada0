//! The world's WebSocket (RFC 6455): it answers one handshake, that of the RFC's example, sends back
//! what it gets, and closes when it is told to.

use std::io::{self, BufReader, Read, Write};
use std::net::TcpStream;

/// The example of section 1.3, and its answer.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// The kind of a frame that ends all (section 5.5.1).
const CLOSE: u8 = 0x88;

pub(super) fn serve(
    mut reader: BufReader<TcpStream>,
    mut stream: TcpStream,
    key: &str,
) -> io::Result<()> {
    if key != KEY {
        return stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    }
    write!(
        stream,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
    )?;
    loop {
        let mut head = [0; 2];
        reader.read_exact(&mut head)?;
        let len = match head[1] & 0x7f {
            126 => u64::from(u16::from_be_bytes(array(&mut reader)?)),
            127 => u64::from_be_bytes(array(&mut reader)?),
            len => u64::from(len),
        };
        // What clients send is masked (section 5.3), what servers send is not.
        let mask: [u8; 4] = array(&mut reader)?;
        let mut payload = vec![0; len as usize];
        reader.read_exact(&mut payload)?;
        payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        let mut frame = vec![head[0]];
        match payload.len() {
            len @ 0..126 => frame.push(len as u8),
            len => {
                frame.push(127);
                frame.extend((len as u64).to_be_bytes());
            }
        }
        frame.extend(payload);
        stream.write_all(&frame)?;
        if head[0] == CLOSE {
            return Ok(());
        }
    }
}

fn array<const N: usize>(reader: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    reader.read_exact(&mut bytes)?;
    Ok(bytes)
}
