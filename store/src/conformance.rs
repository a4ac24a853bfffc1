//! One suite for every store: what `RecordStore` promises, tried on SQLite always, and on MySQL, MariaDB and
//! MongoDB where `MYSQL_URL`, `MARIADB_URL` and `MONGODB_URI` name a server; `MYSQL_ODD_URL` and
//! `MARIADB_ODD_URL` those that are set otherwise. Each test has a database of its own.

use std::{path::PathBuf, sync::Arc};

use model::passage::Plaintext;
use rust_decimal::Decimal;
use uuid::Uuid;

use super::{
    RecordStore, StoreError,
    mongo::{MongoStore, options::MongoOptions},
    sql::{SqlStore, mysql::MysqlOptions},
};
use model::{
    change::{Action, Change, Collection, Guard, Idempotency, Origin, UnitOfWork, Written},
    entities::user,
    key::{Key, Version},
    passage::Passage,
    record::{Lookup, Record},
    schema::{Field, Form, Kind, Schema, Shape},
    seal::{SealError, Sealer},
    value::{Json, Row, Timestamp, Value},
};

mod answers;
mod declared;
mod documents;
mod exact;
mod holds;
mod logs;
mod odd;
mod oracle;
mod outboxes;
mod owners;
mod queries;
mod records;
mod rotation;
mod sql;
mod way;

/// A store under test, with two collections: `users` as built in, and `things` as declared, with a field of
/// every kind.
struct Target {
    store: Arc<dyn RecordStore>,
    users: Arc<Collection>,
    things: Arc<Collection>,
    place: Place,
}

/// Where the store is, so that it can be looked at directly and removed.
enum Place {
    File(PathBuf),
    Mysql { server: String, url: String, database: String },
    Mongo { options: MongoOptions },
}

/// The places of `things`' fields.
mod field {
    pub const TITLE: usize = 0;
    pub const SIZE: usize = 1;
    pub const PRICE: usize = 2;
    pub const ACTIVE: usize = 3;
    pub const SEEN: usize = 4;
    pub const TAGS: usize = 5;
    pub const SECRET: usize = 6;
}

macro_rules! suite {
    ($($module:ident :: $case:ident),* $(,)?) => {
        suite!(@store sqlite, Target::sqlite(), $($module::$case),*);
        suite!(@store mysql, Target::mysql("MYSQL_URL"), $($module::$case),*);
        suite!(@store mariadb, Target::mysql("MARIADB_URL"), $($module::$case),*);
        suite!(@store mongo, Target::mongo(), $($module::$case),*);
    };
    (@sql $($module:ident :: $case:ident),* $(,)?) => {
        suite!(@store sql_on_sqlite, Target::sqlite(), $($module::$case),*);
        suite!(@store sql_on_mysql, Target::mysql("MYSQL_URL"), $($module::$case),*);
        suite!(@store sql_on_mariadb, Target::mysql("MARIADB_URL"), $($module::$case),*);
    };
    (@odd $($module:ident :: $case:ident),* $(,)?) => {
        suite!(@store odd_mysql, Target::mysql("MYSQL_ODD_URL"), $($module::$case),*);
        suite!(@store odd_mariadb, Target::mysql("MARIADB_ODD_URL"), $($module::$case),*);
    };
    (@store $store:ident, $target:expr, $($module:ident :: $case:ident),*) => {
        mod $store {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                if let Some(target) = $target.await {
                    $module::$case(&target).await;
                    target.remove().await;
                }
            })*
        }
    };
}

suite!(
    records::a_record_is_created_read_replaced_and_deleted,
    records::a_deleted_key_goes_on_counting,
    records::guards_are_kept,
    records::every_kind_of_value_comes_back_as_it_was,
    records::unique_values_are_unique_but_for_nulls,
    records::texts_in_small_letters_are_filled_in,
    records::encrypted_fields_are_not_readable_at_rest,
    records::many_keys_are_read_at_once,
    records::one_of_many_writers_wins_each_version,
    records::of_many_creators_one_wins,
    records::a_row_of_another_width_is_refused,
    records::a_unit_whose_time_is_over_is_not_begun,
    queries::comparisons_have_two_values,
    queries::patterns_match_alike,
    queries::parts_are_found_in_either_case,
    queries::pages_follow_an_order,
    queries::random_queries_agree_with_the_model,
    queries::what_cannot_be_searched_is_refused,
    queries::a_page_ends_where_its_memory_does,
    answers::a_repeated_request_gets_the_first_answer,
    answers::of_many_equal_requests_one_is_done,
    answers::a_key_whose_request_failed_can_be_tried_again,
    answers::a_key_whose_request_was_refused_is_free_for_another,
    answers::every_change_has_its_audit_entry,
    answers::creates_at_the_same_time_are_none_of_each_others_business,
    answers::audit_entries_come_in_pages_by_filter,
    answers::audit_entries_end_where_their_memory_does,
    answers::audit_entries_go_at_their_age_and_no_sooner,
    outboxes::events_are_claimed_in_order_and_confirmed,
    outboxes::one_owner_relays_a_key_at_a_time,
    outboxes::of_many_who_claim_a_key_one_gets_it,
    outboxes::a_lease_that_ran_out_is_taken_over,
    outboxes::concurrent_writes_keep_the_order_of_each_key,
    logs::entries_are_numbered_from_one_and_once_each,
    logs::numbers_have_no_gaps_whoever_appends,
    logs::large_entries_come_in_several_pages,
    logs::the_oldest_go_and_the_newest_stays,
    logs::a_part_is_one_members_at_a_time,
    logs::a_claim_that_ran_out_is_taken_over_by_one,
    rotation::another_connection_takes_over_in_the_middle_of_relaying,
    holds::stock_is_never_oversold,
    owners::every_replica_is_told_the_same_identity,
    owners::another_key_is_refused_where_values_are_encrypted,
    odd::what_has_a_meaning_is_read_and_the_rest_is_alone,
    odd::a_change_mends_what_cannot_be_read,
    odd::keys_are_any_text,
);

suite!(@sql
    sql::a_unit_is_all_or_nothing,
    sql::changes_of_a_unit_see_each_other,
    sql::a_value_given_up_is_free_in_the_same_unit,
    sql::unique_values_go_by_the_order_of_the_changes,
    sql::a_unit_of_a_thousand,
    sql::large_records_go_in_several_statements,
    sql::units_that_cross_each_other_all_succeed,
    sql::old_tombstones_are_pruned,
    sql::the_settings_of_commits_are_told,
    sql::what_is_old_goes_at_its_age,
    sql::many_processes_prepare_at_once,
    sql::a_field_that_cannot_be_encrypted_is_refused,
    sql::lost_connections_are_made_again,
    queries::a_filter_of_a_new_shape_costs_little_more_than_any,
    declared::missing_columns_and_wrong_types_are_told,
    declared::one_that_cannot_be_used_takes_only_itself_away,
    declared::an_own_table_that_is_lost_takes_only_its_pool_away,
    declared::an_own_table_that_cannot_be_changed_takes_only_its_pool_away,
    declared::a_table_without_a_version_is_read_only,
    declared::keys_may_be_numbers,
    declared::text_of_any_collation_compares_by_bytes,
    exact::numbers_without_a_sign_come_back_of_every_size,
    exact::what_a_column_cannot_hold_is_refused_with_its_field,
    exact::what_the_database_makes_of_a_record_is_what_is_told,
    exact::numbers_that_are_counted_up_are_told,
    exact::triggers_that_are_not_seen_are_minded,
    exact::times_are_told_as_they_are_kept,
    exact::refusals_of_the_database_are_in_our_own_words,
    exact::what_is_gone_while_running_is_not_said_to_pass,
    way::a_commit_that_is_cut_off_has_an_unknown_outcome,
    way::creates_whose_commit_is_cut_off_are_not_done_again,
    way::settings_that_do_not_take_are_told,
    sql::a_create_that_raced_with_a_deletion_goes_on_counting,
);

// The same answers from servers that are set otherwise: not strict, ANSI, another time zone, isolation and
// character set, no autocommit.
suite!(@odd
    records::a_record_is_created_read_replaced_and_deleted,
    records::a_deleted_key_goes_on_counting,
    records::every_kind_of_value_comes_back_as_it_was,
    records::unique_values_are_unique_but_for_nulls,
    records::one_of_many_writers_wins_each_version,
    records::of_many_creators_one_wins,
    queries::comparisons_have_two_values,
    queries::patterns_match_alike,
    queries::parts_are_found_in_either_case,
    queries::pages_follow_an_order,
    answers::a_repeated_request_gets_the_first_answer,
    answers::every_change_has_its_audit_entry,
    outboxes::events_are_claimed_in_order_and_confirmed,
    logs::entries_are_numbered_from_one_and_once_each,
    logs::numbers_have_no_gaps_whoever_appends,
    logs::a_part_is_one_members_at_a_time,
    sql::a_unit_is_all_or_nothing,
    sql::a_unit_of_a_thousand,
    sql::large_records_go_in_several_statements,
    sql::units_that_cross_each_other_all_succeed,
    sql::old_tombstones_are_pruned,
    declared::missing_columns_and_wrong_types_are_told,
    declared::keys_may_be_numbers,
    declared::text_of_any_collation_compares_by_bytes,
    exact::numbers_without_a_sign_come_back_of_every_size,
    exact::what_a_column_cannot_hold_is_refused_with_its_field,
    exact::what_the_database_makes_of_a_record_is_what_is_told,
    exact::numbers_that_are_counted_up_are_told,
    exact::times_are_told_as_they_are_kept,
    exact::refusals_of_the_database_are_in_our_own_words,
);

impl Target {
    /// A store in a new file.
    async fn sqlite() -> Option<Self> {
        let path = std::env::temp_dir().join(format!("flyweight-{}.db", Uuid::now_v7()));
        let store = Arc::new(SqlStore::sqlite(&path, sealer()).unwrap());
        Some(Self::prepared(store, Place::File(path)).await)
    }

    /// A store in a new database of a server.
    async fn mysql(variable: &str) -> Option<Self> {
        let server = server(variable)?;
        let (url, database) = sql::new_database(&server).await;
        let things = things();
        sql::create_things(&url, &things).await;
        let store = Arc::new(SqlStore::mysql(MysqlOptions::new(&url), sealer()).unwrap());
        Some(Self::prepared(store, Place::Mysql { server, url, database }).await)
    }

    /// A store in a new database of a server.
    async fn mongo() -> Option<Self> {
        let database = format!("shop_{}", Uuid::now_v7().simple());
        // the real one may be elsewhere, and have no TLS
        let passage = Passage::new("mongodb", Plaintext::Allowed);
        let options = MongoOptions { passage, ..MongoOptions::new(server("MONGODB_URI")?, database) };
        let store = Arc::new(MongoStore::connect(options.clone(), sealer()).await.unwrap());
        Some(Self::prepared(store, Place::Mongo { options }).await)
    }

    async fn prepared(store: Arc<dyn RecordStore>, place: Place) -> Self {
        let target = Self { store, users: users(), things: things(), place };
        target.store.prepare(&[target.users.clone(), target.things.clone()]).await.unwrap();
        target
    }

    /// Another store in the same place, as another replica has it.
    async fn again(&self) -> Self {
        let (store, place) = self.reopened(sealer()).await;
        Self::prepared(store, place).await
    }

    /// The same, with other keys and not yet prepared.
    async fn reopened(&self, sealer: Arc<dyn Sealer>) -> (Arc<dyn RecordStore>, Place) {
        match &self.place {
            Place::File(path) => {
                (Arc::new(SqlStore::sqlite(path, sealer).unwrap()), Place::File(path.clone()))
            }
            Place::Mysql { server, url, database } => {
                let options = MysqlOptions::new(url);
                let place =
                    Place::Mysql { server: server.clone(), url: url.clone(), database: database.clone() };
                (Arc::new(SqlStore::mysql(options, sealer).unwrap()), place)
            }
            Place::Mongo { options } => {
                let store = MongoStore::connect(options.clone(), sealer).await.unwrap();
                (Arc::new(store), Place::Mongo { options: options.clone() })
            }
        }
    }

    /// Removes what the test made. A test that failed leaves it to be looked at.
    async fn remove(self) {
        match &self.place {
            Place::File(path) => {
                for suffix in ["", "-wal", "-shm"] {
                    _ = std::fs::remove_file(format!("{}{suffix}", path.display()));
                }
            }
            Place::Mysql { server, database, .. } => sql::drop_database(server, database).await,
            Place::Mongo { options } => documents::database(options).await.drop().await.unwrap(),
        }
    }

    /// Everything that is stored, as bytes.
    async fn at_rest(&self) -> Vec<u8> {
        match &self.place {
            Place::File(path) => {
                let wal = std::fs::read(format!("{}-wal", path.display())).unwrap_or_default();
                [std::fs::read(path).unwrap(), wal].concat()
            }
            Place::Mysql { url, .. } => sql::dump(url).await,
            Place::Mongo { options } => documents::dump(options).await,
        }
    }

    async fn commit(&self, changes: Vec<Change>) -> Result<Vec<Written>, StoreError> {
        self.store.commit(UnitOfWork::new(changes, &Origin::of("tester"))).await
    }

    async fn one(&self, change: Change) -> Result<Written, StoreError> {
        Ok(self.commit(vec![change]).await?.remove(0))
    }

    async fn lookup(&self, collection: &Collection, key: &str) -> Lookup {
        self.store.read(collection, &[key.parse().unwrap()]).await.unwrap().remove(0)
    }
}

/// The address of a server; none where the variable is not set and servers are not required.
fn server(variable: &str) -> Option<String> {
    let url = std::env::var(variable).ok().filter(|url| !url.is_empty());
    if url.is_none() {
        assert!(std::env::var_os("FLYWEIGHT_REQUIRE_SERVERS").is_none(), "{variable} is not set");
        println!("skipped: {variable} is not set");
    }
    url
}

fn users() -> Arc<Collection> {
    Arc::new(Collection {
        pool: "users".to_owned(),
        schema: Arc::new(user::schema()),
        name: "users".to_owned(),
        key_column: "id".to_owned(),
        version_column: Some("version".to_owned()),
        declared: false,
    })
}

fn things() -> Arc<Collection> {
    let number = Kind::Decimal { min: Decimal::from(-1_000_000), max: Decimal::from(1_000_000), scale: 4 };
    let fields = vec![
        Field::new("title", Kind::Text { max: 200, form: Form::Any }).indexed(),
        Field::new("size", Kind::Int { min: i64::MIN, max: i64::MAX }),
        Field::new("price", number),
        Field::new("active", Kind::Bool),
        Field::new("seen", Kind::Time),
        Field::new("tags", Kind::Json { max: 10_000, shape: Shape::Any }),
        Field { encrypted: true, ..Field::new("secret", Kind::text(200)) },
    ];
    Arc::new(Collection {
        pool: "things".to_owned(),
        schema: Arc::new(Schema { key: "code".to_owned(), ..Schema::new("thing", "things", fields) }),
        name: "things".to_owned(),
        key_column: "code".to_owned(),
        version_column: Some("revision".to_owned()),
        declared: true,
    })
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn decimal(text: &str) -> Value {
    Value::Decimal(text.parse().unwrap())
}

fn json(text: &str) -> Value {
    Value::Json(Json::parse(text).unwrap())
}

fn time(text: &str) -> Value {
    Value::Time(text.parse::<Timestamp>().unwrap())
}

/// A user's row.
fn person(email: &str, username: Option<&str>) -> Row {
    let (username, profile) = (username.map_or(Value::Null, text), json(r#"{"a":1}"#));
    Row(vec![text(email), text("Ann"), username, profile, Value::Null, Value::Null])
}

/// A thing's row with a title and nothing else.
fn titled(title: &str) -> Row {
    let mut row = Row(vec![Value::Null; 7]);
    row.0[field::TITLE] = text(title);
    row
}

fn create(collection: &Arc<Collection>, key: &str, values: Row) -> Change {
    change(collection, key, Action::Create { values, fresh_key: false })
}

fn replace(collection: &Arc<Collection>, key: &str, guard: Guard, values: Row) -> Change {
    change(collection, key, Action::Replace { guard, values })
}

fn upsert(collection: &Arc<Collection>, key: &str, guard: Guard, values: Row) -> Change {
    change(collection, key, Action::Upsert { guard, values })
}

fn delete(collection: &Arc<Collection>, key: &str, guard: Guard) -> Change {
    change(collection, key, Action::Delete { guard })
}

fn change(collection: &Arc<Collection>, key: &str, action: Action) -> Change {
    Change { collection: collection.clone(), key: key.parse().unwrap(), action }
}

fn exactly(version: u64) -> Guard {
    Guard::Exactly(Version(version))
}

fn found(lookup: Lookup) -> Record {
    match lookup {
        Lookup::Found(record) => record,
        other => panic!("not there: {other:?}"),
    }
}

/// Not a cipher, but it hides the plain text and is bound to its context.
struct TestSealer;

fn sealer() -> Arc<dyn Sealer> {
    Arc::new(TestSealer)
}

impl Sealer for TestSealer {
    fn seal(&self, plain: &[u8], context: &str) -> String {
        let hidden: String = plain.iter().map(|byte| format!("{:02x}", byte ^ 0x5a)).collect();
        format!("sealed:{context}:{hidden}")
    }

    fn open(&self, sealed: &str, context: &str) -> Result<Vec<u8>, SealError> {
        let hidden = sealed.strip_prefix(&format!("sealed:{context}:")).ok_or(SealError)?;
        let digits: Vec<u8> = hidden.bytes().collect();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        digits.chunks(2).map(|pair| byte(pair).map(|byte| byte ^ 0x5a).ok_or(SealError)).collect()
    }
}
