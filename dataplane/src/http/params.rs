//! Query parameters: strict UTF-8, each known and given once.

use http::Uri;
use percent_encoding::percent_decode_str;

use crate::problem::Problem;
use crate::service::list::{From, LIMIT_DEFAULT, LIMIT_MAX, OFFSET_MAX, PageRequest};
use model::{key::Key, strict::shorten};

/// The most keys of a read of many.
pub const IDS_MAX: usize = 1_000;
/// The most characters of a search.
const SEARCH_MAX: usize = 256;

/// The query parameters of a request.
#[derive(Debug)]
pub struct Params {
    found: Vec<(String, String)>,
    /// The value of `ids` as it was sent: a comma within a key is encoded there.
    ids: Option<String>,
}

impl Params {
    /// Reads the parameters; all must be among `known`.
    ///
    /// # Errors
    /// A parameter that is unknown, repeated, or no UTF-8.
    pub fn read(uri: &Uri, known: &[&str]) -> Result<Self, Problem> {
        let (mut found, mut ids) = (Vec::<(String, String)>::new(), None);
        for pair in uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name).unwrap_or_else(|| shorten(name));
            if !known.contains(&name.as_str()) {
                let message = match known {
                    [] => "is not a parameter here: there are none".to_owned(),
                    known => format!("is not a parameter here: there are {}", known.join(", ")),
                };
                return Err(Problem::field(&shorten(&name), message));
            }
            if found.iter().any(|(earlier, _)| *earlier == name) {
                return Err(Problem::field(&name, "is given twice"));
            }
            if name == "ids" {
                ids = Some(value.to_owned());
            }
            let value = decode(value)
                .ok_or_else(|| Problem::field(&name, "is not UTF-8, or holds a NUL character"))?;
            found.push((name, value));
        }
        Ok(Self { found, ids })
    }

    /// Whether a request has a parameter, whatever else it has.
    pub fn names(uri: &Uri, wanted: &str) -> bool {
        let name = |pair: &str| decode(pair.split_once('=').map_or(pair, |(name, _)| name));
        uri.query().unwrap_or_default().split('&').any(|pair| name(pair).as_deref() == Some(wanted))
    }

    /// A parameter's value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.found.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// A parameter to search for: 1 to 256 characters.
    ///
    /// # Errors
    /// The text is empty or too long.
    pub fn search(&self, name: &str) -> Result<Option<&str>, Problem> {
        match self.get(name) {
            Some(text) if text.is_empty() || text.chars().count() > SEARCH_MAX => {
                Err(Problem::field(name, format!("must have 1 to {SEARCH_MAX} characters")))
            }
            found => Ok(found),
        }
    }

    /// The page that `limit`, and `offset` or `cursor`, ask for.
    ///
    /// # Errors
    /// A number out of bounds, or both an offset and a cursor.
    pub fn page(&self) -> Result<PageRequest, Problem> {
        let limit = self.limit()?;
        let offset = self.number("offset", 0, OFFSET_MAX)?;
        let from = match (self.get("cursor"), offset) {
            (Some(_), Some(_)) => return Err(Problem::field("cursor", "cannot be joined with offset")),
            (Some(cursor), None) => From::Cursor(cursor.to_owned()),
            (None, offset) => From::Offset(offset.unwrap_or_default()),
        };
        Ok(PageRequest { from, limit })
    }

    /// The most records of a page.
    ///
    /// # Errors
    /// A number out of bounds.
    pub fn limit(&self) -> Result<u32, Problem> {
        let limit = self.number("limit", 1, LIMIT_MAX.into())?.unwrap_or(LIMIT_DEFAULT.into());
        Ok(u32::try_from(limit).unwrap_or(LIMIT_MAX))
    }

    /// The keys of `ids=a,b`; none where the parameter is not given. Where keys may hold a comma, that one is
    /// sent as `%2C`. Many clients encode every comma: a value without a plain one is taken as a list too.
    /// Only a cursor may stand beside them.
    ///
    /// # Errors
    /// A malformed key, or too many.
    pub fn ids(&self, any_key: bool) -> Result<Option<Vec<Key>>, Problem> {
        let Some(text) = &self.ids else { return Ok(None) };
        if let Some((other, _)) = self.found.iter().find(|(name, _)| name != "ids" && name != "cursor") {
            return Err(Problem::field(other, "cannot be joined with ids"));
        }
        let decoded = |text: &str| decode(text).unwrap_or_default();
        let whole = decoded(text);
        let is_plain = any_key && text.contains(',');
        let mut parts: Vec<String> = match is_plain {
            true => text.split(',').map(decoded).collect(),
            false => whole.split(',').map(str::to_owned).collect(),
        };
        if any_key && !is_plain && parts.len() > 1 {
            parts.push(whole);
        }
        if parts.len() > IDS_MAX {
            return Err(Problem::field("ids", format!("must name at most {IDS_MAX} records")));
        }
        let key = |text: String| {
            if text.is_empty() {
                return Err(Problem::field("ids", "each must be a key: the empty one is read as ?id="));
            }
            Key::try_from(text).map_err(|message| Problem::field("ids", format!("each {message}")))
        };
        parts.into_iter().map(key).collect::<Result<_, _>>().map(Some)
    }

    fn number(&self, name: &str, min: u64, max: u64) -> Result<Option<u64>, Problem> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|number| digits && (min..=max).contains(number));
        number
            .map(Some)
            .ok_or_else(|| Problem::field(name, format!("must be a whole number from {min} to {max}")))
    }
}

fn decode(text: &str) -> Option<String> {
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8().ok()?;
    (!decoded.contains('\0')).then(|| decoded.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<Params, Problem> {
        Params::read(&format!("/x?{query}").parse().unwrap(), &["limit", "offset", "cursor", "ids", "q"])
    }

    #[test]
    fn pages_have_bounds() {
        let page = |query: &str| read(query).and_then(|params| params.page());
        assert_eq!(page("").unwrap(), PageRequest { from: From::Offset(0), limit: 50 });
        assert_eq!(page("limit=1000&offset=7").unwrap(), PageRequest { from: From::Offset(7), limit: 1_000 });
        assert_eq!(page("cursor=a%2Db").unwrap().from, From::Cursor("a-b".to_owned()));
        for bad in [
            "limit=0",
            "limit=1001",
            "limit=-1",
            "limit=+1",
            "limit=",
            "limit=1e2",
            "offset=x",
            "offset=99999999999999999999",
            "cursor=a&offset=0",
            "limit=1&limit=2",
            "page=2",
            "%ff=1",
        ] {
            assert!(page(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn searches_are_text() {
        let search =
            |query: &str| read(query).and_then(|params| params.search("q").map(|q| q.map(str::to_owned)));
        assert_eq!(search("q=a+b%2Bc%C3%A9").unwrap().unwrap(), "a b+cé");
        for bad in ["q=", "q=%ff", "q=a%00", &format!("q={}", "a".repeat(257))] {
            assert!(search(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ids_are_bounded_keys() {
        let ids = |query: &str| read(query).and_then(|params| params.ids(true));
        assert_eq!(ids("ids=a,b").unwrap().unwrap().len(), 2);
        assert_eq!(ids("limit=1").unwrap(), None);
        let odd = ids("ids=a%2Cb,k+1,AB%2F12,Z%C3%BCrich").unwrap().unwrap();
        assert_eq!(odd.iter().map(Key::as_str).collect::<Vec<_>>(), ["a,b", "k 1", "AB/12", "Zürich"]);
        let encoded = |any_key| read("ids=a%2Cb").unwrap().ids(any_key).unwrap().unwrap();
        assert_eq!(encoded(false).iter().map(Key::as_str).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(encoded(true).iter().map(Key::as_str).collect::<Vec<_>>(), ["a", "b", "a,b"]);
        for bad in ["ids=", "ids=a,,b", "ids=a,%00", "ids=a&limit=1", &format!("ids=a{}", ",a".repeat(1_000))]
        {
            assert!(ids(bad).is_err(), "{bad}");
        }
    }
}
