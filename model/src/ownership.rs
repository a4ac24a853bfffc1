//! Whose a record is.

use super::{record::Record, schema::Schema, value::Value};

/// Whose the records of an entity are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// Everybody's.
    Shared,
    /// The user's whom `user_id` names: the index of that field.
    OfUser(usize),
    /// They are the users.
    Users,
}

impl Ownership {
    /// Whose the records of a schema are. A user who is encrypted cannot be told.
    pub fn of(schema: &Schema) -> Self {
        let user = schema.index_of("user_id");
        let told = |index: &usize| schema.fields.get(*index).is_some_and(|field| !field.encrypted);
        match user.filter(told) {
            _ if schema.entity == "user" => Self::Users,
            Some(index) => Self::OfUser(index),
            None => Self::Shared,
        }
    }

    /// The user whose a record is, by the user's key.
    pub fn owner(self, record: &Record) -> Option<String> {
        match self {
            Self::Shared => None,
            Self::Users => Some(record.key.to_string()),
            Self::OfUser(index) => match record.values.0.get(index)? {
                Value::Text(user) => Some(user.clone()),
                Value::Int(user) => Some(user.to_string()),
                Value::Null
                | Value::Bool(_)
                | Value::Decimal(_)
                | Value::Wide(_)
                | Value::Time(_)
                | Value::Json(_) => None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        entities::user,
        key::Version,
        schema::{Field, Kind},
        value::Timestamp,
    };

    #[test]
    fn a_record_is_the_user_s_whom_it_names() {
        let number = Kind::Int { min: 0, max: 100 };
        let fields = |kind: Kind| vec![Field::new("note", Kind::text(9)), Field::new("user_id", kind)];
        let owner = |schema: &Schema, user: Value| {
            let (key, at) = ("k".parse().unwrap(), Timestamp(0));
            let values = schema.row_of([("user_id", user)]);
            Ownership::of(schema).owner(&Record {
                key,
                version: Version(1),
                created_at: at,
                updated_at: at,
                values,
            })
        };
        let text = Schema::new("order", "orders", fields(Kind::key()));
        assert_eq!(owner(&text, Value::Text("ann".to_owned())).as_deref(), Some("ann"));
        assert_eq!(owner(&text, Value::Null), None);
        let numbered = Schema::new("invoice", "invoices", fields(number));
        assert_eq!(owner(&numbered, Value::Int(7)).as_deref(), Some("7"));
        let mut secret = text.clone();
        secret.fields[1].encrypted = true;
        assert_eq!(owner(&secret, Value::Text("ann".to_owned())), None, "what is encrypted is shown nowhere");
        assert_eq!(owner(&user::schema(), Value::Null).as_deref(), Some("k"));
        assert_eq!(owner(&Schema::new("lamp", "lamps", Vec::new()), Value::Null), None);
    }
}
