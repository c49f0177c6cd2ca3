//! The reader of JSON that all tests use.

use super::json::*;

#[test]
fn values_of_every_kind_are_read() {
    let value = parse(
        br#" {"a":[null,true,false,-0.5e+3],
            "b":{"c":"x\u00e9\ud83d\ude00\n\/"},"n":18446744073709551615} "#,
    )
    .expect("it is JSON");
    assert_eq!(value.keys(), Some(vec!["a", "b", "n"]));
    assert_eq!(value.at("a/0"), Some(&Value::Null));
    assert_eq!(value.at("a/1"), Some(&Value::Bool(true)));
    assert_eq!(value.at("a/3").and_then(Value::as_f64), Some(-500.0));
    assert_eq!(value.at("a/3").and_then(Value::as_i64), None);
    assert_eq!(value.at("b/c").and_then(Value::as_str), Some("xé😀\n/"));
    assert_eq!(value.at("n").and_then(Value::as_u64), Some(u64::MAX));
    assert_eq!(value.at("a/4"), None);
}

#[test]
fn what_is_not_json_is_an_error_with_its_place() {
    for (text, at) in [
        ("", 0),
        ("{", 1),
        ("[1,]", 3),
        ("[1 2]", 3),
        ("{\"a\" 1}", 5),
        ("{a:1}", 1),
        ("{\"a\":1,\"a\":2}", 10),
        ("01", 1),
        ("1.", 2),
        ("-", 1),
        ("+1", 0),
        ("nul", 0),
        ("NaN", 0),
        ("\"a", 2),
        ("\"\n\"", 1),
        ("\"\\x\"", 2),
        ("\"\\u12\"", 3),
        ("\"\\u+123\"", 3),
        ("\"\\ud800\"", 7),
        ("\"\\ud800\\u0041\"", 13),
        ("1 1", 2),
    ] {
        assert_eq!(
            parse(text.as_bytes()).map_err(|error| error.at),
            Err(at),
            "{text}"
        );
    }
    assert_eq!(parse(b"\"\xff\"").map_err(|error| error.at), Err(1));
}

#[test]
fn nesting_is_bounded() {
    let nested = |depth| "[".repeat(depth) + &"]".repeat(depth);
    assert!(parse(nested(MAX_DEPTH).as_bytes()).is_ok());
    let error = parse(nested(MAX_DEPTH + 1).as_bytes());
    assert_eq!(
        error,
        Err(ReadError {
            at: MAX_DEPTH,
            what: "nested too deep"
        })
    );
}

#[test]
fn a_text_cut_anywhere_is_an_error_and_no_panic() {
    let text = r#"{"a":[1.5e3,"\u00e9é\"",null,true],"b":{"c":-7}}"#;
    for end in 0..text.len() {
        assert!(parse(&text.as_bytes()[..end]).is_err(), "cut at {end}");
    }
}
