//! `riad boot`, with Multiboot kernels of a few instructions.

use std::io::Write;
use std::process::{Command, Output, Stdio};

/// Where the kernels are loaded.
const BASE: u32 = 0x10_0000;
/// Length of the header in front of the code.
const HEADER: u32 = 32;

/// A Multiboot kernel (Multiboot 0.6.96, 3.1) whose code begins right after its header.
fn kernel(code: &[u8]) -> Vec<u8> {
    let (magic, flags) = (0x1bad_b002u32, 1u32 << 16);
    let checksum = 0u32.wrapping_sub(magic).wrapping_sub(flags);
    let end = BASE + HEADER + u32::try_from(code.len()).unwrap();
    let fields = [magic, flags, checksum, BASE, BASE, end, end, BASE + HEADER];
    fields.iter().flat_map(|field| field.to_le_bytes()).chain(code.iter().copied()).collect()
}

fn boot(code: &[u8], arguments: &[&str], typed: &[u8]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kernel");
    std::fs::write(&path, kernel(code)).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_riad"))
        .args(["boot", "--memory", "16M", "--kernel"])
        .arg(&path)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("riad runs");
    let mut stdin = child.stdin.take().unwrap();
    let typed = typed.to_vec();
    // The machine may end before everything is typed.
    let typist = std::thread::spawn(move || drop(stdin.write_all(&typed)));
    let output = child.wait_with_output().unwrap();
    typist.join().unwrap();
    output
}

#[test]
fn the_debug_exit_port_gives_the_status() {
    // mov al, 0x10; out 0xf4, al; jmp $
    let code = [0xb0, 0x10, 0xe6, 0xf4, 0xeb, 0xfe];
    let output = boot(&code, &[], b"");
    assert_eq!(output.status.code(), Some(33), "{output:?}");
}

/// Confined, as every command that runs a guest is: a processor of KVM's makes system calls that others
/// do not.
#[test]
fn a_kernel_runs_on_kvm_where_there_is_one() {
    if let Err(error) = riad_vmm::choose_engine(riad_vmm::EngineKind::Kvm) {
        eprintln!("not run: {error}");
        return;
    }
    // mov al, 0x10; out 0xf4, al; jmp $
    let code = [0xb0, 0x10, 0xe6, 0xf4, 0xeb, 0xfe];
    let output = boot(&code, &["--engine", "kvm"], b"");
    assert_eq!(output.status.code(), Some(33), "{output:?}");
}

#[test]
fn a_reset_is_success() {
    // mov dx, 0xcf9; mov al, 6; out dx, al; jmp $
    let code = [0x66, 0xba, 0xf9, 0x0c, 0xb0, 0x06, 0xee, 0xeb, 0xfe];
    let output = boot(&code, &[], b"");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn a_triple_fault_is_told() {
    // lidt [table]; ud2; table: a limit of 0
    let table = BASE + HEADER + 9;
    let mut code = vec![0x0f, 0x01, 0x1d];
    code.extend(table.to_le_bytes());
    code.extend([0x0f, 0x0b, 0, 0, 0, 0, 0, 0]);
    let output = boot(&code, &[], b"");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{stderr}");
    assert!(stderr.contains("triple fault"), "{stderr}");
}

#[test]
fn what_is_typed_arrives_as_fast_as_the_guest_reads() {
    // next: mov dx, 0x3fd; wait: in al, dx; test al, 1; jz wait
    //       mov dx, 0x3f8; in al, dx; out dx, al; cmp al, 'q'; jne next
    //       mov al, 0; out 0xf4, al; jmp $
    let code = [
        0x66, 0xba, 0xfd, 0x03, 0xec, 0xa8, 0x01, 0x74, 0xfb, 0x66, 0xba, 0xf8, 0x03, 0xec, 0xee,
        0x3c, b'q', 0x75, 0xed, 0xb0, 0x00, 0xe6, 0xf4, 0xeb, 0xfe,
    ];
    let mut typed: Vec<u8> = (0..20_000u32).map(|n| b'A' + (n % 26) as u8).collect();
    typed.push(b'q');
    let output = boot(&code, &[], &typed);
    assert_eq!(output.status.code(), Some(1), "{:?}", output.status);
    assert!(output.stdout == typed, "{} of {} bytes", output.stdout.len(), typed.len());
}

#[test]
fn the_end_of_the_input_is_not_the_end_of_the_machine() {
    // Counts for a while, then writes 'x' on the serial port and ends.
    // mov ecx, 20000000; loop $; mov dx, 0x3f8; mov al, 'x'; out dx, al; mov al, 1; out 0xf4, al
    let mut code = vec![0xb9];
    code.extend(20_000_000u32.to_le_bytes());
    code.extend([0xe2, 0xfe, 0x66, 0xba, 0xf8, 0x03, 0xb0, b'x', 0xee, 0xb0, 1, 0xe6, 0xf4]);
    code.extend([0xeb, 0xfe]);
    let output = boot(&code, &[], b"");
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(3), &b"x"[..]), "{output:?}");
}

#[test]
fn without_a_debug_exit_port_writing_to_it_does_nothing() {
    // out 0xf4, al; then a reset
    let code = [0xe6, 0xf4, 0x66, 0xba, 0xf9, 0x0c, 0xb0, 0x06, 0xee, 0xeb, 0xfe];
    let output = boot(&code, &["--no-debug-exit"], b"");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}
