//! Frames that somebody else chose: what is said of them is the same however they are cut, and so is what h2 gets to see.

use super::PREFACE;
use super::frames::Frames;
use crate::clock;

/// What a client sends behind its preface. True if h2 gets to see all of it.
pub fn frames(bytes: &[u8]) -> bool {
    let now = clock::now();
    let judged = |size: usize| {
        let mut seen = [PREFACE, bytes].concat();
        let mut watch = Frames::new();
        let verdict = seen.chunks_mut(size).try_for_each(|piece| watch.feed(piece, || now));
        (verdict, seen)
    };
    let (verdict, seen) = judged(usize::MAX);
    for size in [1, 2, 3, 5, 9, 64] {
        let (cut, seen_in_pieces) = judged(size);
        assert_eq!(cut, verdict, "by {size}: {}", bytes.escape_ascii());
        if verdict.is_ok() {
            assert_eq!(seen_in_pieces, seen, "by {size}: {}", bytes.escape_ascii());
        }
    }
    // Nothing but the kind of a frame changes.
    let changed = seen[PREFACE.len()..].iter().zip(bytes).filter(|(seen, sent)| seen != sent);
    for (seen, sent) in changed {
        assert!(verdict.is_err() || (*seen, *sent) == (0xfb, 7), "{}", bytes.escape_ascii());
    }
    verdict.is_ok()
}
