//! Tables as values, and the statements that create them in each dialect.

use rust_decimal::Decimal;
use sea_query::{
    Alias, ColumnDef, Index, IndexCreateStatement, MysqlQueryBuilder, SqliteQueryBuilder, Table,
};

use super::dialect::DECIMAL_COLLATION;
use crate::limits::{Hold, Text};
use model::{
    change::Collection,
    schema::{Field, Kind},
};

/// A database that tables are created in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// SQLite.
    Sqlite,
    /// MySQL 8 or later.
    Mysql,
    /// MariaDB 10.11 or later.
    Mariadb,
}

/// A table.
#[derive(Clone, Debug)]
pub struct TableDef {
    /// Its columns.
    pub columns: Vec<Column>,
    /// The columns of its primary key, unless one is `Serial`.
    pub primary: Vec<String>,
    /// Its other indexes.
    pub indexes: Vec<IndexDef>,
}

/// A column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub form: Form,
    /// Whether it may hold nothing.
    pub nullable: bool,
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A number that the database counts up, the primary key.
    Serial,
    /// A record's key.
    Key,
    /// Text of at most 768 characters, which is as long as an index can be.
    Short,
    /// Text of any length, also sealed values.
    Long,
    /// A whole number.
    Int,
    /// Money: 15 digits before the point and 4 after it.
    Money,
    /// true or false.
    Bool,
    /// JSON, as canonical text.
    Json,
    /// A time, to the millisecond.
    Time,
}

/// An index.
#[derive(Clone, Debug)]
pub struct IndexDef {
    /// Its columns, in order.
    pub columns: Vec<String>,
    /// Whether no two rows may have the same values. Nulls are all different.
    pub unique: bool,
}

/// A column that may hold nothing.
pub fn column(name: &str, form: Form) -> Column {
    Column { name: name.to_owned(), form, nullable: true }
}

impl Column {
    /// The column, which always holds something.
    #[must_use]
    pub fn not_null(self) -> Self {
        Self { nullable: false, ..self }
    }
}

impl TableDef {
    /// A table of records: key, version and times, then its own columns.
    pub fn of_records(own: Vec<Column>) -> Self {
        let mut columns = vec![
            column("id", Form::Key).not_null(),
            column("version", Form::Int).not_null(),
            column("created_at", Form::Time).not_null(),
            column("updated_at", Form::Time).not_null(),
        ];
        columns.extend(own);
        Self { columns, primary: owned(&["id"]), indexes: Vec::new() }
    }

    /// A table of the store's own.
    pub fn new(columns: Vec<Column>, primary: &[&str]) -> Self {
        Self { columns, primary: owned(primary), indexes: Vec::new() }
    }

    /// The table, with an index.
    #[must_use]
    pub fn index(mut self, columns: &[&str]) -> Self {
        self.indexes.push(IndexDef { columns: owned(columns), unique: false });
        self
    }

    /// The table, with an index that makes values unique.
    #[must_use]
    pub fn unique(mut self, columns: &[&str]) -> Self {
        self.indexes.push(IndexDef { columns: owned(columns), unique: true });
        self
    }

    /// The statements that create the table where it is not there. Each can be run again.
    pub fn create(&self, table: &str, server: Server) -> Vec<String> {
        let mut create = Table::create();
        create.table(Alias::new(table)).if_not_exists();
        for column in &self.columns {
            let mut def = ColumnDef::new(Alias::new(&column.name));
            def.custom(Alias::new(column.form.sql_type(server)));
            if !column.nullable {
                def.not_null();
            }
            create.col(def);
        }
        if !self.primary.is_empty() {
            let mut primary = Index::create();
            for name in &self.primary {
                primary.col(Alias::new(name));
            }
            create.primary_key(&mut primary);
        }
        let indexes = self.indexes.iter().map(|index| index.create(table));
        if server == Server::Sqlite {
            let create = create.to_string(SqliteQueryBuilder);
            let indexes = indexes.map(|mut index| index.if_not_exists().to_string(SqliteQueryBuilder));
            return std::iter::once(create).chain(indexes).collect();
        }
        for mut index in indexes {
            create.index(&mut index);
        }
        create.engine("InnoDB").character_set("utf8mb4").collate(server.collation());
        vec![create.to_string(MysqlQueryBuilder)]
    }
}

/// The statements that add columns to a table, each with its index where it is `indexed`. They cannot be run
/// again.
pub fn added(table: &str, columns: &[Column], indexed: &[&str], server: Server) -> Vec<String> {
    let defs = columns.iter().map(|column| {
        let mut def = ColumnDef::new(Alias::new(&column.name));
        def.custom(Alias::new(column.form.sql_type(server)));
        def
    });
    if server == Server::Sqlite {
        // one column a statement
        let add = |mut def: ColumnDef| {
            Table::alter().table(Alias::new(table)).add_column(&mut def).to_string(SqliteQueryBuilder)
        };
        let index = |column: &&str| {
            IndexDef { columns: owned(&[column]), unique: false }.create(table).to_string(SqliteQueryBuilder)
        };
        return defs.map(add).chain(indexed.iter().map(index)).collect();
    }
    let mut alter = Table::alter();
    alter.table(Alias::new(table));
    for mut def in defs {
        alter.add_column(&mut def);
    }
    // one statement, so that there is no column without its index
    let indexes = indexed.iter().map(|column| format!(", ADD INDEX `{table}_{column}_index` (`{column}`)"));
    vec![alter.to_string(MysqlQueryBuilder) + &indexes.collect::<String>()]
}

/// The statements that add a column whose values are unique.
pub fn added_unique(table: &str, column: &Column, server: Server) -> Vec<String> {
    let mut statements = added(table, std::slice::from_ref(column), &[], server);
    if server == Server::Sqlite {
        let index = IndexDef { columns: vec![column.name.clone()], unique: true }.create(table);
        statements.push(index.to_string(SqliteQueryBuilder));
    } else if let Some(add) = statements.first_mut() {
        // one statement, so that there is no column without its index
        add.push_str(&format!(", ADD UNIQUE INDEX `{table}_{0}_unique` (`{0}`)", column.name));
    }
    statements
}

impl IndexDef {
    fn create(&self, table: &str) -> IndexCreateStatement {
        let mut index = Index::create();
        let suffix = if self.unique { "unique" } else { "index" };
        let name: String = format!("{table}_{}_{suffix}", self.columns.join("_")).chars().take(64).collect();
        index.name(name).table(Alias::new(table));
        if self.unique {
            index.unique();
        }
        for column in &self.columns {
            index.col(Alias::new(column));
        }
        index
    }
}

impl Form {
    /// The type of the column.
    pub fn sql_type(self, server: Server) -> String {
        let mysql = server != Server::Sqlite;
        match self {
            Self::Serial if mysql => "bigint AUTO_INCREMENT PRIMARY KEY".to_owned(),
            Self::Serial => "integer PRIMARY KEY".to_owned(),
            Self::Int if mysql => "bigint".to_owned(),
            Self::Int | Self::Bool if !mysql => "integer".to_owned(),
            Self::Bool | Self::Int => "boolean".to_owned(),
            Self::Money if mysql => "decimal(19,4)".to_owned(),
            Self::Money => format!("text COLLATE {DECIMAL_COLLATION}"),
            Self::Time if mysql => "datetime(3)".to_owned(),
            Self::Key if mysql => "varchar(128)".to_owned(),
            Self::Short if mysql => "varchar(768)".to_owned(),
            Self::Long | Self::Json if mysql => "longtext".to_owned(),
            Self::Time | Self::Key | Self::Short | Self::Long | Self::Json => "text".to_owned(),
        }
    }

    /// What a column of this form holds exactly in MySQL, and so in every database.
    pub fn hold(self) -> Hold {
        match self {
            Self::Short => Hold::Text(Text { chars: Some(768), ..Text::default() }),
            Self::Money => Hold::Decimal { whole: 15, scale: 4, unsigned: false },
            // a key's bound is its type's
            Self::Int => Hold::Int { min: i128::from(i64::MIN), max: i128::from(i64::MAX) },
            Self::Key | Self::Serial | Self::Bool | Self::Long | Self::Json | Self::Time => Hold::Any,
        }
    }

    /// The form of the column that an embedded database makes for a field.
    pub fn of_field(field: &Field) -> Self {
        match &field.kind {
            _ if field.encrypted => Self::Long,
            Kind::Text { .. } | Kind::Choice(_) => Self::Long,
            Kind::Int { .. } => Self::Int,
            Kind::Decimal { .. } => Self::Money,
            Kind::Bool => Self::Bool,
            Kind::Json { .. } => Self::Json,
            Kind::Time => Self::Time,
        }
    }

    /// Whether a column of this form holds every value of a field.
    pub fn holds(self, field: &Field) -> bool {
        /// Text of so many characters fits a short column even when it is sealed.
        const SEALED_MAX: usize = 128;
        let text_max = match &field.kind {
            Kind::Text { max, .. } => Some(*max),
            Kind::Choice(words) => words.iter().map(|word| word.len()).max(),
            _ => None,
        };
        match (&field.kind, self) {
            (_, Self::Long | Self::Json) if field.encrypted => true,
            (_, Self::Short) if field.encrypted => text_max.is_some_and(|max| max <= SEALED_MAX),
            _ if field.encrypted => false,
            (Kind::Text { .. } | Kind::Choice(_), Self::Long) => true,
            (Kind::Text { .. } | Kind::Choice(_), Self::Short) => text_max.is_some_and(|max| max <= 768),
            (Kind::Decimal { min, max, scale }, Self::Money) => {
                let most = Decimal::from(999_999_999_999_999_i64);
                *scale <= 4 && *min >= -most && *max <= most
            }
            (Kind::Int { .. }, Self::Int)
            | (Kind::Bool, Self::Bool)
            | (Kind::Time, Self::Time)
            | (Kind::Json { .. }, Self::Json) => true,
            _ => false,
        }
    }
}

impl Server {
    /// The collation by bytes in which trailing spaces count: the same order and the same equality as
    /// SQLite's.
    pub fn collation(self) -> &'static str {
        match self {
            Self::Mysql => "utf8mb4_0900_bin",
            Self::Mariadb => "utf8mb4_nopad_bin",
            Self::Sqlite => "binary",
        }
    }
}

/// The table that an embedded database makes for a declared collection.
pub fn declared_table(collection: &Collection) -> TableDef {
    let mut columns = vec![column(&collection.key_column, Form::Key).not_null()];
    columns.extend(collection.version_column.as_deref().map(|name| column(name, Form::Int).not_null()));
    columns.push(column("created_at", Form::Time));
    columns.push(column("updated_at", Form::Time));
    let schema = &collection.schema;
    columns.extend(schema.fields.iter().map(|field| column(&field.name, Form::of_field(field))));
    let indexed = schema.fields.iter().filter(|field| field.unique || field.indexed);
    let indexes =
        indexed.map(|field| IndexDef { columns: vec![field.name.clone()], unique: field.unique }).collect();
    TableDef { columns, primary: vec![collection.key_column.clone()], indexes }
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}
