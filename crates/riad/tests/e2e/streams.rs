//! Standard streams: pipes in, pipes out.

use sha2::{Digest, Sha256};

use crate::harness::{end_to_end, pipe, run, text};

/// Bytes that do not repeat (xorshift64).
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut words = Vec::with_capacity(length);
    while words.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        words.extend(state.to_le_bytes());
    }
    words.truncate(length);
    words
}

#[test]
fn output_and_errors_are_separate() {
    end_to_end!();
    let output = run(&[], &["sh", "-c", "echo out; echo err >&2"]);
    assert_eq!((text(&output.stdout), text(&output.stderr)), ("out\n".into(), "err\n".into()));
}

#[test]
fn a_pipe_computes() {
    end_to_end!();
    let output = pipe(&["bc"], b"2+2\n2^100\n".to_vec());
    assert_eq!(text(&output.stdout), "4\n1267650600228229401496703205376\n");
}

#[test]
fn a_shell_reads_its_script_from_a_pipe() {
    end_to_end!();
    let output = pipe(&["sh"], b"cd /usr\npwd\nexit 3\n".to_vec());
    assert_eq!((text(&output.stdout), output.status.code()), ("/usr\n".into(), Some(3)));
}

#[test]
fn sixty_four_mebibytes_go_in_and_come_out_intact() {
    end_to_end!();
    let input = noise(64 << 20);
    let expected = Sha256::digest(&input);
    let output = pipe(&["cat"], input);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(output.stdout.len(), 64 << 20);
    assert_eq!(Sha256::digest(&output.stdout), expected);
}

#[test]
fn the_guest_sees_what_was_sent() {
    end_to_end!();
    let input = noise(3_000_001);
    let expected: String =
        Sha256::digest(&input).iter().map(|byte| format!("{byte:02x}")).collect();
    let output = pipe(&["sha256sum"], input);
    assert_eq!(text(&output.stdout), format!("{expected}  -\n"));
}

#[test]
fn a_command_that_stops_reading_ends_the_pipe() {
    end_to_end!();
    let output = pipe(&["head", "-c", "5"], b"hello".repeat(1 << 20));
    assert_eq!((text(&output.stdout), output.status.code()), ("hello".into(), Some(0)));
}

#[test]
fn no_input_is_an_input_at_its_end() {
    end_to_end!();
    let output = run(&[], &["wc", "-c"]);
    assert_eq!(text(&output.stdout), "0\n");
}
