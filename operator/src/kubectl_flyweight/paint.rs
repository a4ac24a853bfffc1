//! Colours, on a terminal only and not where `NO_COLOR` is set.

use std::io::IsTerminal;

/// Whether to use colours.
#[derive(Clone, Copy, Debug)]
pub struct Paint(bool);

impl Paint {
    /// As standard output can show.
    pub fn new() -> Self {
        Self(std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none())
    }

    /// Without colours.
    #[cfg(test)]
    pub fn plain() -> Self {
        Self(false)
    }

    /// What is as it should be.
    pub fn good(self, text: &str) -> String {
        self.with("32", text)
    }

    /// What needs attention.
    pub fn bad(self, text: &str) -> String {
        self.with("31", text)
    }

    /// What is under way, or replaces pods.
    pub fn warm(self, text: &str) -> String {
        self.with("33", text)
    }

    /// Names.
    pub fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    /// What matters less.
    pub fn dim(self, text: &str) -> String {
        self.with("2", text)
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_left_out_where_nobody_sees_them() {
        assert_eq!(Paint::plain().good("a"), "a");
        assert_eq!(Paint(true).good("a"), "\x1b[32ma\x1b[0m");
    }
}
