//! Small sets and maps that are made once and then only read: sorted, in one piece of memory.
//!
//! Invariant: ascending, each key once; so a set or a map is equal to another exactly when the trees of the standard library
//! with the same content would be, and is written in the same order. There are many grants: a tree allots room for eleven
//! entries however few it has. What has to be changed is collected anew.

use std::borrow::{Borrow, Cow};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Serialize, Serializer};

/// A set; a clone shares its memory.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct FlatSet<T>(Arc<[T]>);

impl<T: Ord> FlatSet<T> {
    /// Whether it is in the set.
    #[must_use]
    pub fn contains<Q: Ord + ?Sized>(&self, item: &Q) -> bool
    where
        T: Borrow<Q>,
    {
        self.0
            .binary_search_by(|known| known.borrow().cmp(item))
            .is_ok()
    }

    /// Whether all of it is in the other.
    #[must_use]
    pub fn is_subset(&self, other: &Self) -> bool {
        self.iter().all(|item| other.contains(item))
    }

    /// What is in both. A set that is within the other is shared.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self
    where
        T: Clone,
    {
        if self.is_subset(other) {
            return self.clone();
        }
        let both = self.iter().filter(|item| other.contains(*item));
        // A part of what is sorted is.
        Self(both.cloned().collect())
    }
}

impl<T> FlatSet<T> {
    /// Its items, ascending.
    pub fn iter(&self) -> std::slice::Iter<'_, T> {
        self.0.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T> Default for FlatSet<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T: Ord> FromIterator<T> for FlatSet<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        items.into_iter().collect::<BTreeSet<T>>().into()
    }
}

impl<T> From<BTreeSet<T>> for FlatSet<T> {
    fn from(items: BTreeSet<T>) -> Self {
        if items.is_empty() {
            return Self::default();
        }
        Self(items.into_iter().collect())
    }
}

impl<T: Ord, const N: usize> From<[T; N]> for FlatSet<T> {
    fn from(items: [T; N]) -> Self {
        items.into_iter().collect()
    }
}

impl<'s, T> IntoIterator for &'s FlatSet<T> {
    type Item = &'s T;
    type IntoIter = std::slice::Iter<'s, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<T: fmt::Debug> fmt::Debug for FlatSet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self).finish()
    }
}

impl<T: Serialize> Serialize for FlatSet<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self)
    }
}

impl<T: JsonSchema> JsonSchema for FlatSet<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        BTreeSet::<T>::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        BTreeSet::<T>::json_schema(generator)
    }
}

/// A map.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct FlatMap<K, V>(Box<[(K, V)]>);

impl<K: Ord, V> FlatMap<K, V> {
    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<&V> {
        let place = self.0.binary_search_by(|(known, _)| known.cmp(key)).ok()?;
        self.0.get(place).map(|(_, value)| value)
    }

    /// Whether the key has a value.
    #[must_use]
    pub fn contains_key(&self, key: &K) -> bool {
        self.get(key).is_some()
    }
}

impl<K, V> FlatMap<K, V> {
    /// Its entries, ascending by key.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.0.iter().map(|(key, value)| (key, value))
    }

    /// Its keys, ascending.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.0.iter().map(|(key, _)| key)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes out what `keep` is false for.
    pub fn retain(&mut self, mut keep: impl FnMut(&K, &V) -> bool) {
        let mut entries = std::mem::take(&mut self.0).into_vec();
        entries.retain(|(key, value)| keep(key, value));
        self.0 = entries.into_boxed_slice();
    }
}

impl<K, V> Default for FlatMap<K, V> {
    fn default() -> Self {
        Self(Box::default())
    }
}

impl<K: Ord, V> FromIterator<(K, V)> for FlatMap<K, V> {
    /// Of two values of a key the later one stays.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let sorted: BTreeMap<K, V> = entries.into_iter().collect();
        Self(sorted.into_iter().collect())
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for FlatMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K: Serialize, V: Serialize> Serialize for FlatMap<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::collection::{btree_map, btree_set, vec};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// It is the set that the standard library's would be.
        #[test]
        fn a_set_is_a_set(
            items in vec(0_u8..20, 0..12), other in btree_set(0_u8..20, 0..12), asked in 0_u8..20,
        ) {
            let tree: BTreeSet<u8> = items.iter().copied().collect();
            let flat: FlatSet<u8> = items.into_iter().collect();
            let flat_other: FlatSet<u8> = other.clone().into();
            prop_assert!(flat.iter().eq(&tree));
            prop_assert_eq!((flat.len(), flat.is_empty()), (tree.len(), tree.is_empty()));
            prop_assert_eq!(flat.contains(&asked), tree.contains(&asked));
            prop_assert_eq!(flat.is_subset(&flat_other), tree.is_subset(&other));
            prop_assert_eq!(flat == flat_other, tree == other);
            let both: BTreeSet<u8> = tree.intersection(&other).copied().collect();
            prop_assert_eq!(flat.intersection(&flat_other), both.into());
            prop_assert_eq!(serde_json::to_string(&flat).unwrap(), serde_json::to_string(&tree).unwrap());
        }

        /// It is the map that the standard library's would be.
        #[test]
        fn a_map_is_a_map(
            entries in vec((0_u8..20, any::<u8>()), 0..12), other in btree_map(0_u8..20, any::<u8>(), 0..12), asked in 0_u8..20,
        ) {
            let mut tree: BTreeMap<u8, u8> = entries.iter().copied().collect();
            let mut flat: FlatMap<u8, u8> = entries.into_iter().collect();
            let flat_other: FlatMap<u8, u8> = other.clone().into_iter().collect();
            prop_assert_eq!(flat == flat_other, tree == other);
            prop_assert_eq!(flat.get(&asked), tree.get(&asked));
            prop_assert_eq!(flat.contains_key(&asked), tree.contains_key(&asked));
            prop_assert_eq!(serde_json::to_string(&flat).unwrap(), serde_json::to_string(&tree).unwrap());
            flat.retain(|key, value| key % 2 == value % 2);
            tree.retain(|key, value| *key % 2 == *value % 2);
            prop_assert!(flat.iter().eq(&tree));
            prop_assert!(flat.keys().eq(tree.keys()));
            prop_assert_eq!((flat.len(), flat.is_empty()), (tree.len(), tree.is_empty()));
        }
    }
}
