//! A map in order of its keys, in one vector, in place of a `BTreeMap`.
//!
//! The maps of this program are small, or their keys arrive in order: hops, parts of a path,
//! numbers of connections. Each kind of `BTreeMap` takes 2 to 9 KiB (x86-64, for size) of a binary
//! that has 700; this takes far less.

use std::slice;

/// A map with its entries in order of the keys. A lookup is a binary search. An insertion or a
/// removal moves the entries behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VecMap<K, V> {
    rows: Vec<(K, V)>,
}

impl<K, V> Default for VecMap<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K, V> VecMap<K, V> {
    /// Returns an empty map, which takes no memory.
    pub const fn new() -> Self {
        Self { rows: Vec::new() }
    }

    /// Returns the number of entries.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Returns `true` for a map without entries.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Returns keys and values, in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> + ExactSizeIterator + Clone {
        self.rows.iter().map(|(key, value)| (key, value))
    }

    /// Returns the keys, in order.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &K> + Clone {
        self.rows.iter().map(|(key, _)| key)
    }

    /// Returns the values, in order of their keys.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &V> + Clone {
        self.rows.iter().map(|(_, value)| value)
    }

    /// Returns the values for changes, in order of their keys.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.rows.iter_mut().map(|(_, value)| value)
    }

    /// Keeps the entries for which `keeps` returns `true`.
    pub fn retain(&mut self, mut keeps: impl FnMut(&K, &mut V) -> bool) {
        self.rows.retain_mut(|(key, value)| keeps(key, value));
    }
}

impl<K: Ord, V> VecMap<K, V> {
    /// Returns the index of the key, or the index to insert it at.
    fn place(&self, key: &K) -> Result<usize, usize> {
        self.rows.binary_search_by(|(one, _)| one.cmp(key))
    }

    /// Returns the entries from `key` on, in order.
    pub fn starting_at(&self, key: &K) -> impl Iterator<Item = (&K, &V)> {
        let first = self.place(key).unwrap_or_else(|place| place);
        self.rows[first..].iter().map(|(key, value)| (key, value))
    }

    /// Returns the value of a key; `None` without one.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.place(key).ok().map(|place| &self.rows[place].1)
    }

    /// Returns the value of a key for changes; `None` without one.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let place = self.place(key).ok()?;
        Some(&mut self.rows[place].1)
    }

    /// Returns `true` if the key has a value.
    pub fn contains_key(&self, key: &K) -> bool {
        self.place(key).is_ok()
    }

    /// Sets the value of a key and returns the one before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.place(&key) {
            Ok(place) => Some(std::mem::replace(&mut self.rows[place].1, value)),
            Err(place) => {
                self.rows.insert(place, (key, value));
                None
            }
        }
    }

    /// Returns the value of a key, which is that of `make` if it had none.
    pub fn get_or_insert_with(&mut self, key: K, make: impl FnOnce() -> V) -> &mut V {
        let place = self.place(&key).unwrap_or_else(|place| {
            self.rows.insert(place, (key, make()));
            place
        });
        &mut self.rows[place].1
    }

    /// Removes a key and returns its value.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let place = self.place(key).ok()?;
        Some(self.rows.remove(place).1)
    }
}

/// The last of several values of a key counts.
impl<K: Ord, V> FromIterator<(K, V)> for VecMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(rows: I) -> Self {
        let mut map = Self::new();
        for (key, value) in rows {
            map.insert(key, value);
        }
        map
    }
}

impl<K: Ord, V, const N: usize> From<[(K, V); N]> for VecMap<K, V> {
    fn from(rows: [(K, V); N]) -> Self {
        rows.into_iter().collect()
    }
}

impl<'a, K, V> IntoIterator for &'a VecMap<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = std::iter::Map<slice::Iter<'a, (K, V)>, fn(&'a (K, V)) -> (&'a K, &'a V)>;
    fn into_iter(self) -> Self::IntoIter {
        self.rows.iter().map(|(key, value)| (key, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn it_does_what_a_tree_does() {
        let (mut table, mut tree) = (VecMap::new(), BTreeMap::new());
        let mut state = 7_u32;
        for round in 0..5_000_u32 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let key = (state >> 16) as u8 % 40;
            match state >> 30 {
                0 => assert_eq!(table.remove(&key), tree.remove(&key), "round {round}"),
                1 => assert_eq!(
                    table.get_or_insert_with(key, || round),
                    tree.entry(key).or_insert(round)
                ),
                2 => assert_eq!(table.insert(key, round), tree.insert(key, round)),
                _ => assert_eq!(table.get(&key), tree.get(&key)),
            }
            if round % 500 == 0 {
                table.retain(|key, value| (u32::from(*key) + *value) % 3 > 0);
                tree.retain(|key, value| (u32::from(*key) + *value) % 3 > 0);
            }
            assert!(table.iter().eq(tree.iter()), "round {round}");
            assert_eq!(table.contains_key(&key), tree.contains_key(&key));
            assert!(table.starting_at(&key).eq(tree.range(key..)));
        }
        assert!(!table.is_empty());
        assert_eq!(table, tree.into_iter().rev().collect());
    }
}
