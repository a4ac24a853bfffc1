//! Filters, orders and cursors as SQL. Logic has two values here too: what a null makes unknown in SQL is
//! false.

use sea_query::{Alias, Expr, ExprTrait, LikeExpr, Order, SelectStatement, SimpleExpr};

use super::{
    StoreError,
    dialect::Dialect,
    table::{KeyForm, Table, VersionSource},
};
use crate::pattern;
use model::{
    query::{Comparison, Direction, Filter, Position},
    schema::{FieldRef, Kind},
    value::{Timestamp, Value},
};

/// What a field is in a statement.
enum Operand {
    /// A column.
    Column(Box<Column>),
    /// The same for every record.
    Constant(Value),
}

/// A column in a statement.
struct Column {
    plain: SimpleExpr,
    /// The same for the comparison of text by bytes.
    bytes: SimpleExpr,
    /// The same for patterns.
    text: SimpleExpr,
    /// Whether it may hold nothing.
    nullable: bool,
}

/// The condition of a filter.
///
/// # Errors
/// `Unsupported`, where the table cannot answer it.
pub fn condition(table: &Table, filter: &Filter) -> Result<SimpleExpr, StoreError> {
    match filter {
        Filter::All => Ok(constant(true)),
        Filter::And(parts) => joined(table, parts, true),
        Filter::Or(parts) => joined(table, parts, false),
        Filter::Not(part) => Ok(condition(table, part)?.not()),
        Filter::Compare(field, comparison, value) => compared(table, *field, *comparison, value),
        Filter::In(field, values) => one_of(table, *field, values),
        Filter::Like(field, like) => matching(table, *field, like),
        Filter::Holds(field, part) => {
            in_any_case(table, *field, pattern::glob_of_part(part), pattern::regex_of_part(part))
        }
        Filter::Same(field, text) => {
            in_any_case(table, *field, pattern::glob_of_text(text), pattern::regex_of_text(text))
        }
        Filter::Between(field, low, high) => Ok(compared(table, *field, Comparison::Gte, low)?
            .and(compared(table, *field, Comparison::Lte, high)?)),
        Filter::IsNull(field) => Ok(match operand(table, *field)? {
            Operand::Column(column) => column.plain.is_null(),
            Operand::Constant(value) => constant(value.is_null()),
        }),
    }
}

fn joined(table: &Table, parts: &[Filter], all: bool) -> Result<SimpleExpr, StoreError> {
    let mut parts = parts.iter().map(|part| condition(table, part));
    let Some(first) = parts.next() else { return Ok(constant(all)) };
    parts.try_fold(first?, |left, right| Ok(if all { left.and(right?) } else { left.or(right?) }))
}

fn compared(
    table: &Table,
    field: FieldRef,
    comparison: Comparison,
    value: &Value,
) -> Result<SimpleExpr, StoreError> {
    if value.is_null() {
        return Ok(constant(false));
    }
    match operand(table, field)? {
        Operand::Constant(own) => Ok(constant(holds(comparison, &own, value))),
        Operand::Column(column) => {
            let Some(value) = comparand(table, field, value) else {
                // a key that is no number is none of this table's
                return match comparison {
                    Comparison::Eq => Ok(constant(false)),
                    Comparison::Ne => Ok(constant(true)),
                    _ => {
                        let why = format!("the keys of {} are whole numbers", table.collection.name);
                        Err(StoreError::Unsupported(why))
                    }
                };
            };
            Ok(column.known(|column| compare(column.bytes, comparison, value)))
        }
    }
}

fn one_of(table: &Table, field: FieldRef, values: &[Value]) -> Result<SimpleExpr, StoreError> {
    match operand(table, field)? {
        Operand::Constant(own) => Ok(constant(values.contains(&own))),
        Operand::Column(column) => {
            let values: Vec<SimpleExpr> = values
                .iter()
                .filter(|value| !value.is_null())
                .filter_map(|value| comparand(table, field, value))
                .collect();
            match values.is_empty() {
                true => Ok(constant(false)),
                false => Ok(column.known(|column| column.bytes.is_in(values))),
            }
        }
    }
}

fn matching(table: &Table, field: FieldRef, like: &str) -> Result<SimpleExpr, StoreError> {
    match operand(table, field)? {
        Operand::Constant(_) => Ok(constant(false)),
        Operand::Column(column) => Ok(column.known(|Column { text, .. }| match table.dialect {
            Dialect::Sqlite => SimpleExpr::cust_with_exprs("? GLOB ?", [text, pattern::to_glob(like).into()]),
            Dialect::Mysql => text.like(LikeExpr::new(pattern::to_like(like)).escape('|')),
        })),
    }
}

/// A letter is written as the set of its forms, so that no collation has a say.
fn in_any_case(
    table: &Table,
    field: FieldRef,
    glob: String,
    regex: String,
) -> Result<SimpleExpr, StoreError> {
    match operand(table, field)? {
        Operand::Constant(_) => Ok(constant(false)),
        Operand::Column(column) => Ok(column.known(|Column { text, .. }| match table.dialect {
            Dialect::Sqlite => SimpleExpr::cust_with_exprs("? GLOB ?", [text, glob.into()]),
            Dialect::Mysql => SimpleExpr::cust_with_exprs("? REGEXP ?", [text, regex.into()]),
        })),
    }
}

impl Column {
    /// The condition, or false, rather than unknown, where the column holds nothing.
    fn known(self, condition: impl FnOnce(Self) -> SimpleExpr) -> SimpleExpr {
        match self.nullable {
            true => self.plain.clone().is_not_null().and(condition(self)),
            false => condition(self),
        }
    }
}

fn compare(left: SimpleExpr, comparison: Comparison, right: SimpleExpr) -> SimpleExpr {
    match comparison {
        Comparison::Eq => left.eq(right),
        Comparison::Ne => left.ne(right),
        Comparison::Lt => left.lt(right),
        Comparison::Lte => left.lte(right),
        Comparison::Gt => left.gt(right),
        Comparison::Gte => left.gte(right),
    }
}

fn holds(comparison: Comparison, left: &Value, right: &Value) -> bool {
    let order = left.compare(right);
    match comparison {
        Comparison::Eq => order.is_eq(),
        Comparison::Ne => order.is_ne(),
        Comparison::Lt => order.is_lt(),
        Comparison::Lte => order.is_le(),
        Comparison::Gt => order.is_gt(),
        Comparison::Gte => order.is_ge(),
    }
}

fn operand(table: &Table, field: FieldRef) -> Result<Operand, StoreError> {
    let time = |there: Option<SimpleExpr>| match there {
        Some(time) => plain(time, false),
        None => Operand::Constant(Value::Time(Timestamp(0))),
    };
    Ok(match field {
        FieldRef::Key => column(table, &table.collection.key_column, table.key != KeyForm::Foreign, false),
        FieldRef::CreatedAt => time(table.created_at()),
        FieldRef::UpdatedAt => time(table.updated_at()),
        FieldRef::Version => match &table.version {
            VersionSource::Column(name) => column(table, name, true, false),
            VersionSource::One => Operand::Constant(Value::Int(1)),
            VersionSource::UpdatedAt => {
                let why = format!("{} has no version column to search or order by", table.collection.name);
                return Err(StoreError::Unsupported(why));
            }
        },
        FieldRef::Field(index) => {
            let own = table.columns.get(index).zip(table.collection.schema.fields.get(index));
            let (own, field) =
                own.ok_or_else(|| StoreError::Unsupported(format!("there is no field {index}")))?;
            match field.kind {
                Kind::Time => plain(table.time(&own.name), true),
                Kind::Text { .. } | Kind::Choice(_) => column(table, &own.name, own.bytewise, true),
                // other programs store other numbers for true
                Kind::Bool if table.collection.declared => {
                    let own = Expr::col(Alias::new(&own.name));
                    let truth = SimpleExpr::cust_with_expr("(? <> 0)", own.clone());
                    Operand::Column(Box::new(Column {
                        bytes: truth.clone(),
                        text: truth,
                        plain: own,
                        nullable: true,
                    }))
                }
                _ => column(table, &own.name, true, true),
            }
        }
    })
}

/// A column; where its text has a collation of its own, it is compared as bytes, as `BINARY` and not by a
/// collation `_bin`, for which trailing spaces do not count.
fn column(table: &Table, name: &str, bytewise: bool, nullable: bool) -> Operand {
    let own = Expr::col(Alias::new(name));
    if bytewise || table.dialect == Dialect::Sqlite {
        return plain(own, nullable);
    }
    let bytes = SimpleExpr::cust_with_expr("CAST(CONVERT(? USING utf8mb4) AS BINARY)", own.clone());
    let text = SimpleExpr::cust_with_expr("CONVERT(? USING utf8mb4) COLLATE utf8mb4_bin", own.clone());
    Operand::Column(Box::new(Column { plain: own, bytes, text, nullable }))
}

fn plain(plain: SimpleExpr, nullable: bool) -> Operand {
    Operand::Column(Box::new(Column { bytes: plain.clone(), text: plain.clone(), plain, nullable }))
}

fn comparand(table: &Table, field: FieldRef, value: &Value) -> Option<SimpleExpr> {
    match (field, value) {
        (FieldRef::Key, Value::Text(text)) if table.key == KeyForm::Int => {
            Value::whole(text).map(|number| SimpleExpr::from(table.dialect.value(&number)))
        }
        // text would be compared as a double
        (_, Value::Wide(wide)) if table.dialect == Dialect::Mysql => {
            let form = format!("CAST(? AS DECIMAL({},{}))", wide.precision(), Ord::min(wide.scale(), 30));
            Some(SimpleExpr::cust_with_values(form, [wide.to_string()]))
        }
        _ => Some(SimpleExpr::from(table.dialect.value(value))),
    }
}

fn constant(value: bool) -> SimpleExpr {
    SimpleExpr::cust(if value { "TRUE" } else { "FALSE" })
}

/// Orders a statement, ties broken by the key. Nulls come first where it ascends, as both databases have it.
pub fn order(
    select: &mut SelectStatement,
    table: &Table,
    order: &[(FieldRef, Direction)],
) -> Result<(), StoreError> {
    for (field, direction) in order {
        if let Operand::Column(column) = operand(table, *field)? {
            select.order_by_expr(column.bytes, sql_order(*direction));
        }
    }
    if let Operand::Column(column) = operand(table, FieldRef::Key)? {
        select.order_by_expr(column.bytes, Order::Asc);
    }
    Ok(())
}

fn sql_order(direction: Direction) -> Order {
    match direction {
        Direction::Ascending => Order::Asc,
        Direction::Descending => Order::Desc,
    }
}

/// The condition of the records that come after a place in an order.
pub fn after(
    table: &Table,
    order: &[(FieldRef, Direction)],
    position: &Position,
) -> Result<SimpleExpr, StoreError> {
    let key = Value::Text(position.key.to_string());
    let mut later = compared(table, FieldRef::Key, Comparison::Gt, &key)?;
    // from the last field to the first: later in this field, or equal in it and later in those that follow
    for ((field, direction), value) in order.iter().zip(&position.values).rev() {
        let Operand::Column(column) = operand(table, *field)? else { continue };
        let Column { plain, nullable, .. } = *column;
        let (beyond, same) = match (value.is_null(), direction) {
            (true, Direction::Ascending) => (plain.clone().is_not_null(), plain.is_null()),
            (true, Direction::Descending) => (constant(false), plain.is_null()),
            (false, Direction::Ascending) => (
                compared(table, *field, Comparison::Gt, value)?,
                compared(table, *field, Comparison::Eq, value)?,
            ),
            (false, Direction::Descending) => {
                let less = compared(table, *field, Comparison::Lt, value)?;
                let beyond = if nullable { less.or(plain.is_null()) } else { less };
                (beyond, compared(table, *field, Comparison::Eq, value)?)
            }
        };
        later = beyond.or(same.and(later));
    }
    Ok(later)
}
