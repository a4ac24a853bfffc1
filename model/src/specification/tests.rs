//! What is read, and what is refused by which name.

use super::*;
use crate::entities::product;

fn read(filter: &str) -> Result<Filter, FieldFault> {
    let body = format!(r#"{{"repository":"products","where":{filter}}}"#);
    parse_search(body.as_bytes()).unwrap().filter(&product::schema())
}

fn field(name: &str) -> FieldRef {
    FieldRef::Field(product::schema().index_of(name).unwrap())
}

#[test]
fn a_tree_becomes_a_filter() {
    let tree = r#"{"and":[
        {"field":"price","op":"gte","value":"19.90"},
        {"or":[{"field":"name","op":"like","value":"T%"},{"not":{"field":"stock","op":"in","value":[1,2,null]}}]},
        {"field":"brand","op":"is_null","value":false},
        {"field":"created_at","op":"between","value":["2026-01-01T00:00:00Z","2026-02-01T00:00:00Z"]},
        {"field":"id","op":"eq","value":"x"}
    ]}"#;
    let time = |text: &str| Value::Time(text.parse().unwrap());
    let expected = Filter::And(vec![
        Filter::Compare(field("price"), Comparison::Gte, Value::Decimal("19.9".parse().unwrap())),
        Filter::Or(vec![
            Filter::Like(field("name"), "T%".to_owned()),
            Filter::Not(Box::new(Filter::In(
                field("stock"),
                vec![Value::Int(1), Value::Int(2), Value::Null],
            ))),
        ]),
        Filter::Not(Box::new(Filter::IsNull(field("brand")))),
        Filter::Between(FieldRef::CreatedAt, time("2026-01-01T00:00:00Z"), time("2026-02-01T00:00:00Z")),
        Filter::Compare(FieldRef::Key, Comparison::Eq, Value::Text("x".to_owned())),
    ]);
    assert_eq!(read(tree), Ok(expected));
    assert_eq!(read("null"), Ok(Filter::All));
}

#[test]
fn faults_are_named_by_their_path() {
    let deep = format!("{}{}{}", r#"{"not":"#.repeat(20), r#"{"field":"id","op":"is_null"}"#, "}".repeat(20));
    let many = format!(r#"{{"field":"stock","op":"in","value":[{}]}}"#, vec!["1"; 1_001].join(","));
    let wildcards = format!(r#"{{"field":"name","op":"like","value":"{}"}}"#, "%a".repeat(9));
    for (tree, name) in [
        (r#"[]"#, "where"),
        (r#"{}"#, "where.field"),
        (r#"{"field":"colour","op":"eq","value":1}"#, "where.field"),
        (r#"{"field":"name; DROP TABLE products","op":"eq","value":1}"#, "where.field"),
        (r#"{"field":"attributes","op":"is_null"}"#, "where.field"),
        (r#"{"field":"name","op":"regex","value":"x"}"#, "where.op"),
        (r#"{"field":"name","op":"eq"}"#, "where.value"),
        (r#"{"field":"name","op":"eq","value":1}"#, "where.value"),
        (r#"{"field":"stock","op":"eq","value":99999999999999999999}"#, "where"),
        (r#"{"field":"stock","op":"eq","value":1.5}"#, "where.value"),
        (r#"{"field":"stock","op":"like","value":"1%"}"#, "where.value"),
        (r#"{"field":"stock","op":"between","value":[1]}"#, "where.value"),
        (r#"{"field":"stock","op":"in","value":[1,"x"]}"#, "where.value[1]"),
        (r#"{"field":"stock","op":"eq","value":1,"case":true}"#, "where.case"),
        (r#"{"and":[{"or":[{"field":"x","op":"eq","value":1}]}]}"#, "where.and[0].or[0].field"),
        (r#"{"and":[],"or":[]}"#, "where.or"),
        (r#"{"and":{}}"#, "where.and"),
        (r#"{"field":"name","op":"eq","value":"a\u0000"}"#, "where.value"),
        (&deep, "where"),
        (&many, "where.value"),
        (&wildcards, "where.value"),
    ] {
        match parse_search(format!(r#"{{"repository":"products","where":{tree}}}"#).as_bytes()) {
            Ok(search) => assert_eq!(search.filter(&product::schema()).unwrap_err().field, name, "{tree}"),
            Err(BodyError::Invalid(faults)) => assert_eq!(faults[0].field, name, "{tree}"),
            Err(error) => panic!("{error:?}"),
        }
    }
}

#[test]
fn an_order_is_a_list_of_names() {
    let order = |order: &str| {
        let body = format!(r#"{{"repository":"products","order_by":{order}}}"#);
        parse_search(body.as_bytes()).unwrap().order(&product::schema())
    };
    let (up, down) = (Direction::Ascending, Direction::Descending);
    assert_eq!(order(r#"["-price","id"]"#), Ok(vec![(field("price"), down), (FieldRef::Key, up)]));
    assert_eq!(order("null"), Ok(Vec::new()));
    for (wrong, name) in [
        (r#""price""#, "order_by"),
        (r#"["attributes"]"#, "order_by[0]"),
        (r#"["id",1]"#, "order_by[1]"),
        (r#"["price","-price"]"#, "order_by[1]"),
    ] {
        assert_eq!(order(wrong).unwrap_err().field, name, "{wrong}");
    }
}

#[test]
fn the_body_is_strict() {
    for (body, name) in [
        ("{}", "repository"),
        (r#"{"repository":1}"#, "repository"),
        (r#"{"repository":"users","repository":"users"}"#, "repository"),
        (r#"{"repository":"users","limit":-1}"#, "limit"),
        (r#"{"repository":"users","cursor":1}"#, "cursor"),
        (r#"{"repository":"users","count_only":"yes"}"#, "count_only"),
        (r#"{"repository":"users","select":"*"}"#, "select"),
    ] {
        let Err(BodyError::Invalid(faults)) = parse_search(body.as_bytes()) else { panic!("{body}") };
        assert_eq!(faults.iter().map(|fault| fault.field.as_str()).collect::<Vec<_>>(), [name], "{body}");
    }
    assert!(matches!(parse_search(b"[]"), Err(BodyError::Malformed(_))));
}
