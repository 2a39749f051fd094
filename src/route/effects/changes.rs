//! Which settings a text may leave changed, by name.

/// Names that one text may have. With more, its session keeps the server.
const MAX_NAMES: usize = 4;

/// A setting's name: where it stands in the text, or what a form of its own (TIME ZONE, NAMES …) stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    Written { start: u32, end: u32 },
    Known(&'static str),
}

/// The settings that a text may change for longer than its transaction. Without the text it says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Changes {
    names: [Option<Name>; MAX_NAMES],
    /// RESET ALL, DISCARD ALL.
    all: bool,
}

impl Changes {
    pub(super) const NONE: Changes = Changes {
        names: [None; MAX_NAMES],
        all: false,
    };

    #[inline]
    pub fn is_none(&self) -> bool {
        self.names[0].is_none() && !self.all
    }

    /// Every setting goes back to what the session was started with.
    pub fn resets_all(&self) -> bool {
        self.all
    }

    pub(super) fn reset_all(&mut self) {
        self.all = true;
    }

    /// False when there is no room for another name.
    #[must_use]
    pub(super) fn add_known(&mut self, name: &'static str) -> bool {
        self.add(Name::Known(name))
    }

    /// `name` must be a part of `text`. False when there is no room for another.
    #[must_use]
    pub(super) fn add_written(&mut self, name: &[u8], text: &[u8]) -> bool {
        let start = (name.as_ptr() as usize).wrapping_sub(text.as_ptr() as usize);
        let Ok(start) = u32::try_from(start) else {
            return false;
        };
        let Some(end) = u32::try_from(name.len())
            .ok()
            .and_then(|len| start.checked_add(len))
        else {
            return false;
        };
        self.add(Name::Written { start, end })
    }

    fn add(&mut self, name: Name) -> bool {
        let free = self.names.iter_mut().find(|slot| slot.is_none());
        let has_room = free.is_some();
        if let Some(slot) = free {
            *slot = Some(name);
        }
        has_room
    }

    /// The names as `text` has them: perhaps quoted, dotted with spaces between, in any case.
    pub fn names<'t>(&self, text: &'t [u8]) -> impl Iterator<Item = &'t [u8]> {
        let names = self.names.into_iter().flatten();
        names.map(move |name| match name {
            Name::Known(known) => known.as_bytes(),
            Name::Written { start, end } => {
                text.get(start as usize..end as usize).unwrap_or_default()
            }
        })
    }
}
