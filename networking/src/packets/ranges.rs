//! Boxes of addresses and numbers that do not overlap: a set of intervals takes no others.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

/// Addresses in the net with a number from the first to the last, both included.
pub(super) type Block = (IpNet, u32, u32);

/// The same addresses and numbers, each in one block.
pub(super) fn disjoint(blocks: impl IntoIterator<Item = Block>) -> BTreeSet<Block> {
    let mut by_net: BTreeMap<IpNet, Vec<(u32, u32)>> = BTreeMap::new();
    for (net, first, last) in blocks {
        by_net.entry(net.trunc()).or_default().push((first, last));
    }
    let mut apart = BTreeSet::new();
    for (net, ranges) in &by_net {
        let wider = by_net.iter().filter(|(other, _)| *other != net && other.contains(net));
        let taken = merged(wider.flat_map(|(_, ranges)| ranges.iter().copied()));
        for range in merged(ranges.iter().copied()) {
            apart.extend(without(range, &taken).into_iter().map(|(first, last)| (*net, first, last)));
        }
    }
    apart
}

/// Ranges in order, of which no two overlap or touch.
pub(super) fn merged(ranges: impl IntoIterator<Item = (u32, u32)>) -> Vec<(u32, u32)> {
    let mut ranges: Vec<_> = ranges.into_iter().collect();
    ranges.sort_unstable();
    let mut merged: Vec<(u32, u32)> = Vec::new();
    for (first, last) in ranges {
        match merged.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = (*end).max(last),
            _ => merged.push((first, last)),
        }
    }
    merged
}

/// What is left of a range; `taken` is merged.
fn without((first, last): (u32, u32), taken: &[(u32, u32)]) -> Vec<(u32, u32)> {
    let mut left = Vec::new();
    let mut next = first;
    for &(from, to) in taken.iter().filter(|&&(from, to)| to >= first && from <= last) {
        if from > next {
            left.push((next, from - 1));
        }
        next = to.saturating_add(1);
    }
    if next <= last {
        left.push((next, last));
    }
    left
}

/// Nets of which none contains another.
pub(super) fn widest(nets: impl IntoIterator<Item = IpNet>) -> BTreeSet<IpNet> {
    let nets: BTreeSet<IpNet> = nets.into_iter().map(|net| net.trunc()).collect();
    nets.iter()
        .filter(|net| !nets.iter().any(|other| other != *net && other.contains(*net)))
        .copied()
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn holds<'a>(blocks: impl IntoIterator<Item = &'a Block>, address: u8, number: u32) -> usize {
        let address = std::net::IpAddr::from([10, 0, 0, address]);
        blocks
            .into_iter()
            .filter(|(net, first, last)| net.contains(&address) && (*first..=*last).contains(&number))
            .count()
    }

    fn block() -> impl Strategy<Value = Block> {
        (any::<u8>(), 24..=32_u8, 0..40_u32, 0..12_u32).prop_map(|(address, len, first, more)| {
            (IpNet::new([10, 0, 0, address].into(), len).unwrap(), first, first + more)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn blocks_come_apart_and_lose_nothing(blocks in proptest::collection::vec(block(), 0..12)) {
            let apart = disjoint(blocks.iter().copied());
            for address in 0..=255 {
                for number in 0..56 {
                    let wanted = holds(&blocks, address, number).min(1);
                    prop_assert_eq!(holds(&apart, address, number), wanted);
                }
            }
        }
    }

    #[test]
    fn a_net_in_another_goes() {
        let nets = ["10.0.0.0/8", "10.1.0.0/16", "11.0.0.0/8", "10.1.2.3/32"].map(|net| net.parse().unwrap());
        assert_eq!(widest(nets).into_iter().collect::<Vec<_>>(), [nets[0], nets[2]]);
    }
}
