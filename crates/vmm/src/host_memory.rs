//! How much memory the host has. A machine's takes only what is used of it, so that more is promised
//! than is there; but a machine with more than all of it can only end badly.

use crate::Error;

/// Whether a machine may have this many bytes, on a host that has so many; 0 when that is not known.
///
/// # Errors
/// [`Error::HostMemory`].
pub(crate) fn check(wanted: u64, has: u64) -> Result<(), Error> {
    if has != 0 && wanted > has {
        return Err(Error::HostMemory { wanted: wanted >> 20, has: has >> 20 });
    }
    Ok(())
}

/// Bytes of memory and swap space; 0 when the host does not tell.
pub(crate) fn total() -> u64 {
    let info = rustix::system::sysinfo();
    let units = info.totalram.saturating_add(info.totalswap);
    units.saturating_mul(u64::from(info.mem_unit.max(1)))
}

#[cfg(test)]
mod tests {
    use super::{check, total};

    #[test]
    fn more_than_the_host_has_is_refused_with_what_there_is() {
        assert!(check(8 << 30, 8 << 30).is_ok());
        let error = check(9 << 30, 8 << 30).unwrap_err().to_string();
        assert!(error.contains("9216 MiB") && error.contains("8192 MiB"), "{error}");
        assert!(error.contains("--memory"), "{error}");
        assert!(check(9 << 30, 0).is_ok(), "who does not know does not refuse");
    }

    #[test]
    fn the_host_has_some() {
        assert!(total() > 64 << 20);
    }
}
