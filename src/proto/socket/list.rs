//! A list of raw values; up to four need no allocation.
//!
//! Not `SmallVec`, which is invariant: arguments must be usable with a shorter lifetime.

use serde_json::value::RawValue;

const INLINE: usize = 4;

/// Raw values in order.
#[derive(Debug, Clone, Default)]
pub(super) struct RawList<'a> {
    inline: [Option<&'a RawValue>; INLINE],
    more: Vec<&'a RawValue>,
}

impl<'a> RawList<'a> {
    pub(super) fn push(&mut self, value: &'a RawValue) {
        match self.inline.iter_mut().find(|slot| slot.is_none()) {
            Some(slot) => *slot = Some(value),
            None => self.more.push(value),
        }
    }

    pub(super) fn pop(&mut self) -> Option<&'a RawValue> {
        self.more.pop().or_else(|| self.inline.iter_mut().rfind(|slot| slot.is_some())?.take())
    }

    pub(super) fn len(&self) -> usize {
        self.inline.iter().flatten().count() + self.more.len()
    }

    pub(super) fn get(&self, index: usize) -> Option<&'a RawValue> {
        match self.inline.get(index) {
            Some(slot) => *slot,
            None => self.more.get(index - INLINE).copied(),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &'a RawValue> {
        self.inline.iter().flatten().chain(&self.more).copied()
    }
}

impl<'a> FromIterator<&'a RawValue> for RawList<'a> {
    fn from_iter<I: IntoIterator<Item = &'a RawValue>>(values: I) -> Self {
        let mut list = Self::default();
        values.into_iter().for_each(|value| list.push(value));
        list
    }
}
