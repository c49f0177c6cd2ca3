//! Keys with values, in order, in one stretch of memory: what stands where a `BTreeMap` could.
//!
//! Ours are small, or have keys that come in order: hops, parts of a path, numbers of connections. Code for a tree is made
//! anew for each kind of key and value, at 2 to 9 KiB (x86-64, for size) of a binary that has 700; this is far less.

use std::slice;

/// A map with its entries in order of the keys. Finding costs a binary search, and what is not put in at its end or taken
/// from there moves what is behind it.
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
    /// An empty one, without memory.
    pub const fn new() -> Self {
        Self { rows: Vec::new() }
    }

    /// How many entries it has.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether it has no entry.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Keys and values, in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> + ExactSizeIterator + Clone {
        self.rows.iter().map(|(key, value)| (key, value))
    }

    /// The keys, in order.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &K> + Clone {
        self.rows.iter().map(|(key, _)| key)
    }

    /// The values, in order of their keys.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &V> + Clone {
        self.rows.iter().map(|(_, value)| value)
    }

    /// The values, to be changed.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.rows.iter_mut().map(|(_, value)| value)
    }

    /// Keeps what `keeps` says.
    pub fn retain(&mut self, mut keeps: impl FnMut(&K, &mut V) -> bool) {
        self.rows.retain_mut(|(key, value)| keeps(key, value));
    }
}

impl<K: Ord, V> VecMap<K, V> {
    /// Where the key is, or where it would have to be.
    fn place(&self, key: &K) -> Result<usize, usize> {
        self.rows.binary_search_by(|(one, _)| one.cmp(key))
    }

    /// Keys from `key` on with their values, in order.
    pub fn starting_at(&self, key: &K) -> impl Iterator<Item = (&K, &V)> {
        let first = self.place(key).unwrap_or_else(|place| place);
        self.rows[first..].iter().map(|(key, value)| (key, value))
    }

    /// The value of a key.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.place(key).ok().map(|place| &self.rows[place].1)
    }

    /// The value of a key, to be changed.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let place = self.place(key).ok()?;
        Some(&mut self.rows[place].1)
    }

    /// Whether the key has a value.
    pub fn contains_key(&self, key: &K) -> bool {
        self.place(key).is_ok()
    }

    /// Gives a key its value; the one it had before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.place(&key) {
            Ok(place) => Some(std::mem::replace(&mut self.rows[place].1, value)),
            Err(place) => {
                self.rows.insert(place, (key, value));
                None
            }
        }
    }

    /// The value of a key, which gets that of `make` if it has none.
    pub fn get_or_insert_with(&mut self, key: K, make: impl FnOnce() -> V) -> &mut V {
        let place = self.place(&key).unwrap_or_else(|place| {
            self.rows.insert(place, (key, make()));
            place
        });
        &mut self.rows[place].1
    }

    /// Takes a key and its value out.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let place = self.place(key).ok()?;
        Some(self.rows.remove(place).1)
    }
}

/// Of values of the same key the last counts.
impl<K: Ord, V> FromIterator<(K, V)> for VecMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(rows: I) -> Self {
        let mut table = Self::new();
        for (key, value) in rows {
            table.insert(key, value);
        }
        table
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
