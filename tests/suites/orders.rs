//! The order pipeline under everything: never oversold, charged once, final in the end, whatever fails, freezes or is killed.

mod shop;

use std::{sync::atomic::Ordering, time::Duration};

use harness::{bank::Mood, wait};
use reqwest::Method;
use serde_json::json;

use self::shop::{Shop, scaled};

/// How long orders may take to end once nothing hinders them.
const END: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_oversold_in_embedded_stores() {
    let shop = Shop::embedded().await;
    oversold(&shop, scaled(100, 1_000), scaled(300, 100_000)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_fails_hangs_and_declines_charges_once() {
    let shop = Shop::embedded().await;
    shop.product("lamp", 1_000_000).await;
    shop.bank.set(Mood { fail_percent: 20, hang_percent: 5, refuse_poison: false });
    let begun = std::time::Instant::now();
    let count = scaled(150, 10_000);
    for n in 0..count {
        let user = if n % 5 == 0 { "poor" } else { "rich" };
        shop.order(&format!("o{n}"), user, "lamp", 1).await;
    }
    shop.all_end_or_wait(END).await;
    let (calls, charges) = shop.bank.calls();
    let most = charges as f64 * 1.2 + begun.elapsed().as_secs_f64() + 1.0;
    assert!((calls as f64) <= most, "{calls} calls for {charges} charges");
    eprintln!("{calls} calls for {charges} charges in {:?}", begun.elapsed());
    shop.bank.set(Mood::default());
    shop.replay_everything().await;
    shop.all_end(END).await;
    shop.books_agree("lamp", 1_000_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_poisoned_order_is_one_dead_letter_and_the_rest_goes_through() {
    let shop = Shop::embedded().await;
    poisoned(&shop, scaled(200, 100_000), scaled(10, 1_000)).await;
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
async fn a_kill_in_the_middle_of_orders_leaves_none_open_in_embedded_stores() {
    let mut shop = Shop::embedded().await;
    killed(&mut shop, scaled(120, 5_000), scaled(4, 50)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_over_real_servers() {
    let Some(mut shop) = Shop::real("orders over real servers").await else { return };
    let replica = shop.stage.replica();
    oversold(&shop, scaled(60, 1_000), scaled(180, 100_000)).await;
    frozen(&shop, &replica, scaled(1, 20)).await;
    drop(replica);
    killed(&mut shop, scaled(60, 5_000), scaled(3, 50)).await;
    poisoned(&shop, scaled(60, 100_000), scaled(5, 1_000)).await;
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
    futures::future::join_all(buyers).await;
    shop.all_end(END * (1 + attempts as u32 / 1_000)).await;
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
    for kill in 0..kills {
        for n in 0..count / kills {
            shop.order(&format!("cup-{kill}-{n}"), "u", "cup", 1).await;
        }
        tokio::task::block_in_place(|| {
            shop.stage.data_plane.kill();
            shop.stage.data_plane.restart();
        });
    }
    shop.all_end(END).await;
    shop.books_agree("cup", 1_000_000).await;
    assert_eq!(shop.letters().await, 0, "a crash is no failure of an order");
}

/// A replica stands still for longer than its session, in the middle of its orders.
async fn frozen(shop: &Shop, replica: &harness::dataplane::DataPlane, times: usize) {
    shop.product("bowl", 1_000_000).await;
    for time in 0..times {
        for n in 0..30 {
            shop.order(&format!("bowl-{time}-{n}"), "u", "bowl", 1).await;
        }
        replica.freeze();
        for n in 30..60 {
            shop.order(&format!("bowl-{time}-{n}"), "u", "bowl", 1).await;
        }
        // the others take over what it had
        shop.all_end(END).await;
        replica.thaw();
        for n in 60..90 {
            shop.order(&format!("bowl-{time}-{n}"), "u", "bowl", 1).await;
        }
        shop.all_end(END).await;
    }
    shop.books_agree("bowl", 1_000_000).await;
}
