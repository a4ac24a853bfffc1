//! Payments and the ways of their status.

use crate::{
    entity::{Definition, Home, List, Selection},
    currency,
    fault::FieldFault,
    schema::{Field, Kind, Schema, Shape},
    value::{Row, Value},
};

/// The row of the table.
pub static DEFINITION: Definition = Definition {
    path: "/api/v1/payments",
    schema: Some(schema),
    home: Home::Mysql,
    upserts: false,
    not_behind: Some("a payment and what follows from it are one transaction of the store"),
    lists: &[
        List {
            path: "/api/v1/payments/user/{user_id}",
            id: "listPaymentsOfUser",
            summary: "A user's payments",
            of: Selection::Field { field: "user_id", parameter: "user_id" },
        },
        List {
            path: "/api/v1/users/{key}/payments",
            id: "listPaymentsBelowUser",
            summary: "A user's payments",
            of: Selection::Field { field: "user_id", parameter: "id" },
        },
    ],
    example: r#"{"id":"payment-1","user_id":"ann","amount":"19.90","currency":"EUR","method":"card"}"#,
};

/// Every status of a payment.
pub const STATUSES: [&str; 5] = ["pending", "completed", "failed", "cancelled", "refunded"];

/// The status of a payment that is still open.
pub const PENDING: &str = "pending";
/// The field that only the pipeline sets, in the payments that it makes.
pub const CHARGE_OF: &str = "charge_of";
/// What of a payment that is not pending stays as it is.
const FROZEN: [&str; 7] =
    ["user_id", "order_id", "amount", "currency", "gateway", "method", "transaction_id"];
/// What of it is often known only afterwards.
const LATE: [&str; 2] = ["method", "transaction_id"];

/// What a payment looks like. Its status moves only by [`may_become`].
pub fn schema() -> Schema {
    Schema { rules: |schema, row| currency::faults(schema, row, "amount"), ..fields() }
}

/// What is wrong with a change of a payment that is not pending any more: what was agreed on stays. What was
/// left open may be filled in.
pub fn frozen(schema: &Schema, current: &Row, next: &Row) -> Vec<FieldFault> {
    let status = schema.get(current, "status").as_text().unwrap_or(PENDING);
    if status == PENDING {
        return Vec::new();
    }
    let changed = |name: &&&str| schema.get(current, name) != schema.get(next, name);
    let filled_in = |name: &str| LATE.contains(&name) && schema.get(current, name).is_null();
    let fault =
        |name: &&str| FieldFault::new(*name, format!("cannot change any more: the payment is {status}"));
    FROZEN.iter().filter(changed).filter(|name| !filled_in(name)).map(fault).collect()
}

fn fields() -> Schema {
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
            Field::new("status", Kind::Choice(&STATUSES))
                .indexed()
                .read_only()
                .default(Value::Text("pending".into())),
            Field::new("transaction_id", Kind::text(128)),
            Field::new("metadata", Kind::json(Shape::Object)),
            // which placed order the pipeline charges by it: see `service::pipeline`
            Field::new(CHARGE_OF, Kind::text(400)).indexed().internal(),
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
    use crate::json::{parse_create, parse_patch};

    #[test]
    fn what_is_not_pending_keeps_what_was_agreed_on() {
        let schema = schema();
        let body = br#"{"user_id":"u","amount":10,"currency":"EUR","gateway":"g"}"#;
        let pending = parse_create(&schema, body).unwrap().values;
        let mut completed = pending.clone();
        schema.set(&mut completed, "status", Value::Text("completed".to_owned()));
        let faults = |current: &Row, patch: &str| {
            let next = parse_patch(&schema, patch.as_bytes()).unwrap().apply(&schema, current).unwrap();
            frozen(&schema, current, &next).into_iter().map(|fault| fault.field).collect::<Vec<_>>()
        };
        let all = r#"{"user_id":"v","amount":11,"currency":"USD","gateway":"h","order_id":"o"}"#;
        assert_eq!(faults(&completed, all), ["user_id", "order_id", "amount", "currency", "gateway"]);
        assert!(faults(&pending, all).is_empty());
        let late = r#"{"metadata":{"a":1},"transaction_id":"t","method":"card","amount":"10.00"}"#;
        assert!(faults(&completed, late).is_empty());
        schema.set(&mut completed, "transaction_id", Value::Text("t".to_owned()));
        assert_eq!(faults(&completed, r#"{"transaction_id":"other"}"#), ["transaction_id"]);
        assert_eq!(faults(&completed, r#"{"transaction_id":null}"#), ["transaction_id"]);
    }

    #[test]
    fn currencies_are_known_and_amounts_fit_them() {
        let fault = |body: &str| match parse_create(&schema(), body.as_bytes()) {
            Err(crate::json::BodyError::Invalid(faults)) => faults[0].field.clone(),
            other => panic!("{body}: {other:?}"),
        };
        assert_eq!(fault(r#"{"user_id":"u","amount":1,"currency":"ZZZ"}"#), "currency");
        assert_eq!(fault(r#"{"user_id":"u","amount":10.5,"currency":"JPY"}"#), "amount");
    }

    #[test]
    fn a_status_moves_only_forward() {
        let moves: Vec<(&str, &str)> = STATUSES
            .iter()
            .flat_map(|from| STATUSES.iter().map(move |to| (*from, *to)))
            .filter(|(from, to)| may_become(from, to))
            .collect();
        assert_eq!(
            moves,
            [
                ("pending", "completed"),
                ("pending", "failed"),
                ("pending", "cancelled"),
                ("completed", "refunded")
            ]
        );
    }
}
