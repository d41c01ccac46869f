//! Owns the room that what the kernel says is read into. A thread's is used again and again: taking so much of it from the
//! system and giving it back for each question costs as much as a small change in the kernel does.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};

/// The longest that is told at once, in bytes (`netlink_dump` in the kernel takes 32 KiB at most).
const LENGTH: usize = 64 << 10;

thread_local! {
    /// What the thread does not use now.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// 64 KiB to read into. What they hold is what was there before.
pub(crate) struct Buffer(Vec<u8>);

impl Buffer {
    /// The thread's own, or more where that is in use.
    pub(crate) fn take() -> Self {
        let mut bytes = SPARE.take();
        bytes.resize(LENGTH, 0);
        Self(bytes)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // A thread that ends has no place for it any more.
        let _ = SPARE.try_with(|spare| spare.set(std::mem::take(&mut self.0)));
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_in_use_is_nobody_elses() {
        let mut one = Buffer::take();
        one[0] = 1;
        let mut other = Buffer::take();
        other[0] = 2;
        assert_eq!((one[0], other[0], one.len(), other.len()), (1, 2, LENGTH, LENGTH));
        drop((one, other));
        assert_eq!(Buffer::take().len(), LENGTH);
    }
}
