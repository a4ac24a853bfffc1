//! The pages: the dashboard at `/`, the API's description at `/docs`. All that they need is in the program;
//! they ask no other host.

use axum::{
    Router,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tower_http::compression::CompressionLayer;
use xxhash_rust::xxh3::xxh3_64;

use super::conditions::is_known;
use model::routes;

/// One file as browsers get it.
pub struct Page {
    /// Its path.
    pub path: &'static str,
    /// Its media type.
    pub media: &'static str,
    bytes: &'static [u8],
    policy: &'static str,
}

/// Nothing from elsewhere, nothing inline.
const STRICT: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                      base-uri 'none'; form-action 'self'; frame-ancestors 'none'";
/// The description sets styles of elements.
const STYLED: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; \
                      img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

macro_rules! asset {
    ($name:literal) => {
        include_bytes!(concat!("../../assets/", $name))
    };
}

/// Every file.
pub static PAGES: [Page; 7] = [
    Page { path: routes::DASHBOARD.path, media: HTML, bytes: asset!("dashboard/index.html"), policy: STRICT },
    Page {
        path: routes::DASHBOARD_SCRIPT.path,
        media: SCRIPT,
        bytes: asset!("dashboard/app.js"),
        policy: STRICT,
    },
    Page {
        path: routes::DASHBOARD_STYLE.path,
        media: CSS,
        bytes: asset!("dashboard/app.css"),
        policy: STRICT,
    },
    Page { path: routes::DOCS.path, media: HTML, bytes: asset!("docs/index.html"), policy: STYLED },
    Page { path: routes::DOCS_SCRIPT.path, media: SCRIPT, bytes: asset!("docs/docs.js"), policy: STYLED },
    Page { path: routes::DOCS_STYLE.path, media: CSS, bytes: asset!("docs/swagger-ui.css"), policy: STYLED },
    Page {
        path: routes::DOCS_BUNDLE.path,
        media: SCRIPT,
        bytes: asset!("docs/swagger-ui-bundle.js"),
        policy: STYLED,
    },
];

/// The routes of all files.
pub fn routes() -> Router {
    let mut router = Router::new();
    for page in &PAGES {
        let tag = format!("W/\"{:016x}\"", xxh3_64(page.bytes));
        let tag = HeaderValue::try_from(tag).unwrap_or(HeaderValue::from_static("W/\"0\""));
        router = router.route(page.path, get(async move |headers: HeaderMap| page.respond(&headers, tag)));
    }
    router.layer(CompressionLayer::new())
}

impl Page {
    fn respond(&self, asked: &HeaderMap, tag: HeaderValue) -> Response {
        let known = is_known(asked, &tag);
        let headers = [
            (header::ETAG, tag),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
            (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(self.policy)),
            (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
            (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        ];
        if known {
            return (StatusCode::NOT_MODIFIED, headers).into_response();
        }
        (headers, [(header::CONTENT_TYPE, HeaderValue::from_static(self.media))], self.bytes).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dashboard_is_small_and_names_no_other_host() {
        let of_dashboard =
            || PAGES.iter().filter(|page| page.path == "/" || page.path.starts_with("/dashboard"));
        let bytes: usize = of_dashboard().map(|page| page.bytes.len()).sum();
        assert!(bytes < 300_000, "{bytes} bytes");
        for page in of_dashboard() {
            let text = std::str::from_utf8(page.bytes).unwrap().replace("http://www.w3.org/2000/svg", "");
            assert!(!text.contains("http://") && !text.contains("https://"), "{}", page.path);
            assert!(!text.contains("style=\"") && !text.contains("<script>"), "{}: inline", page.path);
        }
    }
}
