use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use super::*;
use crate::PAGE_SIZE;

fn ram() -> GuestMemory {
    GuestMemory::new(&[(Gpa(0), 16 * PAGE_SIZE), (Gpa(1 << 20), 16 * PAGE_SIZE)]).unwrap()
}

#[test]
fn runs_are_filled_from_a_file_and_written_to_one() {
    let memory = ram();
    let bytes: Vec<u8> = (0..20_000u32).map(|n| (n * 7 + n / 256) as u8).collect();
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(&bytes, 100).unwrap();
    let runs = [(Gpa(5), 4096), (Gpa(9000), 0), (Gpa((1 << 20) + 1), 9000), (Gpa(0x8000), 6904)];
    memory.read_from_file(&runs, file.as_fd(), 100, Wait::AsLongAsItTakes).unwrap();
    let mut found = Vec::new();
    for (at, len) in runs {
        found.extend(memory.read_vec(at, len).unwrap());
    }
    assert!(found == bytes);
    // Whoever looks for changes finds all of the pages, and no others.
    assert_eq!(memory.pages().take_dirty(), [0, 1, 8, 9, 16, 17, 18]);

    let copy = tempfile::tempfile().unwrap();
    memory.write_to_file(&runs, copy.as_fd(), 33).unwrap();
    let mut written = vec![0; bytes.len()];
    copy.read_exact_at(&mut written, 33).unwrap();
    assert!(written == bytes);
    // What was just written is in the host's memory, unless its file system cannot tell.
    match memory.read_from_file(&runs, copy.as_fd(), 33, Wait::NotAtAll) {
        Ok(()) => {}
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}"),
    }
}

#[test]
fn many_runs_take_several_calls() {
    let memory = ram();
    let file = tempfile::tempfile().unwrap();
    let bytes: Vec<u8> = (0..3000u32).map(|n| (n / 3) as u8).collect();
    file.write_all_at(&bytes, 0).unwrap();
    let runs: Vec<_> = (0..3000).map(|n| (Gpa(n), 1)).collect();
    memory.read_from_file(&runs, file.as_fd(), 0, Wait::AsLongAsItTakes).unwrap();
    assert!(memory.read_vec(Gpa(0), 3000).unwrap() == bytes);
}

#[test]
fn what_is_not_ram_and_what_is_not_there_is_refused() {
    let memory = ram();
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(&[1; 100], 0).unwrap();
    let read = |runs: &[(Gpa, usize)]| {
        memory.read_from_file(runs, file.as_fd(), 0, Wait::AsLongAsItTakes).unwrap_err().kind()
    };
    let end = Gpa(16 * PAGE_SIZE - 10);
    assert_eq!(read(&[(end, 11)]), io::ErrorKind::InvalidInput);
    assert_eq!(read(&[(Gpa(0), 50), (Gpa(u64::MAX), 2)]), io::ErrorKind::InvalidInput);
    assert_eq!(read(&[(Gpa(0), 101)]), io::ErrorKind::UnexpectedEof);
    let error = memory.write_to_file(&[(end, 11)], file.as_fd(), 0).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    let error = memory.write_to_file(&[(Gpa(0), 1)], file.as_fd(), u64::MAX).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
}
