//! As much of ELF as it takes to read what a kernel module says about itself: sections of 64-bit
//! little-endian object files (System V ABI, gABI chapter 4), and the null-terminated `key=value`
//! strings of `.modinfo`.

/// An ELF section's content, by name. `None` when there is no such section or the file is damaged:
/// every offset is checked.
#[must_use]
pub fn elf_section<'a>(file: &'a [u8], name: &str) -> Option<&'a [u8]> {
    // Magic, 64-bit, little-endian.
    if file.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let table = u64_at(file, 0x28)?;
    let entry_size = u64::from(u16_at(file, 0x3a)?);
    let count = u64::from(u16_at(file, 0x3c)?);
    let names_index = u64::from(u16_at(file, 0x3e)?);
    if entry_size < 64 {
        return None;
    }
    let header = |index: u64| -> Option<&'a [u8]> {
        let start = table.checked_add(index.checked_mul(entry_size)?)?;
        slice(file, start, entry_size)
    };
    let content = |header: &'a [u8]| slice(file, u64_at(header, 0x18)?, u64_at(header, 0x20)?);
    let names = content(header(names_index)?)?;
    (0..count).find_map(|index| {
        let header = header(index)?;
        let at = usize::try_from(u32_at(header, 0)?).ok()?;
        let text = names.get(at..)?.split(|b| *b == 0).next()?;
        (text == name.as_bytes()).then(|| content(header)).flatten()
    })
}

fn slice(file: &[u8], start: u64, len: u64) -> Option<&[u8]> {
    let end = usize::try_from(start.checked_add(len)?).ok()?;
    file.get(usize::try_from(start).ok()?..end)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// The values a module gives for a key, such as `depends` or `softdep`; `None` when it is no module.
#[must_use]
pub fn module_info(module: &[u8], key: &str) -> Option<Vec<String>> {
    let info = elf_section(module, ".modinfo")?;
    let values = info
        .split(|b| *b == 0)
        .filter_map(|entry| std::str::from_utf8(entry).ok()?.split_once('='))
        .filter(|(k, _)| *k == key)
        .map(|(_, value)| value.to_owned())
        .collect();
    Some(values)
}
