//! The patterns of `Like`, parsed once and written in the words of each store, so that all match the same.

/// One part of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// `%`: any text.
    Many,
    /// `_`: one character.
    One,
    /// This character.
    Just(char),
}

/// The parts of a pattern. A `\` takes the character after it as it is; at the end it stands for itself.
pub fn parse(pattern: &str) -> Vec<Piece> {
    let mut pieces = Vec::with_capacity(pattern.len());
    let mut rest = pattern.chars();
    while let Some(next) = rest.next() {
        pieces.push(match next {
            '%' if pieces.last() == Some(&Piece::Many) => continue,
            '%' => Piece::Many,
            '_' => Piece::One,
            '\\' => Piece::Just(rest.next().unwrap_or('\\')),
            other => Piece::Just(other),
        });
    }
    pieces
}

/// The pattern for `LIKE … ESCAPE '|'`: the backslash is not used, because whether MySQL takes it depends on
/// its SQL mode.
pub fn to_like(pattern: &str) -> String {
    write(pattern, |piece, out| match piece {
        Piece::Many => out.push('%'),
        Piece::One => out.push('_'),
        Piece::Just(special @ ('%' | '_' | '|')) => out.extend(['|', special]),
        Piece::Just(other) => out.push(other),
    })
}

/// The pattern for SQLite's `GLOB`, which minds case where its `LIKE` does not.
pub fn to_glob(pattern: &str) -> String {
    write(pattern, |piece, out| match piece {
        Piece::Many => out.push('*'),
        Piece::One => out.push('?'),
        Piece::Just(special @ ('*' | '?' | '[')) => out.extend(['[', special, ']']),
        Piece::Just(other) => out.push(other),
    })
}

/// A `GLOB` for text that holds a part, each letter in either case.
pub fn glob_of_part(part: &str) -> String {
    format!("*{}*", glob_of_text(part))
}

/// A `GLOB` for just this text, each letter in either case.
pub fn glob_of_text(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match forms_of(c).as_slice() {
            [special @ ('*' | '?' | '[')] => out.extend(['[', *special, ']']),
            [one] => out.push(*one),
            forms => out.extend(std::iter::once(&'[').chain(forms).chain([&']'])),
        }
    }
    out
}

/// A regular expression for just this text, each letter in either case.
pub fn regex_of_text(text: &str) -> String {
    format!("^{}\\z", regex_of_part(text))
}

/// A regular expression for text that holds a part, each letter in either case.
pub fn regex_of_part(part: &str) -> String {
    let mut out = String::new();
    for c in part.chars() {
        match forms_of(c).as_slice() {
            [plain] if plain.is_ascii_alphanumeric() || !plain.is_ascii() || plain.is_ascii_control() => {
                out.push(*plain)
            }
            [special] => out.extend(['\\', *special]),
            forms => out.extend(std::iter::once(&'[').chain(forms).chain([&']'])),
        }
    }
    out
}

/// A character in either case, as far as that is one character.
pub fn forms_of(c: char) -> Vec<char> {
    let mut forms = vec![c];
    let mut add = |mut turned: std::vec::IntoIter<char>| {
        if let (Some(one), None) = (turned.next(), turned.next())
            && !forms.contains(&one)
        {
            forms.push(one);
        }
    };
    add(c.to_lowercase().collect::<Vec<_>>().into_iter());
    add(c.to_uppercase().collect::<Vec<_>>().into_iter());
    forms
}

/// The pattern with each of its parts written so.
pub fn write(pattern: &str, one: impl Fn(Piece, &mut String)) -> String {
    let mut out = String::with_capacity(pattern.len() + 8);
    for piece in parse(pattern) {
        one(piece, &mut out);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_written_for_each_store() {
        let pattern = r"a%_\%*[|.\";
        assert_eq!(to_like(pattern), r"a%_|%*[||.\");
        assert_eq!(to_glob(pattern), r"a*?%[*][[]|.\");
        assert_eq!(glob_of_part("T[é*1ß"), "*[Tt][[][éÉ][*]1ß*");
        assert_eq!(regex_of_part("T[é.1 ß"), r"[Tt]\[[éÉ]\.1\ ß");
        assert_eq!(
            (glob_of_text("b@X").as_str(), regex_of_text("b@x").as_str()),
            ("[bB]@[Xx]", r"^[bB]\@[xX]\z")
        );
    }
}
