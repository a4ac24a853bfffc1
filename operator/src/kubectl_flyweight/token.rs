//! The token that the API of a service asks for. It comes from a file, from standard input or from the
//! environment, never as an argument, which everybody on the machine can see, and it is printed nowhere.

use std::{io::Read, path::Path};

use anyhow::{Context, bail};
use http::HeaderValue;

/// The environment variable that holds the token itself.
pub const VARIABLE: &str = "FLYWEIGHT_TOKEN";
const STANDARD_INPUT: &str = "-";

/// A token, as the header's value.
#[derive(Clone, Debug)]
pub struct Token(HeaderValue);

impl Token {
    /// The token of the file, or else that of the environment; none where there is neither.
    ///
    /// # Errors
    /// The file cannot be read, or what it holds is no token.
    pub fn find(file: Option<&Path>) -> anyhow::Result<Option<Self>> {
        let text = match file {
            Some(path) if path.as_os_str() == STANDARD_INPUT => {
                let mut text = String::new();
                std::io::stdin().read_to_string(&mut text).context("the token on standard input")?;
                Some(text)
            }
            Some(path) => Some(std::fs::read_to_string(path).with_context(|| path.display().to_string())?),
            None => std::env::var(VARIABLE).ok().filter(|text| !text.trim().is_empty()),
        };
        text.map(|text| Self::parse(&text)).transpose()
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let text = text.trim();
        // Neither error may say what was there instead.
        if text.is_empty() || text.contains(char::is_whitespace) {
            bail!("the token is empty, or not one word");
        }
        let Ok(mut value) = HeaderValue::from_str(&format!("Bearer {text}")) else {
            bail!("the token has characters that no header can have")
        };
        value.set_sensitive(true);
        Ok(Self(value))
    }

    /// The value of the header.
    pub fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_holds_the_token_and_its_line_ends_there() {
        let path = std::env::temp_dir().join(format!("flyweight-token-{:x}", rand::random::<u64>()));
        std::fs::write(&path, "a.b.c\n").unwrap();
        let token = Token::find(Some(&path)).unwrap().unwrap();
        assert_eq!(token.header(), "Bearer a.b.c");
        assert!(!format!("{token:?}").contains("a.b.c"), "it is printed nowhere");
        std::fs::remove_file(&path).unwrap();
        assert!(Token::find(Some(&path)).is_err());
    }

    #[test]
    fn what_is_no_token_is_refused_without_being_shown() {
        for text in ["", " \n", "secret one", "secret\u{7f}"] {
            let error = format!("{:#}", Token::parse(text).unwrap_err());
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
