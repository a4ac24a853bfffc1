//! The pipeline over SQLite and a bank on a free port: what it does with an order, and what it leaves when
//! that goes wrong.

mod counts;
mod later;
mod proof;
mod support;

use std::time::Duration;

use serde_json::json;

use self::support::{Mood, Shop, settings};
use super::*;
use crate::service::{
    dead_letters::{Letter, Source},
    failure::Failure,
    records::own::Adjusted,
};
use model::{
    audit::AuditQuery,
    change::Origin,
    progress::Ending,
    stock::{self, Held},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_is_held_charged_committed_and_told() {
    let shop = Shop::open(settings()).await;
    shop.product("lamp", 5).await;
    let order = shop.order(&[("lamp", 2)]).await;
    shop.drive(&order).await;
    assert_eq!((shop.status(&order).await, shop.stock("lamp").await), ("completed".to_owned(), 3));
    let payments = shop.payments().await;
    assert_eq!(payments.len(), 1);
    assert_eq!((payments[0].0.as_str(), payments[0].1.as_str()), (order.as_str(), "completed"));
    assert_eq!(shop.bank.charged(), 1);
    let timeline = shop.pipeline.timeline(&order).await.unwrap();
    let steps: Vec<&str> =
        timeline["steps"].as_array().unwrap().iter().map(|step| step["event"].as_str().unwrap()).collect();
    assert_eq!(steps, ["placed", "stock_held", "charged", "stock_committed", "notified"]);
    assert_eq!(timeline["trace_id"].as_str().unwrap().len(), 32);
    assert_eq!(shop.bank.traces(), [timeline["trace_id"].as_str().unwrap()]);
    assert!(shop.pipeline.cancel(&order, "too late", "ann").await.is_err());
    let figures = shop.pipeline.figures().await.unwrap();
    assert_eq!((&figures["stages"][1]["done"], &figures["stages"][1]["workers"]), (&json!(1), &json!(2)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_charge_that_is_delivered_twice_is_one_payment() {
    let shop = Shop::open(settings()).await;
    let mut twice = settings();
    twice.payments.simulator.duplicate_percent = 100;
    shop.pipeline.apply(&twice);
    shop.product("lamp", 5).await;
    let order = shop.order(&[("lamp", 2)]).await;
    shop.drive(&order).await;
    let bank = &shop.pipeline.figures().await.unwrap()["dependencies"]["payments"];
    assert_eq!((&bank["calls"], &bank["repeated"]), (&json!(2), &json!(1)));
    assert_eq!(shop.payments().await, [(order.to_string(), "completed".to_owned())]);
    let timeline = shop.pipeline.timeline(&order).await.unwrap();
    let steps: Vec<&str> =
        timeline["steps"].as_array().unwrap().iter().map(|step| step["event"].as_str().unwrap()).collect();
    assert_eq!(steps, ["placed", "stock_held", "attempt_failed", "charged", "stock_committed", "notified"]);
    assert_eq!(shop.stock("lamp").await, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_fulfilled_fails_and_gives_everything_back() {
    let shop = Shop::open(settings()).await;
    shop.product("lamp", 5).await;
    shop.product("vase", 1).await;
    let short = shop.order(&[("lamp", 2), ("vase", 2)]).await;
    shop.product("none", 1).await;
    let unknown = shop.order(&[("lamp", 2), ("none", 1)]).await;
    shop.withdraw("none").await;
    for order in [&short, &unknown] {
        shop.drive(order).await;
        assert_eq!((shop.status(order).await, shop.stock("lamp").await), ("failed".to_owned(), 5));
    }
    assert_eq!(shop.bank.charged(), 0);
    shop.bank.set(Mood::Decline);
    let declined = shop.order(&[("lamp", 5)]).await;
    shop.drive(&declined).await;
    assert_eq!((shop.status(&declined).await, shop.stock("lamp").await), ("failed".to_owned(), 5));
    assert_eq!(shop.payments().await, [(declined.to_string(), "failed".to_owned())]);
    assert!(shop.letters().await.is_empty(), "a refusal is an answer, not a failure");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calling_off_undoes_what_was_done_at_any_stage() {
    let shop = Shop::open(settings()).await;
    for (round, stop_at) in [Stage::Orders, Stage::Payments, Stage::Inventory].into_iter().enumerate() {
        let product = format!("p{round}");
        shop.product(&product, 5).await;
        let order = shop.order(&[(&product, 2)]).await;
        shop.drive_to(&order, stop_at).await;
        shop.pipeline.cancel(&order, "changed my mind", "ann").await.unwrap();
        shop.pipeline.cancel(&order, "once more", "ann").await.unwrap();
        shop.drive(&order).await;
        assert_eq!(
            (shop.status(&order).await, shop.stock(&product).await),
            ("cancelled".to_owned(), 5),
            "{stop_at:?}"
        );
    }
    assert_eq!((shop.bank.charged(), shop.bank.reversed()), (1, 1));
    assert_eq!(shop.payments().await.iter().map(|one| one.1.as_str()).collect::<Vec<_>>(), ["refunded"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_bank_is_asked_again_and_then_no_more() {
    let shop = Shop::open(settings()).await;
    shop.product("lamp", 5).await;
    let lucky = shop.order(&[("lamp", 1)]).await;
    shop.bank.set(Mood::Fail(2));
    shop.drive(&lucky).await;
    assert_eq!(shop.status(&lucky).await, "completed");
    shop.bank.set(Mood::Fail(1_000));
    let order = shop.order(&[("lamp", 1)]).await;
    shop.drive_until(&order, |progress| progress.parked.is_some()).await;
    let letters = shop.letters().await;
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].1, ("payments".to_owned(), order.to_string(), 3));
    assert_eq!(shop.stock("lamp").await, 3, "the stock is kept for it");
    // the fix
    shop.bank.set(Mood::Approve);
    shop.parts.letters.replay(&letters[0].0, "test").await.unwrap();
    shop.drive(&order).await;
    assert_eq!(shop.status(&order).await, "completed");
    assert!(shop.letters().await.is_empty());
    assert!(
        shop.parts.letters.replay(&letters[0].0, "test").await.is_err(),
        "there is nothing left to replay"
    );
    assert_eq!(shop.payments().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_as_wrong_is_set_aside_at_once_and_can_be_dropped() {
    let shop = Shop::open(settings()).await;
    shop.product("lamp", 5).await;
    shop.bank.set(Mood::Refuse);
    let order = shop.order(&[("lamp", 1)]).await;
    shop.drive_until(&order, |progress| progress.parked.is_some()).await;
    let letters = shop.letters().await;
    assert_eq!(letters[0].1.2, 1, "one attempt");
    shop.bank.set(Mood::Approve);
    shop.parts.letters.give_up(&letters[0].0, "test").await.unwrap();
    shop.drive(&order).await;
    assert_eq!((shop.status(&order).await, shop.stock("lamp").await), ("failed".to_owned(), 5));
    assert!(shop.letters().await.is_empty());
    let replayed = shop.parts.letters.replay_all(Some("payments"), None, None, "test").await.unwrap();
    assert_eq!(replayed.replayed, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_stood_still_has_no_effect_later() {
    let shop = Shop::open(settings()).await;
    shop.product("lamp", 5).await;
    let order = shop.order(&[("lamp", 2)]).await;
    let frozen = shop.pipeline.snapshot(&order).await.unwrap().unwrap();
    shop.drive_to(&order, Stage::Payments).await;
    let charging = shop.pipeline.snapshot(&order).await.unwrap().unwrap();
    shop.drive(&order).await;
    assert_eq!(shop.stock("lamp").await, 3);
    // they go on where they stood
    shop.pipeline.hold_stock(&frozen).await.unwrap();
    shop.pipeline.charge(&charging).await.unwrap();
    assert_eq!((shop.stock("lamp").await, shop.status(&order).await), (3, "completed".to_owned()));
    assert_eq!(shop.bank.charged(), 1);

    // one held for an order that was called off meanwhile, and died before it could give back
    let schema = shop.parts.products.as_ref().unwrap().schema().clone();
    let lamp = "lamp".parse().unwrap();
    let held = shop.parts.products.as_ref().unwrap().adjust(&lamp, "test", |current| {
        match stock::hold(&schema, &current.values, &order, 1, Timestamp::now()) {
            Held::Now(row) => Ok(Some(row)),
            other => panic!("{other:?}"),
        }
    });
    held.await.unwrap();
    assert_eq!(shop.stock("lamp").await, 2);
    tokio::time::sleep(Duration::from_millis(2)).await;
    shop.pipeline.sweep_holds(Duration::ZERO).await.unwrap();
    assert_eq!(shop.stock("lamp").await, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweep_takes_no_turn_at_a_product_whose_holds_are_somebodys() {
    let shop = Shop::open(settings()).await;
    shop.product("lamp", 5).await;
    let order = shop.order(&[("lamp", 2)]).await;
    shop.drive_to(&order, Stage::Payments).await;
    let lamp = "lamp".parse().unwrap();
    let turn = shop.pipeline.locks.at(&lamp).await;
    tokio::time::sleep(Duration::from_millis(2)).await;
    let swept = tokio::time::timeout(Duration::from_secs(10), shop.pipeline.sweep_holds(Duration::ZERO));
    swept.await.expect("it does not wait for the turn").unwrap();
    drop(turn);
    assert_eq!(shop.stock("lamp").await, 3, "it is held");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_was_called_off_while_its_worker_stood_still_is_not_charged() {
    let shop = Shop::open(settings()).await;
    shop.product("lamp", 5).await;
    let order = shop.order(&[("lamp", 2)]).await;
    shop.drive_to(&order, Stage::Payments).await;
    let charging = shop.pipeline.snapshot(&order).await.unwrap().unwrap();
    shop.pipeline.cancel(&order, "changed my mind", "ann").await.unwrap();
    shop.drive(&order).await;
    assert_eq!(shop.pipeline.charge(&charging).await.unwrap(), None);
    assert_eq!((shop.bank.charged(), shop.stock("lamp").await), (0, 5));
    assert_eq!(shop.payments().await, [(order.to_string(), "cancelled".to_owned())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_charge_that_comes_after_its_reversal_is_given_back_until_it_is_done() {
    let shop = Shop::open(settings()).await;
    shop.product("lamp", 5).await;
    let order = shop.order(&[("lamp", 2)]).await;
    shop.drive_to(&order, Stage::Payments).await;
    let charging = shop.pipeline.snapshot(&order).await.unwrap().unwrap();
    shop.bank.set(Mood::Late(2));
    let called_off = async {
        // a charge that was not yet asked for when the order was called off is never asked for
        while shop.bank.asked() == 0 {
            tokio::task::yield_now().await;
        }
        shop.pipeline.cancel(&order, "changed my mind", "ann").await.unwrap();
        shop.drive(&order).await;
    };
    let (charged, ()) = tokio::join!(shop.pipeline.charge(&charging), called_off);
    assert_eq!(charged.unwrap(), None);
    shop.drive(&order).await;
    assert_eq!((shop.bank.charged(), shop.bank.given_back()), (1, 1));
    assert_eq!((shop.status(&order).await, shop.stock("lamp").await), ("cancelled".to_owned(), 5));
}

/// The letter of an order whose charge nobody answered.
fn unanswered(order: &Key) -> Letter {
    Letter {
        stage: "payments".to_owned(),
        subject: order.to_string(),
        failure: Failure::retryable("no answer"),
        attempts: 3,
        trace: String::new(),
        payload: json!({}),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_letter_that_does_not_stand_for_its_order_any_more_ends_nothing_when_it_is_dropped() {
    let shop = Shop::open(settings()).await;
    shop.product("lamp", 5).await;
    let order = shop.order(&[("lamp", 1)]).await;
    shop.drive_to(&order, Stage::Payments).await;
    // its worker died after the letter was kept and before the order was set aside
    let letter = shop.parts.letters.put(unanswered(&order)).await.unwrap();
    shop.parts.letters.give_up(&letter.key, "test").await.unwrap();
    shop.drive(&order).await;
    assert_eq!(shop.status(&order).await, "completed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_owes_something_tries_again_without_anybodys_word() {
    let shop = Shop::open(settings()).await;
    shop.product("lamp", 5).await;
    let order = shop.order(&[("lamp", 1)]).await;
    shop.drive_to(&order, Stage::Inventory).await;
    shop.pipeline.cancel(&order, "changed my mind", "ann").await.unwrap();
    shop.bank.set(Mood::Late(9));
    shop.drive_until(&order, |progress| progress.parked.is_some()).await;
    shop.bank.set(Mood::Approve);
    let [(letter, _)] = &shop.letters().await[..] else { panic!() };
    let dropped = shop.parts.letters.give_up(letter, "test").await;
    assert!(matches!(dropped, Err(ServiceError::Conflict(_))), "it owes something: {dropped:?}");
    shop.pipeline.attend_to(&order, Stage::Inventory, letter.as_str()).await.unwrap();
    shop.drive(&order).await;
    assert_eq!((shop.bank.given_back(), shop.letters().await.len()), (1, 0));
    assert_eq!((shop.status(&order).await, shop.stock("lamp").await), ("cancelled".to_owned(), 5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_order_keeps_the_letter_of_what_it_owes() {
    let shop = Shop::open(settings()).await;
    shop.product("lamp", 5).await;
    let order = shop.order(&[("lamp", 1)]).await;
    shop.drive_to(&order, Stage::Payments).await;
    shop.bank.set(Mood::Fail(9));
    shop.drive_until(&order, |progress| progress.parked.is_some()).await;
    let [(letter, _)] = &shop.letters().await[..] else { panic!() };
    shop.parts.letters.give_up(letter, "test").await.unwrap();
    shop.drive_until(&order, |progress| progress.parked.is_some()).await;
    let [(letter, _)] = &shop.letters().await[..] else { panic!() };
    let dropped = shop.parts.letters.give_up(letter, "test").await;
    assert!(matches!(dropped, Err(ServiceError::Conflict(_))), "it may owe something: {dropped:?}");
    assert_eq!(shop.letters().await.len(), 1);
    shop.bank.set(Mood::Approve);
    shop.parts.letters.replay(letter, "test").await.unwrap();
    shop.drive(&order).await;
    assert_eq!(shop.letters().await.len(), 0);
    assert_eq!((shop.status(&order).await, shop.stock("lamp").await), ("failed".to_owned(), 5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_set_aside_while_its_letter_is_replayed_goes_on() {
    let shop = Shop::open(settings()).await;
    shop.product("lamp", 5).await;
    let order = shop.order(&[("lamp", 1)]).await;
    shop.drive_to(&order, Stage::Payments).await;
    let letter = shop.parts.letters.put(unanswered(&order)).await.unwrap();
    // the replay comes before the order is set aside: there is nothing to go on with
    shop.pipeline.replay(&letter, "test").await.unwrap();
    let snapshot = shop.pipeline.snapshot(&order).await.unwrap().unwrap();
    let set_aside = shop.pipeline.move_on(&snapshot, |progress| {
        progress.parked = Some(letter.key.to_string());
        (None, None)
    });
    set_aside.await.unwrap().unwrap();
    shop.parts.letters.take_back(&letter).await.unwrap();
    shop.pipeline.taken(&letter, "test").await.unwrap();
    shop.drive(&order).await;
    assert_eq!((shop.status(&order).await, shop.letters().await.len()), ("completed".to_owned(), 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_stands_still_between_its_look_and_its_write_changes_nothing() {
    let shop = Shop::open(settings()).await;
    shop.product("lamp", 5).await;
    let lamp = "lamp".parse().unwrap();
    let products = shop.parts.products.clone().unwrap();
    let schema = products.schema();
    for (stage, left) in [(Stage::Orders, 3), (Stage::Inventory, 1)] {
        let order = shop.order(&[("lamp", 2)]).await;
        shop.drive_to(&order, stage).await;
        let mut snapshot = shop.pipeline.snapshot(&order).await.unwrap().unwrap();
        if stage == Stage::Inventory {
            let sold = shop.pipeline.move_on(&snapshot, |progress| {
                progress.sold = true;
                (None, None)
            });
            snapshot = shop.pipeline.snapshot_of(sold.await.unwrap().unwrap());
        }
        let change = |current: &Record| {
            Ok(match stage {
                Stage::Orders => match stock::hold(schema, &current.values, &order, 2, Timestamp::now()) {
                    Held::Now(row) => Some(row),
                    other => panic!("{other:?}"),
                },
                _ => {
                    stock::settle(schema, &current.values, &order, stock::Settling::Commit, Timestamp::now())
                }
            })
        };
        let look = async || {
            let unmoved = shop.pipeline.is_unmoved(&snapshot).await?;
            // it is allowed to, and stands still: others go on
            if unmoved {
                shop.drive(&order).await;
            }
            Ok(unmoved)
        };
        let outcome = products.update_if(&lamp, "test", change, &|| Box::pin(look())).await.unwrap();
        assert!(!matches!(outcome, Adjusted::Changed(_)), "{stage:?}: {outcome:?}");
        assert_eq!(
            (shop.status(&order).await, shop.stock("lamp").await),
            ("completed".to_owned(), left),
            "{stage:?}"
        );
    }
    assert_eq!(shop.bank.charged(), 2);
    assert!(
        stock::held_before(
            schema,
            &products.find_one(&lamp).await.unwrap().unwrap().values,
            after(&ServerClock::default(), STUCK_AFTER)
        )
        .is_empty()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_change_a_product_one_after_the_other() {
    let shop = Shop::open(settings()).await;
    shop.product("lamp", 5).await;
    let lamp = "lamp".parse().unwrap();
    let place_of = |product: &str| shop.pipeline.locks.place_of(&product.parse().unwrap());
    let other = (0..).map(|n| format!("vase{n}")).find(|name| place_of(name) != place_of("lamp")).unwrap();
    shop.product(&other, 5).await;
    let waits = shop.order(&[("lamp", 1)]).await;
    let turn = shop.pipeline.locks.at(&lamp).await;
    let goes_on = async {
        for _ in 0..5 {
            let order = shop.order(&[(&other, 1)]).await;
            shop.drive(&order).await;
        }
        assert_eq!(shop.stock("lamp").await, 5, "it is another's turn");
        drop(turn);
    };
    tokio::join!(shop.drive(&waits), goes_on);
    assert_eq!((shop.status(&waits).await, shop.stock("lamp").await), ("completed".to_owned(), 4));
}
