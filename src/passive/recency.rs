//! Two lists of slots by the time they were last seen.

/// No slot: the end of a list.
pub(super) const NONE: u32 = u32::MAX;

/// The ends of a list.
#[derive(Clone, Copy, Debug)]
struct Ends {
    newest: u32,
    oldest: u32,
}

/// A slot's neighbours, apart from the flows: a step in the list then touches 8 bytes and not two
/// records.
#[derive(Clone, Copy, Debug)]
struct Links {
    newer: u32,
    older: u32,
}

/// The lists, which share their slots: a slot is in one of them or in none.
#[derive(Debug)]
pub(super) struct Recency {
    links: Vec<Links>,
    lists: [Ends; 2],
}

impl Default for Recency {
    fn default() -> Self {
        let empty = Ends {
            newest: NONE,
            oldest: NONE,
        };
        Self {
            links: Vec::new(),
            lists: [empty; 2],
        }
    }
}

impl Recency {
    /// Makes room for one more slot, which is in no list.
    pub(super) fn grow(&mut self) {
        self.links.push(Links {
            newer: NONE,
            older: NONE,
        });
    }

    /// Returns the slot of a list that was seen last; [`NONE`] if there is none.
    #[inline]
    pub(super) fn newest(&self, list: u8) -> u32 {
        self.lists[usize::from(list)].newest
    }

    /// Returns the slot of a list that was not seen for longest; [`NONE`] if there is none.
    #[inline]
    pub(super) fn oldest(&self, list: u8) -> u32 {
        self.lists[usize::from(list)].oldest
    }

    /// Puts a slot at the front of a list.
    #[inline]
    pub(super) fn link(&mut self, at: u32, list: u8) {
        let list = &mut self.lists[usize::from(list)];
        self.links[at as usize] = Links {
            newer: NONE,
            older: list.newest,
        };
        match list.newest {
            NONE => list.oldest = at,
            newest => self.links[newest as usize].newer = at,
        }
        list.newest = at;
    }

    /// Takes a slot out of the list that it is in.
    #[inline]
    pub(super) fn unlink(&mut self, at: u32, list: u8) {
        let Links { newer, older } = self.links[at as usize];
        let list = &mut self.lists[usize::from(list)];
        match newer {
            NONE => list.newest = older,
            newer => self.links[newer as usize].older = older,
        }
        match older {
            NONE => list.oldest = newer,
            older => self.links[older as usize].newer = newer,
        }
    }
}
