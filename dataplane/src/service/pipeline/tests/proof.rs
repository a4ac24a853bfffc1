//! What counts as proof that an order was paid, and what does not.

use super::{
    support::{Mood, Shop, settings},
    *,
};
use crate::service::{
    payment::derived_key,
    payments::{PaymentKeeper, set_status},
    precondition::Precondition,
};
use model::{entities::payment::CHARGE_OF, json::parse_create};

/// The key of charge and payment that versions before made of an order.
async fn former(shop: &Shop, order: &Key) -> Key {
    let record = shop.parts.orders.find_one(order).await.unwrap().unwrap();
    derived_key(&format!("payment of order {order} placed {}", record.created_at.0))
}

async fn forge(shop: &Shop, key: &Key, order: &Key, amount: &str, actor: &str) {
    let payments = shop.parts.payments.as_ref().unwrap();
    let body = json!({
        "id": key.as_str(), "user_id": "u1", "order_id": order.as_str(), "amount": amount, "currency": "USD",
    });
    let draft = parse_create(payments.schema(), body.to_string().as_bytes()).unwrap();
    payments.create(draft, &Origin::of(actor)).await.unwrap();
}

async fn complete(shop: &Shop, key: &Key, actor: &str) {
    let payments = shop.parts.payments.as_ref().unwrap();
    set_status(payments, key, &Precondition::None, "completed", &Origin::of(actor)).await.unwrap();
}

/// Takes from an order what only this version keeps in it.
async fn as_before(shop: &Shop, order: &Key) {
    let schema = shop.parts.orders.schema();
    let stripped = shop.parts.orders.adjust(order, "test", |current| {
        let mut progress = Progress::of(schema, &current.values);
        progress.charge = None;
        Ok(Some(progress.write(schema, &current.values, None, None)))
    });
    stripped.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payment_that_a_client_wrote_is_no_proof() {
    let shop = Shop::open(settings()).await;
    shop.product("lamp", 5).await;
    for (stripped, amount) in [(false, "2"), (false, "0.01"), (true, "2"), (true, "0.01")] {
        let charged = shop.bank.charged();
        let order = shop.order(&[("lamp", 1)]).await;
        if stripped {
            shop.drive_to(&order, Stage::Payments).await;
            as_before(&shop, &order).await;
        }
        let key = former(&shop, &order).await;
        forge(&shop, &key, &order, amount, "mallory").await;
        complete(&shop, &key, "mallory").await;
        shop.drive(&order).await;
        assert_eq!(shop.status(&order).await, "completed");
        assert_eq!(shop.bank.charged(), charged + 1, "the provider was asked: {stripped}, {amount}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payment_in_the_place_of_the_charge_that_differs_is_no_proof() {
    let shop = Shop::open(settings()).await;
    shop.product("lamp", 5).await;
    let order = shop.order(&[("lamp", 1)]).await;
    shop.drive_to(&order, Stage::Payments).await;
    let snapshot = shop.pipeline.snapshot(&order).await.unwrap().unwrap();
    let charge = shop.pipeline.charge_of(&snapshot);
    assert_ne!(charge.payment, former(&shop, &order).await, "it cannot be computed");
    forge(&shop, &charge.payment, &order, "2", "mallory").await;
    complete(&shop, &charge.payment, "mallory").await;
    assert!(shop.pipeline.charge(&snapshot).await.is_err());
    assert_eq!((shop.bank.charged(), shop.stage(&order).await), (0, Stage::Payments));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_charge_that_a_version_before_began_goes_on_under_its_name() {
    let shop = Shop::open(settings()).await;
    shop.product("lamp", 9).await;
    for completed in [false, true] {
        let (charged, before) = (shop.bank.charged(), shop.payments().await.len());
        let order = shop.order(&[("lamp", 1)]).await;
        shop.drive_to(&order, Stage::Payments).await;
        as_before(&shop, &order).await;
        let key = former(&shop, &order).await;
        forge(&shop, &key, &order, "2", ACTOR).await;
        if completed {
            complete(&shop, &key, ACTOR).await;
        }
        shop.drive(&order).await;
        assert_eq!(shop.status(&order).await, "completed");
        assert_eq!(shop.bank.charged(), charged + usize::from(!completed));
        assert_eq!(shop.payments().await.len(), before + 1, "one payment for one order");
    }
    // and one that was charged and called off is given back
    let order = shop.order(&[("lamp", 1)]).await;
    shop.drive_to(&order, Stage::Payments).await;
    as_before(&shop, &order).await;
    let key = former(&shop, &order).await;
    forge(&shop, &key, &order, "2", ACTOR).await;
    complete(&shop, &key, ACTOR).await;
    shop.pipeline.cancel(&order, "changed my mind", "ann").await.unwrap();
    shop.drive(&order).await;
    let payments = shop.parts.payments.as_ref().unwrap();
    let payment = payments.find_one(&key).await.unwrap().unwrap();
    assert_eq!(payments.schema().get(&payment.values, "status").as_text(), Some("refunded"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_payment_of_an_order_under_way_is_left_alone() {
    let shop = Shop::open(settings()).await;
    shop.product("lamp", 5).await;
    let payments = shop.parts.payments.clone().unwrap();
    let schema = payments.collection().schema.clone();
    payments.keep(Arc::new(PaymentKeeper { payments: schema, orders: Some(shop.parts.orders.clone()) }));
    let order = shop.order(&[("lamp", 1)]).await;
    shop.drive_to(&order, Stage::Inventory).await;
    let page = payments.find(&support::everything()).await.unwrap();
    let key = page.records[0].key.clone();
    let (none, ann) = (Precondition::None, Origin::of("ann"));
    let deleted = payments.delete(&key, &none, &ann).await;
    assert!(matches!(deleted, Err(ServiceError::Conflict(_))), "{deleted:?}");
    for patch in [r#"{"metadata":{"a":1}}"#, r#"{"amount":1}"#] {
        let patch = model::json::parse_patch(payments.schema(), patch.as_bytes()).unwrap();
        let changed = payments.patch(&key, &none, &patch, &ann).await;
        assert!(matches!(changed, Err(ServiceError::Conflict(_) | ServiceError::Refused(_))), "{changed:?}");
    }
    let refunded = set_status(&payments, &key, &none, "refunded", &ann).await;
    assert!(matches!(refunded, Err(ServiceError::Conflict(_))), "{refunded:?}");
    shop.pipeline.cancel(&order, "changed my mind", "ann").await.unwrap();
    shop.drive(&order).await;
    assert_eq!((shop.bank.charged(), shop.bank.reversed()), (1, 1));
    assert_eq!(shop.payments().await, [(order.to_string(), "refunded".to_owned())]);
}

/// Whoever takes the record away from below the service: the provider knows what was charged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_charge_whose_payment_is_gone_is_given_back_all_the_same() {
    let shop = Shop::open(settings()).await;
    shop.product("lamp", 5).await;
    let order = shop.order(&[("lamp", 1)]).await;
    shop.drive_to(&order, Stage::Inventory).await;
    let payments = shop.parts.payments.as_ref().unwrap();
    let page = payments.find(&support::everything()).await.unwrap();
    assert!(payments.schema().get(&page.records[0].values, CHARGE_OF).as_text().is_some());
    payments.delete(&page.records[0].key, &Precondition::None, &Origin::of("test")).await.unwrap();
    shop.pipeline.cancel(&order, "changed my mind", "ann").await.unwrap();
    shop.drive(&order).await;
    assert_eq!((shop.bank.charged(), shop.bank.reversed()), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_redirects_is_not_followed() {
    let shop = Shop::open(settings()).await;
    shop.product("lamp", 5).await;
    shop.bank.set(Mood::Redirect);
    let order = shop.order(&[("lamp", 1)]).await;
    shop.drive_until(&order, |progress| progress.parked.is_some()).await;
    assert_eq!(shop.bank.charged(), 0);
    let [(letter, _)] = &shop.letters().await[..] else { panic!() };
    let letter = shop.parts.letters.find(letter).await.unwrap().unwrap();
    assert!(shop.parts.letters.text(&letter, "error").contains("redirects are not followed"));
}
