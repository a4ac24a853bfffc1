//! Locations.

use super::*;

#[test]
fn a_location_leads_to_its_record() {
    let location = |key: &str| location("/api/v1/pools/p", &key.parse().unwrap());
    assert_eq!(location("sku-42:a@b"), "/api/v1/pools/p/sku-42:a@b");
    assert_eq!(location("AB/12 Zürich%"), "/api/v1/pools/p/AB%2F12%20Z%C3%BCrich%25");
    assert_eq!(location("a\nb"), "/api/v1/pools/p/a%0Ab");
    for fixed in ["", "..", "search", "batch"] {
        assert_eq!(location(fixed), format!("/api/v1/pools/p?id={fixed}"));
    }
}
