//! What tells the pipeline's own payments, what makes addresses unique without case, and what became of a
//! dead letter.

use super::{
    super::ddl::{Form, column},
    Makes, Migration,
};

/// The order that the pipeline charges by a payment.
pub const PAYMENTS: Migration = Migration {
    name: "0012_charges",
    makes: Makes::Columns {
        entity: "payment",
        columns: || vec![column("charge_of", Form::Short)],
        indexed: &["charge_of"],
    },
};

/// The addresses of users in small letters: see `folds`, which fills it in.
pub const USERS: Migration = Migration {
    name: "0012_email_folded",
    makes: Makes::Unique { entity: "user", column: || column("email_folded", Form::Short) },
};

/// The last state of a dead letter before it goes.
pub const DEAD_LETTERS: Migration = Migration {
    name: "0012_outcomes",
    makes: Makes::Columns {
        entity: "dead_letter",
        columns: || vec![column("outcome", Form::Short)],
        indexed: &[],
    },
};
