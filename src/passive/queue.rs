//! A first-in, first-out queue whose oldest entry lies within its owner: with one entry, as most
//! have, it needs no other memory.

use std::collections::VecDeque;

/// The queue; nothing is in `rest` while there is no `first`.
#[derive(Clone, Debug)]
#[repr(C)]
pub(super) struct Queue<T> {
    first: Option<T>,
    rest: Option<Box<Rest<T>>>,
}

/// The later entries, oldest first.
#[derive(Clone, Debug)]
struct Rest<T>(VecDeque<T>);

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            first: None,
            rest: None,
        }
    }
}

impl<T> Queue<T> {
    /// Returns the oldest entry.
    #[inline]
    pub(super) fn front(&self) -> Option<&T> {
        self.first.as_ref()
    }

    /// Returns the newest entry.
    #[inline]
    pub(super) fn back(&self) -> Option<&T> {
        let rest = self.rest.as_ref().and_then(|rest| rest.0.back());
        rest.or(self.first.as_ref())
    }

    /// Returns how many entries there are.
    #[inline]
    pub(super) fn len(&self) -> usize {
        let rest = self.rest.as_ref().map_or(0, |rest| rest.0.len());
        usize::from(self.first.is_some()) + rest
    }

    /// Adds an entry behind the others.
    #[inline]
    pub(super) fn push_back(&mut self, entry: T) {
        match self.first {
            None => self.first = Some(entry),
            Some(_) => self.push_behind(entry),
        }
    }

    #[inline(never)]
    fn push_behind(&mut self, entry: T) {
        let new = || Box::new(Rest(VecDeque::new()));
        self.rest.get_or_insert_with(new).0.push_back(entry);
    }

    /// Takes the oldest entry off.
    #[inline]
    pub(super) fn pop_front(&mut self) -> Option<T> {
        let next = self.rest.as_mut().and_then(|rest| rest.0.pop_front());
        std::mem::replace(&mut self.first, next)
    }

    /// Takes the newest entry off.
    pub(super) fn pop_back(&mut self) -> Option<T> {
        let rest = self.rest.as_mut().and_then(|rest| rest.0.pop_back());
        rest.or_else(|| self.first.take())
    }

    /// Lets all entries be changed, oldest first.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        let rest = self.rest.as_mut().map(|rest| rest.0.iter_mut());
        self.first.iter_mut().chain(rest.into_iter().flatten())
    }

    /// Removes all entries.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Gives back the memory that holds nothing.
    pub(super) fn shrink(&mut self) {
        if self.rest.as_ref().is_some_and(|rest| rest.0.is_empty()) {
            self.rest = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn it_does_what_a_vec_deque_does() {
        let mut random = Random::new(1);
        let (mut queue, mut right) = (Queue::default(), VecDeque::new());
        for number in 0..20_000_u64 {
            match random.below(10) {
                0..=3 => {
                    queue.push_back(number);
                    right.push_back(number);
                }
                4..=6 => assert_eq!(queue.pop_front(), right.pop_front()),
                7 => queue.shrink(),
                8 => assert_eq!(queue.pop_back(), right.pop_back()),
                _ if number % 50 == 0 => {
                    queue.clear();
                    right.clear();
                }
                _ => {
                    queue.iter_mut().for_each(|entry| *entry += 1);
                    right.iter_mut().for_each(|entry| *entry += 1);
                }
            }
            assert_eq!(queue.front(), right.front());
            assert_eq!(queue.back(), right.back());
            assert_eq!(queue.len(), right.len());
        }
    }
}
