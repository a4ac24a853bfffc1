//! A ledger: orders are placed, charged and completed, or end without anything being left of them.
//!
//! - An acknowledged order is there, as it was asked for; a refused one is not, and nobody else's is.
//! - Every order has ended. A completed one is charged once: its sum, in its currency, with one completed
//!   payment that says the same. Another one is not charged.
//! - No more is sold than there was, and what is left is what was not sold.

use std::collections::{BTreeMap, BTreeSet};

use super::{Operation, Outcome};

/// An order of some pieces of one product.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Names it.
    pub id: String,
    /// What is bought.
    pub product: String,
    /// How many pieces.
    pub quantity: i64,
}

/// Whole money.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Money {
    /// How much.
    pub amount: i64,
    /// Of which currency.
    pub currency: String,
}

/// A product.
#[derive(Clone, Debug)]
pub struct Product {
    /// What a piece costs.
    pub price: Money,
    /// How many pieces there were.
    pub stock: i64,
    /// How many are left.
    pub left: i64,
}

/// What is there in the end.
#[derive(Clone, Debug, Default)]
pub struct Books {
    /// The products by their keys.
    pub products: BTreeMap<String, Product>,
    /// The orders, each with its status and its total.
    pub orders: Vec<(Order, String, Money)>,
    /// Completed payments, by their orders.
    pub payments: Vec<(String, Money)>,
    /// What customers were charged and did not get back, by their orders.
    pub charges: Vec<(String, Money)>,
}

/// Everything in the history that the books do not allow.
pub fn violations(history: &[Operation<Order>], books: &Books) -> Vec<String> {
    let mut found = placed(history, books);
    let mut sold: BTreeMap<&str, i64> = BTreeMap::new();
    let mut known = BTreeSet::new();
    for (order, status, total) in &books.orders {
        known.insert(order.id.as_str());
        let is_completed = match status.as_str() {
            "completed" => true,
            "failed" | "cancelled" => false,
            other => {
                found.push(format!("{} is {other}", order.id));
                continue;
            }
        };
        let Some(product) = books.products.get(&order.product) else {
            found.push(format!("{} is of no product", order.id));
            continue;
        };
        let due = Money { amount: product.price.amount * order.quantity, ..product.price.clone() };
        if *total != due {
            found.push(format!("{} is of {total:?}, which should be {due:?}", order.id));
        }
        let once = [&due];
        let expected = if is_completed { &once[..] } else { &[] };
        for (what, of) in [("charged", &books.charges), ("paid", &books.payments)] {
            let own: Vec<&Money> =
                of.iter().filter(|(id, _)| *id == order.id).map(|(_, money)| money).collect();
            if own != expected {
                found.push(format!("{} is {status} and was {what} {own:?}, not {expected:?}", order.id));
            }
        }
        *sold.entry(order.product.as_str()).or_default() += if is_completed { order.quantity } else { 0 };
    }
    let strangers =
        books.charges.iter().chain(&books.payments).filter(|(id, _)| !known.contains(id.as_str()));
    found.extend(strangers.map(|(id, money)| format!("{money:?} is of the order {id}, which is not there")));
    for (key, Product { stock, left, .. }) in &books.products {
        let sold = sold.get(key.as_str()).copied().unwrap_or_default();
        if stock - sold != *left || *left < 0 {
            found.push(format!("{key}: {stock} in stock, {sold} sold, {left} left"));
        }
    }
    found
}

/// Orders that are not there, or should not be.
fn placed(history: &[Operation<Order>], books: &Books) -> Vec<String> {
    let mut found = Vec::new();
    let there: BTreeMap<&str, &Order> =
        books.orders.iter().map(|(order, ..)| (order.id.as_str(), order)).collect();
    let mut strangers: BTreeSet<&str> = there.keys().copied().collect();
    for Operation { act: order, outcome, .. } in history {
        strangers.remove(order.id.as_str());
        match (outcome, there.get(order.id.as_str())) {
            (Outcome::Done, None) => found.push(format!("{} was acknowledged and is not there", order.id)),
            (Outcome::Refused, Some(_)) => found.push(format!("{} was refused and is there", order.id)),
            (_, Some(other)) if *other != order => {
                found.push(format!("{order:?} was asked for, {other:?} is there"))
            }
            _ => {}
        }
    }
    found.extend(strangers.into_iter().map(|id| format!("{id} is there and nobody ordered it")));
    found
}

#[cfg(test)]
mod tests {
    use super::{
        super::{assert_one, operation},
        Outcome::{Done, Refused, Unknown},
        *,
    };

    fn money(amount: i64, currency: &str) -> Money {
        Money { amount, currency: currency.to_owned() }
    }

    fn order(id: &str, quantity: i64) -> Order {
        Order { id: id.to_owned(), product: "lamp".to_owned(), quantity }
    }

    fn history() -> Vec<Operation<Order>> {
        vec![
            operation(1, (0, 1), Done, order("o1", 2)),
            operation(1, (1, 2), Unknown, order("o2", 1)),
            operation(1, (2, 3), Refused, order("o3", 1)),
        ]
    }

    fn books() -> Books {
        let product = Product { price: money(250, "JPY"), stock: 5, left: 3 };
        Books {
            products: BTreeMap::from([("lamp".to_owned(), product)]),
            orders: vec![
                (order("o1", 2), "completed".to_owned(), money(500, "JPY")),
                (order("o2", 1), "failed".to_owned(), money(250, "JPY")),
            ],
            payments: vec![("o1".to_owned(), money(500, "JPY"))],
            charges: vec![("o1".to_owned(), money(500, "JPY"))],
        }
    }

    #[test]
    fn books_that_can_be_are_found_right() {
        assert_eq!(violations(&history(), &books()), [""; 0]);
    }

    #[test]
    fn each_violation_is_found() {
        let with = |change: fn(&mut Books)| {
            let mut books = books();
            change(&mut books);
            violations(&history(), &books)
        };
        assert_one(&with(|books| books.charges[0].1.currency = "USD".to_owned()), "and was charged");
        assert_one(&with(|books| books.charges.push(books.charges[0].clone())), "and was charged");
        assert_one(
            &with(|books| books.charges.push(("o2".to_owned(), money(250, "JPY")))),
            "o2 is failed and was charged",
        );
        assert_one(
            &with(|books| books.charges.push(("o9".to_owned(), money(1, "JPY")))),
            "which is not there",
        );
        assert_one(&with(|books| books.payments.clear()), "and was paid []");
        assert_one(&with(|books| books.orders[1].1 = "paid".to_owned()), "o2 is paid");
        assert_one(&with(|books| books.orders[1].2.amount = 1), "which should be");
        assert!(with(|books| books.orders[1].0.quantity = 2)[0].contains("was asked for"));
        let lost = with(|books| *books = Books { products: books.products.clone(), ..Books::default() });
        assert!(lost[0].contains("o1 was acknowledged and is not there"), "{lost:?}");
        let refused = (order("o3", 1), "failed".to_owned(), money(250, "JPY"));
        let mut more = books();
        more.orders.push(refused);
        assert_one(&violations(&history(), &more), "o3 was refused and is there");
        more.orders[2].0.id = "o4".to_owned();
        assert_one(&violations(&history(), &more), "o4 is there and nobody ordered it");
        for left in [2, 4] {
            let mut more = books();
            more.products.get_mut("lamp").unwrap().left = left;
            assert_one(&violations(&history(), &more), "5 in stock, 2 sold");
        }
        let mut oversold = books();
        *oversold.products.get_mut("lamp").unwrap() =
            Product { price: money(250, "JPY"), stock: 1, left: -1 };
        assert_one(&violations(&history(), &oversold), "1 in stock, 2 sold, -1 left");
    }
}
