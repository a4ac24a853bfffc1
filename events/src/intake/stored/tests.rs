//! The log of events in a store: shared out, given back, removed.

use super::*;
use crate::{
    intake::testing::{event, events},
    stored::testing::FakeLog,
};
use ::testing::until;

const FLUSH: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(30);

fn intake(log: &FakeLog) -> StoredIntake {
    StoredIntake::start(Arc::new(log.clone()), "shop.intake")
}

async fn take(reader: &mut Box<dyn IntakeReader>, full: usize) -> Vec<i64> {
    let batch = timeout(PATIENCE, reader.take(full, FLUSH)).await.expect("a batch").unwrap();
    assert!(batch.unreadable.is_empty() && batch.events.iter().all(|event| event.place.is_some()));
    let mut stocks: Vec<i64> = batch.events.iter().map(|event| event.stock).collect();
    stocks.sort_unstable();
    stocks
}

#[tokio::test]
async fn what_was_accepted_is_given_until_it_is_done() {
    let log = FakeLog::default();
    let intake = intake(&log);
    intake.append(events(10)).await.unwrap();
    assert_eq!(intake.waiting().await.unwrap(), 10);
    let mut first = intake.reader().await.unwrap();
    let taken = take(&mut first, 10).await;
    assert_eq!(taken, (0..10).collect::<Vec<_>>());
    drop(first);
    let mut second = intake.reader().await.unwrap();
    assert_eq!(take(&mut second, 10).await, taken, "another is given what was not done");
    second.done().await.unwrap();
    assert_eq!(intake.waiting().await.unwrap(), 0);
    intake.append(vec![event(77)]).await.unwrap();
    assert_eq!(take(&mut second, 1).await, [77]);
    second.done().await.unwrap();
    until("only the newest is left", async || {
        prune(&log, "shop.intake").await.unwrap();
        log.shared.lock().logs["shop.intake"].len() == 1
    })
    .await;
}

#[tokio::test]
async fn readers_of_one_process_share_what_waits() {
    let intake = intake(&FakeLog::default());
    let (mut one, mut two) = (intake.reader().await.unwrap(), intake.reader().await.unwrap());
    intake.append(events(4)).await.unwrap();
    let taken = take(&mut one, 4).await;
    assert_eq!(taken.len(), 4);
    intake.append(vec![event(5)]).await.unwrap();
    assert_eq!(take(&mut two, 1).await, [5], "what the other has is not given twice");
    drop(one);
    two.done().await.unwrap();
    assert_eq!(take(&mut two, 4).await, taken);
}

#[tokio::test]
async fn processes_share_what_waits() {
    let log = FakeLog::default();
    let (one, two) = (intake(&log), intake(&log.again()));
    let mut readers = [one.reader().await.unwrap(), two.reader().await.unwrap()];
    let both_read = async || {
        let claims = log.claims(one.group()).await.unwrap();
        let owners = |claims: &[model::log::Claim]| {
            let owners =
                claims.iter().filter(|claim| claim.part >= 0 && claim.lasts).map(|claim| claim.owner.clone());
            owners.collect::<std::collections::BTreeSet<_>>().len()
        };
        owners(&claims) == 2
    };
    until("both have parts", both_read).await;
    let sent: Vec<PriceEvent> =
        (0..200).map(|n| PriceEvent { product_id: format!("p{n}"), ..event(n) }).collect();
    two.append(sent).await.unwrap();
    let (mut seen, [first, second]) = (Vec::new(), &mut readers);
    let all = async {
        while seen.len() < 200 {
            let (mut a, mut b) = (Vec::new(), Vec::new());
            tokio::select! {
                batch = first.take(200, FLUSH) => { a = batch.unwrap().events; first.done().await.unwrap() }
                batch = second.take(200, FLUSH) => { b = batch.unwrap().events; second.done().await.unwrap() }
            }
            seen.append(&mut a);
            seen.append(&mut b);
        }
    };
    timeout(PATIENCE, all).await.expect("all events");
    let mut stocks: Vec<i64> = seen.iter().map(|event| event.stock).collect();
    stocks.sort_unstable();
    assert_eq!(stocks, (0..200).collect::<Vec<_>>(), "each once");
    assert_eq!(one.waiting().await.unwrap(), 0);
}
