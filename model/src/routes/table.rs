//! The rows.

use crate::entities::Entity;
use http::Method;

use super::{
    Effect::{Caches, Reads, Writes, WritesByKey},
    Owner::{Any, Body, Every, Gateway, Home, InTurn, Query},
    Route,
    join::{self, Rule},
};

const OF_PAYMENTS: super::Owner = super::Owner::Entity(Entity::Payment);
const OF_ORDERS: super::Owner = super::Owner::Entity(Entity::Order);
const OF_PRODUCTS: super::Owner = super::Owner::Entity(Entity::Product);
const OF_TEMPLATES: super::Owner = super::Owner::Entity(Entity::NotificationTemplate);

macro_rules! table {
    ($($name:ident: $method:ident $path:literal, $owner:expr, $effect:expr;)*) => {
        $(
            #[doc = concat!("`", stringify!($method), " ", $path, "`")]
            pub static $name: Route =
                Route { method: Method::$method, path: $path, owner: $owner, effect: $effect };
        )*
        /// Every row.
        pub static TABLE: &[&Route] = &[$(&$name),*];
    };
}

table! {
    // of every collection, below its path
    RECORDS: GET "", Home, Reads;
    CREATE: POST "", Home, WritesByKey;
    REPLACE_BY_ID: PUT "", Home, Writes;
    PATCH_BY_ID: PATCH "", Home, Writes;
    DELETE_BY_ID: DELETE "", Home, Writes;
    RECORD: GET "/{key}", Home, Reads;
    REPLACE: PUT "/{key}", Home, Writes;
    PATCH: PATCH "/{key}", Home, Writes;
    DELETE: DELETE "/{key}", Home, Writes;
    BATCH: POST "/batch", Home, WritesByKey;

    // of single entities, besides their lists, which the table of entities has
    PAYMENT_STATUS: PUT "/api/v1/payments/{key}/status", OF_PAYMENTS, Writes;
    TIMELINE: GET "/api/v1/orders/{key}/timeline", OF_ORDERS, Reads;
    CANCEL: POST "/api/v1/orders/{key}/cancel", OF_ORDERS, Writes;
    PIPELINE: GET "/api/v1/pipeline", OF_ORDERS, Reads;
    EVENTS: POST "/api/v1/events", OF_PRODUCTS, Writes;
    RENDER: POST "/api/v1/notifications/templates/{key}/render", OF_TEMPLATES, Reads;

    // dead letters are in one place, and replayed where their stage is
    LETTERS: GET "/api/v1/dead-letters", Any, Reads;
    LETTER: GET "/api/v1/dead-letters/{key}", Any, Reads;
    GIVE_UP_LETTER: DELETE "/api/v1/dead-letters/{key}", Any, Writes;
    REPLAY_LETTER: POST "/api/v1/dead-letters/{key}/replay", InTurn, Writes;
    REPLAY_LETTERS: POST "/api/v1/dead-letters/replay", Every(&join::REPLAYED), Writes;

    // of all pools
    POOLS: GET "/api/v1/pools", Every(&join::POOLS), Reads;
    AUDIT: GET "/api/v1/audit", Query("entity", &Every(&Rule::Page)), Reads;
    AUDIT_EXPORT: GET "/api/v1/audit/export", Query("entity", &Every(&Rule::Lines)), Reads;
    REPOSITORIES: GET "/api/v1/repositories", Every(&join::REPOSITORIES), Reads;
    REPOSITORY: GET "/api/v1/repositories/{type}", Every(&join::REPOSITORY), Reads;
    REPOSITORY_QUERY: POST "/api/v1/repositories/query", Body("repository", &Any), Reads;
    CACHE_STATS: GET "/api/v1/repositories/cache/stats", Every(&join::CACHES), Reads;
    CACHE_WARM: POST "/api/v1/repositories/cache/warm", Body("repository", &Every(&join::WARMED)), Caches;
    FACTORY_STATS: GET "/api/v1/factory/stats", Every(&join::FACTORY), Reads;
    FACTORY_CLEANUP: POST "/api/v1/factory/cleanup", Body("pool", &Every(&join::CLEANED)), Caches;
    FACTORY_WARM: POST "/api/v1/factory/warm", Body("pool", &Every(&join::WARMED)), Caches;
    FIGURES: GET "/api/v1/figures", Every(&join::FIGURES), Reads;
    SCHEMAS: GET "/schemas", Every(&join::SCHEMAS), Reads;
    SCHEMA: GET "/schemas/{kind}", Every(&Rule::First), Reads;
    SCHEMA_VERSION: GET "/schemas/{kind}/{version}", Every(&Rule::First), Reads;
    OPENAPI: GET "/openapi.json", Every(&join::OPENAPI), Reads;
    OPENAPI_OF_API: GET "/api/v1/openapi.json", Every(&join::OPENAPI), Reads;

    // every pod has the feed of all entities
    WEB_SOCKET: GET "/ws", Any, Reads;
    WEB_SOCKET_OF_API: GET "/api/v1/ws", Any, Reads;
    EVENT_STREAM: GET "/api/v1/events/stream", Any, Reads;
    TICKETS: POST "/api/v1/ws/tickets", Any, Caches;

    // of the process
    HEALTH: GET "/health", Every(&join::HEALTH), Reads;
    HEALTH_OF_API: GET "/api/v1/health", Every(&join::HEALTH), Reads;
    LIVEZ: GET "/livez", Gateway, Reads;
    LIVEZ_OF_API: GET "/api/v1/livez", Any, Reads;
    READYZ: GET "/readyz", Gateway, Reads;
    READYZ_OF_API: GET "/api/v1/readyz", Any, Reads;
    GATEWAY_REGISTRY: GET "/api/v1/gateway/registry", Gateway, Reads;

    // pages
    DASHBOARD: GET "/", Any, Reads;
    DASHBOARD_SCRIPT: GET "/dashboard/app.js", Any, Reads;
    DASHBOARD_STYLE: GET "/dashboard/app.css", Any, Reads;
    DOCS: GET "/docs", Any, Reads;
    DOCS_SCRIPT: GET "/docs/docs.js", Any, Reads;
    DOCS_STYLE: GET "/docs/swagger-ui.css", Any, Reads;
    DOCS_BUNDLE: GET "/docs/swagger-ui-bundle.js", Any, Reads;
}
