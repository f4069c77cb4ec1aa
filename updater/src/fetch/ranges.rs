//! Which ranges of the image file are asked for: pure arithmetic (FET-21).

/// A stretch of bytes of the image file, never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// The first byte.
    pub start: u64,
    /// Behind the last byte.
    pub end: u64,
}

impl Span {
    /// `len` bytes from `start`.
    pub fn new(start: u64, len: u64) -> Self {
        Span { start, end: start + len }
    }

    /// How many bytes.
    pub fn len(self) -> u64 {
        self.end - self.start
    }

    /// True for none.
    pub fn is_empty(self) -> bool {
        self.end <= self.start
    }
}

/// The longest gap that is read through instead of asking twice.
pub const LONGEST_GAP: u64 = 64 * 1024;
/// Of what is wanted, at most one part in so many more is fetched to close gaps.
pub const GAP_SHARE: u64 = 100;

/// Joins what lies close together: a request costs a round trip, a small gap only its bytes. Touching spans are always joined; then the
/// smallest gaps are closed, as long as none is longer than [`LONGEST_GAP`] and all together add no more than one part in [`GAP_SHARE`] to
/// what is wanted.
///
/// `wanted` ascends and does not overlap; so does the result, which covers it.
pub fn coalesce(wanted: &[Span]) -> Vec<Span> {
    let asked: u64 = wanted.iter().map(|span| span.len()).sum();
    let mut left = asked / GAP_SHARE;
    let mut gaps: Vec<(u64, usize)> = wanted
        .windows(2)
        .enumerate()
        .map(|(at, pair)| (pair[1].start - pair[0].end, at))
        .filter(|(gap, _)| *gap <= LONGEST_GAP)
        .collect();
    gaps.sort_unstable();
    let mut closed = vec![false; wanted.len()];
    for (gap, at) in gaps {
        if gap > left {
            break;
        }
        left -= gap;
        closed[at] = true;
    }
    let mut joined: Vec<Span> = Vec::new();
    for (at, span) in wanted.iter().enumerate() {
        match joined.last_mut() {
            Some(last) if closed[at - 1] => last.end = span.end,
            _ => joined.push(*span),
        }
    }
    joined
}

/// Cuts spans into pieces of at most `most` bytes: what one request asks for, and one buffer holds.
pub fn pieces(spans: &[Span], most: u64) -> Vec<Span> {
    let mut pieces = Vec::new();
    for span in spans {
        let mut start = span.start;
        while start < span.end {
            let end = span.end.min(start + most);
            pieces.push(Span { start, end });
            start = end;
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Ascending spans from pairs of gap and length.
    fn spans(steps: &[(u64, u64)]) -> Vec<Span> {
        let mut at = 0;
        let mut out = Vec::new();
        for (gap, len) in steps {
            let span = Span::new(at + gap, *len);
            at = span.end;
            out.push(span);
        }
        out
    }

    #[test]
    fn fet_21_neighbours_are_one_request_and_small_gaps_are_read_through() {
        let wanted = spans(&[(0, 100_000), (0, 50_000), (2_000, 50_000), (90_000, 1_000)]);
        assert_eq!(coalesce(&wanted), [Span { start: 0, end: 202_000 }, Span { start: 292_000, end: 293_000 }]);
    }

    #[test]
    fn fet_21_many_gaps_do_not_add_up_to_much() {
        // Each gap is as long as what is wanted between them.
        let wanted = spans(&[(4096, 4096); 100]);
        let fetched: u64 = coalesce(&wanted).iter().map(|span| span.len()).sum();
        assert!(fetched > 409_600 && fetched <= 409_600 + 409_600 / GAP_SHARE, "{fetched}");
    }

    #[test]
    fn nothing_wanted_is_nothing_asked() {
        assert_eq!(coalesce(&[]), []);
        assert_eq!(pieces(&[], 7), []);
    }

    proptest! {
        /// Every wanted byte is asked for exactly once, in order; beside them only short gaps between two of them, and few.
        #[test]
        fn fet_21_all_that_is_wanted_is_asked_for_once_in_order_and_little_else(
            steps in prop::collection::vec((0_u64..200_000, 1_u64..300_000), 0..60), most in 1_u64..200_000,
        ) {
            let wanted = spans(&steps);
            let cut = pieces(&coalesce(&wanted), most);
            prop_assert!(cut.iter().all(|span| !span.is_empty() && span.len() <= most));
            prop_assert!(cut.windows(2).all(|pair| pair[0].end <= pair[1].start), "no byte twice");
            let asked: u64 = wanted.iter().map(|span| span.len()).sum();
            let fetched: u64 = cut.iter().map(|span| span.len()).sum();
            prop_assert!(fetched <= asked + asked / GAP_SHARE);
            // What of each wanted span is asked for is all of it.
            let common = |a: &Span, b: &Span| a.end.min(b.end).saturating_sub(a.start.max(b.start));
            for span in &wanted {
                prop_assert_eq!(cut.iter().map(|piece| common(piece, span)).sum::<u64>(), span.len());
            }
            // And of each gap nothing, or all of one that is short; nothing before the first span and behind the last one.
            for pair in wanted.windows(2) {
                let gap = Span { start: pair[0].end, end: pair[1].start };
                let through: u64 = cut.iter().map(|piece| common(piece, &gap)).sum();
                prop_assert!(through == 0 || through == gap.len() && through <= LONGEST_GAP);
            }
            prop_assert_eq!(cut.first().map(|span| span.start), wanted.first().map(|span| span.start));
            prop_assert_eq!(cut.last().map(|span| span.end), wanted.last().map(|span| span.end));
        }

        /// As few requests as so many bytes can save: no gap is left that is shorter than one that is closed.
        #[test]
        fn fet_21_the_shortest_gaps_are_closed_first(steps in prop::collection::vec((0_u64..100_000, 1_u64..300_000), 0..60)) {
            let wanted = spans(&steps);
            let joined = coalesce(&wanted);
            let gaps = wanted.windows(2).map(|pair| (pair[1].start - pair[0].end, joined.iter().any(|j| j.start <= pair[0].start && pair[1].end <= j.end)));
            let (closed, open): (Vec<_>, Vec<_>) = gaps.partition(|(_, closed)| *closed);
            let longest = closed.iter().map(|(gap, _)| *gap).max().unwrap_or(0);
            prop_assert!(open.iter().all(|(gap, _)| *gap >= longest));
            prop_assert!(open.iter().all(|(gap, _)| *gap > 0), "neighbours are one");
        }
    }
}
