//! A bank: money is moved between accounts, both sides in one unit of work, each guarded by the version that
//! was read.
//!
//! - A transfer is on both accounts or on none: both where it was acknowledged, none where it was refused.
//! - It is at the version after the one that it read, with the balance that it meant.
//! - The sum of all balances never changes.

use std::collections::{BTreeMap, HashMap};

use super::{Chain, Operation, Outcome, gaps};

/// A transfer.
#[derive(Clone, Debug)]
pub struct Transfer {
    /// Names it, on the accounts too.
    pub id: String,
    /// Where the money comes from, and where it goes to.
    pub sides: [Side; 2],
}

/// What a transfer does to one account.
#[derive(Clone, Debug)]
pub struct Side {
    /// The account.
    pub account: String,
    /// The version that was read.
    pub read: u64,
    /// The balance that it means to leave.
    pub balance: i64,
}

/// An account at one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// How much there is.
    pub balance: i64,
    /// The transfer that made it so; empty at first.
    pub by: String,
}

/// Everything in the history that the accounts, with this sum of all, do not allow.
pub fn violations(
    history: &[Operation<Transfer>],
    accounts: &BTreeMap<String, Chain<State>>,
    sum: i64,
) -> Vec<String> {
    let mut found: Vec<String> = accounts.iter().filter_map(|(name, chain)| gaps(name, chain)).collect();
    let known: HashMap<&str, &Operation<Transfer>> =
        history.iter().map(|operation| (operation.act.id.as_str(), operation)).collect();
    for (account, chain) in accounts {
        for (version, state) in chain.range(2..) {
            let side = known.get(state.by.as_str()).and_then(|operation| {
                let mut sides = operation.act.sides.iter();
                sides.find(|side| side.account == *account)
            });
            match side {
                None => found
                    .push(format!("{account}: version {version} is by {:?}, which nobody asked", state.by)),
                Some(side) if side.read + 1 != *version || side.balance != state.balance => {
                    found.push(format!("{account}: {} at {version}, which is {state:?}", describe(side)));
                }
                Some(_) => {}
            }
        }
    }
    for operation in history {
        let times = operation.act.sides.each_ref().map(|side| {
            let chain = accounts.get(&side.account);
            chain.map_or(0, |chain| chain.values().filter(|state| state.by == operation.act.id).count())
        });
        let is_right = match operation.outcome {
            Outcome::Done => times == [1, 1],
            Outcome::Refused => times == [0, 0],
            Outcome::Unknown => times == [1, 1] || times == [0, 0],
        };
        if !is_right {
            let Transfer { id, sides } = &operation.act;
            let of = sides.each_ref().map(|side| side.account.as_str());
            found.push(format!("{id} is {:?} and on {of:?} so often: {times:?}", operation.outcome));
        }
    }
    let now: i64 =
        accounts.values().filter_map(|chain| chain.values().last()).map(|state| state.balance).sum();
    if now != sum {
        found.push(format!("all balances together are {now}, not {sum}"));
    }
    found
}

fn describe(Side { account: _, read, balance }: &Side) -> String {
    format!("a balance of {balance} was meant for after {read} and is")
}

#[cfg(test)]
mod tests {
    use super::{
        super::{assert_one, operation},
        Outcome::{Done, Refused, Unknown},
        *,
    };

    fn transfer(id: &str, sides: [(&str, u64, i64); 2]) -> Transfer {
        let side =
            |(account, read, balance): (&str, u64, i64)| Side { account: account.to_owned(), read, balance };
        Transfer { id: id.to_owned(), sides: sides.map(side) }
    }

    fn accounts(chains: &[(&str, &[(i64, &str)])]) -> BTreeMap<String, Chain<State>> {
        let state = |(balance, by): &(i64, &str)| State { balance: *balance, by: (*by).to_owned() };
        let chain = |states: &[(i64, &str)]| (1..).zip(states.iter().map(state)).collect();
        chains.iter().map(|(name, states)| ((*name).to_owned(), chain(states))).collect()
    }

    fn history() -> Vec<Operation<Transfer>> {
        vec![
            operation(1, (0, 10), Done, transfer("t1", [("a", 1, 7), ("b", 1, 13)])),
            operation(2, (5, 10), Refused, transfer("t2", [("a", 1, 5), ("b", 1, 15)])),
            operation(2, (15, 20), Unknown, transfer("t3", [("a", 2, 6), ("b", 2, 14)])),
        ]
    }

    #[test]
    fn a_history_that_can_be_is_found_right() {
        let before = accounts(&[("a", &[(10, ""), (7, "t1")]), ("b", &[(10, ""), (13, "t1")])]);
        assert_eq!(violations(&history(), &before, 20), [""; 0]);
        let after =
            accounts(&[("a", &[(10, ""), (7, "t1"), (6, "t3")]), ("b", &[(10, ""), (13, "t1"), (14, "t3")])]);
        assert_eq!(violations(&history(), &after, 20), [""; 0]);
    }

    #[test]
    fn each_violation_is_found() {
        let half = accounts(&[("a", &[(10, ""), (7, "t1"), (6, "t3")]), ("b", &[(10, ""), (13, "t1")])]);
        let found = violations(&history(), &half, 20);
        assert!(found[0].contains("t3 is Unknown") && found[1].contains("together are 19"), "{found:?}");
        let lost = accounts(&[("a", &[(10, "")]), ("b", &[(10, "")])]);
        assert_one(&violations(&history(), &lost, 20), "t1 is Done and on [\"a\", \"b\"] so often: [0, 0]");
        let other = accounts(&[("a", &[(10, ""), (8, "t1")]), ("b", &[(10, ""), (12, "t1")])]);
        assert_eq!(violations(&history(), &other, 20).len(), 2);
        let refused =
            accounts(&[("a", &[(10, ""), (7, "t1"), (5, "t2")]), ("b", &[(10, ""), (13, "t1"), (15, "t2")])]);
        assert!(violations(&history(), &refused, 20).iter().any(|found| found.contains("t2 is Refused")));
        let stranger = accounts(&[("a", &[(10, ""), (7, "t1"), (7, "?")]), ("b", &[(10, ""), (13, "t1")])]);
        assert_one(&violations(&history(), &stranger, 20), "which nobody asked");
    }
}
