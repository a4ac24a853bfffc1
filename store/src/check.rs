//! What every store refuses in a query before it looks at data, so that all refuse the same.

use super::StoreError;
use model::{
    query::{Filter, Query, Start},
    schema::{Field, FieldRef, Kind, Schema},
    value::Value,
};

/// The deepest filter.
const DEPTH_MAX: usize = 64;
/// The most values and comparisons in one filter.
const NODES_MAX: usize = 4096;

/// Checks that a query can be answered: fields exist, are not encrypted, compare with values of their own
/// kind, and it is bounded.
///
/// # Errors
/// `Unsupported`, saying what cannot be done.
pub fn check_query(schema: &Schema, query: &Query) -> Result<(), StoreError> {
    let mut nodes = 0;
    check_filter(schema, &query.filter, 0, &mut nodes)?;
    for (field, _) in &query.order {
        let field = subject(schema, *field)?;
        field.refuse_json("be ordered by")?;
    }
    match &query.start {
        Start::After(position) if position.values.len() != query.order.len() => {
            Err(StoreError::Unsupported("the cursor is not one of this order".to_owned()))
        }
        Start::After(position) => query
            .order
            .iter()
            .zip(&position.values)
            .try_for_each(|((field, _), value)| subject(schema, *field)?.takes(value)),
        Start::Offset(_) => Ok(()),
    }
}

fn check_filter(schema: &Schema, filter: &Filter, depth: usize, nodes: &mut usize) -> Result<(), StoreError> {
    *nodes += match filter {
        Filter::In(_, values) => 1 + values.len(),
        _ => 1,
    };
    if depth > DEPTH_MAX || *nodes > NODES_MAX {
        return Err(StoreError::Unsupported(format!(
            "a filter has at most {NODES_MAX} values and {DEPTH_MAX} levels"
        )));
    }
    match filter {
        Filter::All => Ok(()),
        Filter::And(parts) | Filter::Or(parts) => {
            parts.iter().try_for_each(|part| check_filter(schema, part, depth + 1, nodes))
        }
        Filter::Not(part) => check_filter(schema, part, depth + 1, nodes),
        Filter::Compare(field, _, value) => subject(schema, *field)?.comparable(value),
        Filter::In(field, values) => {
            let subject = subject(schema, *field)?;
            values.iter().try_for_each(|value| subject.comparable(value))
        }
        Filter::Like(field, _) | Filter::Holds(field, _) | Filter::Same(field, _) => {
            subject(schema, *field)?.comparable(&Value::Text(String::new()))
        }
        Filter::Between(field, low, high) => {
            let subject = subject(schema, *field)?;
            subject.comparable(low)?;
            subject.comparable(high)
        }
        Filter::IsNull(field) => subject(schema, *field).map(|_| ()),
    }
}

/// What a filter or an order speaks of.
enum Subject<'a> {
    Key,
    Version,
    Time,
    Field(&'a Field),
}

fn subject(schema: &Schema, field: FieldRef) -> Result<Subject<'_>, StoreError> {
    match field {
        FieldRef::Key => Ok(Subject::Key),
        FieldRef::Version => Ok(Subject::Version),
        FieldRef::CreatedAt | FieldRef::UpdatedAt => Ok(Subject::Time),
        FieldRef::Field(index) => match schema.fields.get(index) {
            None => Err(StoreError::Unsupported(format!("there is no field {index}"))),
            Some(field) if field.encrypted => {
                Err(StoreError::Unsupported(format!("{} is encrypted and cannot be searched", field.name)))
            }
            Some(field) => Ok(Subject::Field(field)),
        },
    }
}

impl Subject<'_> {
    fn refuse_json(&self, what: &str) -> Result<(), StoreError> {
        match self {
            Self::Field(field) if matches!(field.kind, Kind::Json { .. }) => {
                Err(StoreError::Unsupported(format!("{} is JSON and cannot {what}", field.name)))
            }
            _ => Ok(()),
        }
    }

    fn comparable(&self, value: &Value) -> Result<(), StoreError> {
        self.refuse_json("be compared")?;
        self.takes(value)
    }

    fn takes(&self, value: &Value) -> Result<(), StoreError> {
        let (name, fits) = match self {
            Self::Key => ("the key", matches!(value, Value::Text(_))),
            Self::Version => ("the version", matches!(value, Value::Int(_))),
            Self::Time => ("a time", matches!(value, Value::Time(_))),
            Self::Field(field) => (
                field.name.as_str(),
                matches!(
                    (&field.kind, value),
                    (Kind::Text { .. } | Kind::Choice(_), Value::Text(_))
                        | (Kind::Int { .. }, Value::Int(_) | Value::Wide(_))
                        | (Kind::Decimal { .. }, Value::Decimal(_) | Value::Wide(_))
                        | (Kind::Bool, Value::Bool(_))
                        | (Kind::Time, Value::Time(_))
                        | (Kind::Json { .. }, Value::Json(_))
                ),
            ),
        };
        if fits || value.is_null() {
            Ok(())
        } else {
            Err(StoreError::Unsupported(format!("{name} does not compare with such a value")))
        }
    }
}
