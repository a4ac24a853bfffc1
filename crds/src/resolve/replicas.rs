//! How the pods of a service are shared out over its groups.

use std::{cmp::Reverse, collections::BTreeMap};

use crate::service::ServiceSpec;

/// The number of pods of each group, by its name.
///
/// Without `spec.replicas` each group has its own number. Otherwise the total is shared out in proportion to
/// those numbers by the method of the largest remainder (ties go to the group named first), with at least one
/// pod for each group; 0 stops all of them.
pub fn replicas_of(spec: &ServiceSpec) -> BTreeMap<String, u32> {
    let groups = &spec.replica_groups;
    let shares: Vec<u32> = match spec.replicas {
        None => groups.iter().map(|group| group.replicas).collect(),
        Some(0) => vec![0; groups.len()],
        Some(total) => {
            share_out(total, &groups.iter().map(|group| group.replicas.max(1)).collect::<Vec<_>>())
        }
    };
    groups.iter().map(|group| group.name.clone()).zip(shares).collect()
}

fn share_out(total: u32, weights: &[u32]) -> Vec<u32> {
    let sum: u64 = weights.iter().copied().map(u64::from).sum::<u64>().max(1);
    let quota = |weight: u32| u64::from(total) * u64::from(weight);
    let mut shares: Vec<u32> =
        weights.iter().map(|&w| u32::try_from(quota(w) / sum).unwrap_or(total)).collect();
    let mut by_remainder: Vec<usize> = (0..weights.len()).collect();
    by_remainder.sort_by_key(|&i| Reverse(quota(weights[i]) % sum));
    let left = total.saturating_sub(shares.iter().sum());
    by_remainder.iter().take(left as usize).for_each(|&i| shares[i] += 1);
    while let Some(empty) = shares.iter().position(|&share| share == 0) {
        shares[empty] = 1;
        // The largest group gives its last pod away; where none has two, the total was below the number of
        // groups.
        if let Some(largest) = (0..shares.len()).rev().max_by_key(|&i| shares[i]).filter(|&i| shares[i] > 1) {
            shares[largest] -= 1;
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_kept_and_no_group_is_empty() {
        for (total, weights, shares) in [
            (3, vec![2, 1], vec![2, 1]),
            (10, vec![2, 1], vec![7, 3]),
            (4, vec![1, 1, 1], vec![2, 1, 1]),
            (3, vec![100, 1, 1], vec![1, 1, 1]),
            (5, vec![100, 1, 1], vec![3, 1, 1]),
            (1, vec![7], vec![1]),
            (1000, vec![1, 999], vec![1, 999]),
            (2, vec![1, 1, 1], vec![1, 1, 1]),
        ] {
            assert_eq!(share_out(total, &weights), shares, "{total} over {weights:?}");
        }
    }

    #[test]
    fn every_small_case_adds_up() {
        for total in 3..60 {
            for (a, b, c) in (1..8).flat_map(|a| (1..8).flat_map(move |b| (1..8).map(move |c| (a, b, c)))) {
                let shares = share_out(total, &[a, b, c]);
                assert_eq!(shares.iter().sum::<u32>(), total, "{total} over {a} {b} {c}: {shares:?}");
                assert!(shares.iter().all(|&share| share > 0));
            }
        }
    }
}
