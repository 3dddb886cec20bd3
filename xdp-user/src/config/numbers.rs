//! Stable numbers: which number stands for which service or VIP, from one start to the next.

use crate::config::services::Service;

/// What a number stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Numbered<K> {
    /// The number.
    pub number: u16,
    /// The name of a service, or the address of a VIP.
    pub key: K,
    /// Whether it was removed, and only waits for its entries to go.
    pub going: bool,
}

/// The numbers of a service and of its VIPs, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceNumbers {
    /// That of the service.
    pub service: u16,
    /// Those of its IPv4 VIPs.
    pub vips: Vec<u16>,
}

impl ServiceNumbers {
    /// Those of the first start of an instance: from 0 on.
    pub fn in_order(services: &[Service]) -> Vec<Self> {
        let mut next = 0..;
        let all = services.iter().zip(0..);
        all.map(|(service, number)| Self {
            service: number,
            vips: next.by_ref().take(service.vips_v4().count()).collect(),
        })
        .collect()
    }
}

/// No number was left for this key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoNumber<K> {
    /// The key.
    pub key: K,
    /// How many numbers wait for entries to go since an earlier start.
    pub going: usize,
    /// How many more would wait after this one.
    pub leaving: usize,
    /// How many are free.
    pub free: usize,
}

/// The numbers of all that is wanted, in that order, and behind them those that are going. What
/// stays keeps its number, also when it was going; what is not wanted any more keeps its own as
/// going; what is new gets the lowest of `limit` numbers that is free. `wanted` has nothing twice.
pub fn assign<K: Clone + Eq>(
    before: &[Numbered<K>],
    wanted: &[K],
    limit: u16,
) -> Result<Vec<Numbered<K>>, NoNumber<K>> {
    let going = before.iter().filter(|one| !wanted.contains(&one.key));
    let going: Vec<Numbered<K>> = going
        .cloned()
        .map(|one| Numbered { going: true, ..one })
        .collect();
    let mut taken = vec![false; usize::from(limit)];
    for one in before {
        if let Some(place) = taken.get_mut(usize::from(one.number)) {
            *place = true;
        }
    }
    let mut free = (0..limit).filter(|number| !taken[usize::from(*number)]);
    let mut all = Vec::with_capacity(wanted.len() + going.len());
    for key in wanted {
        let kept = before.iter().find(|one| one.key == *key);
        let number = kept.map(|one| one.number).or_else(|| free.next());
        all.push(Numbered {
            number: number.ok_or_else(|| {
                let were_going = before.iter().filter(|one| one.going);
                let were_going = were_going.filter(|one| !wanted.contains(&one.key)).count();
                NoNumber {
                    key: key.clone(),
                    going: were_going,
                    leaving: going.len() - were_going,
                    free: taken.iter().filter(|taken| !**taken).count(),
                }
            })?,
            key: key.clone(),
            going: false,
        });
    }
    all.extend(going);
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `a0` (number 0 in use) or `b1-` (number 1 is going).
    fn texts(all: &[Numbered<&str>]) -> Vec<String> {
        let text = |one: &Numbered<&str>| {
            format!(
                "{}{}{}",
                one.key,
                one.number,
                if one.going { "-" } else { "" }
            )
        };
        all.iter().map(text).collect()
    }

    fn next<'k>(before: &[Numbered<&'k str>], wanted: &[&'k str]) -> Vec<Numbered<&'k str>> {
        assign(before, wanted, 4).expect("there is room")
    }

    #[test]
    fn what_stays_keeps_its_number_in_any_order() {
        let first = next(&[], &["a", "b", "c"]);
        assert_eq!(texts(&first), ["a0", "b1", "c2"]);
        assert_eq!(texts(&next(&first, &["c", "a", "b"])), ["c2", "a0", "b1"]);
    }

    #[test]
    fn what_goes_keeps_its_number_until_it_is_gone() {
        let first = next(&[], &["a", "b"]);
        let second = next(&first, &["b", "c"]);
        assert_eq!(texts(&second), ["b1", "c2", "a0-"]);
        // It still goes when something else changes, and can come back.
        assert_eq!(texts(&next(&second, &["b"])), ["b1", "c2-", "a0-"]);
        assert_eq!(texts(&next(&second, &["a", "b"])), ["a0", "b1", "c2-"]);
        // Once it is gone, the lowest number is free.
        let gone: Vec<_> = second.into_iter().filter(|one| !one.going).collect();
        assert_eq!(texts(&next(&gone, &["b", "c", "d"])), ["b1", "c2", "d0"]);
    }

    #[test]
    fn no_number_left_names_the_first_one_without() {
        let first = next(&[], &["a", "b", "c"]);
        let second = next(&first, &["c", "d"]);
        assert_eq!(texts(&second), ["c2", "d3", "a0-", "b1-"]);
        let error = assign(&second, &["c", "d", "e", "f"], 4).expect_err("4 of 4 are taken");
        let of = |key, going, leaving, free| NoNumber {
            key,
            going,
            leaving,
            free,
        };
        assert_eq!(error, of("e", 2, 0, 0));
        // One of those that are going takes none.
        assert!(assign(&second, &["c", "d", "a"], 4).is_ok());
        // What this change removes is not free before it.
        let error = assign(&first, &["d", "e", "f"], 4).expect_err("6 of 4 are needed");
        assert_eq!(error, of("e", 0, 3, 1));
        // The way out: as many new ones as are free, without the old ones, and then all of them.
        let begun = next(&first, &["d"]);
        let gone: Vec<_> = begun.into_iter().filter(|one| !one.going).collect();
        assert_eq!(texts(&next(&gone, &["d", "e", "f"])), ["d3", "e0", "f1"]);
    }
}
