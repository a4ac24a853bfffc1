//! Shapes of records, and what is shared by them.

use proptest::prelude::*;

use super::*;
use crate::flyweight::codec::{decode, encode};
use model::schema::{Field, Form, Shape as JsonShape};

fn schema() -> Schema {
    Schema::new(
        "thing",
        "things",
        vec![
            Field::new("flag", Kind::Bool),
            Field::new("count", Kind::Int { min: 0, max: i64::MAX }),
            Field::new("balance", Kind::Int { min: i64::MIN, max: i64::MAX }),
            Field::new("price", Kind::money(0)),
            Field::new("delta", Kind::Decimal { min: Decimal::MIN, max: Decimal::MAX, scale: 28 }),
            Field::new("text", Kind::Text { max: 100, form: Form::Any }),
            Field::new("status", Kind::Choice(&["pending", "done"])),
            Field::new("json", Kind::Json { max: 1_000, shape: JsonShape::Any }),
            Field::new("at", Kind::Time),
            Field {
                json: JsonForm::String,
                ..Field::new("wide", Kind::Int { min: i64::MIN, max: i64::MAX })
            },
            Field {
                json: JsonForm::String,
                ..Field::new("exact", Kind::Decimal { min: Decimal::MIN, max: Decimal::MAX, scale: 28 })
            },
        ],
    )
}

fn json() -> impl Strategy<Value = Value> {
    prop_oneof![Just("true"), Just("[1,2.5,\"é\\n\"]"), Just("{\"a\":{\"b\":[]}}"), Just("\"x\"")]
        .prop_map(|text| Value::Json(Json::parse(text).unwrap()))
}

fn text() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<String>(),
        any::<u128>().prop_map(|n| uuid::Uuid::from_u128(n).to_string()),
        "[\"\\\\\n/]*"
    ]
    .prop_map(Value::Text)
}

fn decimal() -> impl Strategy<Value = Value> {
    (any::<i128>(), 32u32..128, 0u32..=28).prop_map(|(mantissa, shift, scale)| {
        Value::Decimal(Decimal::from_i128_with_scale(mantissa >> shift, scale))
    })
}

fn row() -> impl Strategy<Value = Row> {
    let time = (-62_167_219_200_000i64..253_402_300_800_000).prop_map(|ms| Value::Time(Timestamp(ms)));
    let status = prop_oneof![Just("pending"), Just("done")].prop_map(|word| Value::Text(word.to_owned()));
    let int = || (any::<i64>(), 0u32..64).prop_map(|(number, shift)| Value::Int(number >> shift));
    let values = (
        any::<bool>().prop_map(Value::Bool),
        int(),
        int(),
        decimal(),
        decimal(),
        text(),
        status,
        json(),
        time,
    );
    (values, (int(), decimal()), any::<u16>()).prop_map(|((a, b, c, d, e, f, g, h, i), (j, k), nulls)| {
        let values = [a, b, c, d, e, f, g, h, i, j, k].into_iter().enumerate();
        Row(values.map(|(at, value)| if nulls & 1 << at == 0 { value } else { Value::Null }).collect())
    })
}

prop_compose! {
    fn record()(
        key in "[A-Za-z0-9][A-Za-z0-9._~:@-]{0,40}", version: u64, created in 0i64..253_402_300_800_000, updated in 0i64..253_402_300_800_000, values in row(),
    ) -> Record {
        let (created_at, updated_at) = (Timestamp(created), Timestamp(updated));
        Record { key: key.parse().unwrap(), version: Version(version), created_at, updated_at, values }
    }
}

proptest! {
    #[test]
    fn every_split_serves_and_keeps_the_same_record(record in record(), shared: u16) {
        let schema = Arc::new(schema());
        let chosen = (0..schema.fields.len()).filter(|at| shared & 1 << at != 0);
        let split = chosen.fold(Split::NONE, |split, at| split.with(&schema, at));
        let shape = Shape::new(schema.clone(), split);
        let mut packed = Vec::new();
        shape.pack(&record, &mut packed).unwrap();
        packed.extend_from_slice(b"what follows is not looked at");
        let (version, own) = shape.write_own(record.key.as_str(), &packed).unwrap();
        let entry = encode(&schema, &record, split);
        prop_assert_eq!(version, record.version);
        prop_assert_eq!(str::from_utf8(&own), str::from_utf8(&entry.own));
        let shared = shape.shared(&record);
        prop_assert_eq!(shared.as_bytes(), &entry.shared[..]);
        prop_assert_eq!(&decode(&schema, &entry.to_body()).unwrap(), &record);
        if split.is_none() {
            prop_assert_eq!(&shape.unpack(&record.key, &packed).unwrap(), &record);
            prop_assert_eq!(entry.to_body(), record.to_json(&schema).into_bytes());
        }
    }

    #[test]
    fn foreign_bytes_are_refused_or_read_as_something(bytes: Vec<u8>) {
        let shape = Shape::new(Arc::new(schema()), Split::NONE);
        let key = "k".parse().unwrap();
        let _either = (shape.unpack(&key, &bytes).is_ok(), shape.write_own("k", &bytes).is_ok());
    }
}

#[test]
fn a_value_of_another_kind_is_refused() {
    let schema = Arc::new(schema());
    let shape = Shape::new(schema.clone(), Split::NONE);
    let mut values = vec![Value::Null; schema.fields.len()];
    values[0] = Value::Int(1);
    let at = Timestamp(0);
    let mut record = Record {
        key: "k".parse().unwrap(),
        version: Version(1),
        created_at: at,
        updated_at: at,
        values: Row(values),
    };
    assert!(
        matches!(shape.pack(&record, &mut Vec::new()), Err(CodecError::Mismatch(field)) if field == "flag")
    );
    record.values.0.pop();
    assert!(shape.pack(&record, &mut Vec::new()).is_err());
}
