//! A store that is replaced while it is in use: what cannot be reached does not take over, and the relay goes
//! on where it was.

use std::time::Duration;

use super::*;
use crate::rotating::RotatingStore;

const LONG: Duration = Duration::from_secs(30);

pub async fn another_connection_takes_over_in_the_middle_of_relaying(target: &Target) {
    let users = &target.users;
    let rotating = RotatingStore::new(target.store.clone());
    rotating.prepare(&[users.clone(), target.things.clone()]).await.unwrap();
    let outbox = rotating.outbox();
    let make = async |key: &str| {
        let change = create(users, key, person(&format!("{key}@example.com"), None));
        rotating.commit(UnitOfWork::new(vec![change], &Origin::of("tester"))).await.unwrap();
    };
    let read =
        async |key: &str| found(rotating.read(users, &[key.parse().unwrap()]).await.unwrap().remove(0));
    make("u").await;
    let claimed = outbox.claim("o", LONG, 10).await.unwrap().events;
    assert_eq!(claimed.len(), 1);

    let nowhere = SqlStore::mysql(MysqlOptions::new("mysql://a:b@127.0.0.1:1/c"), sealer()).unwrap();
    assert!(rotating.rotate(Arc::new(nowhere)).await.is_err());
    assert_eq!(read("u").await.version, Version(1));

    let other = target.again().await;
    rotating.rotate(other.store.clone()).await.unwrap();
    assert_eq!(read("u").await.version, Version(1));
    make("v").await;
    outbox.confirm("o", &[claimed[0].id]).await.unwrap();
    let next = outbox.claim("o", LONG, 10).await.unwrap();
    let keys: Vec<&str> = next.events.iter().map(|event| event.key.as_str()).collect();
    assert_eq!(
        (keys, next.blocked),
        (vec!["v"], false),
        "the owner's leases are its own with any connection"
    );
    outbox.release("o").await.unwrap();
    assert_eq!(target.store.outbox().backlog().await.unwrap().events, 1);
}
