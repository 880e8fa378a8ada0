use super::*;

/// The fields of an ELF64 header (System V ABI, chapter 4) that matter here.
fn u16_at(program: &[u8], offset: usize) -> u16 {
    u16::from_le_bytes(program[offset..offset + 2].try_into().unwrap())
}

fn u64_at(program: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(program[offset..offset + 8].try_into().unwrap())
}

#[test]
fn each_agent_is_a_small_static_program_of_its_architecture() {
    for arch in architectures() {
        let program = agent(arch).unwrap();
        assert_eq!(program[..6], *b"\x7fELF\x02\x01");
        let machine = match arch {
            "x86_64" => 62,
            "aarch64" => 183,
            other => panic!("which machine is {other}?"),
        };
        assert_eq!(u16_at(program, 18), machine);
        // No PT_INTERP: it asks for no loader, so for none of the guest's libraries.
        let (start, size, count) =
            (u64_at(program, 32) as usize, u16_at(program, 54) as usize, u16_at(program, 56));
        for index in 0..usize::from(count) {
            assert_ne!(u16_at(program, start + index * size), 3, "{arch}: it is not static");
        }
        println!("{arch}: {} bytes", program.len());
        // Of which the static C library and Rust's own are more than 1 MiB.
        assert!(program.len() < 3 << 19, "{arch}: {} bytes", program.len());
    }
}

#[test]
fn an_architecture_without_an_agent_has_none() {
    assert!(agent("x86_64").is_some());
    assert!(agent("vax").is_none());
}
