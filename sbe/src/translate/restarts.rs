//! [`Restarts`]: where emitted code can be left by a fault of the host.

/// The code of one guest instruction, which can begin anew wherever it has faulted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restart {
    /// Arena offset at which it begins; it goes on to that of the next.
    pub code: u32,
    /// Offset of the instruction in the page; `None` behind the last one of a fragment.
    pub offset: Option<u16>,
}

/// All code that accesses windows, in the order in which it lies in the arena.
#[derive(Default)]
pub struct Restarts {
    restarts: Vec<Restart>,
}

impl Restarts {
    /// Adds those of a fragment that lies behind all others.
    pub fn add(&mut self, fragment: &[Restart]) {
        self.restarts.extend(fragment);
    }

    /// All code is gone.
    pub fn clear(&mut self) {
        self.restarts.clear();
    }

    /// The instruction whose code has the byte at arena offset `at`: where that begins, and the instruction's offset in its
    /// page.
    pub fn find(&self, at: u32) -> Option<(u32, u32)> {
        let behind = self.restarts.partition_point(|restart| restart.code <= at);
        let restart = self.restarts[..behind].last()?;
        Some((restart.code, restart.offset?.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_belongs_to_the_instruction_that_begins_before_it() {
        let restart = |code, offset| Restart { code, offset };
        let mut restarts = Restarts::default();
        assert_eq!(restarts.find(0), None);
        restarts.add(&[
            restart(10, Some(3)),
            restart(15, Some(5)),
            restart(20, None),
        ]);
        restarts.add(&[restart(40, Some(7)), restart(45, None)]);
        let found = [9, 10, 14, 15, 19, 20, 39, 40, 44, 45].map(|at| restarts.find(at));
        let (first, second, third) = (Some((10, 3)), Some((15, 5)), Some((40, 7)));
        let expected = [
            None, first, first, second, second, None, None, third, third, None,
        ];
        assert_eq!(found, expected);
    }
}
