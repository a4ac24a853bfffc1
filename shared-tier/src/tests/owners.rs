//! Whose a prefix is.

use super::*;

#[tokio::test]
async fn a_prefix_is_one_owners_and_for_others_a_miss() {
    let Some(program) = redis_program() else { return };
    let server = Server::start(&program, &[]).await;
    let cache = cache(RedisConfig::new(server.url()));
    // what has no mark is adopted
    tell(&cache, &[order("p:k", 1, Some("before"))]).await;
    let first = owned(&cache, "p:", owner::testing::of("a", "d1")).await;
    assert_eq!(text(&first, "p:k").await.as_deref(), Some("before"));
    assert_eq!(first.trusted_since_ms(), cache.trusted_since_ms());

    let second = owned(&cache, "p:", owner::testing::of("b", "d2")).await;
    assert_eq!(second.owned_by().as_deref(), Some("a/shop"));
    assert_eq!(text(&second, "p:k").await, None, "a record of another");
    assert!(
        second.tell(&[order("p:k", 9, Some("theirs"))]).await.iter().all(Result::is_ok),
        "nothing waits for ever"
    );
    assert_eq!(second.lease(&["p:k".to_owned()], "b", 1_000).await.unwrap(), [true], "it loads for itself");
    assert_eq!(
        first.lease(&["p:k".to_owned()], "a", 1_000).await.unwrap(),
        [true],
        "and takes no lease away"
    );
    assert_eq!(text(&first, "p:k").await.as_deref(), Some("before"));
    let apart = owned(&cache, "q:", owner::testing::of("b", "d2")).await;
    assert_eq!((apart.owned_by(), text(&apart, "q:k").await), (None, None));

    let mover = owned(&cache, "p:", owner::testing::after("c", "a/shop")).await;
    assert_eq!(mover.owned_by(), None);
    assert!(mover.trusted_since_ms() > 0, "what the other kept is not believed");
    first.look().await;
    assert_eq!(first.owned_by().as_deref(), Some("c/shop"));
}
