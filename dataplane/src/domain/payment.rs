//! Payments and the ways of their status.

use super::{
    schema::{Field, Kind, Schema, Shape},
    value::Value,
};

/// Every status of a payment.
pub const STATUSES: [&str; 5] = ["pending", "completed", "failed", "cancelled", "refunded"];

/// What a payment looks like. Its status moves only by [`may_become`].
pub fn schema() -> Schema {
    Schema::new(
        "payment",
        "payments",
        vec![
            Field::new("user_id", Kind::key()).required().indexed(),
            Field::new("order_id", Kind::key()).indexed(),
            Field::new("amount", Kind::money(1)).required(),
            Field::new("currency", Kind::currency()).required(),
            Field::new("gateway", Kind::text(64)),
            Field::new("method", Kind::text(64)),
            Field::new("status", Kind::Choice(&STATUSES)).indexed().read_only().default(Value::Text("pending".into())),
            Field::new("transaction_id", Kind::text(128)),
            Field::new("metadata", Kind::json(Shape::Object)),
        ],
    )
}

/// Whether a payment may go from one status to another. A repeat of the same status is no move.
pub fn may_become(from: &str, to: &str) -> bool {
    matches!((from, to), ("pending", "completed" | "failed" | "cancelled") | ("completed", "refunded"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_moves_only_forward() {
        let moves: Vec<(&str, &str)> = STATUSES
            .iter()
            .flat_map(|from| STATUSES.iter().map(move |to| (*from, *to)))
            .filter(|(from, to)| may_become(from, to))
            .collect();
        assert_eq!(
            moves,
            [("pending", "completed"), ("pending", "failed"), ("pending", "cancelled"), ("completed", "refunded")]
        );
    }
}
