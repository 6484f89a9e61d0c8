//! Values by number, numbers never meant twice.

/// A key: which place, and which of the values that were there.
pub(crate) type Key = u64;

/// Values in places that are used again. A key of a value that is gone finds nothing.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    places: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
}

impl<T> Slab<T> {
    pub(crate) const fn new() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }

    pub(crate) fn insert(&mut self, value: T) -> Key {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push((0, None));
            u32::try_from(self.places.len() - 1).expect("fewer than 2^32 values")
        });
        let (generation, held) = &mut self.places[place as usize];
        *held = Some(value);
        u64::from(*generation) << 32 | u64::from(place)
    }

    fn place(key: Key) -> (u32, usize) {
        let generation = u32::try_from(key >> 32).expect("32 bits");
        (generation, usize::try_from(key & u64::from(u32::MAX)).expect("32 bits"))
    }

    pub(crate) fn get(&self, key: Key) -> Option<&T> {
        let (generation, place) = Self::place(key);
        self.places.get(place).filter(|(now, _)| *now == generation)?.1.as_ref()
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let (generation, place) = Self::place(key);
        self.places.get_mut(place).filter(|(now, _)| *now == generation)?.1.as_mut()
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let (generation, place) = Self::place(key);
        let (now, held) = self.places.get_mut(place).filter(|(now, _)| *now == generation)?;
        let value = held.take()?;
        *now = now.wrapping_add(1);
        self.free.push(u32::try_from(place).expect("32 bits"));
        Some(value)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        let key = |place: usize, generation: u32| u64::from(generation) << 32 | place as u64;
        let each = self.places.iter().enumerate();
        each.filter_map(move |(place, (generation, held))| Some((key(place, *generation), held.as_ref()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_a_value_that_is_gone_finds_nothing() {
        let mut slab = Slab::new();
        let (one, two) = (slab.insert('a'), slab.insert('b'));
        assert_eq!(slab.remove(one), Some('a'));
        let three = slab.insert('c');
        assert_eq!((slab.get(one), slab.get(two), slab.get(three)), (None, Some(&'b'), Some(&'c')));
        assert_eq!((slab.remove(one), slab.free.len(), slab.iter().count()), (None, 0, 2));
        if let Some(value) = slab.get_mut(two) {
            *value = 'd';
        }
        assert_eq!(slab.get(two), Some(&'d'));
    }
}
