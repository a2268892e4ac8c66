//! A map that is copied in part: a copy with one entry changed shares all but a small piece with the one it came from.
//!
//! Invariant: a map, once handed out, never changes; what is changed is a copy. Snapshots of many grants are replaced for each
//! change of one, and what that costs must not grow with their number.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

/// Pieces of a map; a change copies one.
const SHARDS: usize = 256;

/// A map in pieces.
#[derive(Clone, Debug)]
pub struct Shards<K, V> {
    shards: Vec<Arc<HashMap<K, V>>>,
    hasher: RandomState,
}

impl<K: Hash + Eq + Clone, V: Clone> Shards<K, V> {
    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<&V> {
        self.shards.get(self.place(key))?.get(key)
    }

    /// All entries, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.shards.iter().flat_map(|shard| shard.iter())
    }

    /// All values, in no order.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.shards.iter().flat_map(|shard| shard.values())
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.len()).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shards.iter().all(|shard| shard.is_empty())
    }

    /// Puts a value, and gives the one that was there.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let place = self.place(&key);
        let shard = self.shards.get_mut(place)?;
        Arc::make_mut(shard).insert(key, value)
    }

    /// Takes a value out.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let place = self.place(key);
        let shard = self.shards.get_mut(place)?;
        // What is not there needs no copy.
        shard
            .contains_key(key)
            .then(|| Arc::make_mut(shard).remove(key))
            .flatten()
    }

    /// The value of a key, made when there is none.
    pub fn entry_or_default(&mut self, key: K) -> Option<&mut V>
    where
        V: Default,
    {
        let place = self.place(&key);
        let shard = self.shards.get_mut(place)?;
        Some(Arc::make_mut(shard).entry(key).or_default())
    }

    /// Gives back the room that growing has left.
    pub fn shrink(&mut self) {
        for shard in &mut self.shards {
            if let Some(shard) = Arc::get_mut(shard) {
                shard.shrink_to_fit();
            }
        }
    }

    /// Always below [`SHARDS`].
    fn place(&self, key: &K) -> usize {
        let hash = self.hasher.hash_one(key) % SHARDS as u64;
        usize::try_from(hash).unwrap_or_default()
    }
}

impl<K, V> Default for Shards<K, V> {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Arc::default()).collect(),
            hasher: RandomState::new(),
        }
    }
}

impl<K: Hash + Eq + Clone, V: Clone> FromIterator<(K, V)> for Shards<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut made = Self::default();
        for (key, value) in entries {
            made.insert(key, value);
        }
        made
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// It is the map that the standard library's would be, and a copy leaves the one it came from as it was.
        #[test]
        fn it_is_a_map_and_copies_do_not_disturb_each_other(
            first in proptest::collection::hash_map(any::<u16>(), any::<u8>(), 0..600),
            changes in proptest::collection::vec((any::<u16>(), proptest::option::of(any::<u8>())), 0..60),
        ) {
            let made: Shards<u16, u8> = first.clone().into_iter().collect();
            let (mut copy, mut expected) = (made.clone(), first.clone());
            for (key, value) in changes {
                let (was, should) = match value {
                    Some(value) => (copy.insert(key, value), expected.insert(key, value)),
                    None => (copy.remove(&key), expected.remove(&key)),
                };
                prop_assert_eq!(was, should);
                prop_assert_eq!(copy.get(&key), expected.get(&key));
            }
            let content = |map: &Shards<u16, u8>| -> HashMap<u16, u8> { map.iter().map(|(key, value)| (*key, *value)).collect() };
            prop_assert_eq!(content(&copy), expected.clone());
            prop_assert_eq!((copy.len(), copy.is_empty()), (expected.len(), expected.is_empty()));
            prop_assert_eq!(content(&made), first);
        }
    }

    #[test]
    fn a_change_copies_one_piece() {
        let made: Shards<u32, u32> = (0..10_000).map(|key| (key, key)).collect();
        let mut copy = made.clone();
        copy.insert(7, 8);
        copy.remove(&123_456);
        let shared = made.shards.iter().zip(&copy.shards);
        let apart = shared.filter(|(a, b)| !Arc::ptr_eq(a, b)).count();
        assert_eq!(apart, 1);
    }
}
