use super::*;

#[test]
fn a_file_ends_where_it_was_to() {
    let frame = Block { kind: BlockKind::Frame, bytes: &[1; 100] };
    let end = Block { kind: BlockKind::End { dropped: 0 }, bytes: &[2; 60] };
    for (most_frames, most_bytes, expected) in
        [(2, u64::MAX, 2), (u64::MAX, 463, 3), (u64::MAX, 464, 4), (u64::MAX, 1, 0)]
    {
        let out = BufWriter::new(Vec::new());
        let mut writing =
            Writing { out, frames: 0, bytes: 0, most_frames, most_bytes, is_full: false };
        for _ in 0..9 {
            writing.put(&frame).unwrap();
        }
        assert!(writing.is_full);
        writing.put(&end).unwrap();
        assert_eq!(writing.frames, expected);
        let written = writing.out.into_inner().unwrap();
        assert_eq!(written.len() as u64, expected * 100 + 60);
    }
}

#[test]
fn what_became_of_it_is_told() {
    assert_eq!(told(1, Some(0)), "1 frame captured");
    assert!(told(7, Some(3)).starts_with("7 frames captured; 3 were left out"));
    assert!(told(0, None).ends_with("process ended"));
}

#[test]
fn durations_are_seconds() {
    assert_eq!(duration("0.5"), Ok(Duration::from_millis(500)));
    for wrong in ["", "0", "-1", "10s", "nan", "inf"] {
        assert!(duration(wrong).unwrap_err().contains("seconds"), "{wrong}");
    }
}
