//! Fills in the columns that hold other columns' text in small letters, where rows of before, of versions
//! before, or of other programs have nothing in them. Of rows that differ by case alone one gets its text,
//! and the others stay without: nothing that is there becomes a fault.

use std::sync::Arc;

use sea_query::Value as SqlValue;

use super::{
    dialect::{Dialect, Sql},
    fault::Fault,
    session::Session,
};
use model::{change::Collection, schema::Schema};

/// The most rows that are looked at one by one at a start: those with letters beyond ASCII.
const ROWS_MAX: u32 = 10_000;

/// Fills in what is missing in the tables of these collections.
pub async fn fill(session: &mut Session, collections: &[Arc<Collection>]) -> Result<(), Fault> {
    for collection in collections.iter().filter(|collection| !collection.declared) {
        for (folded, of) in columns(&collection.schema) {
            fill_column(session, &collection.name, &folded, of).await?;
        }
    }
    Ok(())
}

/// The columns that hold another in small letters, with that other.
fn columns(schema: &Schema) -> Vec<(String, &'static str)> {
    let open = |of: &str| schema.fields.iter().any(|field| field.name == of && !field.encrypted);
    let fields = schema.fields.iter().filter_map(|field| Some((field.name.clone(), field.folds?)));
    fields.filter(|(_, of)| open(of)).collect()
}

async fn fill_column(session: &mut Session, table: &str, folded: &str, of: &str) -> Result<(), Fault> {
    // databases and this program agree on the small letters of ASCII alone
    let (update, is_ascii) = match session.dialect() {
        Dialect::Sqlite => ("UPDATE OR IGNORE", format!("length(`{of}`) = length(CAST(`{of}` AS BLOB))")),
        Dialect::Mysql => ("UPDATE IGNORE", format!("CHAR_LENGTH(`{of}`) = LENGTH(`{of}`)")),
    };
    let missing = format!("`{folded}` IS NULL AND `{of}` IS NOT NULL");
    let all = format!("{update} `{table}` SET `{folded}` = LOWER(`{of}`) WHERE {missing} AND {is_ascii}");
    session.execute(Sql::text(all)).await?;
    let others =
        format!("SELECT `id`, `{of}` FROM `{table}` WHERE {missing} AND NOT ({is_ascii}) LIMIT {ROWS_MAX}");
    for row in session.rows(Sql::text(others)).await? {
        let (Some(id), Some(text)) = (row.text(0)?, row.text(1)?) else { continue };
        let one = format!(
            "{update} `{table}` SET `{folded}` = ? WHERE `id` = ? AND `{of}` = ? AND `{folded}` IS NULL"
        );
        let values = [text.to_lowercase(), id, text].map(|text| SqlValue::String(Some(text)));
        session.execute(Sql::new(one, values.to_vec())).await?;
    }
    Ok(())
}
