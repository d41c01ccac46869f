//! Tests of `ruleset`.

use super::*;

#[test]
fn comments_cannot_leave_their_quotes() {
    let comment = Comment::new("a\" drop\n}\\ é");
    assert_eq!(comment.as_str(), "a? drop?}? ?");
    assert_eq!(Comment::new(&"x".repeat(500)).as_str().len(), 120);
}

#[test]
fn generations_wrap_and_never_become_zero() {
    let last = Generation::from_mark(0xfffd_0000).unwrap();
    assert_eq!(last.next(), Generation::FIRST);
    assert_eq!(Generation::from_mark(Generation::LOCAL.mark()), None);
    assert_eq!(Generation::from_mark(Generation::OBSERVED.mark()), None);
    assert_eq!(Generation::from_mark(0), None);
    assert_eq!(Generation::from_mark(Generation::FIRST.mark()), Some(Generation::FIRST));
}
