//! What each session with a server relies on: set first, then looked at, so that a server's own settings
//! change no answer.

use sqlx::{AssertSqlSafe, Executor, MySqlConnection, Row as _};

/// Servers that have a setting. The text of a statement says it in comments that the others skip.
#[derive(Clone, Copy, PartialEq, Eq)]
enum On {
    Every,
    Mysql,
    Mariadb,
}

/// A setting: its name, what it is set to, and what the server then says that it is.
struct Setting {
    on: On,
    name: &'static str,
    value: &'static str,
    told: &'static str,
}

const fn every(name: &'static str, value: &'static str, told: &'static str) -> Setting {
    Setting { on: On::Every, name, value, told }
}

const fn mysql(name: &'static str, value: &'static str, told: &'static str) -> Setting {
    Setting { on: On::Mysql, name, value, told }
}

const fn mariadb(name: &'static str, value: &'static str, told: &'static str) -> Setting {
    Setting { on: On::Mariadb, name, value, told }
}

/// A value that does not fit is refused, not cut; 0 is a key like any other; quotes, pipes and blanks are as
/// sent; a date of zeros is read as what it is.
const SQL_MODE: &str = "STRICT_TRANS_TABLES,STRICT_ALL_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_AUTO_VALUE_ON_ZERO,\
                        NO_ENGINE_SUBSTITUTION";
/// No limit.
const ALL: &str = "18446744073709551615";

/// Text is compared by up to 4,096 bytes when it is sorted: 1,024 would cut long names.
///
/// A process that stands still in the middle of a transaction keeps its rows locked until the server gives
/// the connection up: after 10 seconds without a statement, the time after which Kafka gives up a member of a
/// group. No process that runs is cut off so: it ends each transaction within half of that, the time of a
/// call, or closes the connection.
const SETTINGS: [Setting; 23] = [
    every("sql_mode", SQL_MODE, SQL_MODE),
    every("time_zone", "+00:00", "+00:00"),
    every("autocommit", "1", "1"),
    every("completion_type", "NO_CHAIN", "NO_CHAIN"),
    every("sql_safe_updates", "0", "0"),
    every("sql_select_limit", ALL, ALL),
    every("max_join_size", ALL, ALL),
    every("sql_big_selects", "1", "1"),
    every("sql_auto_is_null", "0", "0"),
    every("foreign_key_checks", "1", "1"),
    every("unique_checks", "1", "1"),
    every("div_precision_increment", "4", "4"),
    every("group_concat_max_len", "1048576", "1048576"),
    every("max_sort_length", "4096", "4096"),
    every("innodb_lock_wait_timeout", "2", "2"),
    every("wait_timeout", "10", "10"),
    mysql("transaction_isolation", "READ-COMMITTED", "READ-COMMITTED"),
    mysql("transaction_read_only", "0", "0"),
    mysql("max_execution_time", "0", "0"),
    mariadb("tx_isolation", "READ-COMMITTED", "READ-COMMITTED"),
    mariadb("tx_read_only", "0", "0"),
    mariadb("max_statement_time", "0", "0.000000"),
    mariadb("check_constraint_checks", "1", "1"),
];

/// The character set, and that literals compare by bytes.
const NAMES: &str = "NAMES utf8mb4 COLLATE utf8mb4_bin";
const NAMES_TOLD: [(&str, &str); 4] = [
    ("character_set_client", "utf8mb4"),
    ("character_set_connection", "utf8mb4"),
    ("character_set_results", "utf8mb4"),
    ("collation_connection", "utf8mb4_bin"),
];

/// Sets all, and looks whether all took; the largest packet that the server takes.
///
/// # Errors
/// Why the connection cannot be used: `Refused` where a setting did not take.
pub async fn apply(connection: &mut MySqlConnection) -> Result<u64, SettingsError> {
    connection.execute(AssertSqlSafe(statement())).await?;
    let row = connection.fetch_one(AssertSqlSafe(question())).await?;
    let told: String = row.try_get_unchecked(0)?;
    check(&told).map_err(SettingsError::Refused)
}

/// Why a connection cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// Settings did not take: what and how, without values of records.
    #[error("{0}")]
    Refused(String),
    /// The server refused or could not be asked.
    #[error(transparent)]
    Failed(#[from] sqlx::Error),
}

fn statement() -> String {
    let of = |on: On| {
        let own = SETTINGS.iter().filter(move |setting| setting.on == on);
        own.map(|Setting { name, value, .. }| match value.bytes().all(|byte| byte.is_ascii_digit()) {
            true => format!(", SESSION {name} = {value}"),
            false => format!(", SESSION {name} = '{value}'"),
        })
        .collect::<String>()
    };
    let (every, mysql, mariadb) = (of(On::Every), of(On::Mysql), of(On::Mariadb));
    format!("SET {NAMES}{every} /*!80000 {mysql} */ /*M! {mariadb} */")
}

/// One text, so that what a server says is read in one way only: `name=value` after each bar.
fn question() -> String {
    let of = |on: On| {
        let own = SETTINGS.iter().filter(move |setting| setting.on == on);
        own.map(|Setting { name, .. }| format!(", '|{name}=', @@SESSION.{name}")).collect::<String>()
    };
    let (every, mysql, mariadb) = (of(On::Every), of(On::Mysql), of(On::Mariadb));
    let names: String =
        NAMES_TOLD.iter().map(|(name, _)| format!(", '|{name}=', @@SESSION.{name}")).collect();
    format!(
        "SELECT CONVERT(CONCAT('max_allowed_packet=', @@SESSION.max_allowed_packet{names}{every} /*!80000 {mysql} */ \
         /*M! {mariadb} */) USING utf8mb4)"
    )
}

/// The largest packet, where all is as it was set.
fn check(told: &str) -> Result<u64, String> {
    let told: Vec<(&str, &str)> = told.split('|').filter_map(|each| each.split_once('=')).collect();
    let of = |name: &str| told.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
    let is_mariadb = of("tx_isolation").is_some();
    let wanted = SETTINGS
        .iter()
        .filter(|setting| match setting.on {
            On::Every => true,
            On::Mysql => !is_mariadb,
            On::Mariadb => is_mariadb,
        })
        .map(|setting| (setting.name, setting.told))
        .chain(NAMES_TOLD);
    let wrong: Vec<String> = wanted
        .filter(|(name, value)| !of(name).is_some_and(|told| is_same(told, value)))
        .map(|(name, value)| format!("{name} is {} and not {value}", of(name).unwrap_or("not told")))
        .collect();
    match (wrong.is_empty(), of("max_allowed_packet").and_then(|bytes| bytes.parse().ok())) {
        (true, Some(bytes)) => Ok(bytes),
        (true, None) => Err("the session's settings cannot be read".to_owned()),
        (false, _) => Err(format!(
            "the settings of a session do not take, so it is not used: {}. What stands between (init_connect, a proxy) must \
             leave them as they are set",
            wrong.join(", ")
        )),
    }
}

/// The modes of SQL come in an order of the server's; switches as numbers or words.
fn is_same(told: &str, wanted: &str) -> bool {
    fn sorted(list: &str) -> Vec<&str> {
        // what older servers add by themselves changes no statement here
        let mut list: Vec<&str> = list.split(',').filter(|mode| *mode != "NO_AUTO_CREATE_USER").collect();
        list.sort_unstable();
        list
    }
    let told = match told {
        "ON" => "1",
        "OFF" => "0",
        other => other,
    };
    sorted(told) == sorted(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(change: impl Fn(&str, &str) -> String) -> String {
        let own = SETTINGS.iter().filter(|setting| setting.on != On::Mariadb);
        let own = own.map(|setting| (setting.name, setting.told)).chain(NAMES_TOLD);
        let all: String = own.map(|(name, value)| format!("|{name}={}", change(name, value))).collect();
        format!("max_allowed_packet=1024{all}")
    }

    #[test]
    fn a_setting_that_did_not_take_is_named() {
        assert_eq!(check(&told(|_, value| value.to_owned())), Ok(1024));
        for Setting { name, .. } in SETTINGS.iter().filter(|setting| setting.on != On::Mariadb) {
            let other =
                told(|known, value| if known == *name { "other".to_owned() } else { value.to_owned() });
            assert!(check(&other).is_err_and(|why| why.contains(name)), "{name}");
            let missing = told(|_, value| value.to_owned()).replace(&format!("|{name}="), "|gone=");
            assert!(check(&missing).is_err_and(|why| why.contains(name)), "{name}");
        }
        assert!(check("").is_err());
    }

    #[test]
    fn the_order_of_modes_is_the_servers() {
        assert!(is_same(
            "NO_ENGINE_SUBSTITUTION,STRICT_ALL_TABLES",
            "STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION"
        ));
        assert!(!is_same("ANSI_QUOTES,STRICT_ALL_TABLES", "STRICT_ALL_TABLES"));
        assert!(is_same("ON", "1") && !is_same("OFF", "1"));
    }
}
