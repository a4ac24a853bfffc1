//! Stock holds on real stores: guarded updates of products by many at once.

use futures::future::join_all;

use super::*;
use model::{
    budget::Allowance,
    entities::product,
    json::parse_create,
    query::{Comparison, Filter, Query, Start},
    schema::FieldRef,
    stock::{self, Held, Settling},
};

/// Buyers at once.
const BUYERS: usize = 16;
/// What each tries to buy, one piece at a time.
const ATTEMPTS: usize = 5;
/// What there is.
const STOCK: i64 = 30;

pub async fn stock_is_never_oversold(target: &Target) {
    let products = products();
    target.store.prepare(std::slice::from_ref(&products)).await.unwrap();
    let body = format!(r#"{{"name":"Lamp","price":"1","stock":{STOCK}}}"#);
    let row = parse_create(&products.schema, body.as_bytes()).unwrap().values;
    target.one(create(&products, "lamp", row)).await.unwrap();

    let buyers = (0..BUYERS).map(|buyer| {
        let products = &products;
        async move {
            let mut held = 0;
            for attempt in 0..ATTEMPTS {
                let order: Key = format!("o-{buyer}-{attempt}").parse().unwrap();
                // twice, as a repeated message does
                held += i64::from(take(target, products, &order).await);
                assert!(!take(target, products, &order).await);
            }
            held
        }
    });
    let held: i64 = join_all(buyers).await.into_iter().sum();
    assert_eq!(held, STOCK);
    let record = found(target.lookup(&products, "lamp").await);
    assert_eq!(model::holds::stock(&products.schema, &record.values), 0);
    let orders = stock::held_before(&products.schema, &record.values, Timestamp(i64::MAX));
    assert_eq!(orders.len(), STOCK as usize);
    assert_eq!(held_products(target, &products).await, ["lamp"]);

    for (n, order) in orders.iter().enumerate() {
        let settling = if n % 3 == 0 { Settling::Release } else { Settling::Commit };
        assert!(end(target, &products, order, settling).await);
        assert!(!end(target, &products, order, Settling::Release).await);
    }
    let record = found(target.lookup(&products, "lamp").await);
    assert_eq!(model::holds::stock(&products.schema, &record.values), STOCK / 3);
    assert!(held_products(target, &products).await.is_empty(), "no hold is left");
    assert!(!record.to_json(&products.schema).contains("hold"), "holds are nobody's business");
}

fn products() -> Arc<Collection> {
    Arc::new(Collection {
        pool: "products".to_owned(),
        schema: Arc::new(product::schema()),
        name: "products".to_owned(),
        key_column: "id".to_owned(),
        version_column: Some("version".to_owned()),
        declared: false,
    })
}

/// The products that orders hold, as a sweep finds them.
async fn held_products(target: &Target, products: &Arc<Collection>) -> Vec<String> {
    let since = FieldRef::Field(products.schema.internal_index_of("held_since").unwrap());
    let later = Value::Time(Timestamp(Timestamp::now().0 + 60_000));
    let filter = Filter::Compare(since, Comparison::Lt, later);
    let query = Query {
        filter,
        order: Vec::new(),
        start: Start::Offset(0),
        limit: 10,
        count: false,
        allowance: Allowance::default(),
    };
    let page = target.store.find(products, &query).await.unwrap();
    page.records.iter().map(|record| record.key.to_string()).collect()
}

/// Holds one piece; false where there is none or the order has one.
async fn take(target: &Target, products: &Arc<Collection>, order: &Key) -> bool {
    guarded(target, products, |row| match stock::hold(&products.schema, row, order, 1, Timestamp::now()) {
        Held::Now(row) => Some(row),
        Held::Already | Held::Short(0) => None,
        other => panic!("{other:?}"),
    })
    .await
}

async fn end(target: &Target, products: &Arc<Collection>, order: &Key, settling: Settling) -> bool {
    guarded(target, products, |row| stock::settle(&products.schema, row, order, settling, Timestamp::now()))
        .await
}

async fn guarded(target: &Target, products: &Arc<Collection>, change: impl Fn(&Row) -> Option<Row>) -> bool {
    loop {
        let record = found(target.lookup(products, "lamp").await);
        let Some(row) = change(&record.values) else { return false };
        match target.one(replace(products, "lamp", Guard::Exactly(record.version), row)).await {
            Ok(_) => return true,
            Err(StoreError::Stale { .. } | StoreError::Unavailable(_)) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}
