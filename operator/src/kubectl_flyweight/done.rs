//! What a command did, for people and for programs.

use serde_json::{Value, json};

use crate::args::Output;

/// One thing that was done to a service.
#[derive(Debug, PartialEq)]
pub struct Done {
    /// `{"service": "shop", "action": "drain", …}`
    value: Value,
    /// One sentence.
    message: String,
}

impl Done {
    /// What was done to which service, in a word and in a sentence.
    pub fn new(service: &str, action: &str, message: impl Into<String>) -> Self {
        Self { value: json!({ "service": service, "action": action }), message: message.into() }
    }

    /// With something more for programs.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.value[name] = value.into();
        self
    }

    /// As it is printed.
    pub fn show(self, output: Output) -> String {
        let Self { mut value, message } = self;
        match output {
            Output::Text => format!("{message}\n"),
            Output::Json => {
                value["message"] = message.into();
                format!("{value:#}\n")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_get_a_sentence_and_programs_an_object() {
        let done = || Done::new("shop", "drain", "shop-main-1 is gone").with("pod", "shop-main-1");
        assert_eq!(done().show(Output::Text), "shop-main-1 is gone\n");
        let value: Value = serde_json::from_str(&done().show(Output::Json)).unwrap();
        let expected = json!({ "service": "shop", "action": "drain", "pod": "shop-main-1", "message": "shop-main-1 is gone" });
        assert_eq!(value, expected);
    }
}
