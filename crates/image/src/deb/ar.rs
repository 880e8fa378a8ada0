//! The `ar` archive around a Debian package (deb(5), ar(5)): short names only.

use std::io::{Read, Seek, SeekFrom};

use super::DebError;

/// A package has three members; a few more are allowed, as deb(5) does.
const MEMBERS: usize = 16;
const MAGIC: &[u8; 8] = b"!<arch>\n";
const HEADER: usize = 60;

/// A member of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArMember {
    /// Name, without padding.
    pub name: String,
    /// Where its content starts, in bytes from the start of the archive.
    pub offset: u64,
    /// Its size in bytes.
    pub size: u64,
}

/// Lists an archive's members; every one lies within the archive.
///
/// # Errors
///
/// It is not such an archive, or is cut short.
pub fn read_members(archive: &mut (impl Read + Seek)) -> Result<Vec<ArMember>, DebError> {
    let end = archive.seek(SeekFrom::End(0))?;
    archive.seek(SeekFrom::Start(0))?;
    let mut magic = [0; MAGIC.len()];
    if end < MAGIC.len() as u64 || archive.read_exact(&mut magic).is_err() || &magic != MAGIC {
        return Err(DebError::Format("it is no ar archive"));
    }
    let mut members = Vec::new();
    let mut at = MAGIC.len() as u64;
    while at < end {
        let offset = at + HEADER as u64;
        if offset > end {
            return Err(DebError::Format("it is cut short within a header"));
        }
        let mut header = [0; HEADER];
        archive.seek(SeekFrom::Start(at))?;
        archive.read_exact(&mut header)?;
        if &header[58..60] != b"`\n" {
            return Err(DebError::Format("a member's header is damaged"));
        }
        let name = text(&header[0..16])?.trim_end_matches('/');
        let size: u64 = text(&header[48..58])?
            .parse()
            .map_err(|_| DebError::Format("a member's size is no number"))?;
        if size > end - offset {
            return Err(DebError::Format("it is cut short within a member"));
        }
        if members.len() >= MEMBERS {
            return Err(DebError::Format("it has too many members"));
        }
        members.push(ArMember { name: name.to_owned(), offset, size });
        // Members start at even offsets.
        at = offset + size + size % 2;
    }
    Ok(members)
}

fn text(field: &[u8]) -> Result<&str, DebError> {
    std::str::from_utf8(field)
        .map(|text| text.trim_end_matches(' '))
        .map_err(|_| DebError::Format("a member's header is damaged"))
}
