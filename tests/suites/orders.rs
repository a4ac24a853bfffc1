//! The order pipeline under everything: never oversold, charged once, final in the end, whatever fails,
//! freezes or is killed.

mod shop;

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use futures::StreamExt;
use harness::{bank::Mood, dataplane::DataPlane, manifests, scale, seed, wait};
use rand::Rng;
use reqwest::Method;
use serde_json::json;

use self::shop::Shop;
use crate::{
    group::{Group, claims_are_of},
    stage::Stage,
};

/// How long orders may take to end once nothing hinders them.
const END: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_oversold_in_embedded_stores() {
    let shop = Shop::embedded().await;
    oversold(&shop, scale::of(100, 1_000), scale::of(300, 100_000)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_fails_hangs_and_declines_charges_once() {
    let shop = Shop::embedded().await;
    shop.product("lamp", 1_000_000).await;
    shop.bank.set(Mood { fail_percent: 20, hang_percent: 5, ..Mood::default() });
    let count = scale::of(150, 2_000);
    for n in 0..count {
        let user = if n % 5 == 0 { "poor" } else { "rich" };
        shop.order(&format!("o{n}"), user, "lamp", 1).await;
    }
    // while orders come, each of them pays for a fifth of a repetition; a moment in which none comes may have
    // one more
    let (calls, charges) = shop.bank.calls();
    eprintln!("{calls} calls for {charges} charges");
    assert!(calls as f64 <= charges as f64 * 1.2 + 3.0, "{calls} calls for {charges} charges");
    shop.all_end_or_wait(END * (1 + count as u32 / 1_000)).await;
    shop.bank.set(Mood::default());
    shop.replay_everything().await;
    shop.all_end(END).await;
    shop.books_agree("lamp", 1_000_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_poisoned_order_is_one_dead_letter_and_the_rest_goes_through() {
    let shop = Shop::embedded().await;
    poisoned(&shop, scale::of(200, 100_000), scale::of(10, 1_000)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_order_gives_everything_back() {
    let shop = Shop::embedded().await;
    shop.product("lamp", 100).await;
    // nothing is answered, so that orders stand at the payment when they are called off
    shop.bank.set(Mood { hang_percent: 100, ..Mood::default() });
    for n in 0..10 {
        shop.order(&format!("o{n}"), "u", "lamp", 2).await;
    }
    wait::until("stock to be held", END, async || (shop.stock("lamp").await == 80).then_some(())).await;
    for n in 0..10 {
        let path = format!("/api/v1/orders/o{n}/cancel");
        let answer = shop.stage.api.send(Method::POST, &path, &[], &json!(null)).await;
        assert_eq!(answer.status, 202, "{}", answer.text);
    }
    shop.bank.set(Mood::default());
    shop.all_end(END).await;
    assert_eq!(shop.statuses().await.get("cancelled"), Some(&10));
    shop.books_agree("lamp", 100).await;
    assert_eq!(shop.stock("lamp").await, 100);
    let deleted = shop.stage.api.send(Method::DELETE, "/api/v1/orders/o1", &[], &json!(null)).await;
    assert_eq!(deleted.status, 204, "{}", deleted.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_charge_that_comes_twice_is_one_payment() {
    let pipeline = "  pipeline:\n    retry: { initialDelay: 10ms, maxDelay: 50ms }\n    payments: { simulator: { duplicatePercent: 100 } }\n";
    let stage = Stage::embedded_with(|dir| manifests::write_samples_with(dir, pipeline));
    let api = &stage.api;
    let product = json!({ "id": "lamp", "name": "Lamp", "price": 3, "stock": 10 });
    assert_eq!(api.post("/api/v1/products", &product).await.status, 201);
    for n in 0..3 {
        let order = json!({ "id": format!("o{n}"), "user_id": "u", "items": [{ "product_id": "lamp", "quantity": 1 }] });
        assert_eq!(api.post("/api/v1/orders", &order).await.status, 201);
    }
    wait::until("all orders to end", END, async || {
        let orders = api.get("/api/v1/orders").await.json();
        orders["items"].as_array()?.iter().all(|order| order["status"] == "completed").then_some(())
    })
    .await;
    let bank = api.get("/api/v1/pipeline").await.json()["dependencies"]["payments"].clone();
    assert_eq!((&bank["calls"], &bank["repeated"]), (&json!(6), &json!(3)), "each came twice");
    let payments = api.get("/api/v1/payments").await.json();
    let mut paid: Vec<_> = payments["items"].as_array().unwrap().iter().collect();
    paid.sort_by_key(|payment| payment["order_id"].as_str().unwrap().to_owned());
    let paid: Vec<_> = paid.iter().map(|payment| (&payment["order_id"], &payment["status"])).collect();
    assert_eq!(
        paid,
        [
            (&json!("o0"), &json!("completed")),
            (&json!("o1"), &json!("completed")),
            (&json!("o2"), &json!("completed"))
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_come_and_go_while_orders_are_charged() {
    let shop = Shop::embedded().await;
    shop.product("lamp", 1_000_000).await;
    // all that can be asked at the same time is: a worker asks for one order, and waits
    shop.bank.set(Mood { delay: Duration::from_millis(300), ..Mood::default() });
    for (round, workers) in [1, 6, 2].into_iter().enumerate() {
        shop.employ(workers);
        wait::until(&format!("{workers} workers"), END, async || {
            let pipeline = shop.stage.api.get("/api/v1/pipeline").await.json();
            (pipeline["stages"][1]["workers"] == workers).then_some(())
        })
        .await;
        shop.bank.most_at_once();
        let orders: Vec<String> = (0..4 * workers).map(|n| format!("o{round}-{n}")).collect();
        futures::future::join_all(orders.iter().map(|order| shop.order(order, "u", "lamp", 1))).await;
        shop.all_end(END).await;
        assert_eq!(shop.bank.most_at_once(), workers, "calls at the same time");
    }
    shop.books_agree("lamp", 1_000_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_in_the_middle_of_orders_leaves_none_open_in_embedded_stores() {
    let mut shop = Shop::embedded().await;
    killed(&mut shop, scale::of(120, 5_000), scale::of(4, 50)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_oversold_over_real_servers() {
    let Some(shop) = Shop::real("buyers over real servers").await else { return };
    oversold(&shop, scale::of(60, 1_000), scale::of(180, 100_000)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_and_poison_over_real_servers() {
    let Some(mut shop) = Shop::real("orders over real servers").await else { return };
    killed(&mut shop, scale::of(60, 5_000), scale::of(3, 50)).await;
    poisoned(&shop, scale::of(60, 100_000), scale::of(5, 1_000)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_stands_still_past_its_session_has_no_second_effect() {
    let Some(shop) = Shop::real("orders with a frozen replica").await else { return };
    let replica = tokio::task::block_in_place(|| shop.stage.replica());
    let group = Group::of(&shop.stage.servers.as_ref().unwrap().kafka, "orders");
    frozen(&shop, &replica, scale::of(2, 20), async |members| group.has(members).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_stands_still_past_its_claims_has_no_second_effect_over_mysql_alone() {
    let Some(shop) = Shop::on_mysql("orders with a frozen replica over MySQL alone").await else { return };
    let replica = tokio::task::block_in_place(|| shop.stage.replica());
    let url = shop.stage.mysql_url();
    frozen(&shop, &replica, scale::of(1, 20), async |members| claims_are_of(&url, members).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_beside_another_replica_over_mysql_alone() {
    let Some(mut shop) = Shop::on_mysql("orders over MySQL alone").await else { return };
    let replica = tokio::task::block_in_place(|| shop.stage.replica());
    killed(&mut shop, scale::of(60, 5_000), scale::of(3, 50)).await;
    drop(replica);
}

/// 64 buyers at a product of which there is less than they want.
async fn oversold(shop: &Shop, units: usize, attempts: usize) {
    shop.product("rare", units as i64).await;
    let next = std::sync::atomic::AtomicUsize::new(0);
    let buyers = (0..64).map(|_| async {
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= attempts {
                return;
            }
            shop.order(&format!("rare-{n}"), "u", "rare", 1).await;
        }
    });
    let begun = Instant::now();
    futures::future::join_all(buyers).await;
    let answered = begun.elapsed();
    shop.all_end(END * (1 + attempts as u32 / 1_000)).await;
    eprintln!(
        "{attempts} attempts of 64 buyers at {units} units: answered in {answered:?}, all ended after {:?}",
        begun.elapsed()
    );
    let statuses = shop.statuses().await;
    assert_eq!((statuses["completed"], statuses["failed"]), (units, attempts - units));
    assert_eq!(shop.stock("rare").await, 0);
    shop.books_agree("rare", units as i64).await;
}

/// Orders that the provider refuses as wrong, among others.
async fn poisoned(shop: &Shop, count: usize, poison: usize) {
    shop.product("vase", 1_000_000).await;
    shop.bank.set(Mood { refuse_poison: true, ..Mood::default() });
    for n in 0..count {
        let user = if n % (count / poison) == 0 && n / (count / poison) < poison { "poison" } else { "fine" };
        shop.order(&format!("v{n}"), user, "vase", 1).await;
    }
    shop.all_end_or_wait(END * (1 + count as u32 / 1_000)).await;
    assert_eq!(shop.letters().await, poison as u64);
    let figures = shop.stage.api.get("/api/v1/pipeline").await.json();
    assert_eq!(figures["stages"][1]["dead_letters"], poison, "{figures}");
    shop.bank.set(Mood::default());
    shop.replay_everything().await;
    shop.all_end(END).await;
    assert_eq!(shop.letters().await, 0);
    shop.books_agree("vase", 1_000_000).await;
}

/// Kills the data plane again and again while orders come.
async fn killed(shop: &mut Shop, count: usize, kills: usize) {
    shop.product("cup", 1_000_000).await;
    let mut choices = seed::choices(seed::of("orders"));
    let begun = Instant::now();
    for kill in 0..kills {
        let each = count / kills;
        let before = choices.random_range(each / 2..each);
        for n in 0..each {
            if n == before {
                // what came last is under way
                tokio::task::block_in_place(|| {
                    shop.stage.data_plane.kill();
                    shop.stage.data_plane.restart();
                });
            }
            shop.order(&format!("cup-{kill}-{n}"), "u", "cup", 1).await;
        }
    }
    let answered = begun.elapsed();
    shop.all_end(END * (1 + count as u32 / 1_000)).await;
    eprintln!(
        "{count} orders, {kills} kills: answered in {answered:?}, all ended after {:?}",
        begun.elapsed()
    );
    shop.books_agree("cup", 1_000_000).await;
    assert_eq!(shop.letters().await, 0, "a crash is no failure of an order");
}

/// A replica stands still for longer than its session, in the middle of its orders: others take over what it
/// had, and it has no effect later.
async fn frozen(shop: &Shop, replica: &DataPlane, times: usize, are_members: impl AsyncFn(usize)) {
    shop.product("bowl", 1_000_000).await;
    let mut choices = seed::choices(seed::of("orders"));
    for time in 0..times {
        are_members(2).await;
        let orders = futures::stream::iter(0..60).for_each_concurrent(8, |n| async move {
            shop.order(&format!("bowl-{time}-{n}"), "u", "bowl", 1).await;
        });
        let moment = Duration::from_millis(choices.random_range(20..200));
        futures::join!(orders, async {
            tokio::time::sleep(moment).await;
            replica.freeze();
        });
        // some are called off while the worker that has them stands still
        for n in (0..60).step_by(6) {
            let path = format!("/api/v1/orders/bowl-{time}-{n}/cancel");
            let answer = shop.stage.api.send(Method::POST, &path, &[], &json!(null)).await;
            assert!(matches!(answer.status, 202 | 409 | 503 | 504), "{}", answer.text);
        }
        let begun = Instant::now();
        are_members(1).await;
        let moved = begun.elapsed();
        shop.all_end(END).await;
        let ended = begun.elapsed();
        replica.thaw();
        for n in 60..90 {
            shop.order(&format!("bowl-{time}-{n}"), "u", "bowl", 1).await;
        }
        are_members(2).await;
        shop.all_end(END).await;
        shop.books_agree("bowl", 1_000_000).await;
        eprintln!(
            "freeze {}: after {moment:?}; taken over after {moved:?}, all ended after {ended:?}",
            time + 1
        );
    }
}
