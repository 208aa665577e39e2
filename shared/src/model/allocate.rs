//! Splitting an amount over parts without losing a unit.

/// Splits `total` minor units over `weights` in proportion, by the largest remainder, so that the
/// parts always sum to `total`. Ties go to the earlier part. With no weight at all, everything
/// falls on the first part; with no parts, the result is empty.
pub fn allocate(total: i64, weights: &[i64]) -> Vec<i64> {
    let sum: i128 = weights.iter().map(|w| i128::from(*w)).sum();
    if weights.is_empty() {
        return Vec::new();
    }
    if sum == 0 {
        let mut parts = vec![0; weights.len()];
        parts[0] = total;
        return parts;
    }
    let mut parts = Vec::with_capacity(weights.len());
    let mut remainders = Vec::with_capacity(weights.len());
    for (index, weight) in weights.iter().enumerate() {
        let product = i128::from(total) * i128::from(*weight);
        parts.push(product.div_euclid(sum.abs()) as i64 * sum.signum() as i64);
        remainders.push((product.rem_euclid(sum.abs()), index));
    }
    // Each floor is short by less than one unit, so the rest is smaller than the number of parts.
    let mut rest = total - parts.iter().sum::<i64>();
    remainders.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    let step = rest.signum();
    for (_, index) in remainders.iter().cycle() {
        if rest == 0 {
            break;
        }
        parts[*index] += step;
        rest -= step;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_cent_is_never_lost() {
        assert_eq!(allocate(100, &[1, 1, 1]), [34, 33, 33]);
        assert_eq!(allocate(5, &[0, 0]), [5, 0]);
        assert_eq!(allocate(-100, &[1, 1, 1]).iter().sum::<i64>(), -100);
        assert_eq!(allocate(7, &[]), [0; 0]);
    }

    proptest! {
        #[test]
        fn parts_sum_to_the_whole_and_stay_within_one_unit(
            total in -1_000_000_000_i64..1_000_000_000,
            weights in prop::collection::vec(0_i64..1_000_000, 1..40),
        ) {
            let parts = allocate(total, &weights);
            prop_assert_eq!(parts.iter().sum::<i64>(), total);
            let sum: i64 = weights.iter().sum();
            if sum > 0 {
                for (part, weight) in parts.iter().zip(&weights) {
                    let exact = total as f64 * *weight as f64 / sum as f64;
                    prop_assert!((*part as f64 - exact).abs() <= 1.000_001);
                }
            }
        }
    }
}
