//! What happens to orders besides their way: sweeps, deletes, refusals, audits, waits.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_placed_anew_under_the_key_of_a_deleted_one_pays_anew() {
    let shop = Shop::open(settings()).await;
    shop.product("lamp", 5).await;
    for round in 1..=2 {
        let order = shop.order_named("again", &[("lamp", 2)]).await;
        shop.drive(&order).await;
        assert_eq!((shop.status(&order).await, shop.bank.charged()), ("completed".to_owned(), round));
        let none = crate::service::precondition::Precondition::None;
        shop.parts.orders.delete(&order, &none, &Origin::of("test")).await.unwrap();
    }
    assert_eq!(shop.stock("lamp").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweep_finds_what_no_event_spoke_of() {
    let shop = Shop::open(settings()).await;
    shop.product("lamp", 5).await;
    let order = shop.order(&[("lamp", 1)]).await;
    for _ in 0..1_000 {
        if shop.stage(&order).await == Stage::Done {
            break;
        }
        shop.pipeline.sweep_orders(STUCK_AFTER * 2).await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(shop.status(&order).await, "completed");
    // and ends what was set aside too long ago
    shop.bank.set(Mood::Refuse);
    let order = shop.order(&[("lamp", 1)]).await;
    shop.drive_until(&order, |progress| progress.parked.is_some()).await;
    shop.pipeline.end_order(&order, Ending::Failed, "nobody attended to it", None, "test").await.unwrap();
    shop.bank.set(Mood::Approve);
    shop.drive(&order).await;
    assert_eq!((shop.status(&order).await, shop.stock("lamp").await), ("failed".to_owned(), 4));
    assert!(shop.letters().await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_under_way_keeps_its_items_and_ends_before_it_is_deleted() {
    let shop = Shop::open(settings()).await;
    shop.product("lamp", 5).await;
    let order = shop.order(&[("lamp", 2)]).await;
    shop.drive_to(&order, Stage::Inventory).await;
    let patch = |body: &str| {
        let patch = model::json::parse_patch(shop.parts.orders.schema(), body.as_bytes()).unwrap();
        let (orders, order) = (shop.parts.orders.clone(), order.clone());
        async move {
            orders
                .patch(&order, &crate::service::precondition::Precondition::None, &patch, &Origin::of("test"))
                .await
        }
    };
    let items = patch(r#"{"items":[{"product_id":"lamp","quantity":1,"price":"2"}]}"#).await;
    assert!(matches!(items, Err(ServiceError::Conflict(_))), "{items:?}");
    patch(r#"{"metadata":{"gift":true}}"#).await.unwrap();
    let none = crate::service::precondition::Precondition::None;
    shop.parts.orders.delete(&order, &none, &Origin::of("test")).await.unwrap();
    assert_eq!((shop.stock("lamp").await, shop.bank.reversed()), (5, 1));
}

/// Nothing of an atomic batch happens before all of it does: an order that is under way is called off by no
/// batch that fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_batch_calls_no_order_off() {
    use crate::service::batch::{Bounds, Undone, run_atomic};
    use model::batch::{Batch, parse_batch};
    let shop = Shop::open(settings()).await;
    shop.product("lamp", 5).await;
    let order = shop.order(&[("lamp", 2)]).await;
    shop.drive_to(&order, Stage::Inventory).await;
    let batch = async |operations: &str| {
        let body = format!(r#"{{"atomic":true,"operations":[{operations}]}}"#);
        let Batch { operations, .. } = parse_batch(body.as_bytes()).unwrap();
        let bounds = Bounds { upserts: false, data_bytes_max: 1 << 20 };
        run_atomic(&shop.parts.orders, bounds, &operations, &Origin::of("test")).await
    };
    let delete = |key: &str| format!(r#"{{"op":"delete","id":"{key}"}}"#);
    let (first, create) = (
        delete(order.as_str()),
        r#"{"op":"create","id":"new","data":{"user_id":"u","items":[{"product_id":"lamp","quantity":1,"price":"2"}]}}"#,
    );
    let before = shop.parts.orders.find_one(&order).await.unwrap();
    let refused = batch(&format!("{first},{}", delete("none"))).await;
    assert!(
        matches!(refused, Err(Undone::Planned { index: 1, error: ServiceError::NotFound })),
        "{refused:?}"
    );
    let refused = batch(&format!("{create},{first}")).await;
    assert!(
        matches!(refused, Err(Undone::Planned { index: 1, error: ServiceError::Conflict(_) })),
        "{refused:?}"
    );
    assert_eq!(
        shop.parts.orders.find_one(&order).await.unwrap(),
        before,
        "it goes on as if nothing was asked"
    );
    assert_eq!(shop.parts.orders.find_one(&"new".parse().unwrap()).await.unwrap(), None);
    // what never was under way may go with what ended; by itself an order is called off first, as ever
    shop.drive(&order).await;
    assert_eq!(batch(&format!("{create},{first},{}", delete("new"))).await.unwrap().len(), 3);
    let alone = shop.order(&[("lamp", 1)]).await;
    assert_eq!(batch(&delete(alone.as_str())).await.unwrap().len(), 1);
    assert_eq!(shop.parts.orders.find_one(&alone).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_calls_off_and_who_drops_is_in_the_audit() {
    let shop = Shop::open(settings()).await;
    shop.product("lamp", 5).await;
    let order = shop.order(&[("lamp", 1)]).await;
    shop.drive_to(&order, Stage::Payments).await;
    let letter = shop.parts.letters.put(unanswered(&order)).await.unwrap();
    shop.parts.letters.give_up(&letter.key, "eve").await.unwrap();
    shop.pipeline.cancel(&order, "changed my mind", "ann").await.unwrap();
    let query =
        |entity: &str| AuditQuery { entities: vec![entity.to_owned()], limit: 100, ..AuditQuery::default() };
    let entries = shop.parts.orders.audit(&query("order")).await.unwrap().entries;
    assert!(entries.iter().any(|entry| entry.actor == "ann" && entry.action == "updated"), "{entries:?}");
    let entries = shop.parts.letters.records().audit(&query("dead_letter")).await.unwrap().entries;
    let by_eve: Vec<_> = entries.iter().filter(|entry| entry.actor == "eve").collect();
    let actions: Vec<&str> = by_eve.iter().map(|entry| entry.action.as_str()).collect();
    assert_eq!(actions, ["updated", "deleted"], "{entries:?}");
    assert!(by_eve[0].after.as_ref().unwrap().get().contains(r#""outcome":"dropped""#), "{entries:?}");
}

#[test]
fn credentials_in_addresses_are_noticed() {
    for url in ["https://u:p@pay.example.test/v1", "https://pay.example.test/v1?token=t"] {
        assert!(holds_credentials(url), "{url}");
    }
    assert!(!holds_credentials("https://pay.example.test/v1/@x"));
}

#[test]
fn waits_are_random_and_bounded() {
    let retry = Retry {
        max_attempts: 9,
        initial_delay: crds::units::Span::from_millis(100),
        max_delay: crds::units::Span::from_secs(1),
    };
    for failed in 1..100 {
        let bound = Duration::from_millis(100 << (failed - 1).min(4)).min(Duration::from_secs(1));
        assert!((0..50).all(|_| backoff(&retry, failed) <= bound), "after {failed}");
    }
    let spread: HashSet<_> = (0..50).map(|_| backoff(&retry, 5)).collect();
    assert!(spread.len() > 10, "they must not come in step");
}

/// Replicas whose clocks are days off sweep alike: what is due goes by the clock of the orders' server, which
/// stamped it.
#[tokio::test]
async fn what_is_due_goes_by_the_clock_of_the_server() {
    const DAYS_MS: i64 = 8 * 24 * 3_600_000;
    for ahead_ms in [-DAYS_MS, DAYS_MS] {
        let shop = Shop::open_at(settings(), ahead_ms).await;
        shop.product("lamp", 5).await;
        shop.pipeline.sweep_orders(Duration::ZERO).await.unwrap();
        let order = shop.order(&[("lamp", 1)]).await;
        let late = shop.due_at(&order).await.0 - (Timestamp::now().0 + ahead_ms);
        assert!((5_000..20_000).contains(&late), "due {late} ms after the server's now");
        shop.pipeline.sweep_orders(Duration::ZERO).await.unwrap();
        assert_eq!(
            (shop.pipeline.under_way(), shop.status(&order).await.as_str()),
            (0, "pending"),
            "it is not due"
        );
        shop.pipeline.sweep_orders(STUCK_AFTER).await.unwrap();
        assert_eq!(shop.pipeline.under_way(), 1, "it is due within that time");
        shop.drive(&order).await;
        assert_eq!(shop.status(&order).await, "completed");
    }
}
