//! Follows a linked list of the image that may be damaged into a cycle.

/// Position in a list; notices a cycle after at most twice its length, without memory (Brent's algorithm).
#[derive(Copy, Clone, Debug)]
pub struct Chain {
    current: u64,
    mark: u64,
    steps: u64,
    until_next_mark: u64,
}

impl Chain {
    /// Starts at `head`; 0 is the end of a list.
    #[must_use]
    pub const fn new(head: u64) -> Self {
        Self { current: head, mark: head, steps: 0, until_next_mark: 1 }
    }

    /// Address of the current element; `None` at the end.
    #[must_use]
    pub const fn current(&self) -> Option<u64> {
        if self.current == 0 { None } else { Some(self.current) }
    }

    /// Goes on to `next`. `false`: the list came back to where it was.
    pub fn advance(&mut self, next: u64) -> bool {
        self.current = next;
        if next != 0 && next == self.mark {
            return false;
        }
        self.steps += 1;
        if self.steps == self.until_next_mark {
            self.steps = 0;
            self.until_next_mark *= 2;
            self.mark = next;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Walks a list given as `next[i]`, elements being 1-based.
    fn walk(next: &[u64]) -> (usize, bool) {
        let mut chain = Chain::new(1);
        let mut visited = 0;
        while let Some(at) = chain.current() {
            visited += 1;
            if !chain.advance(next[at as usize - 1]) {
                return (visited, true);
            }
        }
        (visited, false)
    }

    #[test]
    fn ends_and_cycles() {
        assert_eq!(walk(&[2, 3, 0]), (3, false));
        assert!(walk(&[1]).1);
        let (visited, cycle) = walk(&[2, 3, 4, 5, 3]);
        assert!(cycle && visited < 20);
    }
}
