//! A collection as a table: its columns, and records to rows and back.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use sea_query::{
    Alias, Expr, ExprTrait, Func, InsertStatement, OnConflict, Query, SelectStatement, SimpleExpr, UnionType,
    Value as SqlValue,
};

use super::{
    StoreError,
    ddl::Form,
    dialect::{Dialect, Sql, padded, padded_len},
    fault::{Fault, UNHELD},
    migrations::{self, TOMBSTONES},
};
use crate::{
    limits::{Limit, Limits},
    sealing,
};
use model::{
    change::Collection,
    fault::FieldFault,
    key::Key,
    record::Record,
    schema::{Field, Kind},
    seal::Sealer,
    value::Value,
};

/// The most keys in one statement.
pub const KEYS_MAX: usize = 1024;
/// The most rows that one statement writes.
pub const ROWS_MAX: usize = 64;
/// The most values in one statement: SQLite takes 32,766.
const VALUES_MAX: usize = 16_000;

/// A collection as a table.
pub struct Table {
    /// The collection.
    pub collection: Collection,
    /// The SQL that its database speaks.
    pub dialect: Dialect,
    /// What the key's column holds.
    pub key: KeyForm,
    /// Where the version comes from.
    pub version: VersionSource,
    /// Whether there is a column `created_at`.
    pub has_created_at: bool,
    /// Whether there is a column `updated_at`.
    pub has_updated_at: bool,
    /// The columns of the fields, in the schema's order.
    pub columns: Vec<FieldColumn>,
    /// The unique indexes: their names and their first columns.
    pub uniques: Vec<(String, String)>,
    /// What its columns hold exactly.
    pub limits: Arc<Limits>,
    /// Whether what is in a row after a write is read, since it may differ from what was sent.
    pub reads_back: bool,
    /// Why it cannot be written.
    pub read_only: Option<String>,
    reads: Mutex<HashMap<usize, Arc<str>>>,
}

/// What a key's column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyForm {
    /// Text that compares by bytes.
    Text,
    /// Text of another collation, of a declared table.
    Foreign,
    /// A whole number.
    Int,
}

/// Where a record's version comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VersionSource {
    /// A column of its own.
    Column(String),
    /// `updated_at`, in microseconds.
    UpdatedAt,
    /// It is always 1.
    One,
}

/// The column of a field.
#[derive(Clone, Debug)]
pub struct FieldColumn {
    /// Its name.
    pub name: String,
    /// What the database calls its type.
    pub kind: String,
    /// Whether its text compares by bytes.
    pub bytewise: bool,
}

impl Table {
    /// The table of a collection that this store makes.
    pub fn of_own(collection: &Collection, dialect: Dialect) -> Self {
        let columns = collection.schema.fields.iter();
        let columns = columns.map(|field| FieldColumn {
            name: field.name.clone(),
            kind: "text".to_owned(),
            bytewise: true,
        });
        let unique = collection.schema.fields.iter().filter(|field| field.unique);
        let uniques =
            unique.map(|field| (format!("{}_{}_unique", collection.name, field.name), field.name.clone()));
        Self {
            dialect,
            key: KeyForm::Text,
            version: collection
                .version_column
                .clone()
                .map_or(VersionSource::UpdatedAt, VersionSource::Column),
            has_created_at: true,
            has_updated_at: true,
            columns: columns.collect(),
            uniques: uniques.collect(),
            limits: Arc::new(own_limits(collection)),
            reads_back: false,
            read_only: read_only(collection),
            reads: Mutex::default(),
            collection: collection.clone(),
        }
    }

    /// A statement that reads nothing, and fails where a column or the right to read is missing.
    pub fn probe(&self) -> Sql {
        let Collection { schema, key_column, version_column, .. } = &self.collection;
        let fields = schema.fields.iter().map(|field| field.name.as_str());
        let names = [key_column.as_str()].into_iter().chain(version_column.as_deref()).chain(fields);
        let mut select = Query::select();
        // with the table's name: SQLite takes an unknown name alone for text
        select.columns(names.map(|name| (self.alias(), Alias::new(name)))).from(self.alias()).limit(0);
        self.dialect.build(&select)
    }

    /// The statement that reads some keys at once, with the tombstones of those that are gone. At most
    /// `KEYS_MAX` keys.
    pub fn read(&self, keys: &[Key]) -> Sql {
        let rows = padded(keys.iter().filter_map(|key| self.key_value(key)).collect());
        let names: Vec<SqlValue> = keys.iter().map(|key| SqlValue::from(key.as_str())).collect();
        // every key is a candidate for a tombstone, but only numbers for a column of numbers
        let cached = (rows.len() == padded_len(names.len())).then_some(rows.len());
        let tombstones = padded(names);
        if let Some(text) = cached.and_then(|len| self.reads.lock().get(&len).cloned()) {
            let mut values = rows;
            if self.read_only.is_none() {
                values.push(self.collection.name.as_str().into());
                values.extend(tombstones);
            }
            return Sql::new(text, values);
        }
        let sql = self.dialect.build(&self.read_statement(rows, tombstones));
        if let Some(len) = cached {
            self.reads.lock().insert(len, sql.text.clone());
        }
        sql
    }

    fn read_statement(&self, rows: Vec<SqlValue>, tombstones: Vec<SqlValue>) -> SelectStatement {
        let mut select = Query::select();
        select.expr(SimpleExpr::cust("NULL")).exprs(self.cells()).from(self.alias());
        select.and_where(Expr::col(self.key_alias()).is_in(rows));
        if self.read_only.is_none() {
            let mut gone = Query::select();
            gone.columns(["version", "id"].map(Alias::new)).from(Alias::new(TOMBSTONES));
            gone.exprs((1..self.cells().len()).map(|_| SimpleExpr::cust("NULL")));
            gone.and_where(Expr::col(Alias::new("collection")).eq(self.collection.name.as_str()));
            gone.and_where(Expr::col(Alias::new("id")).is_in(tombstones));
            select.union(UnionType::All, gone);
        }
        select
    }

    /// What is selected of a record, in the order that `decode` reads: key, version, times, fields.
    pub fn cells(&self) -> Vec<SimpleExpr> {
        let null = || SimpleExpr::cust("NULL");
        let key = match self.key {
            KeyForm::Text => Expr::col(self.key_alias()),
            KeyForm::Int | KeyForm::Foreign => self.key_text(),
        };
        let version = match &self.version {
            VersionSource::Column(name) => self.as_stored(name),
            VersionSource::UpdatedAt => self.as_stored("updated_at"),
            VersionSource::One => null(),
        };
        let times = [(self.has_created_at, "created_at"), (self.has_updated_at, "updated_at")];
        let time = |[first, second]: [(bool, &str); 2]| match self.is_as_text() {
            true => self.first_of([first, second], |name| self.as_stored(name), "'1970-01-01 00:00:00'"),
            false => self.first_time([first, second]),
        };
        let (created_at, updated_at) = (time(times), time([times[1], times[0]]));
        let mut cells = vec![key, version, created_at.unwrap_or_else(null), updated_at.unwrap_or_else(null)];
        let fields = self.collection.schema.fields.iter().zip(&self.columns);
        cells.extend(fields.map(|(field, column)| match field.kind {
            _ if field.encrypted => Expr::col(Alias::new(&column.name)),
            Kind::Text { .. } | Kind::Choice(_) | Kind::Json { .. } => Expr::col(Alias::new(&column.name)),
            Kind::Time | Kind::Int { .. } | Kind::Decimal { .. } | Kind::Bool => self.as_stored(&column.name),
        }));
        cells
    }

    /// Whether numbers and times are asked for as text: other programs may have stored more than the types of
    /// our side hold, and in a union MariaDB gives unsigned numbers as others.
    fn is_as_text(&self) -> bool {
        self.collection.declared && self.dialect == Dialect::Mysql
    }

    fn as_stored(&self, name: &str) -> SimpleExpr {
        let column = Expr::col(Alias::new(name));
        if self.is_as_text() { SimpleExpr::cust_with_expr("CAST(? AS CHAR)", column) } else { column }
    }

    /// The time of creation: of a declared table that does not have it the last change, or else 1970.
    pub fn created_at(&self) -> Option<SimpleExpr> {
        self.first_time([(self.has_created_at, "created_at"), (self.has_updated_at, "updated_at")])
    }

    /// The time of the last change: of a declared table that does not have it the creation, or else 1970.
    pub fn updated_at(&self) -> Option<SimpleExpr> {
        self.first_time([(self.has_updated_at, "updated_at"), (self.has_created_at, "created_at")])
    }

    fn first_time(&self, columns: [(bool, &str); 2]) -> Option<SimpleExpr> {
        let epoch = match self.dialect {
            Dialect::Mysql => "CAST('1970-01-01' AS DATETIME(3))",
            Dialect::Sqlite => "'1970-01-01T00:00:00.000Z'",
        };
        self.first_of(columns, |name| self.time(name), epoch)
    }

    fn first_of(
        &self,
        columns: [(bool, &str); 2],
        of: impl Fn(&str) -> SimpleExpr,
        epoch: &'static str,
    ) -> Option<SimpleExpr> {
        let mut there = columns.into_iter().filter(|(there, _)| *there).map(|(_, name)| of(name));
        let first = there.next()?;
        if !self.collection.declared {
            return Some(first);
        }
        Some(Func::coalesce(std::iter::once(first).chain(there).chain([SimpleExpr::cust(epoch)])).into())
    }

    /// A column of times as it is read and compared: in milliseconds, whatever a declared one has.
    pub fn time(&self, name: &str) -> SimpleExpr {
        let column = Expr::col(Alias::new(name));
        match (self.collection.declared, self.dialect) {
            (true, Dialect::Mysql) => SimpleExpr::cust_with_expr("CAST(? AS DATETIME(3))", column),
            _ => column,
        }
    }

    /// The key as text, in a collation that takes part in a union with the tombstones'.
    fn key_text(&self) -> SimpleExpr {
        let column = Expr::col(self.key_alias());
        match self.dialect {
            Dialect::Mysql => {
                SimpleExpr::cust_with_expr("CONVERT(? USING utf8mb4) COLLATE utf8mb4_bin", column)
            }
            Dialect::Sqlite => SimpleExpr::cust_with_expr("CAST(? AS TEXT)", column),
        }
    }

    /// The most records in one statement.
    pub fn rows_max(&self) -> usize {
        (VALUES_MAX / (self.columns.len() + 4)).clamp(1, ROWS_MAX)
    }

    /// The statement that creates records.
    pub fn insert(&self, records: &[&Record], sealer: &dyn Sealer) -> Result<Sql, StoreError> {
        Ok(self.dialect.build(&self.insertion(records, sealer)?))
    }

    /// The statement that gives records, which are all there and locked, their new values. Only for tables of
    /// the store's own: a declared one may have columns that an insertion has to give, or keep its key in a
    /// column that is not the primary key.
    pub fn update_all(&self, records: &[&Record], sealer: &dyn Sealer) -> Result<Sql, StoreError> {
        let mut insert = self.insertion(records, sealer)?;
        let columns = records.first().map(|record| self.written_cells(record, sealer)).unwrap_or_default();
        let columns = columns.iter().map(|(name, _)| Alias::new(*name));
        insert.on_conflict(OnConflict::column(self.key_alias()).update_columns(columns).to_owned());
        Ok(self.dialect.build(&insert))
    }

    fn insertion(&self, records: &[&Record], sealer: &dyn Sealer) -> Result<InsertStatement, StoreError> {
        let mut insert = Query::insert();
        insert.into_table(self.alias());
        for (index, record) in records.iter().enumerate() {
            self.check_numbers(record)?;
            let mut cells = self.written_cells(record, sealer);
            cells.push((self.collection.key_column.as_str(), self.key_of(&record.key)?));
            if index == 0 {
                insert.columns(cells.iter().map(|(name, _)| Alias::new(*name)));
            }
            insert.values_panic(cells.into_iter().map(|(_, value)| Expr::val(value)));
        }
        Ok(insert)
    }

    /// The statement that gives a record, which is locked, its new values.
    pub fn update(&self, record: &Record, sealer: &dyn Sealer) -> Result<Sql, StoreError> {
        self.check_numbers(record)?;
        let mut update = Query::update();
        update.table(self.alias());
        for (name, value) in self.written_cells(record, sealer) {
            update.value(Alias::new(name), value);
        }
        update.and_where(Expr::col(self.key_alias()).eq(self.key_of(&record.key)?));
        Ok(self.dialect.build(&update))
    }

    /// SQLite would keep a whole number beyond 64 signed bits as a floating-point one.
    fn check_numbers(&self, record: &Record) -> Result<(), StoreError> {
        let fields = self.collection.schema.fields.iter().zip(&record.values.0);
        let beyond = |(field, value): &(&Field, &Value)| {
            matches!((&field.kind, value), (Kind::Int { .. }, Value::Wide(_))) && !field.encrypted
        };
        match fields.clone().find(beyond).filter(|_| self.dialect == Dialect::Sqlite) {
            Some((field, _)) => Err(StoreError::Unsupported(format!(
                "{} is more than 9223372036854775807, the most that the embedded store holds",
                field.name
            ))),
            None => Ok(()),
        }
    }

    fn written_cells(&self, record: &Record, sealer: &dyn Sealer) -> Vec<(&str, SqlValue)> {
        let mut cells = Vec::with_capacity(self.columns.len() + 4);
        if let VersionSource::Column(name) = &self.version {
            cells.push((name.as_str(), SqlValue::BigInt(Some(record.version.0 as i64))));
        }
        if self.has_created_at {
            cells.push(("created_at", self.dialect.time(record.created_at)));
        }
        if self.has_updated_at {
            cells.push(("updated_at", self.dialect.time(record.updated_at)));
        }
        let fields = self.collection.schema.fields.iter().zip(&record.values.0);
        for ((at, column), (field, value)) in self.columns.iter().enumerate().zip(fields) {
            if self.limits.fields.get(at).is_some_and(|limit| limit.computed) {
                continue;
            }
            let value = match field.encrypted {
                true => sealing::seal(sealer, &self.collection.name, &record.key, field, value).into(),
                false => self.dialect.value(value),
            };
            cells.push((column.name.as_str(), value));
        }
        cells
    }

    /// The key as its column holds it; none where that column can't hold it.
    pub fn key_value(&self, key: &Key) -> Option<SqlValue> {
        match self.key {
            // a database need not be asked for characters that its column does not have
            KeyForm::Text | KeyForm::Foreign => {
                self.limits.key.knows(key.as_str()).then(|| key.as_str().into())
            }
            KeyForm::Int => {
                let number = Value::whole(key.as_str()).filter(|number| number.is_written(key.as_str()))?;
                Some(self.dialect.value(&number))
            }
        }
    }

    fn key_of(&self, key: &Key) -> Result<SqlValue, StoreError> {
        let why = "must be a whole number: its column holds no other keys";
        let fault = || StoreError::Invalid(vec![FieldFault::new(&self.collection.schema.key, why)]);
        self.key_value(key).ok_or_else(fault)
    }

    /// Whether two records can be in each other's way by the value of a field. Of a declared file only its
    /// owner knows.
    pub fn has_unique_fields(&self) -> bool {
        let unknown = self.collection.declared && self.dialect == Dialect::Sqlite;
        unknown || self.uniques.iter().any(|(_, column)| *column != self.collection.key_column)
    }

    /// The table's name.
    pub fn alias(&self) -> Alias {
        Alias::new(&self.collection.name)
    }

    /// The name of the key's column.
    pub fn key_alias(&self) -> Alias {
        Alias::new(&self.collection.key_column)
    }

    /// What a fault of a write to this table means: the index of a taken value is named by its field, a
    /// column that refuses too.
    pub fn fault(&self, fault: Fault) -> Fault {
        let index = match fault {
            Fault::Taken(index) => index,
            Fault::Refused { why, column } => return Fault::Store(self.refused(why, column.as_deref())),
            other => return other,
        };
        let name = index.split(", ").next().and_then(|first| first.rsplit('.').next()).unwrap_or_default();
        let column =
            self.uniques.iter().find(|(unique, _)| unique == name).map_or(name, |(_, column)| column);
        match column == "PRIMARY" || column == self.collection.key_column {
            true => Fault::Raced(StoreError::Exists),
            false => Fault::Store(StoreError::Duplicate { field: column.to_owned() }),
        }
    }
}

impl Table {
    /// A record came back otherwise than it can be told apart by.
    pub fn changed(&self, what: &str) -> Fault {
        let by = self.limits.changed_by.as_deref().unwrap_or("the database");
        Fault::Store(StoreError::Setup(format!(
            "{what} of a record of {} is changed by {by}",
            self.collection.name
        )))
    }

    /// Whether text of a character set that only the database knows came back as it was sent.
    pub fn check_kept(&self, sent: &Record, stored: &Record) -> Result<(), StoreError> {
        let fields = self.collection.schema.fields.iter().zip(&self.limits.fields);
        let values = sent.values.0.iter().zip(&stored.values.0);
        let lost = fields.zip(values).filter(|((_, limit), (sent, stored))| {
            limit.is_foreign() && sent != stored && self.limits.changed_by.is_none()
        });
        let fault = |((field, _), _): ((&Field, _), _)| FieldFault::new(&field.name, UNHELD);
        let faults: Vec<FieldFault> = lost.map(fault).collect();
        if faults.is_empty() { Ok(()) } else { Err(StoreError::Invalid(faults)) }
    }

    /// Only names that are declared are told: others may be the database's own affair.
    fn refused(&self, why: &'static str, column: Option<&str>) -> StoreError {
        let schema = &self.collection.schema;
        let is = |name: &str| column.is_some_and(|column| column.eq_ignore_ascii_case(name));
        if let Some(field) = schema.fields.iter().find(|field| is(&field.name)) {
            return StoreError::Invalid(vec![FieldFault::new(&field.name, why)]);
        }
        let foreign = schema.fields.iter().zip(&self.limits.fields).filter(|(_, limit)| limit.is_foreign());
        let faults: Vec<_> = foreign.map(|(field, _)| FieldFault::new(&field.name, why)).collect();
        if why == UNHELD && !faults.is_empty() {
            return StoreError::Invalid(faults);
        }
        match &self.version {
            _ if is(&self.collection.key_column) => {
                StoreError::Invalid(vec![FieldFault::new(&schema.key, why)])
            }
            VersionSource::Column(name) if is(name) => {
                StoreError::Setup(format!("{name} of {}, the version, {why}", self.collection.name))
            }
            _ => StoreError::Unsupported(format!("{} does not take this: {why}", self.collection.name)),
        }
    }
}

/// What the columns that this store makes hold exactly, in whichever database.
fn own_limits(collection: &Collection) -> Limits {
    let entity = &collection.schema.entity;
    let fields = collection.schema.fields.iter().map(|field| Limit {
        hold: migrations::form_of(entity, &field.name).map(Form::hold).unwrap_or_default(),
        ..Limit::default()
    });
    Limits { fields: fields.collect(), ..Limits::default() }
}

/// Why a collection cannot be written.
fn read_only(collection: &Collection) -> Option<String> {
    collection
        .version_column
        .is_none()
        .then(|| format!("{} has no version column, so it can only be read", collection.name))
}
