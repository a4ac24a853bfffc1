//! What is looked at before an account signs in to a server: whether its password is safe on the way, and
//! whether the server asks for it as it is.

use model::passage::Plaintext;
use sqlx::mysql::{MySqlConnectOptions, MySqlSslMode};
use tokio::time::Instant;

use super::greeting;
use crate::{
    StoreError,
    sql::{fault::Fault, losses::Losses},
};
use model::passage::{Passage, Sends, is_local};

/// What there is to know of a server before it is sent a password.
pub struct Way {
    /// What its greeting must not ask for; none where nothing can be readable.
    greets: Option<Box<MySqlConnectOptions>>,
    /// When that was last looked at: by one at a time, since a server counts connections that come to
    /// nothing.
    greeted: tokio::sync::Mutex<Option<Instant>>,
    /// Why a server without TLS is not spoken to.
    refusal: String,
}

/// What the driver says of a server without TLS where there must be TLS.
const NO_TLS: &str = "server does not support TLS";
/// What is said of one that asks for the password itself.
const CLEARTEXT: &str = "the server asks for the password as it is (mysql_clear_password) without TLS: nothing is sent. Let the account sign in by \
                         caching_sha2_password, or use TLS";

/// The options, where the password is as safe as it must be. The driver takes TLS where the server offers it:
/// where it has to, it does not connect else.
///
/// # Errors
/// `Unsupported`: the password would be readable on the way.
pub fn admitted(
    options: MySqlConnectOptions,
    url: &str,
    passage: &Passage,
) -> Result<MySqlConnectOptions, StoreError> {
    let is_here = options.get_socket().is_some() || is_local(options.get_host());
    let at = if is_here { "localhost" } else { options.get_host() };
    let has_password = has_password(url);
    let over_tls = !matches!(options.get_ssl_mode(), MySqlSslMode::Disabled);
    let sends = if has_password { Sends::Proof } else { Sends::Nothing };
    passage.admit(sends, over_tls, [at]).map_err(StoreError::Unsupported)?;
    let must = has_password && !is_here && passage.plaintext() == Plaintext::Refused;
    Ok(match options.get_ssl_mode() {
        MySqlSslMode::Preferred if must => options.ssl_mode(MySqlSslMode::Required),
        _ => options,
    })
}

impl Way {
    /// To the server of these options.
    pub fn new(server: &MySqlConnectOptions, url: &str, passage: &Passage) -> Self {
        let may_be_plain = matches!(server.get_ssl_mode(), MySqlSslMode::Preferred | MySqlSslMode::Disabled);
        let greets = (may_be_plain && has_password(url)).then(|| Box::new(server.clone()));
        Self { greets, greeted: tokio::sync::Mutex::default(), refusal: passage.refusal() }
    }

    /// Looks at the server's greeting, once and after a connection was lost.
    ///
    /// # Errors
    /// It asks for the password as it is, or does not greet in time.
    pub async fn look(&self, losses: &Losses, deadline: Instant) -> Result<(), Fault> {
        match tokio::time::timeout_at(deadline, self.look_at_greeting(losses)).await {
            Ok(looked) => looked,
            Err(_) => Err(Fault::Lost("the server did not greet in time".to_owned())),
        }
    }

    async fn look_at_greeting(&self, losses: &Losses) -> Result<(), Fault> {
        let Some(options) = &self.greets else { return Ok(()) };
        let mut greeted = self.greeted.lock().await;
        if greeted.is_some_and(|at| !losses.any_since(at)) {
            return Ok(());
        }
        let now = Instant::now();
        match greeting::asks_for_cleartext(options).await {
            Some(true) => return Err(StoreError::Setup(CLEARTEXT.to_owned()).into()),
            Some(false) => *greeted = Some(now),
            None => {}
        }
        Ok(())
    }

    /// Why there is no connection: in words that help, where it is for want of TLS.
    pub fn told(&self, fault: Fault) -> Fault {
        match fault {
            Fault::Lost(why) if why.contains(NO_TLS) => StoreError::Setup(self.refusal.clone()).into(),
            other => other,
        }
    }
}

/// Whether an address has a password.
fn has_password(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let account = authority.rsplit_once('@').map_or("", |(account, _)| account);
    account.split_once(':').is_some_and(|(_, password)| !password.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::{
        mysql::{MysqlOptions, MysqlServer},
        pools::Pools,
    };

    fn options(url: &str, plaintext: Plaintext) -> Result<MySqlConnectOptions, StoreError> {
        MysqlOptions { passage: Passage::new("main", plaintext), ..MysqlOptions::new(url) }.connect_options()
    }

    #[test]
    fn a_password_for_another_host_takes_tls() {
        let mode = |url: &str, plaintext| format!("{:?}", options(url, plaintext).unwrap().get_ssl_mode());
        let away = "mysql://root:hunter2@0.0.0.0/shop";
        assert_eq!(mode(away, Plaintext::Refused), "Required");
        for plaintext in [Plaintext::Warned, Plaintext::ProofOnly] {
            assert_eq!(mode(away, plaintext), "Preferred");
        }
        assert_eq!(mode(away, Plaintext::Allowed), "Preferred");
        assert_eq!(mode("mysql://root:hunter2@127.0.0.1/shop", Plaintext::Refused), "Preferred");
        assert_eq!(mode("mysql://root@db/shop", Plaintext::Refused), "Preferred", "there is no password");
        assert_eq!(mode("mysql://root:x@db/shop?ssl-mode=VERIFY_CA", Plaintext::Refused), "VerifyCa");
        let told = options(&format!("{away}?ssl-mode=DISABLED"), Plaintext::Refused).unwrap_err().to_string();
        assert!(told.contains("backend main") && !told.contains("hunter2"), "{told}");
        options(&format!("{away}?ssl-mode=DISABLED"), Plaintext::Allowed).unwrap();
        options("mysql://root:x@db/shop?ssl-mode=DISABLED&socket=/run/mysqld.sock", Plaintext::Refused)
            .unwrap();
    }

    /// A server that would be given the password, each time with the bytes that it got.
    async fn asked(host: &str, plaintext: Plaintext, plugin: &str) -> (String, Option<Vec<u8>>) {
        const WITHOUT_TLS: u16 = 0xf7ff;
        let (port, mut sent) = greeting::tests::server(WITHOUT_TLS, plugin).await;
        let url = format!("mysql://root:hunter2@{host}:{port}/shop");
        let options = MysqlOptions { passage: Passage::new("main", plaintext), ..MysqlOptions::new(url) };
        let server = MysqlServer::new(&options).unwrap();
        let told = StoreError::from(Pools::Mysql(server).read().await.err().unwrap()).to_string();
        (told, sent.try_recv().ok())
    }

    #[tokio::test]
    async fn the_password_itself_is_never_given_without_tls() {
        for (host, plaintext) in [("127.0.0.1", Plaintext::Refused), ("0.0.0.0", Plaintext::Allowed)] {
            let (told, sent) = asked(host, plaintext, "mysql_clear_password").await;
            assert_eq!(sent, None, "{host}");
            assert!(told.contains("mysql_clear_password"), "{told}");
        }
    }

    #[tokio::test]
    async fn another_host_without_tls_is_sent_nothing() {
        let (told, sent) = asked("0.0.0.0", Plaintext::Refused, "caching_sha2_password").await;
        assert_eq!(sent, None);
        assert!(told.contains("backend main") && told.contains("allowPlaintext: true"), "{told}");
        let (_, sent) = asked("0.0.0.0", Plaintext::Allowed, "caching_sha2_password").await;
        assert!(sent.is_some_and(|sent| !sent.windows(7).any(|part| part == b"hunter2")));
    }
}
